"""Answers to who may not come in."""

from __future__ import annotations

from typing import NamedTuple

from sojourn.asgi.problem import problem
from sojourn.typing import Receive, Scope, Send

__all__ = ["Refusal", "close_code", "refuse"]


class Refusal(NamedTuple):
    """Why somebody may not come in.

    Attributes:
        status: 401, 403 or 503.
        reason: One word for programs.
        detail: One sentence.
        challenge: Value of WWW-Authenticate; RFC 9110 section 11.6.1 wants one with 401.
    """

    status: int
    reason: str
    detail: str
    challenge: bytes = b""


def close_code(status: int) -> int:
    """The close code of a refused handshake, which no client sees: 4401, 4403; 1013 for "try again later"."""
    return 4000 + status if status in (401, 403) else 1013


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Answer with a problem document; a WebSocket too, before it is accepted, where the server can.

    Cancel: safe.
    """
    extra = [(b"www-authenticate", refusal.challenge)] if refusal.challenge else []
    if refusal.status == 503:
        extra.append((b"retry-after", b"5"))
    headers, body = problem(refusal.status, refusal.reason, refusal.detail, extra)
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": close_code(refusal.status)})  # the client sees 403
            return
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
