"""A task that is watched: as server-sent events, or over a WebSocket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.asgi.control import RequestControl
from sojourn.asgi.event_stream import event_stream
from sojourn.errors import JournalUnavailable, TaskNotFound
from sojourn.routing.response import Response
from sojourn.routing.websocket import WebSocket
from sojourn.scopes.work import attend
from sojourn.tasks.documents import document, moment
from sojourn.tasks.following import Gap, Told, follow, left
from sojourn.tasks.record import ENDED, Event, Task
from sojourn.typing import Receive, Scope, Send
from sojourn.wire.sse import ServerSentEvent

if TYPE_CHECKING:
    from sojourn.tasks.tasks import Tasks

__all__ = ["Stream", "end_id"]

#: Seconds after which a client of a stream that was cut comes back, at random, so that not all come at once.
_RETRY: Final = (1.0, 5.0)
_HEAD: Final = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),  # nginx would hold it back
)
#: Close codes: try again later (RFC 6455 section 7.4.1, IANA), and nothing to come back for.
_LATER: Final = 1013
_GONE: Final = 4404
_encode: Final = msgspec.json.Encoder().encode


def end_id(task: Task) -> str:
    """The id of the event that tells the end: a client that comes back with it has seen it."""
    return f"{task.seq}.{task.epoch}"


class Stream:
    """What happens to one task, for one client.

    Args:
        service: Where it is.
        task: As it was a moment ago; its client may see it.
        location: Where it can be asked for.
        after: Number of the last event that the client has.
        heartbeat: Seconds of quiet after which an event stream has a comment.
    """

    def __init__(self, service: Tasks, task: Task, location: str, after: int, heartbeat: float) -> None:
        self._service = service
        self._task = task
        self._location = location
        self._after = after
        self._heartbeat = heartbeat

    async def events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an event stream, which ends after the end of the task.

        Cancel: safe.
        """
        body = event_stream(self._events(), heartbeat=self._heartbeat, retry=_RETRY)
        answer = Response(body, 200, _HEAD)
        if isinstance((scope.get("extensions") or {}).get("sojourn"), RequestControl):
            await answer.send(scope, send)  # a server of ours cancels it when the client has left
            return
        sending, gone = attend(answer.send(scope, send), "task events"), attend(left(receive), "task events left")
        await _first(sending, gone)
        if not sending.cancelled() and not isinstance(sending.exception(), OSError):
            sending.result()  # and an OSError says that its client has left

    async def websocket(self, socket: WebSocket) -> None:
        """Say it over a WebSocket, and close that after the end of the task.

        Args:
            socket: Not yet accepted. What its client says is not heeded.

        Cancel: safe.
        """
        await socket.accept()
        telling, gone = attend(self._tell(socket), "task messages"), attend(_until_closed(socket), "task socket")
        await _first(telling, gone)
        if not telling.cancelled():
            telling.result()

    async def _events(self) -> AsyncGenerator[ServerSentEvent, None]:
        yield ServerSentEvent(retry=round(random.uniform(*_RETRY) * 1000))
        try:
            async with aclosing(follow(self._service, self._task, self._after)) as told:
                async for each in told:
                    yield self._event(each)
        except JournalUnavailable as error:
            # It ends here; its client comes back with the last id that it got.
            wait = round((error.retry_after + random.uniform(*_RETRY)) * 1000)
            yield ServerSentEvent(retry=wait, comment="the journal can't be read at present")
        except TaskNotFound:
            yield ServerSentEvent(comment="the record of the task is gone")

    def _event(self, told: Told) -> ServerSentEvent:
        if isinstance(told, Event):
            return ServerSentEvent(told.data, event="progress", id=str(told.seq))
        if isinstance(told, Gap):
            return ServerSentEvent({"after": told.after, "next": told.next}, event="gap")
        if told.state in ENDED:
            return ServerSentEvent(document(told, self._location), event="end", id=end_id(told))
        return ServerSentEvent(document(told, self._location), event="state")

    async def _tell(self, socket: WebSocket) -> None:
        code, reason = 1000, ""
        try:
            async with aclosing(follow(self._service, self._task, self._after)) as told:
                async for each in told:
                    await socket.send(_encode(self._message(each)).decode())
        except JournalUnavailable:
            code, reason = _LATER, "the journal can't be read at present"
        except TaskNotFound:
            code, reason = _GONE, "the record of the task is gone"
        except OSError:
            return  # its client has left
        try:
            await socket.close(code, reason)
        except OSError:
            pass  # as above: there is nobody to tell

    def _message(self, told: Told) -> dict[str, Any]:
        if isinstance(told, Event):
            return {"type": "progress", "seq": told.seq, "at": moment(told.at), "data": msgspec.Raw(told.data)}
        if isinstance(told, Gap):
            return {"type": "gap", "after": told.after, "next": told.next}
        return {"type": "end" if told.state in ENDED else "state", "task": document(told, self._location)}


async def _until_closed(socket: WebSocket) -> None:
    async for _ in socket:
        pass


async def _first(work: asyncio.Task[Any], gone: asyncio.Task[Any]) -> None:
    """Wait for one of them, and for the end of the other. Cancelled, both end with the task that called."""
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        gone.cancel()
    await asyncio.wait((work, gone))
