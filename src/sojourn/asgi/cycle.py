"""One HTTP request: what the application sends, and how the request ends.

The code that runs for every request is laid out for speed: attributes instead of objects, one write for head and body,
a future only where the application really has to wait, and no timer at all. Deadlines are assignments to the slots of
the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sojourn.asgi import failures
from sojourn.asgi.dismissal import dismiss
from sojourn.asgi.inbound import Inbound
from sojourn.asgi.pathsend import send_file
from sojourn.asgi.problem import problem
from sojourn.asgi.scope import route_of
from sojourn.asgi.site import CURRENT
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ApplicationError, ClientDisconnected
from sojourn.events import RequestEnded
from sojourn.typing import Message
from sojourn.wire.http1.response import LAST_CHUNK, ResponseHead, chunk, interim, last_chunk

if TYPE_CHECKING:
    from sojourn.asgi.http import HttpHandler
    from sojourn.wire.http1.parser import RequestParser

__all__ = ["HttpCycle", "Stage"]

T = TypeVar("T")


class Stage(IntEnum):
    """How far the answer is. The hot path writes the numbers."""

    WAITING = 0  # no http.response.start yet
    HEAD = 1  # the head is here, and not sent: a crash can still become a 500
    BODY = 2  # the head is sent
    TRAILERS = 3  # the body is complete, trailers are awaited
    DONE = 4  # complete, or never will be


_set_current: Final = CURRENT.set
_NO_HEAD: Final = ResponseHead(b"", None, close=False, date=False, special=False)
_COMPLETED: Final = Ending("completed", Phase.RESPONSE)
_EXPECTED: Final = {
    Stage.WAITING: "http.response.start comes first",
    Stage.HEAD: "http.response.start was sent, http.response.body comes next",
    Stage.BODY: "the body has begun, more http.response.body comes next",
    Stage.TRAILERS: "the body is complete, http.response.trailers comes next",
    Stage.DONE: "the response is complete",
}


class HttpCycle(Inbound):
    """One request on its way.

    Args:
        handler: Whose request it is.
        head: The request head.
    """

    __slots__ = (
        "__weakref__",
        "_chunked",
        "_head",
        "_head_only",
        "_http10",
        "_ordinary",
        "_remaining",
        "_sent",
        "_started",
        "_trailers",
        "farewell",
        "has_slot",
        "keep_alive",
        "on_goodbye",
        "scope",
        "status",
        "target",
        "task",
    )

    def __init__(self, handler: HttpHandler, head: RequestParser) -> None:
        Inbound.__init__(self, handler, head)
        #: Set right after, because it holds the cycle.
        self.scope: dict[str, Any]
        self._http10 = http10 = head.http10
        self._head_only = head_only = head.method == b"HEAD"
        #: Whether nothing about the request makes the answer's framing unusual.
        self._ordinary = head.keep_alive and not (http10 or head_only or head.expect_continue)
        self._head: ResponseHead = _NO_HEAD
        self._chunked = False
        #: Whether trailers are promised; those that came, once the first did.
        self._trailers: bool | list[tuple[bytes, bytes]] = False
        #: Whether the server stops and the application was told.
        self.farewell = False
        #: Body bytes that a declared length still asks for; None when none is declared.
        self._remaining: int | None = None
        self._sent = 0
        self._started = handler.site.monotonic()
        self.keep_alive = head.keep_alive
        self.status = 0
        self.target = head.target
        self.task: asyncio.Task[None] | None = None
        #: Whether one of ``limits.requests`` is taken.
        self.has_slot = False
        #: Called first when the stream is told goodbye. Set by who wants to know, so that no other request pays for it.
        self.on_goodbye: Callable[[], None]

    @property
    def begun(self) -> bool:
        """Whether the application was started."""
        return self.task is not None

    @property
    def failure(self) -> Ending | None:
        """Why the request did not end as it should; None when it did."""
        return self._ending

    def leave_queue(self) -> None:
        """It waits for no slot any more."""
        site = self._handler.site
        self._connection.due.queue = NEVER
        if site.guarded:
            site.forget(self)

    def begin_queued(self) -> None:
        """A slot became free for this request."""
        self._handler.start_queued(self)

    async def run(self) -> None:
        """Run the application: the whole life of the request's task."""
        _set_current(self)
        try:
            await self._handler.site.app(self.scope, self.receive, self.send)
            if self.stage != 4:
                failures.returned(self)
        except asyncio.CancelledError:
            if self.stage != 4:
                failures.cancelled_itself(self)
            raise
        except GeneratorExit:
            raise  # the loop is gone, and with it everybody who could be told
        except BaseException as error:  # SystemExit too: a request does not end the server
            failures.raised(self, error)
            if isinstance(error, KeyboardInterrupt):
                raise  # that is not the request's to end
        finally:
            self._handler.cycle_returned(self)
            if self.stage == 4:
                # The scope and the context of the task hold the cycle: without this, each request would be garbage for
                # the collector to find.
                del self.scope
                self.task = None

    async def send(self, message: Message) -> None:
        """ASGI send.

        Raises:
            ClientDisconnected: The client left, or the server has ended the request.
            ApplicationError: The message is not what ASGI or HTTP allows at this point.

        Cancel: safe; what was handed to the transport before is sent.
        """
        kind = message["type"]
        stage = self.stage
        if kind == "http.response.body":
            if stage == 1:
                if not message.get("more_body", False) and not self._trailers:
                    self._send_whole(message.get("body", b""))
                    return
                self._begin(None)
                stage = 2
            if stage == 2:
                self._send_part(message.get("body", b""), message.get("more_body", False))
                if self._connection.blocked and self.stage == 2:
                    await self._connection.writable()
                return
        elif kind == "http.response.start":
            if stage == 0:
                status = message["status"]
                self._head = self._handler.site.renderer.render(status, message.get("headers", ()))
                self.status = status
                if "trailers" in message:
                    self._trailers = bool(message["trailers"])
                self.stage = 1
                return
        elif kind == "http.response.pathsend":
            if stage == 1 or stage == 2:
                if self._no_body:  # nothing of the file is asked for
                    await self.send({"type": "http.response.body"})
                else:
                    await send_file(self.send, message["path"])
                return
        elif kind == "http.response.trailers":
            if stage == 3:
                self._send_trailers(message.get("headers", ()), message.get("more_trailers", False))
                return
        elif kind == "http.response.early_hint":
            if stage == 0:
                if self.lost:
                    raise self._gone()
                if not self._http10:
                    self._connection.write(interim(103, [(b"link", link) for link in message.get("links", ())]))
                    if self._connection.blocked:
                        await self._connection.writable()
                return
        else:
            raise ApplicationError(f"{kind!r} is no ASGI message of an HTTP application")
        if self.stage == 4 and self._ending is not None:
            raise ClientDisconnected(self._ending.reason)
        raise ApplicationError(f"{kind!r} is not allowed here: {_EXPECTED[Stage(self.stage)]}")

    # Writing

    def _send_whole(self, body: bytes) -> None:
        """The answer in one piece: head and body leave in one write."""
        handler, head = self._handler, self._head
        connection, site = handler.connection, handler.site
        transport = connection.transport
        if transport is None or connection.ending is not None:
            raise self._gone()
        if (
            self._ordinary
            and head.content_length == len(body)
            and not (head.special or site.draining or handler.closing)
            and site.plain
        ):
            # What most answers are: nothing to add but the date.
            data = b"".join((head.data, site.ticker.date, b"\r\n", body))
        else:
            if self.status == 500 and failures.excused(self):
                return
            data = self._head_bytes(len(body))
            if self._remaining is not None and self._remaining != len(body) and not self._no_body:
                raise ApplicationError(f"the body has {len(body)} bytes, Content-Length said {self._remaining}")
            if body and not self._no_body:
                data += body
        # Connection.write, written out.
        size = len(data)
        connection.bytes_out += size
        self._sent = size
        transport.write(data)
        self.stage = 4
        self._ending = None  # the client had half-closed, and has got its answer
        if self._waiters is not None:
            self._wake()
        if RequestEnded in site.observers or head.event_stream:
            self._report(_COMPLETED, self.status)
        elif site.meter is not None:
            site.meter.answered(self.scope, self.status, site.monotonic() - self._started)
        handler.cycle_completed(self)

    def _begin(self, length: int | None) -> None:
        """Send the head of an answer that comes in parts."""
        connection = self._connection
        if self.lost:
            raise self._gone()
        if self.status == 500 and failures.excused(self):
            raise ClientDisconnected("application_deadline")
        self._write(self._head_bytes(length))
        self.stage = 2
        self._handler.armed = True
        connection.phase = Phase.RESPONSE
        connection.due.response_start = NEVER
        connection.arm("stream", self.timeout("stream_idle"))
        if self._head.event_stream:
            self.step_aside()
        if self._handler.site.draining and self.event_stream:
            self.goodbye()

    def _head_bytes(self, length: int | None) -> bytes:
        """The head with everything the server adds; decides the framing.

        Args:
            length: Bytes of the whole body when they are known; None when it comes in parts.
        """
        head = self._head
        handler = self._handler
        site = handler.site
        parts = [head.data]
        status = self.status
        if not head.date and site.date_header:
            parts.append(site.ticker.date)
        if site.server_header:
            parts.append(b"server: sojourn\r\n")
        declared = head.content_length
        self._remaining = declared
        if declared is None and status != 204 and status != 304:
            if length is not None:
                if length or not self._head_only:
                    parts.append(b"content-length: %d\r\n" % length)
            elif not self._http10:
                self._chunked = not self._head_only
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # only the end of the connection can say where this body ends
        if self.keep_alive and (head.close or site.draining or handler.closing or self._continue_awaited):
            # A client that waits for 100 may or may not send its body now: the next request could not be found.
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self._http10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    @property
    def _no_body(self) -> bool:
        """Whether the answer can't have a body (RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5)."""
        return self._head_only or self.status == 204 or self.status == 304

    def _send_part(self, body: bytes, more: bool) -> None:
        """A piece of a body that comes in parts."""
        if self.lost:
            raise self._gone()
        if not self._no_body:
            if self._chunked:
                data = chunk(body)
                if not more and not self._trailers:
                    data += b"0\r\n\r\n"
                self._write(data)
            else:
                if self._remaining is not None:
                    if len(body) > self._remaining:
                        raise ApplicationError("the body has more bytes than Content-Length said")
                    self._remaining -= len(body)
                    if not more and self._remaining:
                        raise ApplicationError(f"the body has {self._remaining} bytes less than Content-Length said")
                self._write(body)
        if not more:
            if self._trailers:
                self.stage = 3
            else:
                self._complete()

    def _send_trailers(self, trailers: Iterable[tuple[bytes, bytes]], more: bool) -> None:
        """Trailers; they come last, so those of several messages are sent together."""
        if self.lost:
            raise self._gone()
        collected = [*self._trailers, *trailers] if isinstance(self._trailers, list) else [*trailers]
        if more:
            self._trailers = collected
            return
        data = last_chunk(collected)  # wrong ones are refused in any case
        if self._chunked:
            # Only to who has asked for them (RFC 9110 section 6.5.1).
            self._write(data if "http.response.trailers" in self.scope["extensions"] else LAST_CHUNK)
        self._complete()

    def _write(self, data: bytes) -> None:
        if data:
            self._sent += len(data)
            self._connection.write(data)

    @property
    def lost(self) -> bool:
        """Whether nothing that is sent would arrive."""
        connection = self._connection
        transport = connection.transport
        # After a failed write asyncio's transport is closing, and never full: an application that does nothing but
        # send would keep the loop for good, and with it the news that its client left.
        return transport is None or connection.ending is not None or transport.is_closing()

    def _gone(self) -> ClientDisconnected:
        ending = self._connection.ending or self._ending
        return ClientDisconnected(ending.reason if ending is not None else "client_reset")

    def _complete(self) -> None:
        """The answer is complete."""
        self.stage = 4
        self._ending = None
        if self._waiters is not None:
            self._wake()
        handler = self._handler
        self._report(_COMPLETED, self.status)
        handler.cycle_completed(self)

    # Ends that are not completion

    def fail(self, ending: Ending, status: int) -> None:
        """End the request: with an answer of the server's while none has begun, else by aborting the connection.

        An answer that has begun can't be mended, and must not look complete: the abort makes the client see it as cut,
        whatever its framing.

        Args:
            ending: Why.
            status: Status of the server's answer.
        """
        if self.stage == 4:
            return
        self._ending = ending
        handler = self._handler
        if self.stage >= 2:
            self.stage = 4
            self._report(ending, self.status)
            self._connection.end(ending, abort=True)
        else:
            details = {"deadline": ending.detail} if ending.how is How.TIMEOUT else {}
            # What went wrong inside, and at which address or path, is for the log, not for the client.
            hidden = status == 500 or ending.reason in ("access_denied", "tasks_unavailable")
            text = ending.row.advice if hidden or details else ending.detail or ending.row.advice
            headers, body = problem(status, ending.reason, text, self._hints(status), **details)
            if status in (408, 413) or (status == 503 and not handler.keeps_refused):
                self.keep_alive = False
            self.status = status
            self._head = handler.site.renderer.render(status, headers)
            data = self._head_bytes(len(body))
            self.stage = 4
            self._write(data if self._head_only else data + body)
            self._report(ending, status)
            handler.cycle_completed(self)
        if self._waiters is not None:
            self._wake()

    def dismiss(self, reason: str, detail: str, challenge: bytes = b"") -> None:
        dismiss(self, reason, detail, challenge)

    @property
    def chunked(self) -> bool:
        """Whether what is written of the body has to be chunks (RFC 9112 section 7.1)."""
        return self._chunked

    def step_aside(self) -> None:
        """It lasts as long as it lasts, and mostly waits: its place among the requests that run is another's now."""
        if self.has_slot and (admission := self._handler.site.admission) is not None:
            admission.release(self)

    @property
    def streaming(self) -> bool:
        """Whether the answer is sent in parts and has begun."""
        return self.stage == 2

    @property
    def event_stream(self) -> bool:
        """Whether the answer is a stream of server-sent events that has begun."""
        return self.stage == 2 and self._head.event_stream

    def goodbye(self, reason: str = "drain_goodbye") -> None:
        """Time to end: the application is told that its client left, and is cancelled after ``disconnect_grace``.

        Only for server-sent events: they may end anywhere, so what was sent then counts as complete. Of any other
        stream it would make half an answer look like a whole one.
        """
        self.farewell = True
        if (tell := getattr(self, "on_goodbye", None)) is not None:
            tell()  # before receive() says that the client left: frameworks cancel what they send then
        self.half_closed(Ending(reason, Phase.RESPONSE))
        config = self._connection.runtime.config
        grace = min(config.timeouts.disconnect_grace, config.drain.streams)
        self._connection.runtime.ticker.call_later(grace, self.end_stream)

    def end_stream(self) -> None:
        """End a stream of server-sent events here and now, and cancel its application."""
        if self.stage == 2:
            self.cancel(self._ending.reason if self._ending is not None else "drain_goodbye")
            self.finish_stream()

    def finish_stream(self) -> None:
        """End a stream that was told goodbye, so that its client sees a complete answer if that is possible."""
        if self._remaining is None and self._connection.transport is not None:
            if self._chunked:  # else the end of the connection is the end of the body (HTTP/1.0)
                self._write(b"0\r\n\r\n")
            self.stage = 4
            self._report(self._ending or _COMPLETED, self.status)
            self._handler.cycle_completed(self)
        else:
            reason = self._ending.reason if self._ending is not None else "drain_goodbye"
            self.fail(Ending(reason, Phase.RESPONSE, How.LOCAL_ABORT), 503)

    def cancel(self, cause: str, grace: float = 0.0) -> None:
        """Cancel the application, by the ladder, after ``grace`` seconds."""
        if self.task is not None and not self.task.done():
            self._handler.site.work.cancel(self.task, cause, self.owner, grace=grace)

    def attend(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine beside the application's task that calls, and never longer than it."""
        return self._handler.site.work.attend(coroutine, name, self.owner)

    @property
    def title(self) -> str:
        return f"{self.scope['method']} {self.scope['path']}"

    @property
    def owner(self) -> str:
        """What the task belongs to, for reports."""
        return f"connection {self._connection.id} {self.title}"

    def client_left(self, ending: Ending) -> None:
        """The client is gone: receive() says so, send() raises; after ``disconnect_grace`` the task is cancelled."""
        if self.stage != 4:
            self._ending = ending
            sent_status = self.status if self.stage >= 2 else (ending.row.status or 499)
            self.stage = 4
            self._report(ending, sent_status)
        elif self.task is not None and self._ending is None:
            return  # answered: what it does now is its own, and the server's until it ends
        if self._waiters is not None:
            self._wake()
        grace = self._connection.runtime.config.timeouts.disconnect_grace
        self.cancel(ending.reason, 0.0 if ending.how is How.TIMEOUT else grace)

    def half_closed(self, ending: Ending) -> None:
        """The client will send nothing more; it may have left, or wait for its answer."""
        self._ending = ending
        if self._waiters is not None:
            self._wake()

    def _report(self, ending: Ending, status: int) -> None:
        handler = self._handler
        site, scope = handler.site, self.scope
        duration = site.monotonic() - self._started
        event_stream = self._head.event_stream
        meter = site.meter
        if meter is not None:
            if ending is _COMPLETED and not event_stream:
                meter.answered(scope, status, duration)
            else:
                meter.request_ended(scope, status, ending, duration, event_stream)
        if RequestEnded not in site.observers:
            return
        handler.connection.runtime.bus.emit(
            RequestEnded(
                self._connection.id,
                scope["client"],
                scope["method"],
                self.target,
                scope["http_version"],
                status,
                ending,
                duration,
                self._body_size,
                self._sent,
                scope["headers"],
                "event_stream" if event_stream else "http",
                route_of(scope),
                self.trace_id,
            )
        )
