"""The supervisor: owns the listening sockets, keeps workers serving on them, and ends them together.

It imports no application. A signal means:

    SIGTERM SIGINT   everything drains; again: the next phase; a third time: everything is killed
    SIGHUP           a rolling restart with the configuration and the code as they are now
    SIGUSR2          as SIGHUP, after the supervisor itself was replaced in place (`upgrade`)
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from sojourn.bus import Bus
from sojourn.clock import NEVER, Clock, SystemClock
from sojourn.config import Config
from sojourn.errors import SojournError
from sojourn.events import DrainReported, LoopStalled, RestartFailed
from sojourn.net.bind import addresses, listening, release
from sojourn.net.ticker import Ticker
from sojourn.observe.log.install import install
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.page import SupervisorMetrics
from sojourn.policy.drain import quick
from sojourn.scopes.work import Work
from sojourn.server.admin.desk import Desk
from sojourn.server.process import run_loop
from sojourn.server.reconfigure import Running
from sojourn.server.registration import Instance, Registrar, from_config
from sojourn.server.report import write_whole
from sojourn.server.settings.layers import Loaded, Origin
from sojourn.server.workers.board import Board, Row
from sojourn.server.workers.fleet import SupervisedFleet
from sojourn.server.workers.pool import Pool
from sojourn.server.workers.stopping import longest_drain, merged
from sojourn.server.workers.upgrade import Handed, Successor, adopt, check

if TYPE_CHECKING:
    from sojourn.hub.local.serving import Serving

__all__ = ["Settings", "Supervisor", "supervise"]

#: Worker processes that may exist at the same time, those that drain included; at least so many rows.
_LEAST_ROWS: Final = 64
#: Exit code when workers had to be killed.
_CUT: Final = 5
#: Seconds for processes that were killed.
_DYING: Final = 2.0
#: Seconds between two looks at the clock: nothing here is urgent, and most of the time there is nothing to do.
_TICK: Final = 0.25
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Settings:
    """Where a supervisor's settings come from.

    Args:
        first: The configuration to begin with.
        origins: Where its values come from, as far as that is known.
        load: Reads it anew.
        announce: Called with the addresses and the number of workers when the first generation serves.
        warn: Called with what is not as the new configuration has it.
        terminal: Whether somebody watches: then the drain is quick.
        successor: How to start the supervisor's successor; None when it can't be replaced in place.
    """

    def __init__(  # noqa: PLR0913 - what a command line knows
        self,
        first: Config,
        *,
        origins: Mapping[str, Origin],
        load: Callable[[], Loaded],
        announce: Callable[[str, int], None],
        warn: Callable[[str], None],
        terminal: bool = False,
        successor: Successor | None = None,
    ) -> None:
        self.first = self._adjusted(first, terminal)
        self.origins = origins
        self.announce = announce
        self.warn = warn
        self.terminal = terminal
        self.successor = successor
        self._load = load

    def load(self) -> Config:
        """Read the configuration anew.

        Raises:
            ConfigError: It can't be used.
        """
        loaded = self._load()
        self.origins = loaded.origins
        return self._adjusted(loaded.config, self.terminal)

    @staticmethod
    def _adjusted(config: Config, terminal: bool) -> Config:
        return msgspec.structs.replace(config, drain=quick(config.drain)) if terminal else config


class Supervisor:
    """Workers and their sockets.

    Args:
        settings: Where the configuration comes from.
        bus: Where events go.
        clock: Where time comes from.
        handed: What the supervisor before left; None for the first one.
    """

    def __init__(
        self, settings: Settings, *, bus: Bus | None = None, clock: Clock | None = None, handed: Handed | None = None
    ) -> None:
        self.bus = bus or Bus()
        self._settings = settings
        self._clock = clock or SystemClock()
        self._handed = handed
        self._config = settings.first
        self._bind = settings.first.bind
        self._sockets: list[socket.socket] = []
        self._addresses: tuple[str, ...] = ()
        self._registrar: Registrar | None = None
        self._over = asyncio.Event()
        self.started = handed is not None
        self._stopping: float | None = None
        self._signals = 0
        self._killed = False
        self._failure: SojournError | None = None
        #: What was asked for while something else was being done: "restart", "upgrade".
        self._asked: set[str] = set()
        self._changing: asyncio.Task[None] | None = None
        self.problem: str | None = None
        self.upgrades = handed.upgrades if handed is not None else 0
        self._terminal_at_start = _has_terminal()
        self._board: Board
        #: The settings in force; known once it listens.
        self.running: Running
        self.pool: Pool
        self.ticker: Ticker
        self._work: Work
        self._desk: Desk | None = None
        #: What the hubs of the workers share; None when there is no hub.
        self._hub: Serving | None = None
        #: Called with the settings after they have changed.
        self.followers: list[Callable[[Config], None]] = []
        #: What is counted; None when nothing is.
        self.metrics: SupervisorMetrics | None = None

    async def run(self) -> int:
        """Serve until everything has ended.

        Returns:
            The exit code: the worst of the workers', or 5 when some had to be killed.

        Raises:
            SojournError: Nothing can be served.
        """
        loop = asyncio.get_running_loop()
        self.ticker = Ticker(self._clock, lambda seconds: self.bus.emit(LoopStalled(seconds)), tick=_TICK)
        self._work = Work(loop, self.ticker, self.bus, copy_context())
        handed = self._handed
        try:
            self._open(handed)
            await self._host_hub()
            self.ticker.start(loop, _nothing, _same)
            for number in _SIGNALS:
                loop.add_signal_handler(number, partial(self._signalled, number))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # a predecessor held them for us
            assert self._desk is not None
            await self._desk.start()
            self.pool.begin()
            if handed is not None:
                self._register()
                self._ask("restart")
            await self._over.wait()
            self._report()
            if self._registrar is not None:
                await self._registrar.close()
        finally:
            if self._desk is not None:
                await self._desk.close()
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            self.ticker.stop()
            if self._hub is not None:
                self._hub.close()
            release(self._sockets, self._bind)
        if self._failure is not None:
            raise self._failure
        return self._code

    def _open(self, handed: Handed | None) -> None:
        config = self._config
        self._sockets = handed.listening() if handed is not None else listening(config)
        self._desk = Desk(config, SupervisedFleet(self), handed.asked_at() if handed is not None else None)
        scheme = "https" if config.tls.cert else "http"
        self._addresses = addresses(self._sockets, scheme)
        self.name = config.app.instance or _instance_name(self._sockets)
        self._config = config = self._named(config)
        self.running = Running(config, self._settings.origins)
        rows = max(_LEAST_ROWS, 4 * config.app.workers)
        self._board = Board.attach(handed.board) if handed is not None else Board.create(rows)
        self._count(config, rows, handed)
        memory = self.metrics.memory.fd if self.metrics is not None else -1
        self.pool = pool = Pool(
            config, sockets=self._sockets, board=self._board, ticker=self.ticker, bus=self.bus, metrics=memory
        )
        if self.metrics is not None:
            pool.on_gone = self._gone
        pool.on_ready, pool.on_empty, pool.on_lost = self._serving, self._over.set, self._lost
        if handed is not None:
            adopt(handed, pool, self._board, self.ticker)

    async def _host_hub(self) -> None:
        """Hold what the hubs of the workers share. Workers find it by their environment, also after an upgrade."""
        try:
            from sojourn.hub.local.hosting import host
        except ImportError:
            return  # the hub was taken out: nobody asks
        try:
            self._hub = await host(os.environ, again=self._handed is not None)
        except OSError as error:
            self._settings.warn(f"hubs of the workers can't share anything (LocalEngine): {error}")

    def _count(self, config: Config, rows: int, handed: Handed | None) -> None:
        """Begin to count, or go on with what the supervisor before has counted."""
        if handed is not None and handed.metrics >= 0:
            self.metrics = SupervisorMetrics(self.bus, MetricsMemory.attach(handed.metrics))
        elif config.diagnostics.metrics and config.admin.bind is not None:
            self.metrics = SupervisorMetrics(self.bus, MetricsMemory.create(rows))

    def _gone(self, row: Row) -> None:
        if self.metrics is not None:
            self.metrics.retire(row.index)

    def _named(self, config: Config) -> Config:
        """A configuration for workers of this supervisor: what can't change any more is as it was."""
        kept = {name: getattr(self._bind, name) for name in ("host", "port", "uds", "uds_mode", "fd", "backlog")}
        return msgspec.structs.replace(
            config,
            app=msgspec.structs.replace(config.app, instance=self.name, workers=max(1, config.app.workers)),
            bind=msgspec.structs.replace(config.bind, **kept),
        )

    def _serving(self) -> None:
        """The first generation serves."""
        self.started = True
        self._settings.announce(", ".join(self._addresses), len(self.pool.slots))
        self._register()
        self._change()

    def _register(self) -> None:
        registry = from_config(self._config, self._clock)
        if registry is not None:
            instance = Instance(self.name, self._addresses, os.getpid())
            settings = self._config.registration
            self._registrar = Registrar(
                registry, instance, work=self._work, ticker=self.ticker, bus=self.bus, settings=settings
            )
            self._registrar.start()

    def _lost(self, error: SojournError) -> None:
        """Nothing can be served any more; what serves still may finish."""
        self._failure = error
        self._begin_stop()

    # Signals and commands

    def _signalled(self, number: int) -> None:
        if number == signal.SIGUSR2:
            self.upgrade()
        elif number == signal.SIGHUP and not (self._terminal_at_start and not _has_terminal()):
            self.restart()
        else:
            self._stop()

    def _stop(self) -> None:
        """A signal: the first begins the drain, unless a command has; the second hurries it; the third ends it."""
        self._signals += 1
        if self._signals == 1:
            self.drain()
        elif self._signals == 2:
            self.pool.hurry()
        else:
            self._kill()

    def drain(self) -> None:
        """Begin to end everything. Nothing happens when that has begun."""
        if self._stopping is None:
            self._begin_stop()

    def restart(self) -> None:
        """Begin a rolling restart, or remember it while another is under way."""
        self._ask("restart")

    def upgrade(self) -> None:
        """Begin to replace the supervisor and then its workers, or remember it while a restart is under way."""
        self._ask("upgrade")

    def _ask(self, what: str) -> None:
        self._asked.add(what)
        self._change()

    def _change(self) -> None:
        ready = self.started and self._stopping is None and self._changing is None
        if ready and self._asked:
            self._changing = self._work.run(self._changes(), "restart")
            self._changing.add_done_callback(self._changed)

    async def _changes(self) -> None:
        """Do what was asked for, one after the other; asked for twice meanwhile, it is done once more."""
        while self._asked and self._stopping is None:
            if "upgrade" in self._asked:
                self._asked.clear()  # its successor restarts the workers anyway
                what, problem = "upgrade", await self._upgrade()
            else:
                self._asked.discard("restart")
                what, problem = "restart", await self._restart()
            self.problem = problem
            if problem is not None and self._stopping is None:
                self.bus.emit(RestartFailed(what, problem))

    def _changed(self, task: asyncio.Task[None]) -> None:
        self._changing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.bus.emit(RestartFailed("restart", f"{type(error).__name__}: {error}"))

    async def _restart(self) -> str | None:
        """Replace the workers; what went wrong."""
        try:
            loaded = self._settings.load()
        except (SojournError, OSError) as error:
            return str(error)
        config = self._named(loaded)
        for group in ("bind", "admin", "registration"):
            before, asked = getattr(self._settings.first, group), getattr(loaded, group)
            if before != asked and (group != "bind" or config.bind != loaded.bind):
                self._settings.warn(f"{group}.* can't change while serving: what was there stays until a new start")
        problem = await self.pool.restart(config, "restart")
        self._config = self.pool.config
        if problem is None:
            self.running.load(config, self._settings.origins)
            self.follow(config)
        return problem

    async def _upgrade(self) -> str | None:
        """Become the successor, or say what is in the way."""
        successor, desk = self._settings.successor, self._desk
        if successor is None or desk is None:
            return "this supervisor was not started by a command that could be repeated"
        problem = await check(successor, self._stock(), self.ticker)
        if problem is not None or self._stopping is not None:
            return problem
        await desk.pause()
        # Signals wait from now on until the successor handles them: each of them would end the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            successor.become(self._stock())
        except OSError as error:
            problem = f"the new supervisor can't be started: {error}"
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        await desk.start()
        return problem

    def _stock(self) -> Handed:
        """All that a successor needs."""
        return Handed.of(
            self.pool,
            board=self._board.fd,
            listeners=[sock.fileno() for sock in self._sockets],
            desk=[sock.fileno() for sock in self._desk.sockets] if self._desk is not None else [],
            upgrades=self.upgrades + 1,
        )

    # The end

    def _begin_stop(self) -> None:
        self._stopping = self.ticker.now
        if self._registrar is not None:
            self._registrar.set_state("draining")
            self._registrar.deregister()
        # The workers have the same sockets. When the last of them has closed its own, nobody must be left waiting in
        # the kernel for a supervisor that would never accept.
        for sock in self._sockets:
            sock.close()
        self.pool.stop()
        longest = max((longest_drain(child.config, None) for child in self.pool.children.values()), default=0.0)
        if longest < NEVER:
            self.ticker.call_later(longest, self._kill)

    def _kill(self) -> None:
        """All the time is over."""
        if self.pool.children:
            self._killed = True
            self.pool.kill()
            self.ticker.call_later(_DYING, self._over.set)

    @property
    def _code(self) -> int:
        return _CUT if self._killed else self.pool.code

    def _report(self) -> None:
        """Tell how everybody drained, in the log and in the file that was asked for."""
        if self._stopping is None or self._failure is not None:
            return
        path, reports = self._config.drain.report, self.pool.reports
        report = merged(self.name, self._code, self.ticker.now - self._stopping, reports)
        if len(reports) > 1:  # one has said so itself
            numbers = {name: report[name] for name in ("seconds", "exit_code", "kinds", "unanswered", "cut")}
            self.bus.emit(DrainReported(self.name, **numbers))
        if path is None:
            return
        try:
            write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        except OSError as error:
            self._settings.warn(f"the drain report can't be written: {error.strerror or error}: {path}")

    # What the admin listener sees

    @property
    def stopping(self) -> bool:
        """Whether everything is to end."""
        return self._stopping is not None

    @property
    def changing(self) -> bool:
        """Whether a rolling restart or an upgrade is under way, or wanted."""
        return self._changing is not None or bool(self._asked)

    def follow(self, config: Config) -> None:
        """Settings have changed: for the supervisor's own part."""
        for follow in self.followers:
            follow(config)

    async def pause(self, seconds: float) -> None:
        """Wait so long, and up to two looks at the clock more.

        Cancel: safe.
        """
        over = asyncio.get_running_loop().create_future()
        call = self.ticker.call_later(seconds, partial(_finish, over))
        try:
            await over
        finally:
            call.cancel()


def supervise(settings: Settings, handed: Handed | None = None) -> int:
    """Run a supervisor in this process until everything has ended.

    Args:
        settings: Where the configuration comes from.
        handed: What the supervisor before left.

    Returns:
        The exit code.

    Raises:
        SojournError: Nothing can be served; ``exit_code`` says which code fits.
    """
    bus = Bus()
    log = msgspec.structs.replace(settings.first.log, access="off")  # its own requests are nobody's traffic
    observing = install(bus, log, SystemClock())

    async def run() -> int:
        supervisor = Supervisor(settings, bus=bus, handed=handed)
        supervisor.followers.append(lambda config: observing.level(config.log.level))
        return await supervisor.run()

    try:
        return run_loop(run(), asyncio.new_event_loop, _nothing)
    finally:
        observing.close()


def _instance_name(sockets: Sequence[socket.socket]) -> str:
    """Host name and port, or the path of a Unix socket; the process where nothing is listened to."""
    if not sockets:
        return f"{socket.gethostname()}:{os.getpid()}"
    name = sockets[0].getsockname()
    where = os.fsdecode(name) if sockets[0].family == socket.AF_UNIX else str(name[1])
    return f"{socket.gethostname()}:{where}"


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal: it loses it when that is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _nothing(_: object) -> None: ...


def _same(until: float) -> float:
    return until
