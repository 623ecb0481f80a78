"""Who may use the admin listener.

A web page in a browser on this machine must not be able to: what has an Origin, or a Host that is no name of this
machine (DNS rebinding), is refused. With ``admin.token`` every call but a probe brings it; where others than this
machine connect, their name for it is as good as any.
"""

from __future__ import annotations

import hmac
import socket
import struct
from typing import Final

from sojourn.asgi.probes import PATHS
from sojourn.config import Admin
from sojourn.errors import ErrandError
from sojourn.server.admin.place import is_loopback, is_remote
from sojourn.typing import Scope

__all__ = ["Guard", "asker"]

#: What only browsers send.
_OF_BROWSERS: Final = (b"origin", b"sec-fetch-site")
#: Sec-Fetch-Site of an address that was typed, and not asked for by a page (W3C Fetch Metadata).
_TYPED: Final = b"none"
#: Of ``struct ucred``: process, user, group.
_CREDENTIALS: Final = struct.Struct("3i")


class Guard:
    """Judges each request before anything is done.

    Args:
        settings: ``bind``, ``token`` and ``actions`` of them.
    """

    def __init__(self, settings: Admin) -> None:
        self._token = settings.token.encode() if settings.token is not None else None
        self._remote = is_remote(settings)
        self._actions = settings.actions

    def check(self, scope: Scope) -> None:
        """Do nothing when the request may go on.

        Raises:
            ErrandError: 403 for a stranger, 401 without the token.
        """
        over_unix = scope["client"] is None  # the mode of the socket's file says who may, and no browser speaks to one
        given = b""
        for name, value in scope["headers"]:
            if name in _OF_BROWSERS and not (value == _TYPED and scope["method"] in ("GET", "HEAD")):
                raise ErrandError(403, "forbidden", "requests of a page in a browser are refused")
            if name == b"host" and not (over_unix or self._remote) and not _of_this_machine(value.decode("latin-1")):
                raise ErrandError(403, "forbidden", "Host must be localhost or a loopback address")
            if name == b"authorization":
                given = value
        if self._token is None or scope["path"] in PATHS:
            return
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise ErrandError(401, "unauthorized", "send Authorization: Bearer with the value of admin.token")

    def check_action(self) -> None:
        """Do nothing when who is connected may be hurt.

        Raises:
            ErrandError: ``admin.actions`` is off.
        """
        if not self._actions:
            detail = "this can hurt who is connected, and admin.actions is off; it can be switched on at the next start"
            raise ErrandError(403, "actions_off", detail)


def asker(scope: Scope) -> str:
    """Who asks, for records: the user of the process at the other end of a Unix socket, or an address.

    Source: unix(7), SO_PEERCRED.
    """
    if scope["client"] is not None:
        host, port = scope["client"]
        return f"{host}:{port}"
    transport = scope["extensions"]["sojourn"].connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return "unix"
    process, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"uid {user} (pid {process})"


def _of_this_machine(host: str) -> bool:
    """Whether a Host header names this machine, by a name that nobody else can give an address to."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or is_loopback(name)
