"""The worker's side of commands: end a connection, follow changed settings, count what there is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.asgi.cycle import Stage
from sojourn.asgi.http import HttpHandler
from sojourn.asgi.websocket import State, WebSocketHandler
from sojourn.ending import REASONS, Ending, How
from sojourn.errors import ErrandError
from sojourn.net.connection import Connection
from sojourn.observe.answers import Answers
from sojourn.server.reconfigure import apply, plan
from sojourn.wire.websocket_frames import is_close_code

if TYPE_CHECKING:
    from sojourn.server.server import Server

__all__ = ["answers", "close", "configure", "counts"]

_REASON: Final = "admin_kill"
_TEXT: Final = "ended by an operator"


class _Close(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``close``."""

    id: int
    code: int | None = None
    now: bool = False


class _Configure(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``configure``."""

    changes: dict[str, Any]


def answers(server: Server) -> Answers:
    """The questions that are answered here, by name.

    Args:
        server: Who is asked.
    """

    async def closed(arguments: Mapping[str, Any]) -> object:
        return close(server, arguments)

    async def configured(arguments: Mapping[str, Any]) -> object:
        return configure(server, arguments)

    async def counted(_: Mapping[str, Any]) -> object:
        return counts(server)

    return {"close": closed, "configure": configured, "counts": counted}


def configure(server: Server, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Follow changed settings: all of them, or none. Whoever asks tells of it: the version is theirs.

    Args:
        server: Who follows.
        arguments: ``changes``: new values by dotted path.

    Raises:
        ErrandError: A key or a value is no good.
    """
    given = _read(_Configure, arguments)
    change = plan(server.config, given.changes)
    change.check()
    if change.changes:
        apply(server, change.config)
    return {"live": change.live, "new": change.new}


def counts(server: Server) -> dict[str, int]:
    """How much there is of what profiles show; some 0.2 us for each task."""
    return {
        "goroutine": len(asyncio.all_tasks(server.runtime.loop)),
        "thread": threading.active_count(),
        "connections": len(server.runtime.registry),
    }


def close(server: Server, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """End a connection because an operator wants it.

    A WebSocket gets a close frame, a request its answer, an event stream its goodbye; an idle connection just ends.

    Args:
        server: Whose connection it is.
        arguments: ``id``; ``code`` of the close frame, 4503 without it; ``now`` waits for nobody: a request whose
            answer has not begun gets 503, any other connection is cut.

    Returns:
        Its id, and ``how`` it ends.

    Raises:
        ErrandError: There is no such connection, or the code can't be sent.
    """
    given = _read(_Close, arguments)
    connection = server.runtime.registry.get(given.id)
    if connection is None:
        raise ErrandError(404, "no_such_connection", f"connection {given.id} is not open")
    code = given.code if given.code is not None else REASONS[_REASON].ws_code or 1000
    if not is_close_code(code):
        raise ErrandError(400, "bad_argument", f"{code} can't be sent in a close frame (RFC 6455 section 7.4)")
    return {"id": given.id, "how": _end(connection, code, given.now)}


def _end(connection: Connection, code: int, now: bool) -> str:
    handler = connection.handler
    if connection.ending is not None:
        if now:
            connection.end(connection.ending, abort=True)
        return "it was ending already" if not now else "cut"
    ending = Ending(_REASON, connection.phase, How.LOCAL_FIN, _TEXT)
    if isinstance(handler, WebSocketHandler):
        return _end_websocket(handler, ending, code, now)
    if isinstance(handler, HttpHandler) and handler.cycle is not None:
        return _end_request(handler, ending, now)
    connection.end(ending, linger=True)
    return "ended"


def _end_websocket(handler: WebSocketHandler, ending: Ending, code: int, now: bool) -> str:
    if handler.state is State.DENYING:
        handler.connection.end(ending, abort=True)
        return "cut"
    handler.close(code, _TEXT, ending)
    if now:
        handler.cancel(ending.reason)
        handler.connection.end(ending)
        return "ended, with a close frame"
    return "a close frame was sent"


def _end_request(handler: HttpHandler, ending: Ending, now: bool) -> str:
    cycle, connection = handler.cycle, handler.connection
    assert cycle is not None
    handler.closing = True
    handler.farewell = ending.reason
    if now:
        begun = cycle.stage >= Stage.BODY
        if cycle.event_stream:
            cycle.goodbye(ending.reason)
            cycle.end_stream()
        else:
            cycle.fail(ending, 503)
            cycle.cancel(ending.reason)
        if connection.ending is None:
            connection.end(ending, linger=True)
        return "cut" if begun else "answered with 503"
    if cycle.event_stream:
        cycle.goodbye(ending.reason)
        return "ends as soon as its application has heard of it"
    return "ends after its answer"


def _read(kind: type[Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise ErrandError(400, "bad_argument", str(error)) from error
