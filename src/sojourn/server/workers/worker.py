"""``python -m sojourn.server.workers.worker FD``: one worker process under a supervisor. FD is its end of the channel.

It serves on sockets that it inherits, says when it is ready, drains when it is told to, and reports. SIGTERM begins its
drain; SIGINT and SIGHUP mean the supervisor, which gets them as well. When the supervisor is gone, it drains and ends.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sojourn.bus import Bus
from sojourn.clock import NEVER, SystemClock
from sojourn.config import Config
from sojourn.errors import SojournError
from sojourn.events import DrainCounted, DrainPhaseChanged
from sojourn.net.ticker import Call, Ticker
from sojourn.observe.log.console import configure
from sojourn.observe.log.install import install
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.process import resident_bytes
from sojourn.policy.retire import Retirement
from sojourn.server.admin.act import answers
from sojourn.server.parent import Fuse, die_with_parent, end_as_orphan
from sojourn.server.process import event_loop_factory, exit_soon, run_server, tune_collector
from sojourn.server.server import Server
from sojourn.server.settings.portable import from_plain
from sojourn.server.work import application
from sojourn.server.workers.board import Board, Row, State
from sojourn.server.workers.channel import Channel, ChannelError, Message, Mission, read_line
from sojourn.server.workers.errands import Errands
from sojourn.server.workers.hang import DUMP, dump_on_signal, pulse
from sojourn.server.workers.siblings import Siblings
from sojourn.server.workers.stopping import longest_drain

__all__ = ["Worker", "main"]

#: Seconds for the supervisor's first message, and for our last one.
_GREETING: Final = 30.0
_FAREWELL: Final = 5.0
#: Seconds between two looks at what the worker has done.
_MEASURE: Final = 1.0
#: Seconds without a beat after which an orphan counts as hung, when ``worker.heartbeat`` is none.
_SILENCE: Final = 10.0


class Worker:
    """A server whose life a supervisor decides.

    Args:
        mission: What it is to do.
        row: Its row of the board.
        server: What serves.
        sockets: The listening sockets that it inherited.
        sock: Its end of the channel.
        unread: What came over it after the mission.
    """

    def __init__(
        self,
        mission: Mission,
        row: Row,
        server: Server,
        sockets: Sequence[socket.socket],
        sock: socket.socket,
        unread: bytes,
    ) -> None:
        self._sockets = sockets
        self._parent = mission.parent
        self._row = row
        self._server = server
        self._sock = sock
        self._unread = unread
        self._settings = server.config.worker
        self._retirement = Retirement(server.config.worker, random.random)
        heartbeat = server.config.worker.heartbeat
        #: The supervisor, if there is one, sees it much earlier, and asks for the stacks first.
        self._burning = 3.0 * heartbeat + 5.0 if heartbeat is not None else 0.0
        self._fuse = Fuse() if heartbeat is not None else None
        self._ready = NEVER
        self._measuring: Call | None = None
        self._starting: asyncio.Task[Any] | None = None
        self._signalled = self._alone = False
        #: The phase its drain is in.
        self._phase = ""
        self._channel: Channel
        self._asked = _inherited(mission.errands)

    async def run(self) -> int:
        """Serve until the drain is complete.

        Returns:
            The exit code.

        Raises:
            SojournError: It could not start.
        """
        loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        self._channel = Channel(loop, self._sock, self._received, self._orphaned, unread=self._unread)
        loop.add_signal_handler(signal.SIGTERM, self._terminated)
        server = self._server
        try:
            await server.start()
        except asyncio.CancelledError:
            if not self._signalled:
                raise
            return 0  # it was not wanted any more, and has served nobody
        self._starting = None
        for sock in self._sockets:
            sock.close()  # the server has its own; when those are closed, this process must not be in the way
        server.bus.observe(DrainPhaseChanged, self._drains)
        server.bus.observe(DrainCounted, self._drains)
        server.diagnosis.stalls.own_process()
        tune_collector()
        ticker = server.runtime.ticker
        self._ready = ticker.now
        self._beat(ticker)
        self._row.state = State.READY
        server.followers.append(self._follow)
        if self._retirement.wanted:
            self._measuring = ticker.call_together(_MEASURE, self._measure)
        errands = Errands(loop, self._asked, {**server.diagnosis.answers, **answers(server)}, server.work)
        self._channel.send({"type": "ready", "addresses": server.addresses})
        report = await server.wait_stopped()
        errands.close()
        if self._fuse is not None:
            self._fuse.sign_of_life(0.0)  # there are no beats any more
        self._channel.send({"type": "report", **report.asdict()})
        self._channel.flush(server.runtime.ticker.clock, _FAREWELL)
        return report.exit_code

    # What the supervisor says

    def _received(self, message: Message) -> None:
        match message.get("type"):
            case "drain":
                self._drain(message.get("delay"), last=bool(message.get("last")))
            case "hurry":
                self._server.hurry()

    def _terminated(self) -> None:
        """SIGTERM: from outside, from a supervisor that gave up our start, or from the kernel for one that died."""
        self._signalled = True
        if self._starting is not None:
            self._starting.cancel()
        elif os.getppid() != self._parent:
            self._orphaned()
        else:
            self._drain(None, last=None)

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody deregisters us, and whoever comes after it wants the address."""
        self._signalled = True
        if self._starting is not None:
            self._starting.cancel()
        elif not self._alone:
            self._alone = True
            # The kernel's SIGTERM may have come first, when the supervisor was not quite dead: then with a delay.
            delayed = self._phase == "notice"
            self._drain(0.0, last=True)
            if delayed:
                self._server.hurry()

    def _drain(self, delay: float | None, *, last: bool | None) -> None:
        self._row.state = State.DRAINING
        self._server.drain(delay, last=last)

    def _drains(self, event: DrainPhaseChanged | DrainCounted) -> None:
        fields = event._asdict()
        fields.pop("instance")
        self._phase = event.phase
        self._channel.send({"type": "drain", **fields}, needed=False)

    # What it says of itself

    def _beat(self, ticker: Ticker) -> None:
        self._row.beat = ticker.clock.monotonic()
        if self._fuse is not None:
            self._fuse.sign_of_life(self._burning)
        self._row.served = self._server.site.served
        ticker.call_together(pulse(self._server.config.worker.heartbeat), lambda: self._beat(ticker))

    def _follow(self, config: Config) -> None:
        """Settings have changed."""
        if config.worker == self._settings:
            return
        self._settings = config.worker
        self._retirement = Retirement(config.worker, random.random)
        heartbeat = config.worker.heartbeat
        self._burning = 3.0 * heartbeat + 5.0 if heartbeat is not None else 0.0
        if self._fuse is None and heartbeat is not None:
            self._fuse = Fuse()
        if self._fuse is not None:
            self._fuse.sign_of_life(self._burning)
        if self._measuring is None and self._retirement.wanted:
            self._measuring = self._server.runtime.ticker.call_together(_MEASURE, self._measure)

    def _measure(self) -> None:
        ticker = self._server.runtime.ticker
        reason = self._retirement.due(self._server.site.served, ticker.now - self._ready, resident_bytes())
        if reason is not None:
            self._channel.send({"type": "retire", "reason": reason})
        else:
            self._measuring = ticker.call_together(_MEASURE, self._measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker.

    Args:
        argv: The command line; its second word is the descriptor of the channel.

    Returns:
        The exit code.
    """
    sock = socket.socket(fileno=int((sys.argv if argv is None else argv)[1]))
    sock.set_inheritable(False)
    # The terminal sends them to the whole group; what they mean to workers is up to the supervisor.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        message, unread = read_line(sock, _GREETING)
    except ChannelError:
        return 1  # there is nobody who could be told
    mission = msgspec.convert(message, Mission)
    die_with_parent(mission.parent)
    stacks = dump_on_signal(mission.stacks)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (DUMP,))  # who asked before gets them now
    board = Board.attach(mission.board)
    row = board.row(mission.row)
    row.pid = os.getpid()
    config = from_plain(mission.settings)
    silence, limit = config.worker.heartbeat or _SILENCE, longest_drain(config, 0.0)
    end_as_orphan(mission.parent, lambda: row.beat, silence=silence, limit=limit)
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a crash says where
    console = configure(config.log)
    try:
        code = _serve(mission, config, board, sock, unread)
    finally:
        console.close()
        del stacks
    exit_soon(code)
    return code


def _serve(mission: Mission, config: Config, board: Board, sock: socket.socket, unread: bytes) -> int:
    row = board.row(mission.row)
    bus = Bus()
    observing = None
    sockets = [_inherited(fd) for fd in mission.listeners]
    try:
        app = application(config)
        observing = install(bus, config.log, SystemClock())
        siblings = Siblings(board, row, config)
        block = MetricsMemory.attach(mission.metrics).block(mission.row) if mission.metrics >= 0 else None
        server = Server(app, config, bus=bus, sockets=sockets, siblings=siblings, block=block)
        server.logged_by(observing)
        worker = Worker(mission, row, server, sockets, sock, unread)
        return run_server(worker.run(), event_loop_factory(config.app.loop), bus)
    except SojournError as error:
        if config.app.traceback or config.log.level == "debug":
            traceback.print_exc()
        _say(sock, msgspec.json.encode({"type": "failed", "message": str(error), "code": error.exit_code}) + b"\n")
        return error.exit_code
    finally:
        if observing is not None:
            observing.close()


def _inherited(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def _say(sock: socket.socket, line: bytes) -> None:
    """Send a line while there is no event loop."""
    try:
        sock.settimeout(_FAREWELL)
        sock.sendall(line)
    except OSError:
        pass  # the supervisor is gone: there is nobody to tell


if __name__ == "__main__":
    sys.exit(main())
