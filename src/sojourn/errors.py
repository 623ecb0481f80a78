"""Every error Sojourn raises on purpose.

    SojournError
    ├── ConfigError            a key that is unknown or has a bad value (exit 2)
    ├── StartupError           the application can't be imported or its startup failed (exit 3)
    ├── BindError              an address can't be listened on (exit 4)
    ├── RestartLoopError       workers end again and again (exit 7)
    ├── ProtocolError          the peer broke HTTP; carries the status of the answer
    │   └── HandshakeError     the WebSocket opening handshake is not acceptable
    ├── WebSocketError         the peer broke RFC 6455; carries the close code
    ├── ApplicationError       the application broke the ASGI contract
    ├── ClientDisconnected     send() after the client left; also an OSError (ASGI spec 2.4)
    ├── DeadlineExceeded       a named deadline passed; also a TimeoutError
    │   └── PoolWaitExceeded   it passed while a call waited for a connection of a full pool
    ├── SecurityContextError   nobody acts here, or an identity was entered or left where it must not be: deny
    ├── AccessDenied           who acts here may not do this
    ├── AuthenticationError    who asks could not prove who it is; says what failed, with the status of the answer
    ├── OffloadFull            as much work waits for a thread or process as may
    ├── WorkerDied             the process that did offloaded work ended in the middle of it
    ├── GuardRefused           a guard did not let a call through, and nothing was done; says when to try again
    │   ├── CircuitOpen        the dependency fails: it is not called for a while
    │   ├── BulkheadFull       as many calls run, and wait, as may
    │   └── WorkersFull        as many jobs run, and wait, as may
    ├── RateLimited            somebody came too often; carries the answer, and when to try again
    ├── RateLimitsUnavailable  nobody can say whether a request is within its limits, and it was told to refuse then
    ├── EngineUnavailable      what holds the order and history of a hub can't be reached
    ├── HubFull                as much waits for the members of a hub as may; nothing was published
    ├── HubRefused             a hub refused what its client asked for; says whether the same may work later
    ├── HubGone                the connection to a hub is over, and with it what was asked
    ├── SessionStoreUnavailable  what keeps sessions can't be reached
    ├── JournalUnavailable     what keeps durable tasks can't be reached, or can't write; nothing acknowledged is lost
    ├── TaskArguments          the arguments of a task are not what its function takes
    ├── TaskConflict           an idempotency key was used for a task with other arguments
    ├── TaskNotFound           there is no such task, or no more, or not for who asks
    ├── TaskFailed             a task whose result was awaited has failed or was cancelled
    ├── WebhookFailed          a webhook was not taken; says when to try again
    │   └── WebhookRefused     and it is not to be tried again
    ├── RouteError             a route that can't be defined, or an address that can't be built
    └── ErrandError            a question to a running server that can't be answered; carries a status

Each message says what happened and, where it helps, what to do. Foreign errors are translated once, at the seam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = [
    "AccessDenied",
    "ApplicationError",
    "AuthenticationError",
    "BindError",
    "BulkheadFull",
    "CircuitOpen",
    "ClientDisconnected",
    "ConfigError",
    "DeadlineExceeded",
    "EngineUnavailable",
    "ErrandError",
    "GuardRefused",
    "HandshakeError",
    "HubFull",
    "HubGone",
    "HubRefused",
    "JournalUnavailable",
    "OffloadFull",
    "PoolWaitExceeded",
    "ProtocolError",
    "RateLimited",
    "RateLimitsUnavailable",
    "RestartLoopError",
    "RouteError",
    "SecurityContextError",
    "SessionStoreUnavailable",
    "SojournError",
    "StartupError",
    "TaskArguments",
    "TaskConflict",
    "TaskFailed",
    "TaskNotFound",
    "WebSocketError",
    "WebhookFailed",
    "WebhookRefused",
    "WorkerDied",
    "WorkersFull",
]


class SojournError(Exception):
    """Base of all errors that Sojourn raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel between processes, and are made anew without the arguments that made them.
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[SojournError], args: tuple[Any, ...]) -> SojournError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class ConfigError(SojournError):
    """A configuration key is unknown or has a value that can't be used.

    Args:
        message: What is wrong and what would be right.
        key: Dotted path of the key, such as ``timeouts.header``; None when no single key is at fault.
        origin: Where the value came from (a file with its line, ``SOJOURN_...``, a flag); None when unknown.
    """

    exit_code = 2

    def __init__(self, message: str, *, key: str | None = None, origin: str | None = None) -> None:
        prefix = f"{key}: " if key else ""
        suffix = f" (from {origin})" if origin else ""
        super().__init__(f"{prefix}{message}{suffix}")
        self.key = key
        self.origin = origin


class StartupError(SojournError):
    """The application can't be imported, or its lifespan startup failed or took too long."""

    exit_code = 3


class BindError(SojournError):
    """An address can't be listened on."""

    exit_code = 4


class RestartLoopError(SojournError):
    """Workers end again and again without having served: nothing can be served."""

    exit_code = 7


class ProtocolError(SojournError):
    """The peer sent something that is not acceptable HTTP.

    Args:
        status: The status of the answer, such as 400 or 431.
        reason: The stable word of the ending, such as ``invalid_request_headers`` (a key of ``ending.REASONS``).
        detail: What exactly was wrong, for the log and the problem document.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


class HandshakeError(ProtocolError):
    """The WebSocket opening handshake is not acceptable (RFC 6455 section 4.2.2).

    Args:
        status: The status of the answer: 400, 403, 405 or 426.
        detail: What exactly was wrong.
        headers: Headers the answer must carry, such as ``Sec-WebSocket-Version`` with 426.
    """

    def __init__(self, status: int, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(status, "upgrade_rejected", detail)
        self.headers = tuple(headers)


class WebSocketError(SojournError):
    """The peer broke RFC 6455; the connection ends with this close code (section 7.4.1).

    Args:
        code: 1002 protocol error, 1007 invalid data, 1009 message too big, and so on.
        reason: A short text for the close frame, at most 123 bytes in UTF-8.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class ApplicationError(SojournError):
    """The application broke the ASGI contract, such as a second ``http.response.start``."""


class ClientDisconnected(SojournError, OSError):
    """The client left; nothing more can be sent to it.

    Raised by ``send()`` as ASGI spec 2.4 asks (an OSError subclass). It is not logged as an error.

    Args:
        reason: The stable word of the connection's ending, such as ``client_closed_mid_response``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection has ended: {reason}")
        self.reason = reason


class Place(Protocol):
    """Something that was made in a line of code."""

    @property
    def where(self) -> str:
        """Which line, such as ``app.py:12 in save``."""


class DeadlineExceeded(SojournError, TimeoutError):
    """A named deadline passed.

    Args:
        deadline: Name of the deadline, such as ``response_start`` or the name given to ``sojourn.deadline``.
        seconds: Its length in seconds.
        where: Where it was set, such as ``app.py:12 in save``, or what has that as its ``where``: to find out takes
            longer than the rest of the error, and few are read. "" when it is not known.
    """

    def __init__(self, deadline: str, seconds: float, where: str | Place = "") -> None:
        super().__init__(deadline)  # one argument: OSError takes two for errno and its text
        self.deadline = deadline
        self.seconds = seconds
        self._place = where

    @property
    def where(self) -> str:
        """Where it was set; "" when that is not known."""
        return self._place if isinstance(self._place, str) else self._place.where

    def __str__(self) -> str:
        where = self.where
        return f"deadline {self.deadline!r} of {self.seconds:g} s passed" + (f" (set at {where})" if where else "")

    def __reduce__(self) -> tuple[type[DeadlineExceeded], tuple[str, float, str]]:
        return DeadlineExceeded, (self.deadline, self.seconds, self.where)


class PoolWaitExceeded(DeadlineExceeded):
    """Time ran out while a call waited for a connection of a full pool: the other side was not asked anything.

    That is not a slow query, and what helps is the opposite: a larger pool, or connections held for a shorter time.

    Args:
        pool: Name of the pool.
        deadline: Name of the deadline that passed.
        seconds: Its length in seconds.
        where: As of :class:`DeadlineExceeded`.
    """

    def __init__(self, pool: str, deadline: str, seconds: float, where: str | Place = "") -> None:
        super().__init__(deadline, seconds, where)
        self.pool = pool

    def __str__(self) -> str:
        return f"waited for a connection of pool {self.pool!r}: {super().__str__()}"

    def __reduce__(self) -> Any:
        return PoolWaitExceeded, (self.pool, self.deadline, self.seconds, self.where)


class SecurityContextError(SojournError):
    """Nobody acts here, or whoever does has expired, or was entered or left where it must not be: deny."""


class AccessDenied(SojournError):
    """Who acts here may not do this.

    Args:
        principal: Who.
        detail: Why not, for the log.
    """

    def __init__(self, principal: str, detail: str) -> None:
        super().__init__(f"{principal!r} may not do this: {detail}")
        self.principal = principal
        self.detail = detail


class AuthenticationError(SojournError):
    """Who asks could not prove who it is. Says what failed, never the credential.

    Args:
        reason: One word for programs, such as ``token_expired``.
        detail: What failed, for the client and the log.
        status: HTTP status of the answer: 401, or 503 when the proof could not be looked at.
    """

    def __init__(self, reason: str, detail: str, status: int = 401) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.status = status


class OffloadFull(SojournError):
    """As many calls wait for a thread or process as may: nothing of this one was begun; answer 503 and try later.

    Args:
        pool: ``thread`` or ``process``.
        waiting: How many wait.
    """

    def __init__(self, pool: str, waiting: int) -> None:
        super().__init__(f"{waiting} calls wait for a {pool} already, and no more may")
        self.pool = pool
        self.waiting = waiting


class WorkerDied(SojournError):
    """The process that did offloaded work ended in the middle of it, such as by a signal or lack of memory."""


class GuardRefused(SojournError):
    """A guard of outgoing calls did not let one through; nothing was done.

    Args:
        guard: Name of the guard.
        detail: Why.
        retry_after: Seconds after which it may be tried again; None when that is not known.
    """

    def __init__(self, guard: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{guard}: {detail}")
        self.guard = guard
        self.detail = detail
        self.retry_after = retry_after


class CircuitOpen(GuardRefused):
    """The dependency fails, or takes too long: it is not called until ``retry_after`` seconds have passed."""


class BulkheadFull(GuardRefused):
    """As many calls run as may, and as many wait; or this one has waited as long as it may."""


class WorkersFull(GuardRefused):
    """As many jobs run as may, and as many wait; or this one has waited as long as it may, or the workers stop."""


class RateLimited(SojournError):
    """Somebody came more often than a quota allows. Carries the whole answer, for whoever answers.

    Args:
        quotas: Names of the quotas that refuse it.
        retry_after: Seconds until it would be allowed; infinite when it asks for more than there ever is.
        headers: Of the answer.
        body: Of the answer: a problem document.
    """

    status = 429

    def __init__(self, quotas: Sequence[str], retry_after: float, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"more than {' and '.join(quotas)} allows; it would be allowed in {retry_after:.1f} s")
        self.quotas = tuple(quotas)
        self.retry_after = retry_after
        self.headers = dict(headers)
        self.body = body


class RateLimitsUnavailable(SojournError):
    """Redis does not say whether a request is within its limits, and ``on_failure`` is ``closed``.

    Args:
        retry_after: Seconds after which it is asked again.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("rate limits can't be looked up at present")
        self.retry_after = retry_after


class EngineUnavailable(SojournError):
    """What holds the order and history of a hub can't be reached; what was asked may have been done.

    Args:
        detail: What is wrong.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(f"the hub's engine can't be reached: {detail}")
        self.detail = detail
        self.retry_after = retry_after


class HubFull(SojournError):
    """As many bytes wait for the members of a hub as may (``HubLimits.buffered``); nothing was published.

    Args:
        buffered: Bytes that wait.
        limit: As many as may.
    """

    def __init__(self, buffered: int, limit: int) -> None:
        super().__init__(f"{buffered} bytes wait for the hub's members, and {limit} may: publish less, or later")
        self.buffered = buffered
        self.limit = limit
        self.retry_after = 1.0


class SessionStoreUnavailable(SojournError):
    """What keeps sessions can't be reached, or takes none any more; what was asked may have been done.

    Args:
        detail: What is wrong.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(f"sessions can't be looked up or kept at present: {detail}")
        self.detail = detail
        self.retry_after = retry_after


class HubRefused(SojournError):
    """A hub refused what its client asked for.

    Args:
        code: One word: ``forbidden``, ``bad_request``, ``limit``, ``rate``, ``unavailable`` or ``unauthenticated`` from
            the hub; ``queue_full`` and ``too_large`` when the client did not send it.
        detail: What is wrong.
        retry: Whether the same may work later.
    """

    def __init__(self, code: str, detail: str, retry: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry = retry


class HubGone(SojournError):
    """The connection to a hub is over: what was asked may have been done, and nothing more comes.

    Args:
        reason: Why.
        code: WebSocket close code, or HTTP status of a refused handshake; 0 for neither.
    """

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(f"the connection to the hub is over: {reason}" + (f" ({code})" if code else ""))
        self.reason = reason
        self.code = code


class JournalUnavailable(SojournError):
    """What keeps durable tasks can't be reached, or can't write; what was asked may be done, and may be repeated.

    Args:
        detail: What is wrong.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(f"the journal of tasks can't be used: {detail}")
        self.detail = detail
        self.retry_after = retry_after


class TaskArguments(SojournError, TypeError):
    """The arguments of a task are not what its function takes; nothing was written down.

    Args:
        kind: Of the task.
        detail: Which argument, and why not.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"task {kind}: {detail}")
        self.kind = kind
        self.detail = detail


class TaskConflict(SojournError):
    """An idempotency key was used before, for another task or other arguments.

    Args:
        key: The key.
        id: The task it was used for.
    """

    def __init__(self, key: str, id: str) -> None:
        super().__init__(f"the idempotency key {key!r} was used for something else, task {id}")
        self.key = key
        self.id = id


class TaskNotFound(SojournError, LookupError):
    """There is no such task, or no more, or not for who asks.

    Args:
        id: What was asked for.
    """

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no task {id!r}")
        self.id = id


class TaskFailed(SojournError):
    """A task whose result was awaited has failed, or was cancelled.

    Args:
        id: The task.
        state: ``failed`` or ``cancelled``.
        type: Name of the error's class; "" when it was cancelled.
        detail: What the error said.
    """

    def __init__(self, id: str, state: str, type: str = "", detail: str = "") -> None:
        why = f": {type}: {detail}" if type else ""
        super().__init__(f"task {id} has {'failed' if state == 'failed' else 'been cancelled'}{why}")
        self.id = id
        self.state = state
        self.type = type
        self.detail = detail


class WebhookFailed(SojournError):
    """A webhook was not taken by whom it was sent to.

    Args:
        host: Who that is.
        detail: What went wrong.
        status: HTTP status of the answer; 0 without one.
        retry_after: Seconds after which it wants to be asked again; None when it does not say.
    """

    def __init__(self, host: str, detail: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"the webhook for {host} was not taken: {detail}")
        self.host = host
        self.detail = detail
        self.status = status
        self.retry_after = retry_after


class WebhookRefused(WebhookFailed):
    """A webhook that is not to be tried again: its address is gone, or may not be called."""


class RouteError(SojournError):
    """A route that can't be defined, such as one that is there already, or an address that can't be built.

    The message names the route, and the other one where two do not go together.
    """


class ErrandError(SojournError):
    """What was asked of a running server can't be answered.

    Args:
        status: HTTP status that fits: 400 for a bad argument, 404, 409 when it can't be done now, 503, 504.
        reason: One word for programs, such as ``unknown_profile``.
        detail: What is wrong and what would be right.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
