"""The receiving half of an HTTP request: its body, its deadlines while it comes, its own settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

from sojourn.asgi.callers import RequestLimit
from sojourn.asgi.control import RequestControl
from sojourn.asgi.overrides import Overrides
from sojourn.clock import NEVER, SystemClock
from sojourn.ending import Ending, Phase
from sojourn.errors import ProtocolError
from sojourn.policy.deadlines import rate_deadline
from sojourn.typing import Headers, Message
from sojourn.wire.http1.response import CONTINUE

if TYPE_CHECKING:
    from sojourn.asgi.http import HttpHandler
    from sojourn.net.connection import Connection
    from sojourn.wire.http1.parser import RequestParser

__all__ = ["REQUEST_LIMITS", "REQUEST_TIMEOUTS", "Inbound"]

#: Names that ``set_timeout`` and ``set_limit`` take for an HTTP request.
REQUEST_TIMEOUTS = ("handler", "response_start", "stream_idle", "body_idle", "body", "write_idle")
REQUEST_LIMITS = ("body", "body_min_rate", "write_min_rate")


#: What a piece of a body takes in memory beside its bytes: a body may come in pieces of one byte.
_PIECE = 48


class Inbound(RequestControl):
    """What a request brings, piece by piece, to an application that may or may not want it.

    Args:
        handler: Whose request it is.
        head: The request head.
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_connection",
        "_content_length",
        "_ending",
        "_expect_continue",
        "_handler",
        "_held",
        "_waited",
        "_waiters",
        "body_ended",
        "body_taken",
        "caller",
        "challenge",
        "on_expiry",
        "overrides",
        "retry_after",
        "stage",
        "trace_id",
    )

    def __init__(self, handler: HttpHandler, head: RequestParser) -> None:
        self._handler = handler
        self._connection = handler.connection
        self._content_length = head.content_length
        self._expect_continue = head.expect_continue
        self._body: list[bytes] | None = None
        self._held: int  # bytes in it, with what holds them; set with the first
        self._body_size = 0
        #: Seconds for which the application has waited for the body.
        self._waited = 0.0
        self._waiters: list[asyncio.Future[None]] | None = None
        #: Settings of its own, such as those of its route; None when it has none.
        self.overrides: Overrides | None = None
        #: Why the request can't go on as it should; None while it can.
        self._ending: Ending | None = None
        #: The header that said how long its caller waits. Set by :meth:`hurry`, so that no other request pays for it.
        self.caller: str
        #: Seconds after which the client may come back, where somebody knows better than the settings. Set by who does.
        self.retry_after: float
        #: Called when its credential is over, and what a 401 asks for. Set by who wants to know.
        self.on_expiry: Callable[[], None]
        self.challenge: bytes
        self.body_ended = False
        self.body_taken = False
        #: How far the answer is: a ``Stage``, held as a plain int because it is compared for every message.
        self.stage = 0
        self.trace_id = ""

    async def receive(self) -> Message:
        """ASGI receive.

        Cancel: safe; nothing that was received is lost.
        """
        while True:
            if self.stage == 4:
                return {"type": "http.disconnect"}
            if not self.body_taken and (self._body is not None or self.body_ended):
                return self._take_body()  # also that of a client which has half-closed since
            if self._ending is not None:
                return {"type": "http.disconnect"}
            if self.body_taken:
                await self._wait()  # for the client to leave, or for the end of the answer
            else:
                await self._wait_for_body()

    def _take_body(self) -> Message:
        body = b""
        if self._body is not None:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = None
            self._check_body_limit()
            if self._connection.reading_paused:
                self._handler.read_on()
        self.body_taken = self.body_ended
        return {"type": "http.request", "body": body, "more_body": not self.body_ended}

    def body_received(self, data: bytes) -> None:
        """A piece of the request body arrived."""
        self._body_size += len(data)
        if self.stage == 4:  # answered early: it is thrown away
            return
        if self._body is None:
            self._body = [data]
            self._held = len(data)
        else:
            self._body.append(data)
            self._held += len(data) + _PIECE
        if self._waiters is not None:
            self._wake()
        elif self._held > self._handler.site.config.limits.read_buffer:
            self._connection.pause_reading()

    def request_ended(self) -> None:
        """The request is complete."""
        self.body_ended = True
        if self._waiters is not None:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = self._connection.runtime.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._forget(waiter)

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        """Whoever asks again and again, with a timeout each time, must not leave a waiter each time."""
        waiters = self._waiters
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                self._waiters = None

    async def _wait_for_body(self) -> None:
        """Wait for the next piece, with the progress deadline armed for exactly this time."""
        self._check_body_limit()
        connection = self._connection
        if self._expect_continue:
            self._expect_continue = False
            if self.stage < 2 and not self._body_size:
                connection.write(CONTINUE)  # only now: the application reads (RFC 9110 section 10.1.1)
        due = connection.due
        self._handler.armed = True
        began = connection.runtime.ticker.now
        idle = self.timeout("body_idle")
        # The rate counts only the time in which the application waits: its own slowness is not the client's.
        rate = rate_deadline(
            began - self._waited,
            self._handler.site.config.limits.rate_grace,
            self._body_size,
            self.limit("body_min_rate"),
        )
        moment = min(NEVER if idle is None else began + idle, rate)
        due.body = moment
        if due.body_total == NEVER and (total := self.timeout("body")) is not None:
            due.body_total = began + total - self._waited
            moment = min(moment, due.body_total)
        if moment < connection.looked_at:
            connection.runtime.wheel.sooner(connection, moment)
        try:
            await self._wait()
        finally:
            self._waited += connection.runtime.ticker.now - began
            if self.stage != 4 and self._waiters is None:  # else it is the next request's, or still waited for
                due.body = due.body_total = NEVER

    def _check_body_limit(self) -> None:
        limit = self.limit("body")
        if limit is not None and max(self._content_length or 0, self._body_size) > limit:
            detail = f"the request body is larger than {limit} bytes"
            self.fail(Ending("body_too_large", Phase.BODY, None, detail), 413)
            raise ProtocolError(413, "body_too_large", detail)

    def body_too_slow(self, now: float) -> tuple[str, str]:
        """Which reason and which deadline fit the moment of the slot ``body`` that has just passed."""
        idle = self.timeout("body_idle")
        if idle is not None and now - self._connection.last_read >= idle - 0.2:
            return "request_body_timeout", "body_idle"
        return "min_request_body_data_rate", "body_min_rate"

    @property
    def _continue_awaited(self) -> bool:
        """Whether the client still waits for 100 (Continue) before it sends its body."""
        return self._expect_continue and not self.body_ended and not self._body_size

    def _hints(self, status: int) -> Headers:
        """Headers of an answer of the server's that tell the client what to do."""
        if status == 503:
            seconds = ceil(self.retry_after) if hasattr(self, "retry_after") else self._handler.site.retry_after()
            return [(b"retry-after", b"%d" % seconds)]
        if status == 401 and getattr(self, "challenge", None):
            return [(b"www-authenticate", self.challenge)]
        return [(b"deadline-expired", b"1")] if hasattr(self, "caller") else []

    def fail(self, ending: Ending, status: int) -> None:
        """End the request with an answer of the server's, if none has begun."""
        raise NotImplementedError

    # Settings of this request

    def start_timeout(self) -> float:
        """The response_start timeout of this request; NEVER for none."""
        timeout = self.timeout("response_start")
        return NEVER if timeout is None else timeout

    def timeout(self, name: str) -> float | None:
        """A timeout as it holds for this request, in seconds."""
        overrides = self.overrides
        if overrides is not None and name in overrides.timeouts:
            return overrides.timeouts[name]
        value: float | None = getattr(self._handler.site.config.timeouts, name)
        return value

    def limit(self, name: str) -> int | None:
        """A limit as it holds for this request."""
        overrides = self.overrides
        if overrides is not None and name in overrides.limits:
            return overrides.limits[name]
        value: int | None = getattr(self._handler.site.config.limits, name)
        return value

    def _own_overrides(self) -> Overrides:
        shared = self.overrides
        own = Overrides()
        if shared is not None:
            own = Overrides(dict(shared.timeouts), dict(shared.limits), priority=shared.priority)
        self.overrides = own
        return own

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def draining(self) -> asyncio.Event:
        return self._handler.site.drain

    @property
    def remaining(self) -> float | None:
        due = self._connection.due
        moment = min(due.handler, due.response_start)
        return None if moment == NEVER else max(0.0, moment - self._connection.runtime.ticker.now)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        raise NotImplementedError

    def bound(self) -> RequestLimit | None:
        if self.stage == 4:
            return None
        connection = self._connection
        moment, name = connection.due.handler, "handler"
        if self.stage < 2 and connection.due.response_start < moment:
            moment, name = connection.due.response_start, "response_start"
        if moment == NEVER:
            return None
        seconds = self.timeout(name)
        if name == "handler":
            name = getattr(self, "caller", name)
        # A deadline runs on the machine's clock, also where a test moves the server's.
        moment = SystemClock.monotonic() + connection.runtime.ticker.left(moment)
        return RequestLimit(moment, name, seconds or 0.0, self)

    def hurry(self, header: str, seconds: float) -> None:
        """Its caller waits no longer than so many seconds from now."""
        own = self.timeout("handler")
        if own is None or seconds < own:
            self._own_overrides().timeouts["handler"] = seconds
            self.caller = header
            self._handler.armed = True
            self._connection.arm("handler", seconds)

    def expire(self, seconds: float | None, then: Callable[[], None]) -> None:
        if self.stage != 4:
            self.on_expiry = then
            self._handler.armed = True
            self._connection.arm("credential", seconds)

    def set_timeout(self, name: str, seconds: float | None) -> None:
        if name not in REQUEST_TIMEOUTS:
            raise ValueError(f"a request has no timeout {name!r}; there are {', '.join(REQUEST_TIMEOUTS)}")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"timeout {name} must be above zero, not {seconds!r}")
        if self.stage == 4:
            return
        self._own_overrides().timeouts[name] = seconds
        self._handler.armed = True
        if name == "handler" or (name == "response_start" and self.stage < 1):
            self._connection.arm(name, seconds)
        elif name == "stream_idle" and self.stage == 2:
            self._connection.arm("stream", seconds)

    def set_limit(self, name: str, value: int | None) -> None:
        if name not in REQUEST_LIMITS:
            raise ValueError(f"a request has no limit {name!r}; there are {', '.join(REQUEST_LIMITS)}")
        if value is not None and value < 0:
            raise ValueError(f"limit {name} can't be negative: {value!r}")
        if self.stage != 4:
            self._own_overrides().limits[name] = value
