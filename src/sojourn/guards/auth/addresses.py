"""Which addresses may ask at all, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sojourn.errors import ConfigError
from sojourn.guards.auth.refusal import Refusal, refuse
from sojourn.policy.trust import UNIX, TrustList
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["AllowAddresses"]

_REFUSED: Final = Refusal(403, "address_not_allowed", "this address may not ask here")


class AllowAddresses:
    """Lets only clients from listed addresses through; others get 403, a WebSocket before it is accepted.

    The address is that in ``scope["client"]``: behind a proxy that is listed in ``proxy.trusted``, the client it speaks
    for. The longest route that fits decides alone. A client that is in no list is refused.

    Args:
        app: The application.
        networks: For all paths that no route names: addresses, networks such as ``10.0.0.0/8``, ``unix`` for clients on
            a Unix socket, ``*`` for everybody.
        routes: The same for some paths and everything below them, such as ``{"/admin": ["10.1.0.0/16"]}``.

    Raises:
        ConfigError: An entry is none of these, or a path does not begin with a slash.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> guarded = AllowAddresses(app, ["*"], {"/admin": ["10.1.0.0/16", "::1"]})
    """

    def __init__(
        self, app: ASGIApp, networks: Iterable[str], routes: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self.app = app
        self._else = _listed(networks)
        for path in routes or {}:
            if not path.startswith("/"):
                raise ConfigError(f"a route begins with a slash, not as {path!r}")
        longest_first = sorted((routes or {}).items(), key=lambda route: len(route[0]), reverse=True)
        self._routes = [(path.rstrip("/"), _listed(entries)) for path, entries in longest_first]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client")
            if not self._allowed(scope).trusts(client[0] if client else UNIX):
                await refuse(scope, receive, send, _REFUSED)
                return
        await self.app(scope, receive, send)

    def _allowed(self, scope: Scope) -> TrustList:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        for route, allowed in self._routes:
            if path == route or path.startswith(route + "/"):
                return allowed
        return self._else


def _listed(entries: Iterable[str]) -> TrustList:
    try:
        return TrustList(entries)
    except ConfigError as error:  # it speaks of the setting that has such lists too
        raise ConfigError(str(error).removeprefix(f"{error.key}: ")) from None
