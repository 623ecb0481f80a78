"""From settings to listening sockets, and one clear line when that fails."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping, Sequence
from typing import NamedTuple

from sojourn.config import Bind, Config
from sojourn.errors import BindError, ConfigError
from sojourn.net.handover import adopt, inherited

__all__ = ["addresses", "bind", "listening", "release"]

#: How often another free port is tried for port 0, when a port free at the first host is taken at the next.
PORT_TRIES = 16


def bind(settings: Bind, environ: MutableMapping[str, str] | None = None) -> list[socket.socket]:
    """Open the listening sockets: a descriptor, a Unix socket, systemd's sockets, or TCP; the first that is there.

    systemd's are taken when ``host`` and ``port`` are as by default. Port 0 becomes the same free port on every host.

    Args:
        settings: Where to listen.
        environ: Where systemd's variables are looked for and removed; None means the environment of the process.

    Raises:
        ConfigError: The settings contradict each other or can't be meant.
        BindError: An address can't be listened on; nothing is left open.
    """
    if settings.fd is not None and settings.uds is not None:
        raise ConfigError("choose one of bind.fd and bind.uds", key="bind.fd")
    if settings.fd is not None:
        return [adopt(settings.fd, f"bind.fd {settings.fd}")]
    if settings.uds is not None:
        return [_unix(settings.uds, settings)]
    default = Bind()
    if settings.host == default.host and settings.port == default.port:
        sockets = inherited(os.environ if environ is None else environ, os.getpid())
        if sockets:
            return sockets
    return _tcp(settings)


def listening(config: Config) -> list[socket.socket]:
    """Open the listening sockets of a configuration: none where only tasks are run.

    Raises:
        ConfigError: The settings contradict each other or can't be meant.
        BindError: An address can't be listened on; nothing is left open.
    """
    return [] if config.app.interface == "tasks" else bind(config.bind)


def release(sockets: Iterable[socket.socket], settings: Bind) -> None:
    """Close the sockets and remove the file of a Unix socket, unless another process still listens on it."""
    for sock in sockets:
        sock.close()
    if settings.uds is not None and settings.fd is None and _answers(settings.uds) is False:
        try:
            os.unlink(settings.uds)
        except FileNotFoundError:
            pass  # someone was quicker: it is gone, as wanted


def addresses(sockets: Iterable[socket.socket], scheme: str = "http") -> tuple[str, ...]:
    """The sockets as the start line names them: ``http://127.0.0.1:8000``, ``http://[::1]:8000``, ``unix:/a.sock``."""
    return tuple(_url(sock, scheme) for sock in sockets)


def _url(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    return f"{scheme}://{_at(name[0], name[1])}"


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- TCP ---------------------------------------------------------------------------------------------------------------


def _tcp(settings: Bind) -> list[socket.socket]:
    if settings.port > 65535:
        raise ConfigError(f"{settings.port} is not a port; the highest is 65535", key="bind.port")
    hosts = [host.strip().removeprefix("[").removesuffix("]") for host in settings.host.split(",")]
    if not all(hosts):
        raise ConfigError("a host is empty; 0.0.0.0 or :: listens on all addresses", key="bind.host")
    places = [_resolve(host) for host in hosts]
    for _ in range(PORT_TRIES if settings.port == 0 else 0):
        try:
            return _bind_all(places, settings)
        except BindError as error:
            if _errno(error) != errno.EADDRINUSE:
                raise
    return _bind_all(places, settings)


class Place(NamedTuple):
    """An address to listen on; its port comes later."""

    family: int
    host: str
    scope: int

    def sockaddr(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """What bind(2) gets."""
        return (self.host, port, 0, self.scope) if self.family == socket.AF_INET6 else (self.host, port)


def _resolve(host: str) -> list[Place]:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        text = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise BindError(f"bind.host {host!r}: {text}; give an address of this machine, or 0.0.0.0 or ::") from error
    places = [Place(family, str(at[0]), int(at[3]) if len(at) > 3 else 0) for family, _, _, _, at in found]
    return list(dict.fromkeys(places))


def _bind_all(hosts: Sequence[Sequence[Place]], settings: Bind) -> list[socket.socket]:
    sockets: dict[Place, socket.socket] = {}
    port = settings.port
    try:
        for places in hosts:
            absent: BindError | None = None
            for place in places:
                if place in sockets:
                    continue
                try:
                    sockets[place] = _listen(place, port, settings.backlog)
                except BindError as error:
                    if _errno(error) not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    absent = error
                    continue
                port = sockets[place].getsockname()[1]
            # A name such as localhost may have an IPv6 address where there is no IPv6; one of its addresses is enough.
            if absent is not None and not any(place in sockets for place in places):
                raise absent
    except BaseException:
        for sock in sockets.values():
            sock.close()
        raise
    return list(sockets.values())


def _listen(place: Place, port: int, backlog: int) -> socket.socket:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(place.family, socket.SOCK_STREAM)
        # A restart must not wait for the TIME_WAIT of its predecessor's connections.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            # Else :: takes the IPv4 port too and 0.0.0.0 can't be bound next to it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place.sockaddr(port))
        sock.listen(backlog)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise BindError(_tcp_problem(error, place, port)) from error
    return sock


def _tcp_problem(error: OSError, place: Place, port: int) -> str:
    at = _at(place.host, port)
    if error.errno == errno.EADDRINUSE:
        return f"{at} is in use by another process; stop that one (ss -ltnp names it) or choose another bind.port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{at}: not permitted; take a port above 1023, or give the process CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{at}: {place.host} is not an address of this machine; 0.0.0.0 or :: listens on all of them"
    if error.errno == errno.EAFNOSUPPORT:
        return f"{at}: this machine has no {'IPv6' if place.family == socket.AF_INET6 else 'IPv4'}"
    return f"{at}: {error.strerror or error}"


def _errno(error: BindError) -> int | None:
    cause = error.__cause__
    return cause.errno if isinstance(cause, OSError) else None


# -- Unix sockets ------------------------------------------------------------------------------------------------------


def _unix(path: str, settings: Bind) -> socket.socket:
    mode = _mode(settings.uds_mode)
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, mode)  # before listen(): until then nobody can connect
        sock.listen(settings.backlog)
    except OSError as error:
        sock.close()
        raise BindError(_unix_problem(error, path)) from error
    return sock


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigError(f"{text!r} is not a file mode; write it in octal, such as 660", key="bind.uds_mode")
    return mode


def _make_way(path: str) -> None:
    """Remove the socket file a dead server left behind, and nothing else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise BindError(f"unix:{path}: a file that is not a socket is there; remove it or choose another bind.uds")
        if _answers(path):
            raise BindError(f"unix:{path} is in use by another process; stop that one or choose another bind.uds")
        os.unlink(path)
    except FileNotFoundError:
        pass  # nothing is in the way
    except (OSError, ValueError) as error:
        raise BindError(_unix_problem(error, path)) from error


def _answers(path: str) -> bool:
    """Whether someone listens on a socket file. A full backlog counts, and so does one that can't be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN; blocking would wait for room
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def _unix_problem(error: OSError | ValueError, path: str) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return f"unix:{path}: its directory does not exist"
    if number in (errno.EACCES, errno.EPERM):
        return f"unix:{path}: not permitted; the process must be able to write to its directory"
    if number == errno.EADDRINUSE:
        return f"unix:{path} is in use: another process was quicker"
    return f"unix:{path}: {(isinstance(error, OSError) and error.strerror) or error}"
