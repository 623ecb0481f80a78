"""Requests about tasks that are refused, as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sojourn.asgi.problem import problem
from sojourn.errors import JournalUnavailable, ProtocolError, TaskNotFound
from sojourn.routing.response import Response
from sojourn.typing import Receive, Scope, Send

__all__ = ["BEARER", "No"]

#: A 401 says how somebody can say who it is (RFC 9110 section 11.6.1).
BEARER: Final = {"www-authenticate": "Bearer"}


class No(Exception):
    """The request is refused.

    Args:
        status: Of the answer.
        reason: One word for programs.
        detail: One sentence.
        headers: Further headers.
        members: Further members of the problem document.
    """

    def __init__(
        self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.members = members

    @classmethod
    def of(cls, error: Exception) -> No:
        """What an error says to a client."""
        match error:
            case No():
                return error
            case ProtocolError():
                return cls(error.status, error.reason, error.detail)
            case JournalUnavailable():
                later = {"retry-after": str(max(1, round(error.retry_after)))}
                return cls(503, "tasks_unavailable", "tasks can't be looked up or started at present; try again", later)
            case TaskNotFound():
                return cls(404, "task_not_found", "there is no such task, or no more")
        return cls(401, "unauthenticated", "who asks has not said who it is, or that counts no more", BEARER)

    def response(self) -> Response:
        """The answer."""
        extra = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        headers, body = problem(self.status, self.reason, str(self), extra, **self.members)
        kept = [(name.decode(), value.decode("latin-1")) for name, value in headers if name != b"content-length"]
        return Response(body, self.status, kept)

    async def deny(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a WebSocket: with that answer where the server can send it (ASGI, websocket denial response)."""
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": str(self)[:120]})
            return
        answer = self.response()
        await send({"type": "websocket.http.response.start", "status": self.status, "headers": answer.headers})
        await send({"type": "websocket.http.response.body", "body": answer.body})
