"""What a worker serves: the application, its settings and the machinery its requests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from sojourn.asgi.overrides import RouteTable
from sojourn.asgi.probes import Probes
from sojourn.asgi.problem import problem
from sojourn.asgi.scope import scope_template
from sojourn.asgi.server_control import CURRENT_SERVER, ServerControl
from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.net.runtime import Runtime
from sojourn.policy.admission import Slots
from sojourn.scopes.work import Work
from sojourn.typing import ASGIApp, Headers
from sojourn.wire.deflate import DeflateParams, Deflater, DeflateSettings, Inflater
from sojourn.wire.forwarded import Forwarded
from sojourn.wire.http1.parser import ParserPool
from sojourn.wire.http1.response import ResponseRenderer

if TYPE_CHECKING:
    from sojourn.asgi.control import RequestControl
    from sojourn.asgi.cycle import HttpCycle

__all__ = ["CURRENT", "Site"]

#: The request that runs in the present context.
CURRENT: Final[ContextVar[RequestControl]] = ContextVar("sojourn_request")


class Site:
    """One application on one worker.

    Args:
        app: The ASGI application.
        runtime: What the worker's connections share.
        work: Where tasks are made.
        config: Settings.
        forwarded: Reads what trusted proxies say of the client; None when nobody is trusted.
    """

    __slots__ = (
        "_codecs",
        "app",
        "asgi",
        "config",
        "control",
        "date_header",
        "deflate",
        "drain",
        "draining",
        "forwarded",
        "guarded",
        "handler_timeout",
        "keep_alive",
        "monotonic",
        "noticed",
        "observers",
        "parsers",
        "plain",
        "probes",
        "read_only",
        "renderer",
        "response_start",
        "root_path",
        "routes",
        "runtime",
        "scope",
        "served",
        "server_header",
        "slots",
        "state",
        "ticker",
        "work",
    )

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        work: Work,
        config: Config,
        forwarded: Callable[[str, Headers], Forwarded | None] | None = None,
    ) -> None:
        #: Answers probes on the main listeners; None when it is not asked to.
        self.probes = Probes(app, self.is_ready, config.app.root_path) if config.admin.probes else None
        self.app: ASGIApp = self.probes or app
        self.runtime = runtime
        self.work = work
        self.config = config
        self.forwarded = forwarded
        settings = config.websocket
        #: What permessage-deflate is to be like here.
        self.deflate = DeflateSettings(
            server_takeover=settings.compression_takeover,
            client_takeover=settings.compression_takeover,
            threshold=settings.compression_threshold,
        )
        self._codecs: dict[DeflateParams, tuple[Inflater, Deflater]] = {}
        self.asgi: dict[str, str] = {"version": "3.0", "spec_version": config.app.spec}
        self.root_path = config.app.root_path
        #: What the scopes of all requests begin as; each gets a copy.
        self.scope = scope_template(self.asgi, self.root_path)
        self.parsers = ParserPool()
        self.renderer = ResponseRenderer()
        self.routes: RouteTable | None = RouteTable(config) if config.routes else None
        limits = config.limits
        #: Slots for requests in the application; None when limits.requests is not set, and then never asked.
        self.slots: Slots[HttpCycle] | None = (
            Slots(limits.requests, limits.queue, limits.queue_wait) if limits.requests is not None else None
        )
        #: Requests and WebSockets begun.
        self.served = 0
        #: Whether requests are asked for anything before they start; most sites have no reason to.
        self.guarded = self.slots is not None
        #: Whether requests that may change something are refused.
        self.read_only = False
        #: The lifespan state; each request gets a shallow copy.
        self.state: dict[str, Any] = {}
        #: What the application sees of the server; known in the context of everything the server runs.
        self.control = ServerControl(config.drain)
        runtime.context.run(CURRENT_SERVER.set, self.control)
        #: Whether a drain has begun; serving goes on for now.
        self.noticed = False
        #: Whether nobody new comes any more: answers then say ``Connection: close``.
        self.draining = False
        self.drain = self.control.draining
        # What every request looks at, without the way through the configuration.
        self.monotonic = runtime.ticker.clock.monotonic
        self.observers = runtime.bus.observers
        self.response_start = _or_never(config.timeouts.response_start)
        self.handler_timeout = config.timeouts.handler
        self.keep_alive = _or_never(config.timeouts.keep_alive)
        self.date_header = config.log.date_header
        self.server_header = config.log.server_header
        #: Whether the server adds just a Date to a response head.
        self.plain = self.date_header and not self.server_header
        self.ticker = runtime.ticker

    def is_ready(self) -> bool:
        """Whether new requests may come: no drain has begun."""
        return not self.noticed

    def begin_notice(self) -> None:
        """A drain has begun: the application is told, and readiness says no."""
        self.noticed = True
        if self.config.drain.read_only:
            self.read_only = self.guarded = True
        self.control.notice.set()

    def begin_drain(self) -> None:
        """From now on answers close their connection, and whoever awaits ``drain`` is told."""
        self.draining = True
        self.drain.set()

    def refusal(
        self, status: int, reason: str, detail: str, extra: Iterable[tuple[bytes, bytes]] = (), **members: object
    ) -> bytes:
        """The server's own answer where no request came about: a problem document, and the connection closes.

        The arguments are those of :func:`sojourn.asgi.problem.problem`.
        """
        headers, body = problem(status, reason, detail, extra, **members)
        head = self.renderer.render(status, headers).data
        return b"".join((head, self.ticker.date, b"connection: close\r\n\r\n", body))

    def deflaters(self, params: DeflateParams) -> tuple[Inflater, Deflater]:
        """The codecs for parameters without context takeover: they hold nothing, so connections share them."""
        codecs = self._codecs.get(params)
        if codecs is None:
            codecs = self._codecs[params] = (Inflater(params), Deflater(params, self.deflate))
        return codecs


def _or_never(timeout: float | None) -> float:
    return NEVER if timeout is None else timeout
