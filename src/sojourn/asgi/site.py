"""What a worker serves: the application, its settings and the machinery its requests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from sojourn.asgi.admission import Admission
from sojourn.asgi.callers import Callers
from sojourn.asgi.overrides import RouteTable
from sojourn.asgi.probes import Probes
from sojourn.asgi.problem import problem
from sojourn.asgi.scope import scope_template
from sojourn.asgi.server_control import CURRENT_SERVER, ServerControl
from sojourn.clock import NEVER
from sojourn.config import Config, Limits
from sojourn.ending import Ending, How, Phase
from sojourn.net.runtime import Runtime
from sojourn.policy.admission import Slots
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import REQUEST
from sojourn.scopes.failures import WORK
from sojourn.scopes.work import Work
from sojourn.typing import ASGIApp, Headers, Scope
from sojourn.wire.deflate import DeflateParams, Deflater, DeflateSettings, Inflater
from sojourn.wire.forwarded import Forwarded
from sojourn.wire.http1.parser import ParserPool
from sojourn.wire.http1.response import ResponseRenderer

if TYPE_CHECKING:
    from contextvars import ContextVar

    from sojourn.asgi.control import RequestControl
    from sojourn.asgi.cycle import HttpCycle
    from sojourn.net.connection import Connection

__all__ = ["CURRENT", "Meter", "Site"]

#: The request that runs in the present context.
CURRENT: Final = cast("ContextVar[RequestControl]", REQUEST)


class Meter(Protocol):
    """Counts what happens too often for an event. All durations are in seconds."""

    def answered(self, scope: Scope, status: int, duration: float) -> None:
        """A request ended with the whole answer of its application, which is no event stream."""

    def request_ended(self, scope: Scope, status: int, ending: Ending, duration: float, event_stream: bool) -> None:
        """A request ended in any other way, or an event stream did."""

    def websocket_ended(
        self, scope: Scope, ending: Ending, duration: float, received: int, sent: int, opened: bool
    ) -> None:
        """A WebSocket ended after so many messages, or its handshake was refused."""

    def handshake(self, kind: str, duration: float) -> None:
        """A handshake is complete: ``tls`` or ``websocket``."""

    def queue_left(self, waited: float) -> None:
        """A request got its slot after it had waited."""

    def shed(self, priority: str, reason: str) -> None:
        """A request was not begun because of overload."""

    def pong(self, round_trip: float) -> None:
        """A client answered our ping."""

    def pong_missed(self) -> None:
        """A client did not answer our ping in time."""


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
        "admission",
        "app",
        "asgi",
        "budgets",
        "callers",
        "config",
        "control",
        "date_header",
        "deflate",
        "drain",
        "draining",
        "followers",
        "forwarded",
        "guarded",
        "handler_timeout",
        "keep_alive",
        "meter",
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
        #: What permessage-deflate is to be like here.
        self.deflate = _deflate(config)
        self._codecs: dict[DeflateParams, tuple[Inflater, Deflater]] = {}
        self.asgi: dict[str, str] = {"version": "3.0", "spec_version": config.app.spec}
        self.root_path = config.app.root_path
        #: What the scopes of all requests begin as; each gets a copy.
        self.scope = scope_template(self.asgi, self.root_path)
        self.parsers = ParserPool()
        self.renderer = ResponseRenderer()
        self.routes: RouteTable | None = RouteTable(config) if config.routes else None
        limits = config.limits
        #: Lets requests in, as many as the event loop can take; None where admission.mode is off.
        self.admission = Admission(self, config) if config.admission.mode == "adaptive" else None
        #: Slots for requests in the application; None when limits.requests is not set, and then never asked, and where
        #: ``admission`` has its own.
        self.slots: Slots[HttpCycle] | None = (
            Slots(limits.requests, limits.queue, limits.queue_wait)
            if limits.requests is not None and self.admission is None
            else None
        )
        #: Requests and WebSockets begun.
        self.served = 0
        #: Whether requests are asked for anything before they start; most sites have no reason to.
        self.guarded = self.slots is not None or self.admission is not None
        #: Whether requests that may change something are refused.
        self.read_only = False
        #: The lifespan state; each request gets a shallow copy.
        self.state: dict[str, Any] = {}
        #: What the application sees of the server; known in the context of everything the server runs.
        self.control = ServerControl(config.drain)
        runtime.context.run(CURRENT_SERVER.set, self.control)
        #: How long each dependency may take; empty until who has read the settings fills it.
        self.budgets = Budgets({})
        runtime.context.run(BUDGETS.set, self.budgets)
        runtime.context.run(WORK.set, work)
        #: Whether a drain has begun; serving goes on for now.
        self.noticed = False
        #: Whether nobody new comes any more: answers then say ``Connection: close``.
        self.draining = False
        self.drain = self.control.draining
        self.monotonic = runtime.ticker.clock.monotonic
        self.observers = runtime.bus.observers
        #: Counts; None when nobody does.
        self.meter: Meter | None = None
        self.ticker = runtime.ticker
        #: Called with the settings after they have changed: others that keep a part of them.
        self.followers: list[Callable[[Config], None]] = []
        self._remember(config)

    def adopt(self, config: Config) -> None:
        """Serve with other settings from now on. No connection ends by it; requests in hand keep what they began with.

        Args:
            config: The settings; what needs a restart is as it was.
        """
        before, self.config = self.config, config
        self.runtime.adopt(config)
        self._remember(config)
        self.control.settings = config.drain
        if config.websocket != before.websocket:
            self.deflate = _deflate(config)
            self._codecs = {}  # connections that are open keep theirs
        if config.routes != before.routes:
            self.routes = RouteTable(config) if config.routes else None
        if config.app.root_path != before.app.root_path:
            self.root_path = config.app.root_path
            self.scope = scope_template(self.asgi, self.root_path)
            if self.probes is not None:
                self.probes.mount(self.root_path)
        self.read_only = self.noticed and config.drain.read_only
        if self.admission is not None:
            self.admission.adopt(config)
        else:
            self._limit(config.limits)
        for follow in self.followers:
            follow(config)

    def _remember(self, config: Config) -> None:
        """What every request looks at, without the way through the configuration."""
        self.response_start = _or_never(config.timeouts.response_start)
        self.handler_timeout = config.timeouts.handler
        self.keep_alive = _or_never(config.timeouts.keep_alive)
        self.date_header = config.log.date_header
        self.server_header = config.log.server_header
        #: Whether the server adds just a Date to a response head.
        self.plain = self.date_header and not self.server_header
        #: What callers say of their deadlines; None when nobody is believed.
        self.callers = Callers(config) if config.deadlines.accept and config.proxy.trusted else None

    def _limit(self, limits: Limits) -> None:
        """Follow ``limits.requests``. Once there are slots they stay, because requests that hold one give it back."""
        if limits.requests is not None and self.slots is None:
            running = [cycle for connection in self.runtime.registry if (cycle := _running(connection)) is not None]
            for cycle in running:
                cycle.has_slot = True
            self.slots = Slots(limits.requests, limits.queue, limits.queue_wait, running=len(running))
        elif self.slots is not None:
            limit = sys.maxsize if limits.requests is None else limits.requests
            for cycle in self.slots.resize(self.runtime.ticker.now, limit, limits.queue, limits.queue_wait):
                cycle.begin_queued()
        self.guarded = self.slots is not None or self.read_only

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        slots = self.slots if self.admission is None else self.admission.slots
        return slots.waiting if slots is not None else 0

    @property
    def last_wait(self) -> float:
        """Seconds that the request started last from the queue had waited."""
        slots = self.slots if self.admission is None else self.admission.slots
        return slots.last_wait if slots is not None else 0.0

    def release(self, cycle: HttpCycle) -> None:
        """A request gives its slot back."""
        if self.admission is not None:
            self.admission.release(cycle)
        elif self.slots is not None:
            cycle.has_slot = False
            following = self.slots.leave(self.ticker.now)
            if following is not None:
                following.begin_queued()

    def forget(self, cycle: HttpCycle) -> None:
        """A request waits for a slot no longer, if it did."""
        slots = self.slots if self.admission is None else self.admission.slots
        if slots is not None:
            slots.forget(cycle)

    def give_up(self, cycle: HttpCycle) -> None:
        """A request has waited for a slot for too long."""
        if self.admission is not None:
            self.admission.give_up(cycle)
        else:
            self.forget(cycle)
            cycle.fail(Ending("queue_timeout", Phase.QUEUED, How.TIMEOUT, "queue_wait"), 503)

    @property
    def keeps_refused(self) -> bool:
        """Whether connections stay after a 503: to open another costs more than to refuse, most of all with TLS."""
        return self.admission is not None and not (self.admission.no_keep_alive or self.noticed)

    def retry_after(self) -> int:
        """Seconds after which whoever is refused now may come back."""
        return self.config.limits.retry_after if self.admission is None else self.admission.retry_after()

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
        if self.admission is not None:
            self.admission.begin_drain()

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


def _running(connection: Connection) -> HttpCycle | None:
    """The request whose application runs on a connection, and that is not answered yet."""
    cycle: HttpCycle | None = getattr(connection.handler, "cycle", None)  # WebSockets take no slot
    return cycle if cycle is not None and cycle.begun else None


def _deflate(config: Config) -> DeflateSettings:
    settings = config.websocket
    return DeflateSettings(
        server_takeover=settings.compression_takeover,
        client_takeover=settings.compression_takeover,
        threshold=settings.compression_threshold,
    )


def _or_never(timeout: float | None) -> float:
    return NEVER if timeout is None else timeout
