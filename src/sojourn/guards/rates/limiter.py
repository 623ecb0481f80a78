"""Asks buckets, for requests or for anything that has a name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from sojourn.asgi.site import CURRENT
from sojourn.clock import NEVER
from sojourn.events import RequestLimited
from sojourn.guards.rates.engine import Engine
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.rates.quota import Quota
from sojourn.guards.rates.verdict import Verdict
from sojourn.guards.registry import GUARDS, Figures, Guards, met
from sojourn.policy.rate import Demand, Rate
from sojourn.scopes.deadline import remaining
from sojourn.typing import Scope

__all__ = ["RateLimiter"]

_FREE = Verdict((), ())


class RateLimiter:
    """Holds requests, messages or calls to one or several quotas. A quota that refuses takes nothing from the others.

    Args:
        quotas: A rate such as ``5/s``, a :class:`Quota`, or several with different names.
        engine: Where the buckets are; None for the memory of this process. One may serve several limiters: what has the
            same quota name and the same key is counted together.
        name: What metrics call it.

    Attributes:
        allowed: How often it allowed.
        refused: How often it refused.

    Raises:
        ValueError: A rate can't be read, or two quotas have the same name.

    Example:
        >>> import asyncio
        >>> messages = RateLimiter("2/s")
        >>> [bool(asyncio.run(messages.try_take("alice"))) for _ in range(3)]
        [True, True, False]
    """

    kind = "rate_limit"

    def __init__(
        self,
        quotas: str | Rate | Quota | Iterable[str | Quota],
        *,
        engine: Engine | None = None,
        name: str = "requests",
    ) -> None:
        several = [quotas] if isinstance(quotas, str | Rate | Quota) else quotas
        self.quotas = tuple(each if isinstance(each, Quota) else Quota(each) for each in several)
        names = [quota.name for quota in self.quotas]
        if len(set(names)) < len(names):
            raise ValueError(f"quotas are told apart by their names, and these are called {', '.join(names)}")
        self.name = name
        self.engine: Engine = MemoryRates() if engine is None else engine
        self.allowed = 0
        self.refused = 0
        #: The guards of the server that it was used under last.
        self._guards: Guards | None = None

    def figures(self) -> Figures:
        """What it has done, for the metrics of the server."""
        return Figures({"allowed": self.allowed, "refused": self.refused}, 0)

    async def judge(self, request: Scope | Any, cost: float = 1.0) -> Verdict:
        """Count a request by the quotas that are meant for it.

        Args:
            request: Its ASGI scope, or something that has one, such as a framework's request.
            cost: How many requests it is worth; 0.0 only looks.

        Returns:
            Whether it may go on. Nothing is raised when it may not.

        Raises:
            RateLimitsUnavailable: The engine can't tell, and was told to allow nothing then.

        Cancel: safe; its tokens may be gone.
        """
        scope: Scope = getattr(request, "scope", request)
        quotas: list[Quota] = []
        demands: list[Demand] = []
        for quota in self.quotas:
            demand = quota.demand(scope, cost)
            if demand is not None:
                quotas.append(quota)
                demands.append(demand)
        if not demands:
            return _FREE
        verdict = await self._ask(quotas, demands)
        if not verdict.allowed:
            _tell(scope, verdict)
        return verdict

    async def check(self, request: Scope | Any, cost: float = 1.0) -> Verdict:
        """Count a request, and raise when it may not go on. The arguments are those of :meth:`judge`.

        Raises:
            RateLimited: It may not. :class:`RateLimit` turns that into a 429.
            RateLimitsUnavailable: The engine can't tell, and was told to allow nothing then.

        Cancel: safe; its tokens may be gone.
        """
        verdict = await self.judge(request, cost)
        if not verdict.allowed:
            raise verdict.error()
        return verdict

    async def try_take(self, key: str, cost: float = 1.0) -> Verdict:
        """Count something by a name of the caller's: a message, a call, a login.

        Args:
            key: Who does it. All quotas count by it, whatever their ``per`` is.
            cost: How many times what one costs; 0.0 only looks.

        Raises:
            RateLimitsUnavailable: The engine can't tell, and was told to allow nothing then.

        Cancel: safe; its tokens may be gone.
        """
        return await self._ask(self.quotas, [quota.asked_by(key, cost) for quota in self.quotas])

    async def take(self, key: str, cost: float = 1.0, *, longest: float | None = None) -> Verdict:
        """As :meth:`try_take`, but wait until it is allowed. Of several that wait, any may be next.

        Args:
            key: Who does it.
            cost: How many times what one costs.
            longest: Seconds that it may wait; None for as long as the ambient deadline allows.

        Raises:
            RateLimited: It would have to wait for longer; nothing has been waited for then.
            RateLimitsUnavailable: The engine can't tell, and was told to allow nothing then.

        Cancel: safe; nothing is taken while it waits.
        """
        waited = 0.0
        while not (verdict := await self.try_take(key, cost)).allowed:
            wait, left = verdict.retry_after, remaining()
            most = min(left if left is not None else NEVER, longest - waited if longest is not None else NEVER)
            if wait == NEVER or wait > most:
                raise verdict.error()
            waited += wait
            await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=wait)
        return verdict

    async def _ask(self, quotas: Sequence[Quota], demands: Sequence[Demand]) -> Verdict:
        guards = GUARDS.get()
        if guards is not self._guards:
            self._guards = met(guards, self)
        verdict = Verdict(quotas, await self.engine.take(demands))
        if verdict.allowed:
            self.allowed += 1
        else:
            self.refused += 1
        return verdict


def _tell(scope: Scope, verdict: Verdict) -> None:
    """Tell who watches the server, if one runs this request."""
    request = CURRENT.get(None)
    if request is None:
        return
    bus = request.connection.runtime.bus
    if RequestLimited in bus.observers:
        path, client = scope.get("path", ""), scope.get("client")
        who = "unix" if not client else client[0]
        bus.emit(RequestLimited(request.connection_id, who, path, tuple(verdict.violated), verdict.retry_after))
