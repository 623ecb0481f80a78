"""HTTP/1.1 on one connection: requests in order, keep-alive, and what happens when either side stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.problem import problem
from sojourn.asgi.scope import build_scope
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ProtocolError
from sojourn.net.connection import Connection, Handler
from sojourn.net.tls import tls_extension
from sojourn.wire.http1.request import RequestParser, RequestReader

if TYPE_CHECKING:
    from sojourn.asgi.site import Site

__all__ = ["HttpHandler"]

#: Bytes of a request body that are read and thrown away after an early answer, to save the connection (as Go does).
_DISCARDED: Final = 256 * 1024
_DONE: Final = 4


class HttpHandler(Handler):
    """Speaks HTTP/1.1 on a connection.

    Args:
        connection: The connection.
        site: What is served.
    """

    __slots__ = ("_cycle", "_discarded", "_reader", "_sent_at_eof", "armed", "closing", "site")

    protocol = "http"

    def __init__(self, connection: Connection, site: Site) -> None:
        super().__init__(connection)
        self.site = site
        self._reader = RequestReader(self, site.parsers, site.config.limits)
        #: The request in hand; after its answer, for as long as its application runs on.
        self._cycle: HttpCycle | None = None
        #: Whether the connection closes after the present answer.
        self.closing = False
        #: Whether a deadline other than response_start was armed for the request in hand.
        self.armed = False
        #: bytes_out when the client half-closed; None while it has not.
        self._sent_at_eof: int | None = None
        #: Bytes thrown away after an early answer; None while nothing is.
        self._discarded: int | None = None

    # The transport

    def opened(self) -> None:
        connection = self.connection
        if connection.secure and connection.transport is not None:
            connection.tls_extension = tls_extension(connection.transport.get_extra_info("ssl_object"))
            connection.due.tls = NEVER
            connection.phase = Phase.HEAD
            connection.arm("header", connection.runtime.config.timeouts.header)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.bytes_in += len(data)
        connection.last_read = connection.runtime.ticker.now
        if connection.ending is not None:
            return  # lingering: read and thrown away
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            self._refuse(error)
        else:
            if self._reader.rest:
                self._waiting_bytes()

    def eof_received(self) -> bool:
        connection, cycle = self.connection, self._cycle
        if connection.ending is not None or connection.secure:
            # TLS has no half-close that asyncio or uvloop would keep open.
            if connection.ending is None:
                connection.end(self.cause_of_eof(How.FIN))
            return False
        if cycle is None or cycle.stage == _DONE:
            connection.end(self.cause_of_eof(How.FIN))
            return False
        self.closing = True
        if self._reader.in_body:
            cycle.fail(Ending("unexpected_end_of_request_content", Phase.BODY, How.EOF_IN_BODY), 400)
            cycle.cancel("unexpected_end_of_request_content")
            return True
        # The client may have left, or have said all it had to say and wait for the answer (RFC 9112 section 9.6 does
        # not forbid that). If it has left, the first bytes we send will be answered with a reset.
        self._sent_at_eof = connection.bytes_out
        cycle.half_closed(self.cause_of_eof(How.HALF_CLOSE))
        self.armed = True
        connection.arm("disconnect", connection.runtime.config.timeouts.disconnect_grace)
        return True

    # What the reader found

    def request_received(self, head: RequestParser) -> None:
        """A request head is complete."""
        connection, site = self.connection, self.site
        connection.requests += 1
        due = connection.due
        due.header = due.keep_alive = NEVER
        before = self._cycle
        if before is not None and before.task is not None:
            # Answered, but its application runs on: the server's task from now on.
            site.work.own(before.task)
        if head.upgrade and head.content_length is None and not head.chunked and _wants_websocket(head):
            self._cycle = None
            self._upgrade(head)
            return
        cycle = HttpCycle(self, head)
        self._cycle = cycle
        cycle.scope = scope = build_scope(site, connection, head, cycle)
        limit = site.config.limits.requests_per_connection
        if limit is not None and connection.requests >= limit:
            self.closing = True
        if site.routes is not None:
            cycle.use(site.routes.match(scope["method"], scope["path"]))
        if site.slots is None:
            self.start(cycle)
        else:
            self._admit(cycle)

    def body_received(self, data: bytes) -> None:
        """A piece of a request body arrived."""
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > _DISCARDED:
                self.connection.end(Ending("completed", Phase.CLOSING, How.LOCAL_FIN), linger=True)
        elif self._cycle is not None:
            self._cycle.body_received(data)

    def request_ended(self) -> None:
        """A request is complete."""
        if self._discarded is not None:
            self._discarded = None
            self.connection.due.body_total = NEVER
            if self.connection.ending is None:
                self._idle(self.connection, self._reader)
        elif self._cycle is not None:
            if self._reader.exhausted:
                self.closing = True
            self._cycle.request_ended()

    def _waiting_bytes(self) -> None:
        """There are bytes that can't be read yet."""
        connection = self.connection
        if self._reader.busy:
            # The client pipelines: it is held back until the request in hand is answered.
            connection.pause_reading()
        elif connection.due.header == NEVER:
            # A head in pieces. Its deadline is absolute: no later byte moves it.
            connection.phase = Phase.HEAD
            connection.due.keep_alive = NEVER
            connection.arm("header", connection.runtime.config.timeouts.header)

    def read_on(self) -> None:
        """The application has taken what was read."""
        if not (self._reader.busy and self._reader.rest):
            self.connection.resume_reading()

    # Requests

    def _admit(self, cycle: HttpCycle) -> None:
        """Ask for one of ``limits.requests``."""
        slots = self.site.slots
        assert slots is not None
        verdict = slots.enter(self.connection.runtime.ticker.now, cycle)
        if verdict == "run":
            cycle.has_slot = True
            self.start(cycle)
        elif verdict == "queued":
            self.connection.phase = Phase.QUEUED
            self.connection.arm("queue", self.site.config.limits.queue_wait)
        else:
            cycle.fail(Ending(verdict, Phase.QUEUED), 503)

    def start(self, cycle: HttpCycle) -> None:
        """Run the application."""
        connection, site = self.connection, self.site
        connection.phase = Phase.HANDLER
        due = connection.due
        now = connection.runtime.ticker.now
        due.response_start = moment = now + (site.response_start if not cycle.overridden else cycle.start_timeout())
        if moment < connection.looked_at:
            connection.runtime.wheel.sooner(connection, moment)
        if site.handler_timeout is not None or cycle.overridden:
            self.armed = True
            connection.arm("handler", cycle.timeout("handler"))
        cycle.task = site.work.start(cycle.run())

    def start_queued(self, cycle: HttpCycle) -> None:
        """A slot became free for a request that waited."""
        self.connection.due.queue = NEVER
        cycle.has_slot = True
        self.start(cycle)

    def cycle_completed(self, cycle: HttpCycle) -> None:
        """The answer is complete; the application may still run."""
        connection = self.connection
        due = connection.due
        due.response_start = NEVER
        if self.armed:
            self.armed = False
            due.handler = due.stream = due.body = due.body_total = due.disconnect = NEVER
        if connection.ending is not None:
            return
        reader = self._reader
        if not cycle.keep_alive or self.closing:
            self._end_after_answer(linger=bool(reader.rest) or not cycle.body_ended)
        elif cycle.body_ended:
            self._idle(connection, reader)
        else:
            self._discard()

    def _end_after_answer(self, *, linger: bool) -> None:
        cycle = self._cycle
        failure = cycle.failure if cycle is not None else None
        if failure is None:
            rotated = self.connection.runtime.config.limits.requests_per_connection
            word = "completed"
            if self.site.draining:
                word = "drain_goodbye"
            elif rotated is not None and self.connection.requests >= rotated:
                word = "keep_alive_rotated"
            failure = Ending(word, Phase.CLOSING, How.LOCAL_FIN)
        self.connection.end(failure, linger=linger)

    def _idle(self, connection: Connection, reader: RequestReader) -> None:
        """The request is over on both sides: wait for the next one, or go on with it."""
        connection.phase = Phase.IDLE
        moment = connection.runtime.ticker.now + self.site.keep_alive
        connection.due.keep_alive = moment
        if moment < connection.looked_at:
            connection.runtime.wheel.sooner(connection, moment)
        reader.busy = False
        if reader.rest or connection.reading_paused:
            self._go_on()

    def _go_on(self) -> None:
        """Read what the client has pipelined."""
        reader = self._reader
        try:
            reader.next()
        except ProtocolError as error:
            self._refuse(error)
            return
        if reader.rest:
            self._waiting_bytes()
        if not (reader.busy and reader.rest):
            self.connection.resume_reading()

    def _discard(self) -> None:
        """The answer came before the end of the request body: read the rest, if it is little and comes soon."""
        self._discarded = 0
        self.connection.phase = Phase.CLOSING
        self.connection.resume_reading()
        self.connection.arm("body_total", self.connection.runtime.config.timeouts.linger)

    def cycle_returned(self, cycle: HttpCycle) -> None:
        """The application has returned or raised."""
        if self._cycle is cycle and cycle.stage == _DONE:
            self._cycle = None
        if cycle.has_slot and self.site.slots is not None:
            cycle.has_slot = False
            following = self.site.slots.leave(self.connection.runtime.ticker.now)
            if following is not None:
                following.begin_queued()

    def _upgrade(self, head: RequestParser) -> None:
        handler = WebSocketHandler(self.connection, self.site, self)
        self.connection.swap(handler)
        handler.open(head)

    # Ends

    def _refuse(self, error: ProtocolError) -> None:
        """Answer what is not acceptable, and end the connection: nothing after it can be trusted."""
        connection, cycle = self.connection, self._cycle
        if connection.ending is not None:
            return
        self.closing = True
        if cycle is not None and cycle.stage != _DONE:
            if not cycle.begun and not self._reader.busy:
                self._cycle = None  # the head itself was refused, by the scope
            else:
                cycle.fail(Ending(error.reason, Phase.BODY, None, error.detail), error.status)
                cycle.cancel(error.reason)
                return
        headers, body = problem(error.status, error.reason, error.detail)
        data = self.site.renderer.render(error.status, headers).data
        connection.write(b"".join((data, connection.runtime.ticker.date, b"connection: close\r\n\r\n", body)))
        connection.end(Ending(error.reason, Phase.HEAD, None, error.detail), linger=True)

    def deadline_passed(self, slot: str, now: float) -> None:
        connection, cycle = self.connection, self._cycle
        due = connection.due
        match slot:
            case "keep_alive":
                connection.end(Ending("keep_alive_idle", Phase.IDLE, How.TIMEOUT, slot))
            case "header":
                if self._reader.rest:
                    self._answer_late_head()
                else:
                    connection.end(Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT, slot))
            case "body" | "body_total":
                due.body = due.body_total = NEVER
                if self._discarded is not None or cycle is None:
                    connection.end(Ending("completed", Phase.CLOSING, How.LOCAL_FIN), linger=True)
                else:
                    word = cycle.body_too_slow(now) if slot == "body" else "request_body_timeout"
                    self._time_out(cycle, Ending(word, Phase.BODY, How.TIMEOUT, slot), 408)
            case "response_start":
                due.response_start = NEVER
                if cycle is not None:
                    self._time_out(cycle, Ending("response_start_timeout", Phase.HANDLER, How.TIMEOUT, slot), 504)
            case "handler":
                due.handler = NEVER
                if cycle is not None:
                    phase = Phase.HANDLER if cycle.stage < 2 else Phase.RESPONSE
                    self._time_out(cycle, Ending("handler_deadline", phase, How.TIMEOUT, slot), 504)
            case "queue":
                due.queue = NEVER
                self._leave_queue(cycle)
            case "stream":
                self._check_stream(cycle, now)
            case "disconnect":
                self._check_half_closed(now)
            case "lifetime":
                due.lifetime = NEVER
                self.closing = True
                if cycle is None or cycle.stage == _DONE:
                    connection.end(Ending("max_connection_duration", connection.phase, How.LOCAL_FIN))
            case _:
                setattr(due, slot, NEVER)

    def _answer_late_head(self) -> None:
        connection = self.connection
        headers, body = problem(408, "request_headers_timeout", "the request head did not arrive in time")
        data = self.site.renderer.render(408, headers).data
        connection.write(b"".join((data, connection.runtime.ticker.date, b"connection: close\r\n\r\n", body)))
        connection.end(Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT, "header"), linger=True)

    def _time_out(self, cycle: HttpCycle, ending: Ending, status: int) -> None:
        connection = self.connection
        connection.missed(ending)
        cycle.fail(ending, status)
        cycle.cancel(ending.reason)

    def _leave_queue(self, cycle: HttpCycle | None) -> None:
        slots = self.site.slots
        if cycle is not None and slots is not None:
            slots.forget(cycle)
            cycle.fail(Ending("queue_timeout", Phase.QUEUED, How.TIMEOUT, "queue_wait"), 503)

    def _check_stream(self, cycle: HttpCycle | None, now: float) -> None:
        connection = self.connection
        idle = cycle.timeout("stream_idle") if cycle is not None and cycle.stage != _DONE else None
        if cycle is None or idle is None:
            connection.due.stream = NEVER
            return
        # Lazily: a byte moves nothing; what it did is seen here.
        connection.due.stream = max(connection.last_write, connection.last_read) + idle
        if connection.due.stream <= now:
            connection.due.stream = NEVER
            self._time_out(cycle, Ending("stream_idle", Phase.RESPONSE, How.TIMEOUT, "stream_idle"), 504)

    def _check_half_closed(self, now: float) -> None:
        connection = self.connection
        grace = connection.runtime.config.timeouts.disconnect_grace
        if self._sent_at_eof is not None and connection.bytes_out > self._sent_at_eof:
            # Bytes sent since then were not answered with a reset: the client is there, and reads.
            self._sent_at_eof = connection.bytes_out
            connection.due.disconnect = now + grace
            return
        cycle = self._cycle
        connection.end(self.cause_of_eof(How.HALF_CLOSE), abort=True)
        if cycle is not None:
            cycle.cancel("client_closed_request")

    def cause_of_eof(self, how: How) -> Ending:
        cycle, connection = self._cycle, self.connection
        if cycle is not None and cycle.stage != _DONE:
            if self._reader.in_body and cycle.stage < 2:
                return Ending("unexpected_end_of_request_content", Phase.BODY, How.EOF_IN_BODY)
            if not cycle.begun:
                return Ending("client_closed_in_queue", Phase.QUEUED, how)
            if cycle.stage < 2:
                return Ending("client_closed_request", Phase.HANDLER, how)
            return Ending("client_closed_mid_response", Phase.RESPONSE, how)
        if self._reader.in_head:
            return Ending("client_closed_before_head", Phase.HEAD, how)
        if not connection.bytes_in:
            return Ending("connected_no_data", Phase.HEAD, how)
        return Ending("keep_alive_closed_by_client", Phase.IDLE, how)

    def ending(self, ending: Ending) -> None:
        cycle = self._cycle
        if cycle is not None:
            if not cycle.begun and self.site.slots is not None:
                self.site.slots.forget(cycle)
            cycle.client_left(ending)

    def ended(self, ending: Ending) -> None:
        cycle, self._cycle = self._cycle, None
        if cycle is None:
            return
        if not cycle.begun and self.site.slots is not None:
            self.site.slots.forget(cycle)
        answered = cycle.stage == _DONE
        cycle.client_left(ending)
        if cycle.task is not None and answered:
            self.site.work.own(cycle.task)

    def begin_drain(self) -> None:
        """Close now if nothing is in hand, else after the answer."""
        self.closing = True
        cycle = self._cycle
        if cycle is not None and cycle.stage != _DONE:
            if cycle.event_stream:
                cycle.goodbye(self.connection.runtime.config.timeouts.disconnect_grace)
        elif not self._reader.rest and not self._reader.in_body:
            self.connection.end(Ending("drain_goodbye", self.connection.phase, How.LOCAL_FIN))

    def take_rest(self) -> bytes:
        """Bytes that came after an upgrade request; they are the next handler's."""
        rest, self._reader.rest = bytes(self._reader.rest), b""
        return rest

    @property
    def cycle(self) -> HttpCycle | None:
        """The request in hand that is not answered; None when there is none."""
        cycle = self._cycle
        return cycle if cycle is not None and cycle.stage != _DONE else None


def _wants_websocket(head: RequestParser) -> bool:
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in head.headers)
