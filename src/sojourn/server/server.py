"""The composition root: an application, a configuration, and everything that serves the one by the other."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
from collections.abc import Callable, Sequence

from sojourn.asgi.lifespan import Lifespan
from sojourn.asgi.site import Site
from sojourn.bus import Bus
from sojourn.clock import Clock, SystemClock
from sojourn.config import Config
from sojourn.events import LoopStalled, ServerStarted, ServerStopped
from sojourn.net.bind import addresses, bind, release
from sojourn.net.listener import Listener
from sojourn.net.runtime import Runtime
from sojourn.net.ticker import Ticker
from sojourn.net.tls import server_context
from sojourn.observe.install import install
from sojourn.policy.trust import TrustList
from sojourn.scopes.work import Work
from sojourn.server.importer import load_app
from sojourn.server.lifecycle import Shutdown
from sojourn.server.process import event_loop_factory, tune_collector
from sojourn.server.reception import Reception
from sojourn.typing import ASGIApp, Headers
from sojourn.wire.forwarded import Forwarded, forwarded

__all__ = ["Server", "run", "serve"]


class Server:
    """One worker: listens, serves, and ends cleanly.

    Args:
        app: The ASGI application.
        config: Settings.
        bus: Where events go; observers may be put on it before and after the start.
        clock: Where time comes from.
        sockets: Listening sockets to use instead of binding ``config.bind``; they stay the caller's.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config | None = None,
        *,
        bus: Bus | None = None,
        clock: Clock | None = None,
        sockets: Sequence[socket.socket] | None = None,
    ) -> None:
        self.config = config or Config()
        self.bus = bus or Bus()
        self._app = app
        self._clock = clock or SystemClock()
        self._given = sockets
        self._bound: list[socket.socket] = []
        self._listeners: list[Listener] = []
        self._lifespan: Lifespan | None = None
        self._shutdown: Shutdown | None = None
        self.site: Site
        self.runtime: Runtime
        self.work: Work
        #: Where it listens, as URLs; empty before the start.
        self.addresses: tuple[str, ...] = ()

    async def start(self) -> None:
        """Bind, let the application start, and accept.

        Raises:
            BindError: An address can't be listened on.
            ConfigError: A certificate or an address of the configuration is no good.
            StartupError: The application's startup failed.
        """
        config = self.config
        loop = asyncio.get_running_loop()
        tls = server_context(config.tls)
        trust = TrustList(config.proxy.trusted)
        sockets = list(self._given) if self._given is not None else bind(config.bind)
        self._bound = [] if self._given is not None else sockets
        try:
            ticker = Ticker(self._clock, lambda seconds: self.bus.emit(LoopStalled(seconds)))
            self.runtime = runtime = Runtime(loop, config, self.bus, ticker)
            self.work = work = Work(loop, ticker, self.bus, runtime.context)
            reads = functools.partial(_believed, trust) if config.proxy.headers and config.proxy.trusted else None
            self.site = site = Site(self._app, runtime, work, config, reads)
            reception = Reception(site, tls)
            runtime.start()
            self._lifespan = Lifespan(self._app, work, config.app.lifespan)
            await self._lifespan.startup(config.timeouts.lifespan_startup)
            site.state = self._lifespan.state
            scheme = "http" if tls is None else "https"
            for sock in sockets:
                name = addresses([sock], scheme)[0]
                listener = Listener(
                    loop,
                    sock if self._given is None else sock.dup(),
                    name=name,
                    settings=config.bind,
                    accepted=functools.partial(reception.accepted, name),
                    bus=self.bus,
                    call_later=ticker.call_later,
                    now=self._clock.monotonic,
                )
                self._listeners.append(listener)
            self._shutdown = Shutdown(site, self._listeners)
            for listener in self._listeners:
                listener.start()
            self.addresses = addresses(sockets, scheme)
        except BaseException:
            self._release()
            raise
        self.bus.emit(ServerStarted(self.addresses))

    def stop(self) -> None:
        """Begin to stop; called again, go on to the next phase at once. Safe to call from a signal handler of the loop."""
        if self._shutdown is not None:
            if self._shutdown.begun:
                self._shutdown.hurry()
            else:
                self._shutdown.begin()

    @property
    def stopping(self) -> bool:
        """Whether the server has begun to stop."""
        return self._shutdown is not None and self._shutdown.begun

    async def wait_stopped(self) -> int:
        """Wait until ``stop`` was called and everything has ended.

        Returns:
            How many connections had to be cut.
        """
        assert self._shutdown is not None and self._lifespan is not None
        report = await self._shutdown.finished()
        problem = await self._lifespan.shutdown(self.config.timeouts.lifespan_shutdown)
        await self._shutdown.end_tasks()
        if problem is not None:
            self._shutdown.note(problem)
        self._release()
        self.bus.emit(ServerStopped(report.finished, report.cut))
        return report.cut

    def _release(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._bound:
            release(self._bound, self.config.bind)
            self._bound = []
        if hasattr(self, "runtime"):
            self.runtime.ticker.stop()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop()
        await self.wait_stopped()


def _believed(trust: TrustList, host: str, headers: Headers) -> Forwarded | None:
    return forwarded(headers, trust.trusts) if trust.trusts(host) else None


async def serve(app: ASGIApp, config: Config | None = None, *, started: Callable[[Server], None] | None = None) -> int:
    """Serve an application inside a running event loop, until the task is cancelled or ``Server.stop`` is called.

    Args:
        app: The ASGI application.
        config: Settings.
        started: Called with the server once it listens.

    Returns:
        How many connections had to be cut at the end.

    Raises:
        SojournError: It could not start.

    Cancel: begins the shutdown; the cancellation is raised again when it is complete. A second one hurries it.
    """
    server = Server(app, config)
    await server.start()
    if started is not None:
        started(server)
    waiting = server.work.run(server.wait_stopped(), "server")
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            server.stop()
    if cancelled is not None:
        raise cancelled
    return waiting.result()


def run(config: Config, app: ASGIApp | None = None, *, announce: Callable[[str], None] | None = None) -> int:
    """Serve until a signal says stop: SIGTERM or SIGINT begins the shutdown, a second hurries it, a third exits at once.

    Owns the process: it makes the event loop, handles signals and tunes the garbage collector.

    Args:
        config: Settings.
        app: The application; None imports ``config.app.target``.
        announce: Called with the addresses once it listens.

    Returns:
        The exit code: 0, or 5 when connections had to be cut.

    Raises:
        SojournError: It could not start; ``exit_code`` says which code fits.
    """
    application = app if app is not None else load_app(config.app)
    bus = Bus()
    observing = install(bus, config.log, SystemClock())
    try:
        with asyncio.Runner(loop_factory=event_loop_factory(config.app.loop)) as runner:
            return runner.run(_run(Server(application, config, bus=bus), announce))
    finally:
        observing.close()


async def _run(server: Server, announce: Callable[[str], None] | None) -> int:
    loop = asyncio.get_running_loop()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals >= 3:
            os._exit(5)  # the third signal: at once, without clean-up
        server.stop()

    await server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tune_collector()
    if announce is not None:
        announce(", ".join(server.addresses))
    try:
        return 5 if await server.wait_stopped() else 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
