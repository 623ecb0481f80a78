"""Where a request carries its bearer token."""

from __future__ import annotations

from typing import Final

from sojourn.errors import AuthenticationError
from sojourn.typing import Scope

__all__ = ["bearer_token", "offered_without"]

_SCHEME: Final = b"bearer"


def bearer_token(scope: Scope, subprotocol: str | None = None) -> str | None:
    """The bearer token of a request (RFC 6750 section 2.1).

    Never from the query: that is written to logs.

    Args:
        scope: Of the request or WebSocket.
        subprotocol: What the subprotocol of a WebSocket begins with that is a token; None: none is.

    Returns:
        None when there is none, or another scheme of authorization.

    Raises:
        AuthenticationError: More than one Authorization header, or one that is no text.
    """
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise AuthenticationError("invalid_request", "more than one Authorization header")
    if values:
        scheme, _, token = values[0].strip().partition(b" ")
        if scheme.lower() != _SCHEME:
            return None
        try:
            text: str = token.strip().decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationError("invalid_token", "the token does not count: it is no ASCII") from None
        return text
    if subprotocol and scope["type"] == "websocket":
        tokens: list[str] = [each for each in scope.get("subprotocols", ()) if each.startswith(subprotocol)]
        if len(tokens) > 1:
            raise AuthenticationError("invalid_request", "more than one token among the subprotocols")
        return tokens[0][len(subprotocol) :] if tokens else None
    return None


def offered_without(scope: Scope, subprotocol: str) -> list[str]:
    """The subprotocols of a WebSocket without its token, which the application must not choose and has no use for."""
    return [each for each in scope.get("subprotocols", ()) if not each.startswith(subprotocol)]
