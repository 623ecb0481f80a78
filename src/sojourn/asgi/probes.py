"""Probes: what an orchestrator asks a server about itself. Answered by the server, never by the application.

    /livez      the event loop turns
    /readyz     new requests may come: started, and no drain has begun
    /startupz   the start is complete

``ok`` as plain text, JSON to whoever accepts that; a no is a problem document that says why. They ask for no slot of
``limits.requests``, wait in no queue, and are answered over the limits of connections too (`server/reception`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from sojourn.asgi.problem import problem
from sojourn.typing import ASGIApp, Headers, Receive, Scope, Send

__all__ = ["PATHS", "Answer", "Probes", "no", "reply", "yes"]

#: Where probes ask.
PATHS: Final = ("/livez", "/readyz", "/startupz")
#: Methods of a probe; any other request to these paths is the application's.
_METHODS: Final = ("GET", "HEAD")
#: The head of a probe, whole. One that asks for another protocol is none.
_HEAD: Final = re.compile(rb"(?:GET|HEAD) /(?:live|ready|startup)z(?:\?[^ \r\n]*)? HTTP/1\.[01]\r\n")
_BEGINNINGS: Final = tuple(f"{method} {path}".encode() for method in _METHODS for path in PATHS)
_ACCEPTS_JSON: Final = re.compile(rb"application/json\b", re.IGNORECASE)
_UPGRADES: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Answer(NamedTuple):
    """An answer in one piece."""

    status: int
    headers: Headers
    body: bytes


def yes(headers: Iterable[tuple[bytes, bytes]]) -> Answer:
    """The answer to a probe when all is well.

    Args:
        headers: Of the request.
    """
    if any(name == b"accept" and _ACCEPTS_JSON.search(value) for name, value in headers):
        kind, body = b"application/json", b'{"status":"ok"}'
    else:
        kind, body = b"text/plain; charset=utf-8", b"ok"
    fields = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    return Answer(200, fields, body)


def no(reason: str, detail: str, **members: object) -> Answer:
    """The answer to a probe when something is not well: 503.

    Args:
        reason: A stable word.
        detail: One sentence for a person.
        members: Further members of the document.
    """
    return Answer(503, *problem(503, reason, detail, (), **members))


async def reply(send: Send, answer: Answer) -> None:
    """Send an answer."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


class Probes:
    """Stands in front of an application and answers probes in its place.

    Args:
        app: The application.
        ready: Whether new requests may come.
        root_path: What the application's paths begin with; clients do not send it.
    """

    __slots__ = ("_app", "_paths", "_ready")

    def __init__(self, app: ASGIApp, ready: Callable[[], bool], root_path: str = "") -> None:
        self._app = app
        self._ready = ready
        self.mount(root_path)

    def mount(self, root_path: str) -> None:
        """Answer below another root path from now on."""
        self._paths = {root_path + path: path for path in PATHS}

    def asked(self, scope: Scope) -> bool:
        """Whether a request is a probe."""
        return scope["path"] in self._paths and scope["type"] == "http" and scope["method"] in _METHODS

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI."""
        if not self.asked(scope):
            return self._app(scope, receive, send)
        if self._paths[scope["path"]] == "/readyz" and not self._ready():
            return reply(send, no("draining", "the server is about to stop"))
        return reply(send, yes(scope["headers"]))

    @staticmethod
    def recognise(data: bytes, most: int) -> bool | None:
        """Whether the first bytes of a connection are a probe: True once its head is complete, None while it may be.

        Args:
            data: What has come.
            most: Bytes a head may have.
        """
        if not any(data.startswith(start) or start.startswith(data) for start in _BEGINNINGS):
            return False
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None if len(data) <= most else False
        return _HEAD.match(data) is not None and _UPGRADES.search(data, 0, end) is None
