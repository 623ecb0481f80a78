"""Where the admin listener listens, and the settings of its own server.

``admin.bind`` is a Unix socket with mode 600 or a loopback address. Any other address needs ``admin.token``; there is
no TLS here, so such a listener belongs on a network of its own, or behind something that speaks TLS.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from sojourn.config import Admin, App, Bind, Config, Diagnostics, Drain, Limits, Log, Proxy, Route, Timeouts
from sojourn.errors import BindError, ConfigError
from sojourn.net.bind import bind

__all__ = ["LONGEST", "admin_config", "bind_admin", "is_loopback", "is_remote"]

_KEY: Final = "admin.bind"
#: Connections the kernel may hold, and that may be open: probes, a dashboard, somebody with curl.
_BACKLOG: Final = 64
_CONNECTIONS: Final = 100
#: The longest any wait of this listener lasts, in seconds, unless below.
_QUICK: Final = 5.0
#: Seconds that the answers of these paths may take. Handlers give workers less, so that theirs is the word.
LONGEST: Final = {"/debug/pprof/*": 420.0, "/config": 60.0, "/log-level": 60.0, "/*": 30.0}
#: What is answered from what the supervisor knows: no worker is asked.
_AT_ONCE: Final = ("/livez", "/readyz", "/startupz", "/status", "/drain", "/restart", "/upgrade")
#: Bytes of a change of settings.
_CHANGE: Final = 64 * 1024
_HOST_PORT: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})")
#: What can stand in a header as it is (RFC 6750 section 2.1).
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def admin_config(config: Config) -> Config:
    """The settings of the admin listener's server: short waits, small sizes, and nothing in the access log.

    Args:
        config: The settings of the whole.

    Raises:
        ConfigError: ``admin.bind`` or ``admin.token`` can't be meant.
    """
    quick = [Route(path=path) for path in _AT_ONCE]
    slow = [
        Route(path=path, timeouts={"response_start": seconds}, limits={"body": _CHANGE} if path == "/config" else {})
        for path, seconds in LONGEST.items()
    ]
    return Config(
        app=App(lifespan="off", workers=0, instance=config.app.instance),
        bind=_where(config.admin) or Bind(),
        timeouts=Timeouts(header=_QUICK, body_idle=_QUICK, response_start=_QUICK, write_idle=_QUICK, keep_alive=_QUICK),
        limits=Limits(connections=_CONNECTIONS, header_bytes=8192, headers=50, target=1024, body=1024),
        drain=Drain(strategy="none", delay=0.0, requests=1.0, streams=1.0, sockets=1.0, persist=1.0, total=2.0),
        diagnostics=Diagnostics(metrics=False, tasks=False, leaks=False, watchdog=False),
        proxy=Proxy(headers=False, trusted=()),
        log=Log(access="off"),
        routes=(*quick, *slow),
    )


def bind_admin(config: Config) -> list[socket.socket]:
    """Open the admin listener; none when ``admin.bind`` is not set. End it with ``net.bind.release`` and its settings.

    Args:
        config: The settings of the whole.

    Raises:
        ConfigError: ``admin.bind`` or ``admin.token`` can't be meant.
        BindError: It can't be listened on.
    """
    settings = _where(config.admin)
    if settings is None:
        return []
    try:
        sockets = bind(settings, {})  # systemd's sockets are for what is served
    except BindError as error:
        said = str(error)
        for key in ("bind.uds", "bind.port", "bind.host"):
            said = said.replace(key, _KEY)
        raise BindError(said) from error
    # A name is what the machine's files make of it.
    wrong = [name for sock in sockets if (name := _address(sock)) is not None and not is_loopback(name)]
    if wrong and config.admin.token is None:
        for sock in sockets:
            sock.close()
        detail = "which is no loopback address and needs admin.token"
        raise BindError(f"{_KEY} {config.admin.bind!r} is {', '.join(wrong)} here, {detail}")
    return sockets


def is_remote(admin: Admin) -> bool:
    """Whether others than this machine are meant to connect."""
    where = _where(admin)
    return where is not None and where.uds is None and not _of_this_machine(where.host)


def is_loopback(address: str) -> bool:
    """Whether it is an address of this machine that no other can reach."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _of_this_machine(host: str) -> bool:
    return host.lower() == "localhost" or is_loopback(host)


def _address(sock: socket.socket) -> str | None:
    """The address of a TCP socket; None for a Unix socket."""
    return None if sock.family == socket.AF_UNIX else str(sock.getsockname()[0])


def _where(admin: Admin) -> Bind | None:
    """``admin.bind`` as settings to bind with; None when it is not set."""
    if admin.token is not None and not _TOKEN.fullmatch(admin.token):
        raise ConfigError("must be letters, digits and -._~+/ (RFC 6750), to go into a header", key="admin.token")
    if admin.bind is None:
        return None
    scheme, colon, path = admin.bind.partition(":")
    if colon and scheme == "unix":
        if not path:
            raise ConfigError("has no path: write unix:/run/service/admin.sock", key=_KEY)
        return Bind(uds=path, uds_mode="600", backlog=_BACKLOG)
    match = _HOST_PORT.fullmatch(admin.bind)
    if match is None:
        raise ConfigError(f"{admin.bind!r} is no place: write unix:PATH, or HOST:PORT such as 127.0.0.1:9000", key=_KEY)
    host, port = match[1] or match[2], int(match[3])
    if not host or "," in host:
        raise ConfigError(f"{admin.bind!r} has no single host: write HOST:PORT such as 127.0.0.1:9000", key=_KEY)
    if not _of_this_machine(host) and admin.token is None:
        detail = f"{host!r} is no loopback address, so others could connect: set admin.token"
        raise ConfigError(f"{detail}; or write unix:PATH, 127.0.0.1:PORT or [::1]:PORT", key=_KEY)
    if port > 65535:
        raise ConfigError(f"{port} is not a port; the highest is 65535", key=_KEY)
    return Bind(host=host, port=port, backlog=_BACKLOG)
