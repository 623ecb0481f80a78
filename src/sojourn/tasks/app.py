"""A service of tasks as an ASGI application: start, ask, watch, cancel. Its wire: ``docs/reference/tasks-http.md``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from sojourn.clock import SystemClock
from sojourn.errors import (
    ClientDisconnected,
    JournalUnavailable,
    ProtocolError,
    SecurityContextError,
    TaskArguments,
    TaskConflict,
    TaskNotFound,
)
from sojourn.routing.request import Connection, Request
from sojourn.routing.response import Response
from sojourn.routing.websocket import WebSocket
from sojourn.tasks.access import INTERNAL, Action
from sojourn.tasks.asked import idempotency_key, number, place, preferred_wait, waits
from sojourn.tasks.documents import document, etag
from sojourn.tasks.following import ended_within
from sojourn.tasks.journal import Query
from sojourn.tasks.origin import owner_here
from sojourn.tasks.record import ENDED, State, Task
from sojourn.tasks.refusals import No
from sojourn.tasks.streaming import Stream, end_id
from sojourn.typing import Receive, Scope, Send

if TYPE_CHECKING:
    from sojourn.tasks.tasks import Tasks

__all__ = ["TasksApp"]

_ALLOWED: Final = {0: "GET, HEAD", 1: "GET, HEAD, POST, DELETE", 2: "POST"}
_STATES: Final[tuple[State, ...]] = ("pending", "running", "completed", "failed", "cancelled")
#: Tasks of a page of a list.
_PAGE: Final = 50
_PAGE_MOST: Final = 500
#: Where msgspec says which argument is wrong.
_ARGUMENT: Final = re.compile(r"(?:at|field) `\$?\.?([^`.\[]+)")
_PRIVATE: Final = {"cache-control": "private, no-cache", "vary": "accept"}
_encode: Final = msgspec.json.Encoder().encode
_wall: Final = SystemClock.wall


class _Asked(NamedTuple):
    """One request.

    Attributes:
        request: It.
        base: Path at which the application is mounted.
        parts: What is below that.
        who: The principal; "" for nobody.
    """

    request: Request
    base: str
    parts: tuple[str, ...]
    who: str


class TasksApp:
    """Serves tasks at one address; made by ``Tasks.app``. Mount it, or serve it alone.

    Args:
        service: The tasks.
        body: Bytes that the arguments of a task may have.
        heartbeat: Seconds of quiet after which an event stream has a comment.
    """

    def __init__(self, service: Tasks, *, body: int = 1 << 20, heartbeat: float = 15.0) -> None:
        self._service = service
        self._body = body
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Cancel: safe."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        websocket = WebSocket(scope, receive, send) if scope["type"] == "websocket" else None
        try:
            answer = await (self._http(scope, receive, send) if websocket is None else self._websocket(websocket))
        except ClientDisconnected:
            return
        except (No, ProtocolError, SecurityContextError, JournalUnavailable, TaskNotFound) as error:
            no = No.of(error)
            if websocket is not None:
                await no.deny(scope, receive, send)
                return
            answer = no.response()
        if answer is not None:
            await answer.send(scope, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served alone, the tasks live as long as the application."""
        while True:
            if (await receive())["type"] == "lifespan.startup":
                await self._service.begin()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._service.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        asked = self._asked(Request(scope, receive))
        match asked.request.method, asked.parts:
            case (("GET" | "HEAD"), ()):
                return await self._list(asked)
            case (("GET" | "HEAD"), (task_id,)):
                return await self._get(asked, task_id, receive, send)
            case "POST", (kind,):
                return await self._start(asked, kind, receive)
            case "POST", (task_id, "retry"):
                await self._task(asked, task_id, "retry")
                return self._answer(asked, await self._service.retry(task_id))
            case "DELETE", (task_id,):
                return await self._cancel(asked, task_id)
        if len(asked.parts) > 2 or (len(asked.parts) == 2 and asked.parts[1] != "retry"):
            raise No(404, "not_found", "there is nothing here")
        allowed = _ALLOWED[len(asked.parts)]
        raise No(405, "method_not_allowed", f"{allowed} can be done here", {"allow": allowed})

    def _asked(self, request: Request) -> _Asked:
        scope = request.scope
        path, base = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
        path = path[_taken(path, base) :]
        own = self._service.path.rstrip("/")
        if own and _is_below(path, own):  # mounted by something that knows no root_path
            path, base = path[len(own) :], base + own
        return _Asked(request, quote(base), tuple(part for part in path.split("/") if part), owner_here())

    async def _start(self, asked: _Asked, kind: str, receive: Receive) -> Response:
        request, service = asked.request, self._service
        if kind.startswith(INTERNAL) or not service.is_public(kind):
            raise No(404, "task_kind_not_found", "there is no task of this name that may be started here")
        arguments, key = await self._arguments(request), idempotency_key(request)
        proposed = Task(id="", kind=kind, state="pending", owner=asked.who, payload=_encode(arguments), key=key)
        if not await self._service.access.may("start", proposed, asked.who):
            raise No(403, "access_denied", "this may not be started")
        try:
            started = await service.submit(kind, arguments, key=key, owner=asked.who)
        except TaskArguments as error:
            found = _ARGUMENT.search(error.detail)
            named = {"argument": found[1]} if found else {}
            raise No(422, "task_arguments", error.detail, None, **named) from None
        except TaskConflict:
            detail = "this Idempotency-Key was used for another task, or other arguments"
            raise No(409, "task_conflict", detail) from None
        wait = waits(request)
        if wait or started.state in ENDED:
            try:
                task = await ended_within(service, await service.get(started.id), wait, request.scope, receive)
                return self._answer(asked, task)
            except JournalUnavailable:
                pass  # it is written down, and that is what its client has to know first
        started = msgspec.structs.replace(started, location=_location(asked, started.id))
        return Response(started.document(), started.status, {**_PRIVATE, **started.headers})

    async def _arguments(self, request: Request) -> dict[str, Any]:
        media = (request.header("content-type") or "").partition(";")[0].strip().lower()
        if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
            # Forms of other sites can send all types that are not JSON with the cookies of their visitor.
            raise No(
                415, "unsupported_media_type", "arguments are application/json", {"accept-post": "application/json"}
            )
        length = request.header("content-length", "") or ""
        if length.isdigit() and int(length[:18]) > self._body:
            raise No(413, "body_too_large", f"arguments are {self._body} bytes at most")
        body = await request.body(self._body)
        try:
            arguments = msgspec.json.decode(body) if body.strip() else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise No(400, "invalid_request_body", f"the body is no JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise No(422, "task_arguments", "arguments are an object of JSON, by name")
        return arguments

    async def _get(self, asked: _Asked, task_id: str, receive: Receive, send: Send) -> Response | None:
        request = asked.request
        task = await self._task(asked, task_id, "read")
        if request.method == "GET" and _wants_events(request):
            after, ended = place(request)
            if task.state in ENDED and f"{after}.{ended}" == end_id(task):
                return Response(status=204, headers=_PRIVATE)  # so that an EventSource comes back no more
            stream = Stream(self._service, task, _location(asked, task_id), after, self._heartbeat)
            await stream.events(request.scope, receive, send)
            return None
        task = await ended_within(self._service, task, waits(request), request.scope, receive)
        known = (request.header("if-none-match") or "").replace("W/", "").split(",")
        if etag(task) in [each.strip() for each in known]:
            return Response(status=304, headers={**_PRIVATE, "etag": etag(task), **self._later(task)})
        latest = None
        if task.seq:
            reading = await self._service.journal.read(task_id, task.seq - 1, 1)
            latest = reading.events[0] if reading is not None and reading.events else None
        body = document(task, _location(asked, task_id), latest)
        headers = {**_PRIVATE, "etag": etag(task), **self._later(task)}
        return Response(body, 200, _preferred(request, headers))

    async def _cancel(self, asked: _Asked, task_id: str) -> Response:
        before = await self._task(asked, task_id, "cancel")
        task = before if before.state in ENDED else await self._service.cancel(task_id)
        if task.state in ("completed", "failed"):
            raise No(409, "task_ended", f"it has {task.state} before", state=task.state)
        return self._answer(asked, task)

    async def _list(self, asked: _Asked) -> Response:
        request, query = asked.request, asked.request.query
        if not asked.who:
            raise No(401, "unauthenticated", "nobody has tasks of their own without saying who they are")
        states = tuple(each for each in _STATES if each in request.query_lists.get("state", ()))
        if len(states) < len(set(request.query_lists.get("state", ()))):
            raise No(400, "invalid_request_headers", f"state is one of {', '.join(_STATES)}")
        limit = number(request, "limit", _PAGE, _PAGE_MOST)
        kind, before = query.get("kind", ""), query.get("before", "")
        if "\0" in kind + before:  # which PostgreSQL can't be asked
            raise No(400, "invalid_request_headers", "kind and before are names")
        wanted = Query(states=states, kind=kind, owner=asked.who, before=before, limit=limit)
        found = await self._service.journal.list(wanted)
        shown = [document(each, _location(asked, each.id)) for each in found if not each.kind.startswith(INTERNAL)]
        for each in shown:
            each.pop("result", None)  # a list has no results
        body: dict[str, Any] = {"tasks": shown}
        headers = dict(_PRIVATE)
        if len(found) == limit:
            fields = [*(("state", each) for each in states), ("kind", kind), ("before", found[-1].id), ("limit", limit)]
            body["next"] = f"{asked.base}/?{urlencode([(name, value) for name, value in fields if value])}"
            headers["link"] = f'<{body["next"]}>; rel="next"'
        return Response(body, 200, headers)

    async def _websocket(self, websocket: WebSocket) -> None:
        asked = self._asked(Request(websocket.scope, _nothing))
        if len(asked.parts) != 1:
            raise No(404, "not_found", "there is nothing here")
        task_id = asked.parts[0]
        task = await self._task(asked, task_id, "read")
        stream = Stream(self._service, task, _location(asked, task_id), place(websocket).after, self._heartbeat)
        await stream.websocket(websocket)

    async def _task(self, asked: _Asked, task_id: str, action: Action) -> Task:
        """A task that its client may see, and do this with."""
        task = await self._service.get(task_id)
        if not await self._service.access.may("retry" if action == "retry" else "read", task, asked.who):
            raise TaskNotFound(task_id)  # who may not see it is not told that it is there
        if task.ended and not self._service.settings.work:
            self._service.pace.note(task.kind, task.ended - task.created)  # who runs them knows it already
        if action == "cancel" and not await self._service.access.may(action, task, asked.who):
            raise No(403, "access_denied", "this may not be cancelled")
        return task

    def _answer(self, asked: _Asked, task: Task) -> Response:
        """What was asked for is done, or will be."""
        location = _location(asked, task.id)
        headers = {**_PRIVATE, "location": location, **self._later(task)}
        status = 200 if task.state in ENDED else 202
        return Response(document(task, location), status, _preferred(asked.request, headers))

    def _later(self, task: Task) -> dict[str, str]:
        if task.state in ENDED:
            return {}
        due = task.run_at - _wall()  # by two clocks, but it is only advice
        return {"retry-after": str(round(self._service.pace.retry_after(task.kind, max(0.0, -due), max(0.0, due))))}


def _taken(path: str, base: str) -> int:
    """How much of a path is where the application is mounted.

    All of ``root_path`` (ASGI), or the end of it: a proxy has taken away what it begins with.
    """
    start = 0
    while start >= 0 and base:
        if _is_below(path, base[start:]):
            return len(base) - start
        start = base.find("/", start + 1)
    return 0


def _is_below(path: str, base: str) -> bool:
    return path == base or path.startswith(f"{base}/")


def _location(asked: _Asked, task_id: str) -> str:
    return f"{asked.base}/{quote(task_id, safe='')}"


def _wants_events(request: Request) -> bool:
    return "text/event-stream" in (request.header("accept") or "").lower()


def _preferred(request: Connection, headers: dict[str, str]) -> dict[str, str]:
    wait = preferred_wait(request)
    return headers if wait is None else {**headers, "preference-applied": f"wait={wait:.0f}"}


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}
