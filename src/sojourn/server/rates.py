"""The rate limits of the configuration, in front of any application."""

from __future__ import annotations

from collections.abc import Awaitable

from sojourn.config import Config
from sojourn.guards.rates.engine import Engine
from sojourn.guards.rates.limiter import RateLimiter
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.rates.middleware import RateLimit
from sojourn.guards.rates.redis import RedisRates
from sojourn.server.settings.rates import quotas
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["ConfiguredRates"]


class ConfiguredRates:
    """Stands in front of an application as long as ``[[rate_limits]]`` say so. A server without any has none.

    Args:
        app: The application.
        config: Settings: ``rates`` and ``rate_limits``.

    Raises:
        ConfigError: A rate can't be read, two have the same name, ``rates.redis`` is no URL, or its package is missing.
    """

    __slots__ = ("_app", "_front", "engine")

    def __init__(self, app: ASGIApp, config: Config) -> None:
        local = MemoryRates(config.rates.clients)
        redis = config.rates.redis
        #: Where it counts; whoever made this closes it.
        self.engine: Engine = (
            local if redis is None else RedisRates(redis, on_failure=config.rates.on_failure, local=local)
        )
        self._app = app
        self.adopt(config)

    def adopt(self, config: Config) -> None:
        """Follow other settings. What was counted stays."""
        if not config.rate_limits:
            self._front = self._app
            return
        limiter = RateLimiter(quotas(config.rate_limits), engine=self.engine, name="server")
        self._front = RateLimit(self._app, limiter, headers=config.rates.headers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI."""
        return self._front(scope, receive, send)
