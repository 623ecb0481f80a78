"""All settings: frozen groups, each key with its unit, its meaning and when a change takes effect.

This module holds the only defaults there are. Command-line flags, environment names, ``sojourn config`` and the
reference page are generated from it; loading and layering live in ``sojourn.server.settings``.

A *timeout* is a duration in seconds. ``None`` means no limit: it must be written by hand and is announced at start.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "Admin",
    "Admission",
    "App",
    "Bind",
    "Config",
    "Deadlines",
    "Diagnostics",
    "Drain",
    "Limits",
    "Log",
    "Proxy",
    "RateRule",
    "Rates",
    "Registration",
    "Route",
    "Timeouts",
    "Tls",
    "Traces",
    "WebSocket",
    "Work",
    "Worker",
]

#: When a change takes effect: at once, for connections opened later, or after a restart.
Change = Literal["live", "new", "restart"]


def key(doc: str, *, unit: str = "", change: Change = "new", ge: float | None = None, gt: float | None = None) -> Any:
    """Describe one key: what it means, its unit, when a change takes effect, its lower bound."""
    extra = {"unit": unit, "change": change}
    if gt is not None:
        return msgspec.Meta(description=doc, gt=gt, extra=extra)
    return msgspec.Meta(description=doc, ge=ge, extra=extra)


def seconds(doc: str, *, change: Change = "new") -> Any:
    """A duration above zero."""
    return key(doc, unit="s", change=change, gt=0)


def count(doc: str, *, unit: str = "", change: Change = "new", ge: int = 1) -> Any:
    """A whole number of something."""
    return key(doc, unit=unit, change=change, ge=ge)


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen group of keys."""


class App(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application and the process that serves it."""

    target: Annotated[str, key("The application as module:attribute.", change="restart")] = ""
    factory: Annotated[bool, key("The attribute is a function that returns the application.", change="restart")] = False
    dir: Annotated[str, key("Put first on the import path.", change="restart")] = "."
    env_file: Annotated[str | None, key("File of NAME=value lines put in the environment first.", change="restart")] = (
        None
    )
    interface: Annotated[
        Literal["auto", "asgi3", "tasks"],
        key(
            "The application's interface; auto finds out. tasks: durable tasks, which are run without listening.",
            change="restart",
        ),
    ] = "auto"
    spec: Annotated[
        Literal["2.3", "2.5"],
        key(
            "ASGI spec version told to the application; 2.3 keeps Starlette's own disconnect listener.",
            change="restart",
        ),
    ] = "2.5"
    root_path: Annotated[str, key("Prefix under which a proxy mounts the application.")] = ""
    lifespan: Annotated[
        Literal["auto", "on", "off"],
        key("Run the lifespan protocol; on makes an unsupported one an error.", change="restart"),
    ] = "auto"
    loop: Annotated[Literal["auto", "uvloop", "asyncio"], key("The event loop.", change="restart")] = "auto"
    workers: Annotated[
        int, count("Worker processes under a supervisor; 0 serves in the process itself.", change="live", ge=0)
    ] = 1
    instance: Annotated[
        str | None,
        key("Name of this instance in logs, probes and registration; None: host name and port.", change="restart"),
    ] = None
    reload: Annotated[bool, key("Restart when a source file changes; for development.", change="restart")] = False
    reload_dirs: Annotated[
        tuple[str, ...], key("Folders watched by reload; the import path entry when empty.", change="restart")
    ] = ()
    check_layers: Annotated[
        Literal["off", "report", "snapshot"],
        key(
            "Warn of middleware that changes what other layers hold; snapshot gives each a copy. For development.",
            change="restart",
        ),
    ] = "off"
    traceback: Annotated[bool, key("Show the traceback of a failed start.", change="restart")] = False


class Bind(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to listen. One of host and port, uds or fd; systemd's LISTEN_FDS are taken when present and none is set."""

    host: Annotated[
        str, key("Address or name; 0.0.0.0 or :: for all. Several, separated by commas.", change="restart")
    ] = "127.0.0.1"
    port: Annotated[int, key("TCP port; 0 picks a free one.", change="restart", ge=0)] = 8000
    uds: Annotated[str | None, key("Path of a Unix socket.", change="restart")] = None
    uds_mode: Annotated[str, key("Mode of the Unix socket, octal.", change="restart")] = "660"
    fd: Annotated[int | None, key("An inherited, listening file descriptor.", change="restart", ge=0)] = None
    backlog: Annotated[int, count("Connections the kernel may hold before they are accepted.", change="restart")] = 2048
    tcp_keepalive_idle: Annotated[
        float | None, seconds("Silence before the kernel probes the peer; None switches probing off.")
    ] = 60.0
    tcp_keepalive_interval: Annotated[float, seconds("Between two probes.")] = 10.0
    tcp_keepalive_probes: Annotated[int, count("Unanswered probes before the peer counts as dead.")] = 3
    tcp_user_timeout: Annotated[
        float | None,
        seconds(
            "Sent bytes or probes unacknowledged for so long: the peer counts as dead. Not below idle + all probes."
        ),
    ] = 90.0


class Timeouts(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The longest each wait may last."""

    tls: Annotated[float | None, seconds("TLS handshake, from accept.")] = 10.0
    proxy: Annotated[float | None, seconds("PROXY protocol header complete, from accept.")] = 5.0
    header: Annotated[
        float | None,
        seconds("Request head complete: from accept for the first, from its first byte for the next. Absolute."),
    ] = 10.0
    body_idle: Annotated[float | None, seconds("No body byte arrived while the application reads.")] = 30.0
    body: Annotated[
        float | None, seconds("The application's waiting for the request body, in all; a hard ceiling.")
    ] = None
    response_start: Annotated[float | None, seconds("The application must begin its answer.")] = 60.0
    handler: Annotated[float | None, seconds("Whole request, from the end of its head; usually set per route.")] = None
    stream_idle: Annotated[float | None, seconds("No byte either way once the answer has begun.")] = 300.0
    write_idle: Annotated[float | None, seconds("The peer took no byte although some wait for it.")] = 30.0
    keep_alive: Annotated[float | None, seconds("Idle between requests; above the 60 s that load balancers keep.")] = (
        75.0
    )
    lifetime: Annotated[float | None, seconds("Age at which a connection is ended politely, with 10 % jitter.")] = None
    close: Annotated[float, seconds("Our last bytes must have left.")] = 1.0
    linger: Annotated[float, seconds("Reading on after our FIN, so that the peer can read our answer.")] = 1.0
    disconnect_grace: Annotated[float, seconds("From the client's leaving to the cancellation of the application.")] = (
        3.0
    )
    lifespan_startup: Annotated[float | None, seconds("The application's startup.", change="restart")] = 60.0
    lifespan_shutdown: Annotated[float | None, seconds("The application's shutdown.", change="restart")] = 30.0


class Deadlines(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deadlines that flow: from callers into requests, and on to what they call."""

    accept: Annotated[
        bool,
        key(
            "Bound a request by what its caller says in Request-Timeout-Ms, grpc-timeout or "
            "X-Envoy-Expected-Rq-Timeout-Ms; from proxy.trusted.",
            change="live",
        ),
    ] = True
    reject_share: Annotated[
        float,
        key(
            "Largest share of a caller's requests that is answered 504 unseen because it had no time left.",
            change="live",
            ge=0,
        ),
    ] = 0.2
    dark: Annotated[bool, key("Only count such requests: bound and refuse none.", change="live")] = False
    budgets: Annotated[
        tuple[str, ...],
        key("The longest each dependency may take, as NAME=DURATION, such as cache=50ms.", change="live"),
    ] = ()


class Limits(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of anything there may be."""

    connections: Annotated[
        int | None, count("Open connections of this worker, WebSockets included.", change="live")
    ] = 10_000
    connections_total: Annotated[int | None, count("Open connections of all workers together.", change="live")] = None
    connections_per_ip: Annotated[
        int | None, count("Open connections of one client address, on all workers.", change="live")
    ] = None
    requests: Annotated[
        int | None, count("Requests that run in the application at once; WebSockets not counted.", change="live")
    ] = None
    queue: Annotated[int, count("Requests that may wait for a slot.", change="live", ge=0)] = 100
    queue_wait: Annotated[float, seconds("Longest wait for a slot.", change="live")] = 1.0
    retry_after: Annotated[int, count("Retry-After of a 503.", unit="s", change="live")] = 1
    header_bytes: Annotated[int, count("Request line and headers together.", unit="B")] = 32 * 1024
    headers: Annotated[int, count("Header lines of a request.")] = 100
    target: Annotated[int, count("Request target (URL).", unit="B")] = 8 * 1024
    body: Annotated[int | None, count("Request body; a route that streams sets None.", unit="B", ge=0)] = (
        8 * 1024 * 1024
    )
    body_min_rate: Annotated[
        int | None, count("Average rate of a request body after rate_grace, while the application reads.", unit="B/s")
    ] = 240
    write_min_rate: Annotated[
        int | None, count("Average rate at which a peer takes an answer it is behind with.", unit="B/s")
    ] = 240
    rate_grace: Annotated[float, seconds("Before a minimum rate is asked for.")] = 5.0
    requests_per_connection: Annotated[
        int | None, count("Requests after which a connection is rotated (Connection: close).")
    ] = None
    read_buffer: Annotated[int, count("Body bytes held for an application that does not read.", unit="B")] = 64 * 1024
    write_buffer: Annotated[int, count("Unsent bytes at which send() waits.", unit="B")] = 64 * 1024


class Admission(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is let in when more comes than can be served."""

    mode: Annotated[
        Literal["off", "adaptive"],
        key(
            "adaptive: find out how many requests may run at once, up to limits.requests, and take measures under "
            "pressure.",
            change="restart",
        ),
    ] = "off"
    target: Annotated[
        float, seconds("Wait for the event loop above which fewer requests run at once.", change="restart")
    ] = 0.01
    minimum: Annotated[int, count("Requests that may run at once in any case.", change="restart")] = 1
    standing: Annotated[
        float,
        seconds(
            "Requests have waited half of patience for so long: overload, who came last goes first.", change="restart"
        ),
    ] = 0.1
    patience: Annotated[float, seconds("Longest wait for a slot under overload.", change="restart")] = 0.1
    priority_header: Annotated[
        str | None,
        key(
            "Header in which proxy.trusted say a request's priority: high, normal, low, or u=0 to u=7 (RFC 9218).",
            change="restart",
        ),
    ] = None
    lag: Annotated[float | None, seconds("The event loop is late by so much: pressure.", change="restart")] = 0.25
    memory: Annotated[int | None, count("Resident memory of a worker: pressure.", unit="B", change="restart")] = None
    buffered: Annotated[
        int | None, count("Bytes that wait for clients that are behind: pressure.", unit="B", change="restart")
    ] = 256 * 1024 * 1024
    descriptors: Annotated[
        float | None, key("Share of the file descriptors that are open: pressure.", change="restart", gt=0)
    ] = 0.9
    idle: Annotated[float, seconds("In place of timeouts.keep_alive, under pressure.", change="restart")] = 5.0


class Rates(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How [[rate_limits]] are counted."""

    redis: Annotated[
        str | None,
        key("URL of a Redis that counts for all workers and machines; None: each worker for itself.", change="restart"),
    ] = None
    on_failure: Annotated[
        Literal["open", "closed"],
        key("While Redis is away: count in each worker, or answer 503 to all that is limited.", change="restart"),
    ] = "open"
    headers: Annotated[
        bool, key("Say in RateLimit and RateLimit-Policy of every answer how much is left.", change="restart")
    ] = True
    clients: Annotated[int, count("Most clients that a worker remembers.", change="restart")] = 65_536


class WebSocket(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """WebSocket connections."""

    open: Annotated[float | None, seconds("The application must accept or refuse.")] = 10.0
    ping_interval: Annotated[float | None, seconds("Silence of the peer before a ping; None sends none.")] = 20.0
    ping_timeout: Annotated[float, seconds("Any byte must arrive after a ping.")] = 20.0
    ping_misses: Annotated[int, count("Pings missed in a row before the peer counts as dead.")] = 2
    idle: Annotated[float | None, seconds("No message either way; pings do not count.")] = None
    write: Annotated[float | None, seconds("One message must leave.")] = 10.0
    close: Annotated[float, seconds("The peer must answer our close frame.")] = 5.0
    message: Annotated[int | None, count("Longest message, after inflation.", unit="B")] = 1024 * 1024
    queue: Annotated[int, count("Messages in each direction that wait for their reader.")] = 256
    queue_bytes: Annotated[int, count("Bytes in each direction that wait for their reader.", unit="B")] = 1024 * 1024
    slow_consumer: Annotated[
        Literal["disconnect", "block"],
        key("What happens to a client whose queue is full: it is closed with 1013, or the sender waits."),
    ] = "disconnect"
    origins: Annotated[
        tuple[str, ...] | None,
        key("Origins that may connect: exact, * or same-origin; None asks nothing."),
    ] = None
    compression: Annotated[bool, key("Offer permessage-deflate (RFC 7692).")] = True
    compression_takeover: Annotated[
        bool, key("Keep a deflate context per connection: smaller frames, 40 KiB and more each.")
    ] = False
    compression_threshold: Annotated[int, count("Shorter messages are sent as they are.", unit="B", ge=0)] = 512
    inflate_ratio: Annotated[int | None, count("Largest ratio of inflated to received bytes.")] = 25


class Drain(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shutdown."""

    strategy: Annotated[
        Literal["fixed", "until_idle", "none"],
        key("Each kind has its own time; or nobody is cut before drain.total; or nobody gets time.", change="live"),
    ] = "fixed"
    delay: Annotated[
        float, key("Serving on, but not ready, so that balancers look away first.", unit="s", change="live", ge=0)
    ] = 5.0
    requests: Annotated[float, seconds("For requests to finish.", change="live")] = 30.0
    streams: Annotated[float, seconds("For streams to say goodbye.", change="live")] = 20.0
    sockets: Annotated[float, seconds("For WebSockets to close.", change="live")] = 30.0
    close_rate: Annotated[
        int | None,
        count(
            "WebSockets closed in a second, evenly; more if drain.sockets is too short. None: all at once.",
            change="live",
        ),
    ] = 50
    coming_back: Annotated[
        bool, key("Clients find a server again: WebSockets end with 1012, otherwise with 1001.", change="live")
    ] = True
    read_only: Annotated[
        bool, key("Answer POST, PUT, PATCH and DELETE with 503 once the drain has begun.", change="live")
    ] = False
    persist: Annotated[float, seconds("For the application's drain participants of the last phase.", change="live")] = (
        10.0
    )
    total: Annotated[float, seconds("All together, after the delay; then everything is cut.", change="live")] = 90.0
    report: Annotated[str | None, key("File that gets the drain report (JSON).", change="live")] = None


class Worker(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Worker processes under the supervisor."""

    heartbeat: Annotated[
        float | None,
        seconds(
            "The event loop gave no sign of life: its stacks are logged, it is killed and replaced.", change="live"
        ),
    ] = 10.0
    start: Annotated[float | None, seconds("From its start until it serves, imports included.", change="live")] = 300.0
    max_requests: Annotated[
        int | None, count("Requests and WebSockets after which a worker is replaced.", change="live")
    ] = None
    max_lifetime: Annotated[float | None, seconds("Age at which a worker is replaced.", change="live")] = None
    max_memory: Annotated[
        int | None,
        count("Resident memory at which a worker that has served for a minute is replaced.", unit="B", change="live"),
    ] = None
    jitter: Annotated[
        float,
        key("Share by which these three are varied, so that workers are not replaced together.", change="live", ge=0),
    ] = 0.1
    failures: Annotated[
        int,
        count(
            "Workers in a row that ended before they had served for a minute: the supervisor gives up.", change="live"
        ),
    ] = 10


class Work(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durable tasks in processes of their own: `sojourn work`."""

    concurrency: Annotated[
        int | None, count("Tasks that a process runs at the same time; None: as their object says.", change="restart")
    ] = None
    kinds: Annotated[
        tuple[str, ...], key("Names of the only ones that are run; all when empty.", change="restart")
    ] = ()


class Admin(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probes and commands, apart from what is served."""

    bind: Annotated[
        str | None, key("Where: unix:PATH or HOST:PORT; beyond loopback with a token.", change="restart")
    ] = None
    probes: Annotated[
        bool,
        key(
            "Answer /livez, /readyz and /startupz on the main listeners too, before the application.", change="restart"
        ),
    ] = False
    token: Annotated[
        str | None,
        key("Bearer token that every call but probes must bring; needed where others can connect.", change="restart"),
    ] = None
    actions: Annotated[
        bool,
        key("Allow what can hurt who is connected: ending a connection, changing a setting.", change="restart"),
    ] = False
    audit: Annotated[
        str | None, key("File that gets a line (JSON) for each command and each change of a setting.", change="restart")
    ] = None


class Diagnostics(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server watches in itself and in the application; cheap enough to be always on."""

    metrics: Annotated[bool, key("Count for /metrics.", change="restart")] = True
    tasks: Annotated[
        bool,
        key("Note where each task of the application was made, when, and by which request.", change="restart"),
    ] = True
    leaks: Annotated[
        bool,
        key("Look for what outlives its owner: tasks, leases, descriptors, connections.", change="restart"),
    ] = True
    leak_grace: Annotated[
        float, seconds("How long a task may outlive its request or connection.", change="restart")
    ] = 5.0
    leak_ignore: Annotated[
        tuple[str, ...],
        key(
            "Modules or qualified names whose tasks may live as long as they want, such as mylib.pool.",
            change="restart",
        ),
    ] = ()
    lease_held: Annotated[
        float,
        seconds("What is held longer is reported with who took it from its pool.", change="restart"),
    ] = 10.0
    origins: Annotated[
        bool, key("Note where each coroutine was made, so that one never awaited names the line.", change="restart")
    ] = False
    watchdog: Annotated[bool, key("Name the function that blocks the event loop.", change="restart")] = True
    stall: Annotated[float, seconds("The event loop stands still for so long: a stall.", change="restart")] = 0.25


class Traces(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spans for OpenTelemetry: one for each request or connection. Needs the extra ``sojourn[traces]``."""

    enabled: Annotated[
        bool, key("Make spans; OTEL_* variables or the application set up where they go.", change="restart")
    ] = False
    events: Annotated[int, count("Events kept on the span of a long connection.", change="restart")] = 32


class Registration(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told that this instance serves, or stops serving."""

    webhook: Annotated[str | None, key("URL that gets a POST (JSON) at each change of state.", change="restart")] = None
    token: Annotated[str | None, key("Bearer token sent to it.", change="restart")] = None
    beat: Annotated[float | None, seconds("Between two signs of life.", change="restart")] = 15.0
    timeout: Annotated[float, seconds("For one answer of it.", change="restart")] = 3.0


class Tls(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS on every TCP listener."""

    cert: Annotated[str | None, key("Certificate chain, PEM.", change="restart")] = None
    key: Annotated[str | None, key("Private key, PEM; None when it is in the certificate file.", change="restart")] = (
        None
    )
    key_password: Annotated[str | None, key("Password of the private key.", change="restart")] = None
    ca: Annotated[str | None, key("Authorities whose client certificates are accepted, PEM.", change="restart")] = None
    client_cert: Annotated[
        Literal["none", "optional", "required"], key("Whether clients show a certificate.", change="restart")
    ] = "none"
    min_version: Annotated[Literal["1.2", "1.3"], key("Oldest TLS version.", change="restart")] = "1.2"
    ciphers: Annotated[str | None, key("OpenSSL cipher list for TLS 1.2; None takes Python's.", change="restart")] = (
        None
    )


class Proxy(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is believed of those in front of us."""

    protocol: Annotated[
        Literal["off", "on"], key("Expect a PROXY protocol header (v1 or v2) from trusted addresses.")
    ] = "off"
    headers: Annotated[bool, key("Read Forwarded or X-Forwarded-* from trusted addresses.")] = True
    trusted: Annotated[
        tuple[str, ...],
        key("Addresses and networks that are believed; unix for a Unix socket's peer; * for everyone."),
    ] = ("127.0.0.1", "::1", "unix")


class Log(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written, and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], key("Least severe line written.", change="live")
    ] = "info"
    access: Annotated[
        Literal["auto", "json", "combined", "human", "off"],
        key("Access log: auto is human on a terminal, json elsewhere.", change="restart"),
    ] = "auto"
    file: Annotated[str | None, key("File of the access log; None writes to standard output.", change="restart")] = None
    long_connection: Annotated[float, seconds("A connection that has lived so long is logged as open.")] = 60.0
    server_header: Annotated[bool, key("Send a Server header.")] = False
    date_header: Annotated[bool, key("Send a Date header (RFC 9110 section 6.6.1).")] = True


class Route(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other settings for some paths. What is not set stays as it is.

    Numbers mean the same as the key of that name; ``"none"`` takes a limit away.
    """

    path: Annotated[str, key("Exact path, or a prefix that ends with *.")]
    methods: Annotated[tuple[str, ...], key("Only these methods; all when empty.")] = ()
    priority: Annotated[Literal["high", "normal", "low"], key("Who goes first under overload; see admission.mode.")] = (
        "normal"
    )
    timeouts: Annotated[dict[str, float | Literal["none"]], key("Keys of the group timeouts.")] = {}
    limits: Annotated[dict[str, float | Literal["none"]], key("Keys of the group limits.")] = {}
    websocket: Annotated[dict[str, float | bool | Literal["none"]], key("Keys of the group websocket.")] = {}


class RateRule(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often clients may come. All that are meant for a request have to allow it."""

    rate: Annotated[str, key("Such as 100/minute, 5/s, 1000/15m.")]
    name: Annotated[str, key("What headers and metrics call it.")] = "default"
    path: Annotated[str, key("Exact path, or a prefix that ends with *.")] = "*"
    methods: Annotated[tuple[str, ...], key("Only these methods; all when empty.")] = ()
    per: Annotated[Literal["client", "all"], key("Each client address for itself, or all together.")] = "client"
    burst: Annotated[int | None, key("How many at once; None for the number in rate.")] = None


class Config(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything. Build one in code, or let ``sojourn.server.settings.load`` layer file, environment and flags."""

    app: App = App()
    bind: Bind = Bind()
    timeouts: Timeouts = Timeouts()
    deadlines: Deadlines = Deadlines()
    limits: Limits = Limits()
    admission: Admission = Admission()
    rates: Rates = Rates()
    websocket: WebSocket = WebSocket()
    drain: Drain = Drain()
    worker: Worker = Worker()
    work: Work = Work()
    admin: Admin = Admin()
    registration: Registration = Registration()
    diagnostics: Diagnostics = Diagnostics()
    traces: Traces = Traces()
    tls: Tls = Tls()
    proxy: Proxy = Proxy()
    log: Log = Log()
    routes: tuple[Route, ...] = ()
    rate_limits: tuple[RateRule, ...] = ()
