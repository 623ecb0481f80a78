"""One worker process as its supervisor sees it: made or adopted, listened to, told, reaped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from sojourn.config import Config
from sojourn.net.ticker import Call, Ticker
from sojourn.server.settings.portable import to_plain
from sojourn.server.workers.board import Board, Row
from sojourn.server.workers.channel import Channel, Message, Mission
from sojourn.server.workers.errands import socket_pair
from sojourn.server.workers.hang import DUMP, Beats, Stacks

__all__ = ["Child", "Life", "Watcher", "python_command", "spawn", "when_ended"]

#: Signals that a worker must not meet before it has said what they mean to it.
_HELD: Final = (signal.SIGINT, signal.SIGHUP, DUMP)


class Life(Enum):
    """How far a worker process is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Watcher(NamedTuple):
    """Who is told about a worker.

    Attributes:
        message: Gets each message of it.
        ended: Called once with its exit code (minus the number of the signal that ended it), after its last message.
        silent: Called when it can't be talked to any more although its process may live.
    """

    message: Callable[[Child, Message], None]
    ended: Callable[[Child, int], None]
    silent: Callable[[Child], None]


class Child:
    """One worker process.

    Args:
        number: Its number.
        pid: Its process.
        generation: How many restarts there were before it.
        config: Its settings.
        row: Its row of the board.
        stacks: Its memory for stacks.
        errands: The way on which it is asked questions.

    Attributes:
        life: How far it is.
        expected: Why it was told to end; "" when it was not.
        wish: Why it wants to be replaced; "" when it does not.
        failure: Why it could not start, and with which exit code; None when it did not say so.
        report: How it drained, once it has.
        drain: What it last said about its drain.
        examined: Whether it was asked for its stacks.
        killed: Whether it was sent SIGKILL.
        born: When it was made, in seconds of served time.
        ready: When it began to serve; None before.
        outcome: Set when it serves (None) or has failed to (what went wrong).
    """

    __slots__ = (
        "beats",
        "born",
        "calls",
        "channel",
        "config",
        "drain",
        "errands",
        "examined",
        "expected",
        "failure",
        "generation",
        "killed",
        "life",
        "number",
        "outcome",
        "pid",
        "process",
        "ready",
        "report",
        "row",
        "stacks",
        "wish",
    )

    channel: Channel

    def __init__(  # noqa: PLR0913 - what a process is made of
        self,
        number: int,
        pid: int,
        generation: int,
        config: Config,
        row: Row,
        stacks: Stacks,
        errands: socket.socket,
        ticker: Ticker,
    ) -> None:
        self.number = number
        self.pid = pid
        self.generation = generation
        self.config = config
        self.row = row
        self.stacks = stacks
        self.errands = errands
        self.life = Life.STARTING
        self.expected = self.wish = ""
        self.failure: tuple[str, int] | None = None
        self.report: dict[str, Any] | None = None
        self.drain: Message | None = None
        self.examined = self.killed = False
        self.born = ticker.now
        self.ready: float | None = None
        self.beats = Beats(ticker.now)
        self.outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        #: Deadlines that end with it.
        self.calls: list[Call] = []
        #: Kept, because a Popen that goes while its process runs leaves a warning and a reaper of its own.
        self.process: subprocess.Popen[bytes] | None = None

    def connect(self, sock: socket.socket, watcher: Watcher, *, unread: bytes = b"", unsent: bytes = b"") -> None:
        """Listen to it, and wait for its end."""
        loop = asyncio.get_running_loop()
        self.channel = Channel(
            loop,
            sock,
            lambda message: watcher.message(self, message),
            lambda: watcher.silent(self),
            unread=unread,
            unsent=unsent,
        )

        def ended(code: int) -> None:
            if self.process is not None:
                self.process.returncode = code
            for call in self.calls:
                call.cancel()
            self.channel.drain()  # its last words may be there still
            self.channel.close()
            self.errands.close()
            watcher.ended(self, code)
            self.stacks.close()

        when_ended(loop, self.pid, ended)

    def tell(self, kind: str, **fields: Any) -> None:
        """Send it a message."""
        self.channel.send({"type": kind, **fields})

    def terminate(self) -> None:
        """Ask it to end, also before it can read messages."""
        self._kill(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self._kill(signal.SIGKILL)

    def settle(self, problem: str | None) -> None:
        """It serves, or has failed to."""
        if not self.outcome.done():
            self.outcome.set_result(problem)

    def _kill(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended; its end will be told


def spawn(  # noqa: PLR0913 - what a process is made of
    number: int,
    generation: int,
    config: Config,
    *,
    sockets: Sequence[socket.socket],
    board: Board,
    metrics: int,
    ticker: Ticker,
    watcher: Watcher,
) -> Child:
    """Start a worker process.

    Args:
        number: Its number.
        generation: How many restarts there were before it.
        config: Its settings.
        sockets: The listening sockets; it gets the same.
        board: Gives it a row, which ``board.free`` takes back after its end.
        metrics: Descriptor of the memory for what workers count; -1 for none.
        ticker: The supervisor's time.
        watcher: Who is told about it.

    Raises:
        StartupError: The board is full.
        OSError: The system makes no process, or has no descriptors left; nothing is left behind.
    """
    row = board.claim()
    opened: list[Any] = []
    try:
        stacks = Stacks.create()
        opened.append(stacks)
        ours, theirs = socket.socketpair()
        opened += [ours, theirs]
        asks, asked = socket_pair()
        opened += [asks, asked]
        listeners = tuple(sock.fileno() for sock in sockets)
        mission = Mission(
            settings=to_plain(config),
            number=number,
            generation=generation,
            parent=os.getpid(),
            listeners=listeners,
            board=board.fd,
            row=row.index,
            stacks=stacks.fd,
            errands=asked.fileno(),
            metrics=metrics,
        )
        command = python_command("sojourn.server.workers.worker", str(theirs.fileno()))
        with _signals_held():
            passed = (theirs.fileno(), asked.fileno(), board.fd, stacks.fd, *listeners)
            process = subprocess.Popen(command, pass_fds=passed if metrics < 0 else (*passed, metrics))
    except BaseException:
        board.free(row)
        for each in opened:
            each.close()
        raise
    theirs.close()
    asked.close()
    child = Child(number, process.pid, generation, config, row, stacks, asks, ticker)
    child.process = process
    child.connect(ours, watcher)
    child.channel.send(msgspec.to_builtins(mission))
    return child


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module in an interpreter like this one."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    root = Path(__file__).resolve().parents[2]
    if "-P" not in flags and root != Path.cwd():
        flags.append("-P")  # a file of the working folder must not stand before the standard library
    return [sys.executable, *flags, "-m", module, *arguments]


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that is made meanwhile begins with these signals held; the worker lets them go."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def when_ended(loop: asyncio.AbstractEventLoop, pid: int, ended: Callable[[int], None]) -> None:
    """Reap a child process when it ends, and call ``ended`` with its exit code on the loop.

    Args:
        loop: The running loop.
        pid: A child of this process, which nobody else waits for. It may have ended already.
        ended: Called once. The code is minus the signal's number when a signal ended the process.
    """
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # no Linux, an old one, or a sandbox that forbids it
        _wait_in_thread(loop, pid, ended)
        return

    def reap() -> None:
        code = _reaped(pid, os.WNOHANG)
        if code is not None:
            loop.remove_reader(fd)
            os.close(fd)
            ended(code)

    Context().run(loop.add_reader, fd, reap)


def _wait_in_thread(loop: asyncio.AbstractEventLoop, pid: int, ended: Callable[[int], None]) -> None:
    def wait() -> None:
        code = _reaped(pid, 0)
        try:
            loop.call_soon_threadsafe(ended, -signal.SIGKILL if code is None else code)
        except RuntimeError:
            pass  # the loop has ended: nobody wants to know any more

    threading.Thread(target=wait, name=f"sojourn-wait-{pid}", daemon=True).start()


def _reaped(pid: int, flags: int) -> int | None:
    """The exit code of a child that has ended; None when it has not."""
    try:
        found, status = os.waitpid(pid, flags)
    except ChildProcessError:
        return -signal.SIGKILL  # somebody else took its code: all that is known is that it is gone
    return os.waitstatus_to_exitcode(status) if found else None
