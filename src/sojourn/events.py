"""What can be observed. Each event is a past-tense fact; ``sojourn.bus.Bus`` delivers it to observers.

Emitting costs one test when nobody listens. Observers are called on the event loop and must return at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sojourn.ending import Ending

__all__ = [
    "AcceptPaused",
    "AcceptResumed",
    "ApplicationFailed",
    "CallerDeadline",
    "CircuitChanged",
    "ConfigChanged",
    "ConnectionEnded",
    "ConnectionGrewOld",
    "ConnectionOpened",
    "DeadlineMissed",
    "DrainCounted",
    "DrainCut",
    "DrainParticipantEnded",
    "DrainPhaseChanged",
    "DrainReported",
    "Event",
    "LeakFound",
    "LeaseOverdue",
    "LeaseReturned",
    "LifespanFailed",
    "LoopStalled",
    "PressureChanged",
    "RegistrationFailed",
    "RequestEnded",
    "RequestLimited",
    "RestartFailed",
    "ServerStarted",
    "ServerStopped",
    "TaskFailed",
    "TaskSurvived",
    "WebSocketOpened",
    "WorkerEnded",
    "WorkerHung",
    "WorkerReady",
    "WorkerRetired",
    "WorkerStarted",
]


class ConnectionOpened(NamedTuple):
    """A socket was accepted and registered."""

    connection: int
    peer: str
    listener: str


class ConnectionGrewOld(NamedTuple):
    """A connection has lived for ``log.long_connection`` seconds; it will be logged again when it ends."""

    connection: int
    peer: str
    protocol: str
    path: str
    age: float
    bytes_in: int
    bytes_out: int


class ConnectionEnded(NamedTuple):
    """A connection left the registry. Exactly one per ConnectionOpened.

    Attributes:
        connection: Its id.
        peer: ``address:port`` of the client, after PROXY protocol.
        protocol: ``http``, ``websocket``, or ``""`` when no request came.
        path: Path of its last request; "" when none came.
        ending: The first cause.
        duration: Seconds since accept.
        bytes_in: Bytes received.
        bytes_out: Bytes handed to the kernel.
        unsent: Bytes that were still waiting for the peer.
        requests: Requests begun on it.
        ws_sent: WebSocket close code sent; None when no close frame was.
        ws_received: WebSocket close code received; None when none was.
        long: Whether ConnectionGrewOld was emitted for it.
        idle: Seconds since the last byte went either way.
    """

    connection: int
    peer: str
    protocol: str
    path: str
    ending: Ending
    duration: float
    bytes_in: int
    bytes_out: int
    unsent: int
    requests: int
    ws_sent: int | None
    ws_received: int | None
    long: bool
    idle: float = 0.0


class RequestEnded(NamedTuple):
    """A request ended: its answer is complete, or never will be. A WebSocket: it closed, or its handshake was refused.

    What most observers never ask for is kept as it came and worked out by a property.

    Attributes:
        connection: Id of its connection.
        client: Host and port of the client; None for a Unix socket.
        method: Request method; ``WEBSOCKET`` for a WebSocket.
        target: Raw path with query, as received.
        version: ``1.0`` or ``1.1``.
        status: Status sent; the reason's status (such as 499) when none was.
        ending: The first cause.
        duration: Seconds from the end of the head to the end of the answer.
        bytes_in: Body bytes received.
        bytes_out: Bytes of head and body sent.
        headers: The request's headers, as ASGI has them.
        kind: ``http``, ``event_stream`` (an answer of server-sent events) or ``websocket``.
        route: The pattern that the application's router matched, such as ``/items/{id}``; "" when it does not say.
        trace_id: Trace id that tracing gave it (W3C Trace Context), 32 hex digits; "" without tracing.
    """

    connection: int
    client: tuple[str, int] | None
    method: str
    target: bytes
    version: str
    status: int
    ending: Ending
    duration: float
    bytes_in: int
    bytes_out: int
    headers: Sequence[tuple[bytes, bytes]]
    kind: str = "http"
    route: str = ""
    trace_id: str = ""

    @property
    def peer(self) -> str:
        """The client as ``host:port``; ``unix`` for a Unix socket."""
        return f"{self.client[0]}:{self.client[1]}" if self.client is not None else "unix"

    def header(self, name: bytes) -> bytes:
        """The last value of a request header, b"" when absent."""
        value = b""
        for key, found in self.headers:
            if key == name:
                value = found
        return value


class RequestLimited(NamedTuple):
    """A request was refused because ``quotas`` allow no more; they would in ``retry_after`` seconds."""

    connection: int
    client: str
    path: str
    quotas: tuple[str, ...]
    retry_after: float


class WebSocketOpened(NamedTuple):
    """A WebSocket was accepted."""

    connection: int
    peer: str
    target: bytes
    subprotocol: str | None


class DeadlineMissed(NamedTuple):
    """An armed deadline passed and ended a request or connection."""

    connection: int
    deadline: str
    seconds: float
    path: str


class CallerDeadline(NamedTuple):
    """A request came with a deadline of its caller.

    Attributes:
        connection: Its connection.
        header: Which header said so.
        seconds: How long the caller waits; 0.0 for no longer.
        outcome: ``bound``; ``refused``, because nothing was left; ``let_through``, because too many were refused; or
            ``dark``, because deadlines are only counted.
    """

    connection: int
    header: str
    seconds: float
    outcome: str


class TaskFailed(NamedTuple):
    """A task that nobody awaits ended with an error, or left something behind that it must not.

    Attributes:
        name: The task's name.
        owner: What it belonged to, such as ``connection 12 GET /slow``.
        error: What it raised.
    """

    name: str
    owner: str
    error: BaseException


class TaskSurvived(NamedTuple):
    """An application task did not end although it was cancelled and re-cancelled.

    Attributes:
        name: The task's name.
        owner: What it belonged to, such as ``connection 12 GET /slow``.
        cause: Why it was cancelled (a reason word).
        seconds: How long ago it was first cancelled.
        stack: Its stack, innermost call last.
        ended: False when it still runs, True when it has ended at last.
    """

    name: str
    owner: str
    cause: str
    seconds: float
    stack: str
    ended: bool


class ApplicationFailed(NamedTuple):
    """The application raised or broke the ASGI contract; the server goes on."""

    connection: int
    method: str
    path: str
    reason: str
    error: BaseException


class LoopStalled(NamedTuple):
    """The event loop, or the whole process, stood still; deadlines were extended by that much.

    Emitted when it goes on.

    Attributes:
        seconds: For how long.
        cause: ``code`` (something on the loop's thread ran), ``gc``, ``native`` (it kept the interpreter lock),
            ``machine`` (the process got no processor time) or "" when nobody watched.
        function: The innermost function of the application or a library that was seen on the loop's thread, as
            ``module.function file:line``; "" when none was.
        stack: The loop's thread while it stood still, innermost call last; "" when it was not seen.
        processor: Seconds of processor time that the loop's thread used meanwhile.
        collector: Seconds of it in the garbage collector.
    """

    seconds: float
    cause: str = ""
    function: str = ""
    stack: str = ""
    processor: float = 0.0
    collector: float = 0.0


class LeakFound(NamedTuple):
    """Something is alive past its declared end. Once for each signature; the count grows silently after that.

    Attributes:
        kind: ``task``, ``lost_task``, ``coroutine``, ``lease``, ``fd``, ``connection`` or ``resource``.
        what: What it is: the coroutine's name, the pool, the file, the kind of socket.
        created: Where it was made or taken, as ``file:line in function``.
        waiting: Where it is now, as ``file:line in function``; "" when nothing is known.
        owner: What it belonged to, such as ``connection 12 GET /slow``; "" when nothing is known.
        age: Seconds since it was made.
        known: How many of this signature there are so far.
        holder: What holds it, as a path of references; "" when that was not searched.
        stack: The stack at its creation or of its waiting, innermost call last; "" when nothing is known.
    """

    kind: str
    what: str
    created: str
    waiting: str
    owner: str
    age: float
    known: int
    holder: str = ""
    stack: str = ""


class LeaseOverdue(NamedTuple):
    """Something taken from a pool is held for longer than ``diagnostics.lease_held``; ``stack`` is who took it."""

    pool: str
    seconds: float
    owner: str
    stack: str


class LeaseReturned(NamedTuple):
    """What LeaseOverdue or a leak told of was given back after all."""

    pool: str
    seconds: float
    owner: str


class ConfigChanged(NamedTuple):
    """Settings were changed while serving.

    Attributes:
        version: The how-manieth configuration this is; the first is 1.
        who: Who asked.
        changes: Per key: the value before and the value now, as they are written in a configuration file.
    """

    version: int
    who: str
    changes: Mapping[str, tuple[Any, Any]]


class AcceptPaused(NamedTuple):
    """Accepting stopped for a while; what is open is served on."""

    listener: str
    cause: str


class AcceptResumed(NamedTuple):
    """Accepting goes on."""

    listener: str
    seconds: float


class DrainPhaseChanged(NamedTuple):
    """A phase of the shutdown began.

    Attributes:
        phase: ``notice`` (still serving), ``finish``, ``cut requests`` and so on, or ``persist``.
        instance: Who drains.
        left: Seconds until everything is cut.
        requests: Requests in hand.
        streams: Event streams.
        sockets: WebSockets.
        idle: Connections without a request.
    """

    phase: str
    instance: str
    left: float
    requests: int
    streams: int
    sockets: int
    idle: int


class DrainCounted(NamedTuple):
    """A mark of the countdown: how much time and how many are left. The fields are those of DrainPhaseChanged."""

    phase: str
    instance: str
    left: float
    requests: int
    streams: int
    sockets: int
    idle: int


class DrainParticipantEnded(NamedTuple):
    """Something that had asked to take part in the drain is done, or was not in time.

    Attributes:
        name: What it is called.
        phase: Of which phase.
        seconds: How long it took.
        problem: What went wrong; None when nothing did.
    """

    name: str
    phase: str
    seconds: float
    problem: str | None


class DrainReported(NamedTuple):
    """A drain is over.

    Attributes:
        instance: Who drained: a worker, or all together.
        seconds: How long it took.
        exit_code: What the process ends with because of it.
        kinds: For ``requests``, ``streams``, ``sockets`` and ``idle``: how many were ``open``, ``told``, ``finished``
            and ``cut``.
        unanswered: WebSockets whose client did not answer the close frame.
        cut: Connections and tasks that had to be cut.
    """

    instance: str
    seconds: float
    exit_code: int
    kinds: Mapping[str, Mapping[str, int]]
    unanswered: int
    cut: int


class WorkerStarted(NamedTuple):
    """The supervisor made a worker process; it does not serve yet."""

    worker: int
    pid: int
    why: str


class WorkerReady(NamedTuple):
    """A worker serves; ``seconds`` is how long its start took."""

    worker: int
    pid: int
    seconds: float


class WorkerRetired(NamedTuple):
    """A worker is told to drain while others serve on; ``why`` is ``restart``, ``max_requests``, ..."""

    worker: int
    pid: int
    why: str


class WorkerEnded(NamedTuple):
    """A worker process is gone.

    Attributes:
        worker: Its number.
        pid: Its process id.
        code: Its exit code; minus the signal's number when a signal ended it.
        expected: Whether it had been told to end.
        again: Seconds until it is replaced; None when it is not.
        problem: Why it could not start; "" when it did not say so.
    """

    worker: int
    pid: int
    code: int
    expected: bool
    again: float | None
    problem: str = ""


class WorkerHung(NamedTuple):
    """The event loop of a worker gave no sign of life for so long, and is killed; ``stacks`` says where it was."""

    worker: int
    pid: int
    seconds: float
    stacks: str


class RestartFailed(NamedTuple):
    """A rolling restart or an upgrade was given up; what served before serves on."""

    what: str
    problem: str


class RegistrationFailed(NamedTuple):
    """A service registry could not be told; serving goes on."""

    call: str
    problem: str


class DrainCut(NamedTuple):
    """Something had not ended by itself when its time to drain was over, and was cut.

    Attributes:
        what: ``request``, ``stream``, ``websocket``, ``connection`` (no request in hand) or ``task`` (what a request
            left running after its answer or its client's leaving).
        connection: Id of the connection; 0 for a task.
        peer: ``address:port`` of the client; "" for a task.
        route: Method and path, or what the task belonged to.
        age: Seconds since the connection was accepted; 0 for a task.
        phase: Where the connection was; "" for a task.
        stack: Where the application stood, innermost call last; "" when it did not run.
    """

    what: str
    connection: int
    peer: str
    route: str
    age: float
    phase: str
    stack: str


class PressureChanged(NamedTuple):
    """A worker has too much of something, or less than before: it takes a measure, or takes one back.

    Attributes:
        cause: What there is too little of: ``space`` or ``processor``.
        level: The level now; 0 is no pressure.
        before: The level before.
        why: The signal: ``lag``, ``queue``, ``memory``, ``buffered`` or ``descriptors``; "" on level 0.
        measures: What is done now, in words of the configuration's documentation.
    """

    cause: str
    level: int
    before: int
    why: str
    measures: tuple[str, ...]


class CircuitChanged(NamedTuple):
    """A circuit breaker has opened, or closed again. That it tries whether it can close is not told.

    Attributes:
        guard: Its name.
        open: Whether its dependency is not called now.
        detail: Why.
    """

    guard: str
    open: bool
    detail: str


class LifespanFailed(NamedTuple):
    """The application's lifespan went wrong, and the server goes on.

    Attributes:
        phase: ``startup``, ``serving`` or ``shutdown``.
        problem: What it did, as in "the application <problem>".
        error: What it raised; None when it raised nothing.
    """

    phase: str
    problem: str
    error: BaseException | None


class ServerStarted(NamedTuple):
    """The server listens and the application is up."""

    addresses: tuple[str, ...]


class ServerStopped(NamedTuple):
    """The server has ended; since it began to stop ``finished`` connections ended by themselves, ``cut`` were cut."""

    finished: int
    cut: int


Event = (
    ConnectionOpened
    | ConnectionGrewOld
    | ConnectionEnded
    | RequestEnded
    | RequestLimited
    | CallerDeadline
    | WebSocketOpened
    | DeadlineMissed
    | TaskFailed
    | TaskSurvived
    | ApplicationFailed
    | LoopStalled
    | PressureChanged
    | CircuitChanged
    | LeakFound
    | LeaseOverdue
    | LeaseReturned
    | ConfigChanged
    | AcceptPaused
    | AcceptResumed
    | DrainPhaseChanged
    | DrainCounted
    | DrainCut
    | DrainParticipantEnded
    | DrainReported
    | LifespanFailed
    | ServerStarted
    | ServerStopped
    | WorkerStarted
    | WorkerReady
    | WorkerRetired
    | WorkerEnded
    | WorkerHung
    | RestartFailed
    | RegistrationFailed
)
