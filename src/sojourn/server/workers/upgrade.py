"""Replacing the supervisor itself, in place: same process, same sockets, same children, new code.

The state goes through a file without a name, whose descriptor stays open over exec; so do the listening sockets, the
board, and for each worker its channel and the memory for its stacks. The workers remain children of the process and
notice nothing. Before that a process of the new code reads the same state and says whether it can work with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

import msgspec

from sojourn.config import Config
from sojourn.errors import StartupError
from sojourn.net.anonymous import anonymous_file
from sojourn.net.ticker import Ticker
from sojourn.server.settings.portable import from_plain, to_plain
from sojourn.server.workers.board import Board
from sojourn.server.workers.child import Child, Life, when_ended
from sojourn.server.workers.hang import Stacks
from sojourn.server.workers.pool import Pool

__all__ = ["VARIABLE", "Handed", "HandedWorker", "Successor", "adopt", "check", "read_state", "take_over"]

#: Of the layout of the state. Another version can't take over: a new start is needed then.
_VERSION: Final = 2
#: Names the descriptor of the state, and says the how-manieth successor this is. It is no key of the configuration:
#: those begin with SOJOURN_.
VARIABLE: Final = "_SOJOURN_STATE"
#: Seconds the new code has to show that it starts.
_CHECK_LIMIT: Final = 60.0


class HandedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the supervisor before.

    Attributes:
        number: Its number.
        pid: Its process.
        generation: How many restarts there were before it.
        place: Its slot; None when it drains outside of the slots.
        successor: Whether it is to take over the slot, and does not serve in it.
        life: How far it is.
        expected: Why it was told to end.
        wish: Why it wants to be replaced.
        age: Seconds since it was made.
        served: Seconds since it was ready; None when it was not yet.
        ended: Whether it has sent its report.
        row: Its row of the board.
        stacks: Descriptor of the memory for its stacks.
        channel: Descriptor of the channel to it; -1 when that is closed.
        errands: Descriptor of the way on which it is asked questions; -1 when that is closed.
        unread: Bytes that came over it and are not a whole message yet.
        unsent: Bytes that were to be sent.
    """

    number: int
    pid: int
    generation: int
    place: int | None
    successor: bool
    life: Life
    expected: str
    wish: str
    age: float
    served: float | None
    ended: bool
    row: int
    stacks: int
    channel: int
    errands: int
    unread: bytes
    unsent: bytes


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor leaves to its successor.

    Attributes:
        version: Of this layout.
        settings: Those of the workers that serve, as plain values; ``bind`` says where the sockets were bound to.
        listeners: Descriptors of the listening sockets.
        desk: Descriptors of the admin listener's sockets.
        board: Descriptor of the board.
        metrics: Descriptor of the memory for what workers count; -1 for none.
        generation: How many restarts there were.
        numbers: How many workers were made.
        failures: Workers that failed in a row.
        upgrades: How many successors there were, this one included.
        workers: The workers.
    """

    version: int
    settings: dict[str, Any]
    listeners: tuple[int, ...]
    desk: tuple[int, ...]
    board: int
    metrics: int
    generation: int
    numbers: int
    failures: int
    upgrades: int
    workers: tuple[HandedWorker, ...]

    @classmethod
    def of(cls, pool: Pool, *, board: int, listeners: Sequence[int], desk: Sequence[int], upgrades: int) -> Handed:
        """Take stock of a pool and what belongs to it."""
        places = {
            child.number: (index, child is slot.next)
            for index, slot in enumerate(pool.slots)
            for child in (slot.current, slot.next)
            if child is not None
        }
        now = pool.now
        return cls(
            version=_VERSION,
            settings=to_plain(pool.config),
            listeners=tuple(listeners),
            desk=tuple(desk),
            board=board,
            metrics=pool.metrics,
            generation=pool.generation,
            numbers=pool.numbers,
            failures=pool.restarts.row,
            upgrades=upgrades,
            workers=tuple(
                _stock(child, now, *places.get(child.number, (None, False))) for child in pool.children.values()
            ),
        )

    def config(self) -> Config:
        """Settings of the workers that serve."""
        return from_plain(self.settings)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that have to stay open."""
        own = [fd for worker in self.workers for fd in (worker.stacks, worker.channel, worker.errands) if fd >= 0]
        return tuple(fd for fd in (*self.listeners, *self.desk, self.board, self.metrics, *own) if fd >= 0)

    def listening(self) -> list[socket.socket]:
        """The listening sockets."""
        return [_socket(fd) for fd in self.listeners]

    def asked_at(self) -> list[socket.socket]:
        """The sockets of the admin listener."""
        return [_socket(fd) for fd in self.desk]


class Successor:
    """The command that becomes the new supervisor.

    Args:
        command: Its command line.
        check: Makes the command line that says whether it could take over the state behind a descriptor.
        farewell: Called right before: what is written through threads has to be written now.
    """

    def __init__(
        self, command: Sequence[str], *, check: Callable[[int], Sequence[str]], farewell: Callable[[], None]
    ) -> None:
        self.command = list(command)
        self.check = check
        self._farewell = farewell

    def become(self, handed: Handed) -> None:
        """Exec. Returns only by an error, and then everything is as it was.

        Raises:
            OSError: The command can't be run.
        """
        state = write_state(handed)
        passed = (state, *handed.descriptors)
        for fd in passed:
            os.set_inheritable(fd, True)
        try:
            self._farewell()
            os.execve(self.command[0], self.command, {**os.environ, VARIABLE: f"{state}:{handed.upgrades}"})
        finally:
            for fd in passed:
                os.set_inheritable(fd, False)
            os.close(state)


async def check(successor: Successor, handed: Handed, ticker: Ticker) -> str | None:
    """Let a process of the new code look at the state.

    Args:
        successor: How to start it.
        handed: The state.
        ticker: Limits its time.

    Returns:
        What is in the way; None when nothing is.
    """
    loop = asyncio.get_running_loop()
    state, said = write_state(handed), anonymous_file("sojourn-check")
    ended: asyncio.Future[int] = loop.create_future()
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - it blocks until exec only
            successor.check(state),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(state, handed.board),
        )
        limit = ticker.call_later(_CHECK_LIMIT, process.kill)
        when_ended(loop, process.pid, ended.set_result)
        process.returncode = await asyncio.shield(ended)
        limit.cancel()
        text = os.pread(said, 65536, 0).decode("utf-8", "replace").strip()
    except OSError as error:
        return f"the new code can't be started: {error}"
    finally:
        os.close(state)
        os.close(said)
    if process.returncode == 0:
        return None
    last = text.splitlines()[-1] if text else f"its check ended with code {process.returncode}"
    return f"the new code does not start: {last.removeprefix('error: ')}"


def write_state(handed: Handed) -> int:
    """The descriptor of a file that holds the state."""
    fd = anonymous_file("sojourn-state")
    data = msgspec.json.encode(handed)
    while data:
        data = data[os.write(fd, data) :]
    return fd


def read_state(fd: int) -> Handed:
    """What a supervisor wrote.

    Raises:
        StartupError: Another version wrote it.
    """
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    try:
        if msgspec.json.decode(data)["version"] != _VERSION:
            raise StartupError("the running supervisor is of a version that can't be upgraded in place: start anew")
        return msgspec.json.decode(data, type=Handed)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise StartupError(f"the state of the running supervisor can't be read: {error}: start anew") from error


def take_over(environ: MutableMapping[str, str]) -> Handed | None:
    """What the supervisor before left to this process; None when there was none.

    Args:
        environ: Names the descriptor of the state; the name is removed.

    Raises:
        StartupError: It can't be read.
    """
    value = environ.pop(VARIABLE, None)
    if value is None:
        return None
    fd = int(value.partition(":")[0])
    try:
        handed = read_state(fd)
    finally:
        os.close(fd)
    for each in handed.descriptors:
        os.set_inheritable(each, False)
    return handed


def adopt(handed: Handed, pool: Pool, board: Board, ticker: Ticker) -> None:
    """Take over the workers. They remain children of this process, those that have ended meanwhile as well."""
    pool.generation, pool.numbers, pool.restarts.row = handed.generation, handed.numbers, handed.failures
    config = handed.config()
    for worker in handed.workers:
        child = Child(
            worker.number,
            worker.pid,
            worker.generation,
            config,
            board.row(worker.row),
            Stacks(worker.stacks),
            _socket(worker.errands) if worker.errands >= 0 else _closed(),
            ticker,
        )
        child.life, child.expected, child.wish = worker.life, worker.expected, worker.wish
        child.born = ticker.now - worker.age
        child.ready = ticker.now - worker.served if worker.served is not None else None
        child.report = {} if worker.ended else None  # it went to the supervisor before
        pool.adopt(child, worker.place, successor=worker.successor)
        child.connect(_channel(worker.channel), pool.watcher, unread=worker.unread, unsent=worker.unsent)


def _stock(child: Child, now: float, place: int | None, successor: bool) -> HandedWorker:
    channel = child.channel
    return HandedWorker(
        number=child.number,
        pid=child.pid,
        generation=child.generation,
        place=place,
        successor=successor,
        life=child.life,
        expected=child.expected,
        wish=child.wish,
        age=now - child.born,
        served=now - child.ready if child.ready is not None else None,
        ended=child.report is not None,
        row=child.row.index,
        stacks=child.stacks.fd,
        channel=channel.sock.fileno(),
        errands=child.errands.fileno(),
        unread=bytes(channel.unread),
        unsent=bytes(channel.unsent),
    )


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def _channel(fd: int) -> socket.socket:
    return _socket(fd) if fd >= 0 else _closed()


def _closed() -> socket.socket:
    """One end of a pair whose other end is closed, for a worker whose end was."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours
