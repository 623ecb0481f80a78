"""HTTP/1.1 on one connection: requests in order, keep-alive, and what happens when either side stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.inbound import REQUEST_TIMEOUTS
from sojourn.asgi.late import late
from sojourn.asgi.scope import build_scope
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ProtocolError
from sojourn.net.connection import Connection, Handler
from sojourn.net.tls import tls_extension
from sojourn.wire.http1.parser import RequestParser
from sojourn.wire.http1.reader import RequestReader

if TYPE_CHECKING:
    from sojourn.asgi.callers import Callers
    from sojourn.asgi.site import Site

__all__ = ["HttpHandler"]

#: Bytes of a request body that are read and thrown away after an early answer, to save the connection (as Go does).
_DISCARDED: Final = 256 * 1024
#: Seconds from accept in which a new client may still send its first request when the server stops.
_FIRST_REQUEST: Final = 1.0
_DONE: Final = 4
#: Methods that a server in read-only mode answers: the safe ones (RFC 9110 section 9.2.1).
_READS: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
# Phases that every request goes through: to name a member of an Enum costs a call on Python 3.11, a global does not.
_HANDLER: Final = Phase.HANDLER
_IDLE: Final = Phase.IDLE


class HttpHandler(Handler):
    """Speaks HTTP/1.1 on a connection.

    Args:
        connection: The connection.
        site: What is served.
    """

    __slots__ = (
        "_accepted",
        "_cycle",
        "_discarded",
        "_held",
        "_reader",
        "_sent_at_eof",
        "armed",
        "closing",
        "farewell",
        "site",
    )

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
        #: The reason of an end that waits for the answer in hand; "" when none does.
        self.farewell = ""
        #: bytes_out when the client half-closed; None while it has not.
        self._sent_at_eof: int | None = None
        #: Bytes thrown away after an early answer; None while nothing is.
        self._discarded: int | None = None
        #: Whether the next request waits until the client has taken the answer before it.
        self._held = False
        #: When the TLS handshake could begin, in seconds of the site's ``monotonic``; 0 without TLS.
        self._accepted = site.monotonic() if connection.secure else 0.0

    # The transport

    def opened(self) -> None:
        connection = self.connection
        if connection.secure and connection.transport is not None:
            connection.tls_extension = tls_extension(connection.transport.get_extra_info("ssl_object"))
            connection.due.tls = NEVER
            connection.phase = Phase.HEAD
            connection.arm("header", connection.runtime.config.timeouts.header)
            if self.site.meter is not None:
                self.site.meter.handshake("tls", self.site.monotonic() - self._accepted)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.bytes_in += len(data)
        connection.last_read = self.site.ticker.now
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
        connection = self.connection
        if connection.ending is not None or connection.secure:
            # TLS has no half-close that asyncio or uvloop would keep open.
            if connection.ending is None:
                connection.end(self.cause_of_eof(How.FIN))
            return False
        self._half_closed()
        return connection.ending is None

    def _half_closed(self) -> None:
        """The client sends nothing more: it may have left, or have said all it had to say and wait for its answers.

        RFC 9112 section 9.6 does not forbid that. If it has left, the first bytes we send are answered with a reset.
        """
        connection, cycle, reader = self.connection, self.cycle, self._reader
        self._sent_at_eof = connection.bytes_out
        if not reader.rest:
            self.closing = True
        elif self._held:
            return  # it has asked for more than it has taken: it is there
        if cycle is None or (not cycle.begun and not reader.in_body):
            # Nothing is in hand, or it waits for a slot: with nobody to see the answer, it is not worth one.
            connection.end(self.cause_of_eof(How.FIN))
        elif reader.in_body:
            self.closing = True
            cycle.fail(Ending("unexpected_end_of_request_content", Phase.BODY, How.EOF_IN_BODY), 400)
        else:
            cycle.half_closed(self.cause_of_eof(How.HALF_CLOSE))
            self.armed = True
            connection.arm("disconnect", connection.runtime.config.timeouts.disconnect_grace)

    # What the reader found

    def request_received(self, head: RequestParser) -> None:
        """A request head is complete."""
        connection, site = self.connection, self.site
        site.served += 1
        due = connection.due
        due.header = due.keep_alive = NEVER
        before = self._cycle
        if before is not None and before.task is not None:
            # Answered, but its application runs on: the server's task from now on.
            site.work.own(before.task, before.owner)
        if head.upgrade and _wants_websocket(head):
            self._cycle = None
            connection.requests += 1
            self._upgrade(head)
            return
        cycle = HttpCycle(self, head)
        cycle.scope = scope = build_scope(site, connection, head, cycle)
        self._cycle = cycle
        connection.requests += 1
        limit = site.config.limits.requests_per_connection
        if limit is not None and connection.requests >= limit:
            self.closing = True
        if site.routes is not None:
            cycle.overrides = site.routes.match(scope["method"], scope["path"])
        if head.deadline and site.callers is not None and not self._bound(cycle, site.callers):
            return
        if not site.guarded:
            self.start(cycle)
        else:
            self._admit(cycle)

    def _bound(self, cycle: HttpCycle, callers: Callers) -> bool:
        """Bound a request by what its caller says. Returns whether it is worth beginning."""
        header, seconds = callers.judge(self.connection, cycle.scope["headers"])
        if seconds <= 0.0:
            cycle.caller = header
            cycle.fail(Ending("caller_deadline_passed", Phase.QUEUED, How.TIMEOUT, header), 504)
            return False
        if seconds < NEVER:
            cycle.hurry(header, seconds)
        return True

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
                if self.closing:
                    self._end_after_answer(linger=False)
                else:
                    self._idle(self.connection, self._reader)
        elif self._cycle is not None:
            if self._reader.exhausted:
                self.closing = True
            self._cycle.request_ended()

    def _waiting_bytes(self) -> None:
        """There are bytes that can't be read yet."""
        connection, reader = self.connection, self._reader
        if reader.busy:
            # The client pipelines: it is held back until the request in hand is answered. Not at once, because while
            # nothing is read it is not noticed either that the client has left.
            if self._full:
                connection.pause_reading()
            return
        if not reader.in_head:
            return
        connection.due.keep_alive = NEVER
        if connection.due.header == NEVER:
            # A head in pieces. Its deadline is absolute: no later byte moves it.
            connection.phase = Phase.HEAD
            connection.arm("header", connection.runtime.config.timeouts.header)

    def read_on(self) -> None:
        """The application has taken what was read."""
        if not self._full:
            self.connection.resume_reading()

    @property
    def _full(self) -> bool:
        """Whether enough pipelined requests wait."""
        return self._reader.busy and len(self._reader.rest) > self.site.config.limits.read_buffer

    # Requests

    def _admit(self, cycle: HttpCycle) -> None:
        """Start it if it may: in read-only mode nothing is written any more, and ``limits.requests`` hold."""
        site = self.site
        if site.read_only and cycle.scope["method"] not in _READS:
            cycle.fail(Ending("draining", Phase.QUEUED), 503)
            return
        if (admission := site.admission) is not None:
            adaptive = admission.slots
            if adaptive.running < adaptive.room:
                adaptive.running += 1
                cycle.has_slot = True
                if not site.served & admission.spared:
                    admission.measure(site.monotonic())
                self.start(cycle)
            else:
                admission.admit(self, cycle)
            return
        slots, probes = site.slots, site.probes
        if slots is None:
            self.start(cycle)
            return
        if probes is not None and probes.asked(cycle.scope):
            self.start(cycle)  # never shed
            return
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
        connection.phase = _HANDLER
        overrides = cycle.overrides
        limit = site.response_start if overrides is None else cycle.start_timeout()
        ticker = site.ticker
        ticker.held += 1
        connection.due.response_start = moment = ticker.now + limit
        if moment < connection.looked_at:
            connection.runtime.wheel.sooner(connection, moment)
        if site.handler_timeout is not None or overrides is not None:
            self.armed = True
            if connection.due.handler == NEVER:  # that of its caller has run since it came
                connection.arm("handler", cycle.timeout("handler"))
        cycle.task = site.work.start(cycle.run())

    def start_queued(self, cycle: HttpCycle) -> None:
        """A slot became free for a request that waited."""
        self.connection.due.queue = NEVER
        cycle.has_slot = True
        site = self.site
        if site.meter is not None:
            site.meter.queue_left(site.last_wait)
        self.start(cycle)

    def cycle_completed(self, cycle: HttpCycle) -> None:
        """The answer is complete; the application may still run."""
        connection = self.connection
        due = connection.due
        due.response_start = NEVER
        if self.armed:
            self.armed = False
            due.handler = due.stream = due.body = due.body_total = due.disconnect = due.credential = NEVER
        if connection.ending is not None:
            return
        reader = self._reader
        if not cycle.keep_alive or self.closing:
            self._end_after_answer(linger=bool(reader.rest) or self.closing or not cycle.body_ended)
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
            if self.farewell:
                word = self.farewell
            elif self.site.draining:
                word = "drain_goodbye"
            elif rotated is not None and self.connection.requests >= rotated:
                word = "keep_alive_rotated"
            elif self._over_age:
                word = "max_connection_duration"
            failure = Ending(word, Phase.CLOSING, How.LOCAL_FIN)
        self.connection.end(failure, linger=linger and self._sent_at_eof is None)

    def _idle(self, connection: Connection, reader: RequestReader) -> None:
        """The request is over on both sides: wait for the next one, or go on with it."""
        if connection.blocked:
            # Before it has taken this answer the client gets no other: answers to pipelined requests can't pile up.
            self._held = True
            return
        connection.phase = _IDLE
        site = self.site
        connection.due.keep_alive = moment = site.ticker.now + site.keep_alive
        if moment < connection.looked_at:
            connection.runtime.wheel.sooner(connection, moment)
        reader.busy = False
        if reader.rest or connection.reading_paused:
            self._go_on()

    def resume_writing(self) -> None:
        connection = self.connection
        connection.resume_writing()
        if self._held and not connection.blocked and connection.ending is None:
            self._held = False
            self._idle(connection, self._reader)

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
        if not self._full:
            self.connection.resume_reading()
        if self._sent_at_eof is not None:
            self._half_closed()

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
        self.site.ticker.held -= 1
        if cycle.has_slot:
            if (admission := self.site.admission) is None or admission.slots.waits:
                self.site.release(cycle)
            else:
                cycle.has_slot = False
                admission.slots.running -= 1

    def _upgrade(self, head: RequestParser) -> None:
        handler = WebSocketHandler(self.connection, self.site, self)
        self.connection.swap(handler)
        handler.open(head)
        self._reader.forget_sink()

    # Ends

    def _refuse(self, error: ProtocolError) -> None:
        """Answer what is not acceptable, and end the connection: nothing after it can be trusted."""
        connection, cycle = self.connection, self._cycle
        if connection.ending is not None:
            return
        self.closing = True
        if cycle is not None and cycle.stage != _DONE:
            cycle.fail(Ending(error.reason, Phase.BODY, None, error.detail), error.status)
            return
        self._answer_refused(error)
        connection.end(Ending(error.reason, Phase.HEAD, None, error.detail), linger=self._sent_at_eof is None)

    def _answer_refused(self, error: ProtocolError, **members: object) -> None:
        """The server's own answer where no request came about; ``members`` are further ones of the problem document."""
        self.connection.write(self.site.refusal(error.status, error.reason, error.detail, (), **members))

    def deadline_passed(self, slot: str, now: float) -> None:
        connection, cycle = self.connection, self._cycle
        due = connection.due
        match slot:
            case "keep_alive":
                if self.site.draining:
                    connection.end(Ending("drain_goodbye", connection.phase, How.LOCAL_FIN))
                elif connection.buffered:
                    due.keep_alive = now + self.site.keep_alive  # not idle: the answer is still on its way
                else:
                    connection.end(Ending("keep_alive_idle", Phase.IDLE, How.TIMEOUT, slot))
            case "header":
                if self._reader.in_head:
                    self._answer_late_head()
                else:
                    connection.end(Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT, slot))
            case "body" | "body_total" if self._discarded is not None or cycle is None:
                due.body = due.body_total = NEVER
                connection.end(Ending("completed", Phase.CLOSING, How.LOCAL_FIN), linger=True)
            case "body" | "body_total" | "response_start" | "handler" | "stream" if cycle is not None:
                late(cycle, slot, now)
            case "queue":
                due.queue = NEVER
                if cycle is not None:
                    self.site.give_up(cycle)
            case "disconnect":
                self._check_half_closed(now)
            case "credential":
                due.credential = NEVER
                if self.cycle is not None:
                    self.cycle.on_expiry()
            case "lifetime":
                due.lifetime = NEVER
                self.closing = True
                if cycle is not None and cycle.event_stream:
                    cycle.goodbye("max_connection_duration")
                elif self.cycle is None and not self._reader.in_head:
                    ending = Ending("max_connection_duration", connection.phase, How.LOCAL_FIN)
                    connection.end(ending, linger=self._reader.in_body)
            case _:
                setattr(due, slot, NEVER)

    def patience(self) -> tuple[float | None, int | None]:
        cycle = self._cycle
        if cycle is None:
            return super().patience()
        return cycle.timeout("write_idle"), cycle.limit("write_min_rate")

    def length_of(self, deadline: str) -> float:
        cycle = self._cycle
        length = None
        if cycle is not None:
            if deadline == getattr(cycle, "caller", ""):
                deadline = "handler"
            length = cycle.timeout(deadline) if deadline in REQUEST_TIMEOUTS else None
        return super().length_of(deadline) if length is None else length

    @property
    def _over_age(self) -> bool:
        """Whether ``timeouts.lifetime`` has passed."""
        connection = self.connection
        lifetime = connection.runtime.config.timeouts.lifetime
        # The slot is empty, too, of a connection that is older than the setting.
        return lifetime is not None and connection.due.lifetime == NEVER and connection.age >= 0.9 * lifetime

    def _answer_late_head(self) -> None:
        error = ProtocolError(408, "request_headers_timeout", "the request head did not arrive in time")
        self._answer_refused(error, deadline="header")
        self.connection.end(Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT, "header"), linger=True)

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
            if not cycle.begun:
                cycle.leave_queue()
            cycle.client_left(ending)

    def ended(self, ending: Ending) -> None:
        self._reader.forget_sink()
        cycle, self._cycle = self._cycle, None
        if cycle is None:
            return
        if not cycle.begun:
            cycle.leave_queue()
        cycle.client_left(ending)
        if cycle.task is not None:  # it may still be in its disconnect_grace, or do what it does after its answer
            self.site.work.own(cycle.task, cycle.owner)

    def begin_drain(self) -> None:
        """Close after the answer; with nothing in hand, when a request that is on its way has had time to come."""
        self.closing = True
        connection, cycle = self.connection, self.cycle
        if cycle is not None:
            if cycle.event_stream:
                cycle.goodbye()
        elif not self._reader.in_head and not self._reader.in_body:
            # An idle client's next request may be in the kernel already; one that has just come is about to send its
            # first, and would not try again.
            connection.arm("keep_alive", 0.0 if connection.requests else max(0.0, _FIRST_REQUEST - connection.age))

    def take_rest(self) -> bytes:
        """Bytes that came after an upgrade request; they are the next handler's."""
        rest, self._reader.rest = bytes(self._reader.rest), b""
        return rest

    @property
    def keeps_refused(self) -> bool:
        """Whether the connection stays after a 503; not with more requests behind it."""
        return self.site.keeps_refused and not self._reader.rest

    @property
    def cycle(self) -> HttpCycle | None:
        """The request in hand that is not answered; None when there is none."""
        cycle = self._cycle
        return cycle if cycle is not None and cycle.stage != _DONE else None


def _wants_websocket(head: RequestParser) -> bool:
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in head.headers)
