"""The composition root: an application, a configuration, and everything that serves the one by the other."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from sojourn.asgi.lifespan import Lifespan
from sojourn.asgi.site import Site
from sojourn.bus import Bus
from sojourn.clock import Clock, SystemClock
from sojourn.config import Config
from sojourn.events import LoopStalled, RestartFailed, ServerStarted, ServerStopped
from sojourn.net.bind import addresses, listening, release
from sojourn.net.listener import Listener
from sojourn.net.runtime import Runtime
from sojourn.net.ticker import Ticker
from sojourn.net.tls import server_context
from sojourn.observe.log.ids import mark_records
from sojourn.observe.log.install import Installed, install
from sojourn.observe.metrics.memory import Block
from sojourn.observe.metrics.meter import Meter
from sojourn.policy.drain import quick
from sojourn.scopes.alarms import alarms
from sojourn.scopes.offload import OFFLOAD, Offload
from sojourn.scopes.work import Work
from sojourn.server.diagnosis import Diagnosis
from sojourn.server.lifecycle import Shutdown
from sojourn.server.pressure import Pressure, no_pressure
from sojourn.server.process import event_loop_factory, run_server, tune_collector
from sojourn.server.rates import ConfiguredRates
from sojourn.server.reception import Reception
from sojourn.server.report import Report, write_report
from sojourn.server.settings.budgets import read_budgets
from sojourn.server.solo import Solo
from sojourn.server.work import application
from sojourn.server.workers.siblings import Siblings
from sojourn.typing import ASGIApp

__all__ = ["Server", "run", "serve"]


class Server:
    """One worker: listens, serves, and ends cleanly. Without observers on its bus it is silent.

    Args:
        app: The ASGI application.
        config: Settings; None takes the defaults.
        bus: Where events go; observers may be put on it before and after the start.
        clock: Where time comes from.
        sockets: Listening sockets to use instead of binding ``config.bind``; they stay the caller's.
        siblings: Other processes that accept from the same sockets; None when there are none.
        block: Where it counts; None when nobody asks for metrics.
    """

    def __init__(  # noqa: PLR0913 - all but the first are for those who put it together themselves
        self,
        app: ASGIApp,
        config: Config | None = None,
        *,
        bus: Bus | None = None,
        clock: Clock | None = None,
        sockets: Sequence[socket.socket] | None = None,
        siblings: Siblings | None = None,
        block: Block | None = None,
    ) -> None:
        self.config = config or Config()
        self.bus = bus or Bus()
        self._app = app if self.config.app.check_layers == "off" else _checked(app, self.config.app.check_layers)
        self._clock = clock or SystemClock()
        self._given = sockets
        self._siblings = siblings
        self._block = block
        self._bound: list[socket.socket] = []
        self._listeners: list[Listener] = []
        self._lifespan: Lifespan | None = None
        self._shutdown: Shutdown | None = None
        #: Whether ``stop`` was called before there was something to stop.
        self._stopped_early = False
        #: Called with the settings after they have changed while serving.
        self.followers: list[Callable[[Config], None]] = []
        self._gauges: list[Callable[[Meter], None]] = []
        self.site: Site
        self.runtime: Runtime
        self.work: Work
        #: What watches it; closed with it.
        self.diagnosis: Diagnosis
        #: Threads and processes for what its applications offload.
        self.offload = Offload()
        self._gauges.append(functools.partial(_count_offloaded, self.offload))
        #: Where it listens, as URLs; empty before the start.
        self.addresses: tuple[str, ...] = ()

    def logged_by(self, log: Installed) -> None:
        """The log follows changed settings, and what it loses is counted."""
        self.followers.append(lambda config: log.level(config.log.level))
        self._gauges.append(lambda meter: _count_losses(meter, log))

    async def start(self) -> None:
        """Bind, let the application start, and accept.

        Raises:
            BindError: An address can't be listened on.
            ConfigError: A certificate or an address of the configuration is no good.
            StartupError: The application's startup failed.

        Cancel: ends the application's startup and releases everything.
        """
        if self._shutdown is not None:
            raise RuntimeError("a server starts once; make another one")
        config = self.config
        tls = server_context(config.tls)
        sockets = list(self._given) if self._given is not None else listening(config)
        self._bound = [] if self._given is not None else sockets
        try:
            loop = asyncio.get_running_loop()
            ticker = Ticker(self._clock, self._stood_still)
            self.runtime = runtime = Runtime(loop, config, self.bus, ticker)
            self.work = work = Work(loop, ticker, self.bus, runtime.context)
            runtime.context.run(OFFLOAD.set, self.offload)
            rates = ConfiguredRates(self._app, config) if config.rate_limits else None
            self.site = site = Site(rates or self._app, runtime, work, config, Reception.reads(config.proxy))
            site.followers = self.followers
            if rates is not None:
                self.followers.append(rates.adopt)
                if config.rates.redis is not None:
                    site.control.on_drain(rates.engine.aclose, name="rate limits")
            self.followers.append(self._read_budgets)
            self._read_budgets(config)
            self._alarms = alarms()
            self._alarms.report = self.bus.emit
            self.diagnosis = Diagnosis(site, self._block)
            self.diagnosis.gauges += self._gauges
            # After the diagnosis, because both want to know how late ticks are.
            self._pressure = Pressure(site, site.admission) if site.admission is not None else None
            self.diagnosis.answers["pressure"] = self._pressure.list if self._pressure is not None else no_pressure
            reception = Reception(site, self._siblings)
            runtime.start()
            self._lifespan = Lifespan(self._app, work, self.bus, config.app.lifespan)
            await self._lifespan.startup(config.timeouts.lifespan_startup)
            site.state = self._lifespan.state
            for sock in sockets:
                context = None if sock.family == socket.AF_UNIX else tls
                (name,) = addresses([sock], "http" if context is None else "https")
                listener = Listener(
                    loop,
                    sock if self._given is None else sock.dup(),
                    name=name,
                    settings=config.bind,
                    accepted=functools.partial(reception.accepted, name, context),
                    bus=self.bus,
                    call_later=ticker.call_later,
                    now=self._clock.monotonic,
                    # Old and new worker of a slot need no balance: one of them is about to end.
                    ahead=self._siblings.ahead if self._siblings is not None and config.app.workers > 1 else None,
                )
                self._listeners.append(listener)
            self.addresses = tuple(listener.name for listener in self._listeners)
            last = self._given is None and config.bind.fd is None
            self._shutdown = Shutdown(site, self._listeners, last=last, notice=self._lifespan.notice)
            for listener in self._listeners:
                listener.start()
        except BaseException:
            self._release()
            raise
        self.bus.emit(ServerStarted(self.addresses))
        if self._stopped_early:
            self.stop()

    def _stood_still(self, seconds: float) -> None:
        """The ticker was late by a second or more; a watchdog says more about it."""
        if not self.diagnosis.stalls.watching:
            self.bus.emit(LoopStalled(seconds))

    def drain(self, delay: float | None = None, *, last: bool | None = None) -> None:
        """Begin to stop: say so, then accept nobody new, and let everybody finish within their time.

        Safe to call from a signal handler of the loop. Called again, it does nothing; called before the start is
        complete, it takes effect right after it.

        Args:
            delay: Seconds of serving on while readiness says no; None takes ``drain.delay``.
            last: Whether nobody else has the listening sockets, so that who waits in the kernel is taken in first; None
                for what is known from the start.
        """
        if self._shutdown is None:
            self._stopped_early = True
            return
        if last is not None:
            self._shutdown.last = last
        self._shutdown.begin(delay)

    def hurry(self) -> None:
        """Go on to the next phase of the drain at once; in the phase that waits for connections, cut them."""
        if self._shutdown is not None:
            self._shutdown.hurry()

    def stop(self) -> None:
        """What a signal means: begin to stop; called again, go on to the next phase."""
        if self.stopping:
            self.hurry()
        else:
            self.drain()

    @property
    def stopping(self) -> bool:
        """Whether the server has begun to stop."""
        return self._shutdown is not None and self._shutdown.begun

    async def wait_stopped(self) -> Report:
        """Wait until ``stop`` was called and everything has ended. To be awaited once.

        It takes at most ``drain.delay``, ``drain.total``, a few seconds when tasks resist their cancellation,
        ``drain.persist`` and ``timeouts.lifespan_shutdown``.

        Cancel: safe as long as connections are open; later it ends the application's own shutdown.
        """
        if self._shutdown is None or self._lifespan is None:
            raise RuntimeError("the server has not been started")
        report = await self._shutdown.finished()
        # Only now: until here the application's requests may have used what its lifespan holds.
        problem = await self._lifespan.shutdown(self.config.timeouts.lifespan_shutdown)
        await self.offload.close()
        report = report._replace(problem=problem or write_report(report, self.config.drain.report))
        self.bus.emit(report.event)
        self._release()
        self.bus.emit(ServerStopped(report.finished, report.cut))
        return report

    def _release(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._bound:
            release(self._bound, self.config.bind)
            self._bound = []
        if hasattr(self, "_pressure") and self._pressure is not None:
            self._pressure.close()
        if hasattr(self, "diagnosis"):
            self.diagnosis.close()
        self.offload.stop()
        if hasattr(self, "runtime"):
            self.runtime.ticker.stop()
        if hasattr(self, "_alarms"):
            self._alarms.report = None

    def _read_budgets(self, config: Config) -> None:
        self.site.budgets.seconds = read_budgets(config.deadlines.budgets)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.drain(0.0)  # whoever leaves the block has no balancer to wait for
        await self.wait_stopped()


def _at_terminal(config: Config) -> Config:
    """Where somebody waits at a terminal, the drain is quick."""
    return msgspec.structs.replace(config, drain=quick(config.drain)) if sys.stderr.isatty() else config


def _count_offloaded(offload: Offload, meter: Meter) -> None:
    for to in ("thread", "process"):
        running, waiting = offload.calls(to)
        meter.gauge("offload_calls", float(running), to=to, state="running")
        meter.gauge("offload_calls", float(waiting), to=to, state="waiting")


def _count_losses(meter: Meter, log: Installed) -> None:
    for cause, lines in log.losses._asdict().items():
        meter.total("log_lines_lost_total", float(lines), cause=cause)


async def serve(
    app: ASGIApp, config: Config | None = None, *, started: Callable[[Server], None] | None = None
) -> Report:
    """Serve an application inside a running event loop, until the task is cancelled or ``Server.stop`` is called.

    Signals, event loop and logging stay yours: messages go to the logger ``sojourn``, access lines where ``config.log``
    says.

    Args:
        app: The ASGI application.
        config: Settings; None takes the defaults.
        started: Called with the server once it listens.

    Returns:
        How it ended.

    Raises:
        SojournError: It could not start.

    Cancel: begins the shutdown; the cancellation is raised again when it is complete. A second one hurries it.
    """
    config = _at_terminal(config or Config())
    bus = Bus()
    solo = Solo(config, bus)
    server = Server(app, config, bus=bus, block=solo.block)
    observing = install(server.bus, server.config.log, SystemClock())
    server.logged_by(observing)
    try:
        await server.start()
        await solo.open(server)
        if started is not None:
            started(server)
        return await _stopped(server)
    finally:
        await solo.close()
        await asyncio.get_running_loop().run_in_executor(None, observing.close)


async def _stopped(server: Server) -> Report:
    """Wait for the end of a server; a cancellation becomes its shutdown first."""
    waiting = server.work.run(server.wait_stopped(), "server")
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait((waiting,))
        except asyncio.CancelledError as error:
            cancelled = error
            server.stop()
    if cancelled is not None:
        raise cancelled
    return waiting.result()


def run(app: ASGIApp | str, config: Config | None = None, *, announce: Callable[[str], None] | None = None) -> int:
    """Serve until a signal: SIGTERM or SIGINT begins the drain, a second goes on to its next phase, a third exits.

    SIGHUP, unless it is ignored, ends it as cleanly; SIGUSR2 is refused, because there is no supervisor.

    Owns the process: it makes the event loop, handles signals (in the main thread) and tunes the garbage collector. One
    process, without supervisor: ``app.workers`` is for ``sojourn serve``. On a terminal the drain is quick.

    Args:
        app: The ASGI application, or ``module:attribute`` to import it from.
        config: Settings; None takes the defaults.
        announce: Called with the addresses once it listens.

    Returns:
        The exit code: 0 after a clean end, 6 when work was lost, 5 when something was cut, 1 when the application's own
        shutdown failed.

    Raises:
        SojournError: It could not start; ``exit_code`` says which code fits.
    """
    config = _at_terminal(config or Config())
    if isinstance(app, str):
        app = application(msgspec.structs.replace(config, app=msgspec.structs.replace(config.app, target=app)))
    bus = Bus()
    observing = install(bus, config.log, SystemClock())
    unmark = mark_records()
    try:
        solo = Solo(config, bus)
        server = Server(app, config, bus=bus, block=solo.block)
        server.logged_by(observing)
        return run_server(_run(server, solo, announce), event_loop_factory(config.app.loop), bus)
    finally:
        unmark()
        observing.close()


def _checked(app: ASGIApp, mode: Literal["report", "snapshot"]) -> ASGIApp:
    """The application with its layers watched."""
    from sojourn.guards.layers.guard import guard_layers

    return guard_layers(app, mode)


async def _run(server: Server, solo: Solo, announce: Callable[[str], None] | None) -> int:
    loop = asyncio.get_running_loop()
    starting: asyncio.Task[Any] | None = asyncio.current_task()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals >= 3:
            os._exit(5)  # the third signal: at once, without clean-up
        if starting is not None:
            starting.cancel()
        else:
            server.stop()

    def refuse() -> None:
        server.bus.emit(RestartFailed("upgrade", "this process serves alone: that needs sojourn serve --workers 1"))

    # Unhandled, the last two would cut everybody. Whoever ignores them (nohup) or handles them himself is left alone.
    calls = {signal.SIGTERM: stop, signal.SIGINT: stop}
    calls |= {
        number: call
        for number, call in ((signal.SIGHUP, stop), (signal.SIGUSR2, refuse))
        if signal.getsignal(number) is signal.SIG_DFL
    }
    handled = tuple(calls) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in handled}
    for number in handled:
        loop.add_signal_handler(number, calls[number])
    try:
        try:
            await server.start()
        except asyncio.CancelledError:
            if not signals:
                raise
            return 0  # stopped before it served anybody
        starting = None
        server.diagnosis.stalls.own_process(seconds=10.0, fd=2)  # nobody else would see a hang that never ends
        await solo.open(server)
        tune_collector()
        if announce is not None:
            announce(", ".join(server.addresses))
        return (await _stopped(server)).exit_code
    finally:
        await solo.close()
        for number in handled:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
