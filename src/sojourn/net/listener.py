"""The accept loop: batches, no busy loop, one report per shortage of file descriptors.

asyncio's own loop, out of descriptors with one connection pending, makes as many error reports and retry timers as the
backlog is long (python/cpython#151615), and it can't be told to stop at a limit. This one can, and it holds a reserve
descriptor: with it the peer whose turn it is can be told (accepted and closed) instead of being left to hang.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from functools import partial
from typing import Any

from sojourn.bus import Bus
from sojourn.config import Bind
from sojourn.events import AcceptPaused, AcceptResumed

__all__ = ["Listener", "tune"]

#: Connections taken in one turn of the loop. Setting one up costs some 50 us, so a turn stays below 2 ms for those that
#: are already served; and workers that share a socket share a burst, rather than one of them taking it whole.
BATCH = 32

#: Seconds a worker that is ahead of others waits for them to accept what came; then it takes what is left. A sibling
#: whose loop is free needs a tenth of that, and no client notices it when none is.
ASIDE = 0.002
#: How many it takes then. In a burst all are busy, and each wait sets the others' shares back by so many.
LEFT = 8

#: Seconds before accepting is tried again: doubled each time from the first to the last. The last is also how long
#: accepting must work before the shortage counts as over; without it a trickle of freed descriptors would be reported
#: as ten shortages a second.
FIRST_RETRY, LAST_RETRY = 0.1, 1.0

#: The connection is lost or the network had trouble, not the listener. Linux hands errors of the new connection to
#: accept(); accept(2), "Error handling", says to treat these like EAGAIN.
TRANSIENT = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        getattr(errno, "ENONET", errno.ENETDOWN),  # Linux only
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.ETIMEDOUT,
    }
)

#: Why accepting fails -> the cause that is reported. Any other error pauses as well: it would repeat at once.
CAUSES = {
    errno.EMFILE: "fd_exhausted",
    errno.ENFILE: "fd_exhausted",
    errno.ENOBUFS: "memory_exhausted",
    errno.ENOMEM: "memory_exhausted",
}


class State(Enum):
    """Whether the kernel can be asked for connections."""

    NEW = "new"
    OPEN = "open"
    #: Accepting failed; it is tried again later.
    STARVED = "starved"
    #: It works again, but not yet for LAST_RETRY seconds.
    TRIAL = "trial"
    CLOSED = "closed"


class Listener:
    """Accepts the connections of one listening socket and hands each on, in a fresh ``contextvars`` context.

    Args:
        loop: The running loop; asyncio's or uvloop's.
        sock: A listening socket. It belongs to the listener, which closes it.
        name: How the listener is called in events, such as ``http://127.0.0.1:8000``.
        settings: Keep-alive of the accepted connections.
        accepted: Gets each non-blocking socket and its peer's address, and owns the socket from then on. If it raises,
            the socket is closed and the error counted.
        bus: Gets AcceptPaused and AcceptResumed.
        call_later: Runs a function after so many seconds; what it returns is not used.
        now: Monotonic seconds.
        ahead: Whether another process that accepts from the same socket should go first; None when there is none.

    Attributes:
        accepts: Connections handed on.
        aborted: Connections that were gone before they could be accepted.
        dropped: Connections closed at once because no file descriptor was left.
        failures: Connections closed because ``accepted`` raised.
        last_failure: The error it raised last.
    """

    def __init__(  # noqa: PLR0913 - collaborators, all by keyword; there is one caller
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        name: str,
        settings: Bind,
        accepted: Callable[[socket.socket, Any], None],
        bus: Bus,
        call_later: Callable[[float, Callable[[], None]], Any],
        now: Callable[[], float],
        ahead: Callable[[], bool] | None = None,
    ) -> None:
        self.name = name
        self.accepts = self.aborted = self.dropped = self.failures = 0
        self.last_failure: Exception | None = None
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._bus = bus
        self._call_later = call_later
        self._now = now
        self._ahead = ahead
        self._aside: asyncio.TimerHandle | None = None
        self._state = State.NEW
        self._held: str | None = None
        self._reading = False
        self._reserve: int | None = None
        self._retry = FIRST_RETRY
        self._timers = 0
        self._paused: float | None = None
        self._works_since = 0.0
        sock.setblocking(False)
        tune(sock, settings)

    @property
    def accepting(self) -> bool:
        """Whether connections are accepted now, be it after others had their chance."""
        return self._reading or (self._aside is not None and self._wanted)

    def start(self) -> None:
        """Begin to accept; once."""
        if self._state is not State.NEW:
            raise RuntimeError(f"listener {self.name} was started before")
        self._state = State.OPEN
        self._open_reserve()
        self._follow()
        if self._held is not None:
            self._report_pause(self._held)

    def tune(self, settings: Bind) -> None:
        """Give connections accepted from now on other options; see :func:`tune`."""
        if self._state is not State.CLOSED:
            tune(self._sock, settings)

    def pause(self, cause: str) -> None:
        """Leave new connections to the kernel's backlog until :meth:`resume`; the first cause is the one reported."""
        if self._held is None and self._state is not State.CLOSED:
            self._held = cause
            self._follow()
            if self._state is not State.NEW:
                self._report_pause(cause)

    def resume(self) -> None:
        """Take back :meth:`pause`. Accepting goes on at once, or when the shortage that stops it is over."""
        if self._held is not None:
            self._held = None
            self._follow()
            if self._state is State.OPEN:
                self._works_since = self._now()
                self._report_resume()

    def stop_handshakes(self) -> None:
        """Let nobody new begin to connect; handshakes that have begun are completed.

        A new client gets no answer from here on, and asks again after a second: by then another server has the address,
        or it is refused. Without it a client could be connected just before :meth:`close`, and be reset by it. For the
        last holder of the socket; it can't be taken back here. Does nothing where there are no socket filters.
        """
        _drop_syn(self._sock)

    def accept_pending(self) -> int:
        """Take in all that the kernel has queued, and return how many that were.

        For the last holder of the socket, before :meth:`close`: the kernel resets what is queued then.
        """
        before = self.accepts
        while self._state in (State.OPEN, State.TRIAL) and self._accept(held=True):
            pass
        return self.accepts - before

    def close(self) -> None:
        """Stop for good and close the socket. Calling it twice does nothing."""
        self._state = State.CLOSED
        if self._aside is not None:
            self._aside.cancel()
            self._aside = None
        self._follow()
        self._close_reserve()
        self._sock.close()

    @property
    def _wanted(self) -> bool:
        """Whether state and caller allow accepting."""
        return self._held is None and self._state in (State.OPEN, State.TRIAL)

    def _follow(self) -> None:
        """Watch the socket exactly while that is wanted and no other process is to go first."""
        wanted = self._wanted and self._aside is None
        if wanted is self._reading:
            return
        self._reading = wanted
        if wanted:
            # add_reader keeps the caller's context for all later calls; an empty one keeps nobody's identity alive.
            Context().run(self._watch)
        else:
            self._loop.remove_reader(self._sock)

    def _watch(self) -> None:
        self._loop.add_reader(self._sock, self._accept if self._ahead is None else self._accept_in_turn)

    def _accept_in_turn(self) -> None:
        """Somebody waits: accept, or let a process that is behind do it."""
        if self._ahead is None or not self._ahead():
            self._accept(ahead=self._ahead)
            return
        self._aside = self._loop.call_later(ASIDE, self._return)
        self._follow()

    def _return(self) -> None:
        """The others had their chance: take what is left. So one that hangs costs this wait once a batch, no more."""
        self._aside = None
        self._follow()
        if self._reading:
            self._accept(batch=LEFT)

    def _accept(self, held: bool = False, ahead: Callable[[], bool] | None = None, batch: int = BATCH) -> bool:
        """Accept one batch; whether there may be more.

        Args:
            held: In spite of a pause.
            ahead: The batch ends when this says that another process should go on.
        """
        accept = self._sock.accept
        before = self.aborted
        for number in range(batch):
            if number and ahead is not None and ahead():
                return True  # it is watched still: if somebody waits, the next turn steps aside
            try:
                sock, address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in TRANSIENT:
                    self.aborted += 1
                    continue
                self._starve(CAUSES.get(error.errno or 0, "accept_failed"))
                return False
            sock.setblocking(False)
            self.accepts += 1
            try:
                # One context for each connection, so that what one sets is not there for the next.
                Context().run(self._accepted, sock, address)
            except Exception as error:  # noqa: BLE001 - a bug behind the callback must not end the listener
                self.failures += 1  # counted and kept: whoever wired the callback looks here
                self.last_failure = error
                sock.close()
            if not self._reading and not (held and self._state is not State.CLOSED):
                return False  # the callback paused or closed us
        if self.aborted - before == batch:  # nothing but errors: whatever they are, they don't pass
            self._starve("accept_failed")
            return False
        return True

    def _starve(self, cause: str) -> None:
        """Nothing can be accepted: tell one peer, stop watching, try again later."""
        self._tell_one()
        self._state = State.STARVED
        self._follow()
        self._report_pause(cause)
        self._later(self._retry, self._try_again)
        self._retry = min(self._retry * 2, LAST_RETRY)

    def _try_again(self) -> None:
        if self._reserve is None:
            self._open_reserve()
        # accept() takes a descriptor before it looks for a connection (Linux): the first call says whether it works,
        # even when nobody waits.
        self._state = State.TRIAL
        self._works_since = self._now()
        self._follow()
        if self._held is None:
            self._accept()
        if self._state is State.TRIAL:
            self._later(LAST_RETRY, self._settle)

    def _settle(self) -> None:
        """Accepting worked for LAST_RETRY seconds: the shortage is over."""
        self._state = State.OPEN
        self._retry = FIRST_RETRY
        if self._held is None:
            self._report_resume()

    def _later(self, delay: float, step: Callable[[], None]) -> None:
        """Run ``step`` after ``delay`` seconds unless another is asked for, or the listener closed, before that."""
        self._timers += 1
        self._call_later(delay, partial(self._on_timer, self._timers, step))

    def _on_timer(self, number: int, step: Callable[[], None]) -> None:
        if number == self._timers and self._state is not State.CLOSED:
            step()

    def _report_pause(self, cause: str) -> None:
        if self._paused is None:
            self._paused = self._now()
            self._bus.emit(AcceptPaused(self.name, cause))

    def _report_resume(self) -> None:
        if self._paused is not None:
            seconds = self._works_since - self._paused
            self._paused = None
            self._bus.emit(AcceptResumed(self.name, seconds))

    def _tell_one(self) -> None:
        """Spend the reserve to accept one pending connection and close it: its peer sees an end, not silence."""
        self._close_reserve()
        try:
            self._sock.accept()[0].close()
            self.dropped += 1
        except OSError:
            pass  # nobody waits, or another thread took the descriptor: then there is nothing to tell
        self._open_reserve()

    def _open_reserve(self) -> None:
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._reserve = None  # still none left; each retry tries again

    def _close_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


def tune(sock: socket.socket, settings: Bind) -> None:
    """Set TCP options on a listening socket; connections accepted later inherit them.

    Linux and the BSDs copy them to the accepted socket, which saves six system calls for each connection. Calling it
    again with other settings changes the connections accepted from then on.

    Source: socket(7), tcp(7), RFC 5482 (user timeout).
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp, idle = socket.IPPROTO_TCP, settings.tcp_keepalive_idle
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(idle is not None))
    if idle is not None:
        _set(sock, "TCP_KEEPIDLE", max(1, round(idle)))
        _set(sock, "TCP_KEEPINTVL", max(1, round(settings.tcp_keepalive_interval)))
        _set(sock, "TCP_KEEPCNT", settings.tcp_keepalive_probes)
    _set(sock, "TCP_USER_TIMEOUT", round((settings.tcp_user_timeout or 0.0) * 1000))


def _drop_syn(sock: socket.socket) -> None:
    """Have the kernel drop the segments that ask for a new connection.

    Source: socket(7), SO_ATTACH_FILTER; a filter of a TCP socket sees a segment from its TCP header on, whose byte 13
    holds the flags (RFC 9293 section 3.1).
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return
    import ctypes  # only a server that stops pays for it

    load_flags, jump_if_syn, drop, keep = (
        (0x30, 0, 0, 13),
        (0x45, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
    program = [load_flags, jump_if_syn, drop, keep]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    so_attach_filter = 26
    try:
        sock.setsockopt(socket.SOL_SOCKET, so_attach_filter, struct.pack("HL", len(program), ctypes.addressof(code)))
    except OSError:
        pass  # not allowed here: a client that comes in the last moment is reset, as by every other server


def _set(sock: socket.socket, option: str, value: int) -> None:
    number = getattr(socket, option, None)
    if number is not None:  # not every system has every option
        sock.setsockopt(socket.IPPROTO_TCP, number, value)
