"""Who comes, and who it turned out to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from sojourn.typing import Scope

__all__ = ["ANONYMOUS", "Authenticator", "Caller", "Identity"]

_BEARER: Final = "bearer "


class Identity(NamedTuple):
    """Who a member is.

    Attributes:
        user: Name by which it is found, over all its connections; "" for nobody in particular.
        expires: When what proves it is over, in seconds since 1970; None: never.
        info: What others are shown of it by presence, anything that JSON can express.
    """

    user: str
    expires: float | None = None
    info: Any = None


#: Nobody in particular.
ANONYMOUS: Final = Identity("")


class Caller:
    """Who asks to become a member, as the authenticator sees it.

    Args:
        scope: Of ASGI.
        token: The credential, when it comes in a message; "" takes the one of the request.

    Attributes:
        scope: Of ASGI.
        query: Parameters of the URL, the last of each.
        token: Its credential: from a message, ``Authorization: Bearer``, or ``?token=``; "" when there is none.
    """

    __slots__ = ("_headers", "query", "scope", "token")

    def __init__(self, scope: Scope, token: str = "") -> None:
        self.scope = scope
        self.query: dict[str, str] = dict(
            parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        )
        self._headers: dict[str, str] | None = None
        self.token = token or self._token()

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the request, by their names in lower case; the last of each."""
        if self._headers is None:
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.scope["headers"]
            }
        return self._headers

    @property
    def address(self) -> str:
        """Address of the client; "" when it is not known."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def _token(self) -> str:
        said = self.headers.get("authorization", "")
        if said[: len(_BEARER)].lower() == _BEARER:
            return said[len(_BEARER) :].strip()
        return self.query.get("token", "")


Authenticator = Callable[[Caller], Awaitable[Identity | None]]
