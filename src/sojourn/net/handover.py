"""Listening sockets that another process opened: systemd's, a supervisor's, a predecessor's."""

from __future__ import annotations

import errno
import socket
from collections.abc import MutableMapping

from sojourn.errors import BindError

__all__ = ["adopt", "inherited"]

#: The first descriptor systemd passes (SD_LISTEN_FDS_START in sd-daemon.h).
FIRST = 3

#: LISTEN_PIDFDID came with systemd 258; like the others it speaks of this process only.
VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


def adopt(fd: int, what: str) -> socket.socket:
    """Make a socket of a descriptor, which is then owned by it and not inherited by children.

    Args:
        fd: The descriptor; it must be a listening stream socket of IPv4, IPv6 or Unix.
        what: How errors call it, such as ``bind.fd 5``.

    Raises:
        BindError: It is not open, or not such a socket. The descriptor stays as it was.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        problem = {errno.EBADF: "is not an open descriptor", errno.ENOTSOCK: "is not a socket"}
        raise BindError(
            f"{what}: {problem.get(error.errno or 0, str(error))}; pass on a listening socket under this number"
        ) from error
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
            raise BindError(f"{what}: is a {_kind(sock)} socket; TCP or a Unix stream socket is needed")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise BindError(f"{what}: the socket does not listen; whoever opens it must also call listen() on it")
    except BaseException:
        sock.detach()
        raise
    sock.set_inheritable(False)
    return sock


def inherited(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets systemd passes on (socket activation); none when the variables are absent or for another process.

    The variables are removed, so that children do not take the sockets once more.

    Args:
        environ: The process environment.
        pid: This process; the sockets are for it alone.

    Raises:
        BindError: A variable is not a number, or a descriptor is not a listening stream socket.

    Source: sd_listen_fds(3).
    """
    values = {name: environ.pop(name, "") for name in VARIABLES}
    if not values["LISTEN_FDS"] or not values["LISTEN_PID"]:
        return []
    if _number("LISTEN_PID", values["LISTEN_PID"]) != pid:
        return []
    names = values["LISTEN_FDNAMES"].split(":")
    sockets: list[socket.socket] = []
    try:
        for index in range(_number("LISTEN_FDS", values["LISTEN_FDS"])):
            name = f" ({names[index]})" if index < len(names) and names[index] else ""
            sockets.append(adopt(FIRST + index, f"LISTEN_FDS, descriptor {FIRST + index}{name}"))
    except BindError:
        for sock in sockets:
            sock.detach()
        raise
    return sockets


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise BindError(f"{name}={value!r} is not a number; it comes from whoever started this process")
    return int(value)


def _kind(sock: socket.socket) -> str:
    family = getattr(sock.family, "name", str(sock.family)).removeprefix("AF_")
    kind = getattr(sock.type, "name", str(sock.type)).removeprefix("SOCK_").lower()
    return f"{family} {kind}"
