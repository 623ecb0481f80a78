"""The admin listener of the supervisor: probes that answer while a worker hangs, the state of the workers, commands.

    GET  /livez /readyz /startupz      as on the main listeners, about all workers together
    GET  /status                       JSON: the supervisor, its workers, the countdown of a drain
    POST /drain /restart /upgrade      what SIGTERM, SIGHUP and SIGUSR2 do; 202

It is for this machine only: a Unix socket with mode 600, or a loopback address. A web page in a browser on this machine
must not be able to use it: what has an Origin, or a Host that is no name of this machine (DNS rebinding), is refused.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from sojourn.asgi.probes import PATHS, Answer, no, reply, yes
from sojourn.asgi.problem import problem
from sojourn.config import Admin, App, Bind, Config, Drain, Limits, Log, Proxy, Timeouts
from sojourn.errors import BindError, ConfigError
from sojourn.net.bind import bind
from sojourn.typing import ASGIApp, Headers, Receive, Scope, Send

__all__ = ["Commands", "Countdown", "Status", "WorkerStatus", "admin_app", "admin_config", "bind_admin"]

_KEY: Final = "admin.bind"
#: Connections the kernel may hold, and that may be open: probes, a dashboard, somebody with curl.
_BACKLOG: Final = 64
_CONNECTIONS: Final = 100
#: The longest any wait of this listener lasts, in seconds: nothing here takes time.
_QUICK: Final = 5.0
_HOST_PORT: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})")
#: What only browsers send.
_OF_BROWSERS: Final = (b"origin", b"sec-fetch-site")


class WorkerStatus(NamedTuple):
    """A worker process.

    Attributes:
        number: Its number; a replacement has another.
        pid: Its process id.
        generation: How many rolling restarts came before it.
        state: ``starting``, ``ready``, ``draining``, ...; only ``ready`` means that it takes new requests.
        age: Seconds since it was made.
        beat_age: Seconds since its event loop gave a sign of life; None before the first.
        connections: Open connections.
        served: Requests and WebSockets so far.
    """

    number: int
    pid: int
    generation: int
    state: str
    age: float
    beat_age: float | None
    connections: int
    served: int


class Countdown(NamedTuple):
    """A drain: of a worker, or of all together. The fields are those of the event ``DrainCounted``.

    Attributes:
        instance: Who drains.
        phase: ``notice``, ``finish``, ...
        left: Seconds until everything is cut.
        requests: Requests in hand.
        streams: Event streams.
        sockets: WebSockets.
        idle: Connections without a request.
    """

    instance: str
    phase: str
    left: float
    requests: int
    streams: int
    sockets: int
    idle: int


class Status(NamedTuple):
    """The supervisor and its workers, now.

    Attributes:
        instance: Name of the instance.
        pid: Process id of the supervisor.
        version: Version of Sojourn.
        state: ``starting``, ``serving`` or ``draining``. A worker that drains because another has replaced it does not
            make the whole drain.
        started: Whether the first generation of workers was ready once.
        workers: The workers, those that drain included.
        countdown: The drain of the whole; None while nothing drains.
        upgrades: How often the supervisor was replaced in place.
        changing: Whether a rolling restart or an upgrade is under way.
        problem: What went wrong with the last one of them; None when nothing did.
    """

    instance: str
    pid: int
    version: str
    state: Literal["starting", "serving", "draining"]
    started: bool
    workers: tuple[WorkerStatus, ...] = ()
    countdown: Countdown | None = None
    upgrades: int = 0
    changing: bool = False
    problem: str | None = None

    @property
    def ready(self) -> bool:
        """Whether new requests may come."""
        return self.state == "serving" and any(worker.state == "ready" for worker in self.workers)


class Commands(Protocol):
    """What the admin listener asks of the supervisor. Each call returns at once."""

    def status(self) -> Status:
        """How it stands."""

    def drain(self) -> None:
        """Begin to end everything. Nothing happens when that has begun."""

    def restart(self) -> None:
        """Begin a rolling restart."""

    def upgrade(self) -> None:
        """Begin to replace the supervisor itself."""


def admin_app(commands: Commands) -> ASGIApp:
    """The ASGI application of the admin listener.

    Args:
        commands: The supervisor.
    """
    acts: dict[str, Callable[[], None]] = {
        "/drain": commands.drain,
        "/restart": commands.restart,
        "/upgrade": commands.upgrade,
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await reply(send, _answer(scope, commands, acts))
        else:
            raise NotImplementedError(scope["type"])  # there is no lifespan

    return app


def _answer(scope: Scope, commands: Commands, acts: Mapping[str, Callable[[], None]]) -> Answer:
    path, method, headers = scope["path"], scope["method"], scope["headers"]
    if (stranger := _stranger(scope)) is not None:
        return _problem(403, "forbidden", stranger)
    if path in acts:
        if method != "POST":
            return _problem(405, "method_not_allowed", "a command is sent with POST", [(b"allow", b"POST")])
        status = commands.status()
        if status.state == "draining" and path != "/drain":
            return _problem(409, "draining", "everything is about to end")
        acts[path]()
        return _json(202, {"command": path[1:], "instance": status.instance})
    if path not in PATHS and path != "/status":
        return _problem(404, "not_found", f"there are {', '.join((*PATHS, '/status', *acts))}")
    if method not in ("GET", "HEAD"):
        return _problem(405, "method_not_allowed", "it can only be read", [(b"allow", b"GET, HEAD")])
    status = commands.status()
    if path == "/status":
        return _json(200, _document(status))
    if path == "/readyz" and not status.ready:
        return _not_ready(status)
    if path == "/startupz" and not status.started:
        return no("starting", "no worker has been ready yet", instance=status.instance)
    return yes(headers)


def _not_ready(status: Status) -> Answer:
    if status.state == "draining":
        counts = status.countdown._asdict() if status.countdown is not None else None
        return no("draining", "everything is about to end", instance=status.instance, countdown=counts)
    if not status.started:
        return no("starting", "no worker has been ready yet", instance=status.instance)
    return no("no_worker", "no worker is ready", instance=status.instance)


def _document(status: Status) -> dict[str, Any]:
    return {
        **status._asdict(),
        "ready": status.ready,
        "workers": [worker._asdict() for worker in status.workers],
        "countdown": status.countdown._asdict() if status.countdown is not None else None,
    }


def _json(status: int, document: Mapping[str, Any]) -> Answer:
    body = msgspec.json.encode(document)
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    return Answer(status, headers, body)


def _problem(status: int, reason: str, detail: str, extra: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    return Answer(status, *problem(status, reason, detail, extra))


# -- Who may ask


def _stranger(scope: Scope) -> str | None:
    """Why a request is refused; None when it is not."""
    over_unix = scope["client"] is None  # the mode of the socket's file says who may, and no browser speaks to one
    for name, value in scope["headers"]:
        if name in _OF_BROWSERS:
            return "requests of a browser are refused"
        if name == b"host" and not over_unix and not _of_this_machine(value.decode("latin-1")):
            return "Host must be localhost or a loopback address"
    return None


def _of_this_machine(host: str) -> bool:
    """Whether a Host header names this machine, by a name that nobody else can give an address to."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


# -- Where it listens


def admin_config(config: Config) -> Config:
    """The settings of the supervisor's own server: everything short and small, and nothing in the access log.

    Args:
        config: The settings of the whole.

    Raises:
        ConfigError: ``admin.bind`` can't be meant.
    """
    return Config(
        app=App(lifespan="off", workers=0, instance=config.app.instance),
        bind=_where(config.admin) or Bind(),
        timeouts=Timeouts(header=_QUICK, body_idle=_QUICK, response_start=_QUICK, write_idle=_QUICK, keep_alive=_QUICK),
        limits=Limits(connections=_CONNECTIONS, header_bytes=8192, headers=50, target=1024, body=1024),
        drain=Drain(strategy="none", delay=0.0, requests=1.0, streams=1.0, sockets=1.0, persist=1.0, total=2.0),
        proxy=Proxy(headers=False, trusted=()),
        log=Log(access="off"),
    )


def bind_admin(config: Config) -> list[socket.socket]:
    """Open the admin listener; none when ``admin.bind`` is not set. End it with ``net.bind.release`` and its settings.

    Args:
        config: The settings of the whole.

    Raises:
        ConfigError: ``admin.bind`` can't be meant.
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
    wrong = [name for sock in sockets if (name := _address(sock)) is not None and not _is_loopback(name)]
    if wrong:
        for sock in sockets:
            sock.close()
        raise BindError(f"{_KEY} {config.admin.bind!r} is {', '.join(wrong)} here, which is no loopback address")
    return sockets


def _address(sock: socket.socket) -> str | None:
    """The address of a TCP socket; None for a Unix socket."""
    return None if sock.family == socket.AF_UNIX else str(sock.getsockname()[0])


def _where(admin: Admin) -> Bind | None:
    """``admin.bind`` as settings to bind with; None when it is not set."""
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
    if host.lower() != "localhost" and not _is_loopback(host):
        detail = f"{host!r} is no loopback address: the admin listener is for this machine only"
        raise ConfigError(f"{detail}; write unix:PATH, 127.0.0.1:PORT or [::1]:PORT", key=_KEY)
    if port > 65535:
        raise ConfigError(f"{port} is not a port; the highest is 65535", key=_KEY)
    return Bind(host=host, port=port, backlog=_BACKLOG)
