"""What is answered where no route is: 405 and OPTIONS with Allow, a redirect for a slash, 404."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from sojourn.routing.response import Response, problem
from sojourn.routing.route import Route
from sojourn.routing.tree import WEBSOCKET, Tree
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["SLASHES", "Misses", "Slashes", "toggled"]

Slashes: TypeAlias = Literal["redirect", "permanent", "ignore", "strict"]
SLASHES: Final = ("redirect", "permanent", "ignore", "strict")

_REDIRECTS: Final = {"redirect": 307, "permanent": 308}  # RFC 9110 sections 15.4.8 and 15.4.9: method and body stay


def toggled(path: str) -> str:
    """A path with a slash at its end, or without the one it has."""
    return path[:-1] if path.endswith("/") else path + "/"


class Misses:
    """Answers requests that no route answers.

    Args:
        slashes: What a slash more or less means.
        not_found: Who answers what matches nothing; None for a problem document.
    """

    __slots__ = ("_redirect", "_slashes", "not_found")

    def __init__(self, slashes: Slashes, not_found: ASGIApp | None) -> None:
        self._slashes = slashes
        self._redirect = _REDIRECTS.get(slashes)
        self.not_found = not_found

    def app(self, tree: Tree[Route], method: str, path: str, scope: Scope) -> ASGIApp:
        """Who answers.

        Args:
            tree: Where nothing was found.
            method: The method, or :data:`WEBSOCKET`.
            path: The path that was looked for, below root_path.
            scope: The request's.
        """
        if method == WEBSOCKET:
            return self.not_found or _no_socket
        allowed = tree.allowed(path)
        if self._slashes == "ignore":
            allowed |= tree.allowed(toggled(path))
        allowed.discard(WEBSOCKET)
        if path == "*":  # RFC 9110 section 9.3.7: the server as a whole
            allowed = tree.methods() - {WEBSOCKET}
        if allowed:
            return _reply(_other_method(method, allowed))
        if self._redirect is not None and _matches(tree, method, toggled(path)):
            # Encoded, so that no character of it means something else to a browser.
            target = quote(toggled(scope["path"]), safe="/!$&'()*+,;=:@")
            if not target.startswith("//"):  # that would be another host (RFC 3986 section 4.2)
                query = scope.get("query_string", b"").decode("latin-1")
                location = f"{target}?{query}" if query else target
                return _reply(Response(None, self._redirect, {"location": location}))
        return self.not_found or _reply(problem(404, "nothing is here"))


def _matches(tree: Tree[Route], method: str, path: str) -> bool:
    return tree.find(method, path) is not None or bool(tree.allowed(path) - {WEBSOCKET})


def _other_method(method: str, allowed: set[str]) -> Response:
    """OPTIONS is answered; any other method is 405, with what is allowed (RFC 9110 section 15.5.6)."""
    allow = {"allow": ", ".join(sorted(allowed | {"OPTIONS"}))}
    return Response(None, 204, allow) if method == "OPTIONS" else problem(405, "not this method", allow)


def _reply(response: Response) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await response.send(scope, send)

    return app


async def _no_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """404 where the server can say so (ASGI: "websocket.http.response"), else 403."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        answer = problem(404, "nothing is here")
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
