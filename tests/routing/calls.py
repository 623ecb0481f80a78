"""Calls of an ASGI application without a server: what goes in, what comes out."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

__all__ = ["Answer", "ask", "ask_later", "scope_of", "talk", "talk_later"]


class Answer(NamedTuple):
    """What an application answered, and the scope as it left it."""

    status: int
    headers: dict[str, str]
    body: bytes
    scope: dict[str, Any]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def scope_of(method: str, path: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"a.example")],
        "state": {},
        **more,
    }


async def ask_later(app: Any, method: str, path: str, body: bytes | list[bytes] = b"", **more: Any) -> Answer:
    """One request; `body` may be in pieces, None in them for a client that leaves."""
    pieces = [body] if isinstance(body, bytes) else body
    messages = [
        {"type": "http.request", "body": piece, "more_body": at < len(pieces) - 1} for at, piece in enumerate(pieces)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = scope_of(method, path, **more)
    await app(scope, receive, send)
    assert [message["type"] for message in sent[:1]] == ["http.response.start"]
    assert not sent[-1].get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    data = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(sent[0]["status"], headers, data, scope)


def ask(app: Any, method: str, path: str, body: bytes | list[bytes] = b"", **more: Any) -> Answer:
    """:func:`ask_later`, in a loop of its own."""
    return asyncio.run(ask_later(app, method, path, body, **more))


async def talk_later(app: Any, path: str, *messages: str | bytes, **more: Any) -> list[dict[str, Any]]:
    """What a WebSocket application sends to a client that says these messages and leaves."""
    inbox: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    for message in messages:
        field = "text" if isinstance(message, str) else "bytes"
        inbox.append({"type": "websocket.receive", field: message})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0) if inbox else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {**scope_of("GET", path), "type": "websocket", "subprotocols": [], **more}
    del scope["method"]
    await app(scope, receive, send)
    return sent


def talk(app: Any, path: str, *messages: str | bytes, **more: Any) -> list[dict[str, Any]]:
    """:func:`talk_later`, in a loop of its own."""
    return asyncio.run(talk_later(app, path, *messages, **more))
