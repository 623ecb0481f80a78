"""What a supervisor and a worker say to each other: one JSON object a line, over a pair of connected sockets.

Nothing waits: what the kernel does not take at once is kept and sent later. Lines are bounded in both directions, so
that neither side can fill the other's memory. The state of a channel (bytes that are not a whole line yet, bytes not
sent yet) can be handed over to a successor of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final

import msgspec

from sojourn.clock import Clock
from sojourn.errors import SojournError

__all__ = ["Channel", "ChannelError", "Mission", "read_line"]

#: Longest line, in bytes. A drain report names fifty cuts with their stacks.
LINE: Final = 4 * 1024 * 1024
#: Unsent bytes at which messages that can be missed are left out.
_MUCH: Final = 256 * 1024
#: Unsent bytes at which the other side counts as gone.
_MOST: Final = 4 * LINE
_PIECE: Final = 65536

Message = dict[str, Any]


class ChannelError(SojournError):
    """The other side sent what is no message, or takes nothing any more."""


class Channel:
    """One end, used from the event loop.

    Args:
        loop: The running loop.
        sock: This end; it belongs to the channel from now on.
        received: Gets each message.
        closed: Called once when the other side is gone, or what it sends makes no sense; not after ``close``.
        unread: Bytes that were read from the socket before.
        unsent: Bytes that a predecessor could not send.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        received: Callable[[Message], None],
        closed: Callable[[], None],
        *,
        unread: bytes = b"",
        unsent: bytes = b"",
    ) -> None:
        self.sock = sock
        self.unread = bytearray(unread)
        self.unsent = bytearray(unsent)
        self._loop = loop
        self._received = received
        self._closed = closed
        self._open = True
        self._writing = False
        sock.setblocking(False)
        Context().run(loop.add_reader, sock, self._read)
        if self.unread:
            loop.call_soon(self._take)
        self._write()

    def send(self, message: Mapping[str, Any], *, needed: bool = True) -> None:
        """Send a message. Nothing happens when the other side is gone.

        Args:
            message: What JSON can hold.
            needed: False leaves it out while the other side is far behind with reading.
        """
        if not self._open or (not needed and len(self.unsent) > _MUCH):
            return
        if len(self.unsent) > _MOST:
            self._gone()
            return
        self.unsent += msgspec.json.encode(message) + b"\n"
        self._write()

    def drain(self) -> None:
        """Take in what has arrived, without waiting: for when the other process is known to have ended."""
        while self._open and self._read():
            pass

    def flush(self, clock: Clock, seconds: float) -> bool:
        """Wait in this thread until everything is sent, for so many seconds at most; whether it was."""
        end = clock.monotonic() + seconds
        while self.unsent and self._open:
            left = end - clock.monotonic()
            if left <= 0.0:
                return False
            select.select((), (self.sock,), (), left)
            self._write()
        return not self.unsent

    def close(self) -> None:
        """Close this end; the other one sees that. Calling it twice does nothing."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self.sock)
            self._loop.remove_writer(self.sock)
            self.sock.close()

    def _read(self) -> bool:
        """Take in one piece; whether there may be more."""
        try:
            data = self.sock.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""  # a reset is an end
        if not data:
            self._gone()
            return False
        self.unread += data
        self._take()
        return self._open

    def _take(self) -> None:
        while self._open and (end := self.unread.find(b"\n")) >= 0:
            line = bytes(self.unread[:end])
            del self.unread[: end + 1]
            try:
                message = msgspec.json.decode(line)
            except msgspec.DecodeError:
                message = None
            if not isinstance(message, dict):
                self._gone()
                return
            self._received(message)
        if len(self.unread) > LINE:
            self._gone()

    def _write(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except (BlockingIOError, InterruptedError):
            pass  # the rest goes when the kernel has room
        except OSError:
            self.unsent.clear()  # nobody reads it any more; the reader's side tells the end
        self._follow()

    def _follow(self) -> None:
        """Watch for room exactly while something waits for it."""
        wanted = self._open and bool(self.unsent)
        if wanted and not self._writing:
            Context().run(self._loop.add_writer, self.sock, self._write)
        elif self._writing and not wanted and self._open:
            self._loop.remove_writer(self.sock)
        self._writing = wanted

    def _gone(self) -> None:
        if self._open:
            self.close()
            self._closed()


def read_line(sock: socket.socket, seconds: float) -> tuple[Message, bytes]:
    """Read the first message before there is an event loop.

    Args:
        sock: A connected socket; it is left blocking, without a timeout.
        seconds: How long it may take between two pieces.

    Returns:
        The message, and what came after it.

    Raises:
        ChannelError: The other side is gone, silent, or sent no message.
    """
    sock.settimeout(seconds)
    data = bytearray()
    try:
        while b"\n" not in data and len(data) <= LINE:
            piece = sock.recv(_PIECE)
            if not piece:
                raise ChannelError("the supervisor is gone")
            data += piece
    except TimeoutError:
        raise ChannelError(f"the supervisor said nothing for {seconds:g} s") from None
    except OSError as error:
        raise ChannelError(f"the channel to the supervisor is no good: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(None)
    line, _, rest = data.partition(b"\n")
    try:
        message = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise ChannelError(f"the supervisor sent no message: {error}") from error
    if not isinstance(message, dict):
        raise ChannelError("the supervisor sent no message")
    return message, bytes(rest)


class Mission(msgspec.Struct, frozen=True, kw_only=True):
    """The first message a worker gets.

    Attributes:
        settings: All settings, as plain values; ``app.instance`` is the worker's own name.
        number: The worker's number; no other ever has it.
        generation: How many restarts there were before it.
        parent: Process id of the supervisor.
        listeners: Descriptors of the listening sockets.
        board: Descriptor of the board.
        row: Which of its rows is the worker's.
        stacks: Descriptor of the memory for its stacks.
        errands: Descriptor of the socket on which it is asked questions.
        metrics: Descriptor of the memory for what it counts; -1 when it counts nothing.
    """

    settings: dict[str, Any]
    number: int
    generation: int
    parent: int
    listeners: tuple[int, ...]
    board: int
    row: int
    stacks: int
    errands: int
    metrics: int = -1
