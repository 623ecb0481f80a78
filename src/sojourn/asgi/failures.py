"""What an application did wrong, or was not allowed to do, and the answer that its client gets for it.

Some errors are no bugs: a missed deadline, a guard that refused. They have a status of their own, also when a framework
has already turned them into a 500: frameworks do that while they handle the error, which is how it is known here.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from sojourn.ending import REASONS, Ending, How, Phase
from sojourn.errors import (
    AccessDenied,
    ApplicationError,
    ClientDisconnected,
    DeadlineExceeded,
    EngineUnavailable,
    GuardRefused,
    HubFull,
    JournalUnavailable,
    OffloadFull,
    SessionStoreUnavailable,
    TaskConflict,
    TaskNotFound,
)
from sojourn.events import ApplicationFailed, DeadlineMissed

if TYPE_CHECKING:
    from sojourn.asgi.cycle import HttpCycle

__all__ = ["cancelled_itself", "excused", "raised", "returned"]

#: Errors that are no bugs, and the reason's word each ends its request with.
_EXCUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (DeadlineExceeded, "application_deadline"),
    (GuardRefused, "guard_refused"),
    (OffloadFull, "guard_refused"),
    (AccessDenied, "access_denied"),
    (EngineUnavailable, "hub_unavailable"),
    (HubFull, "hub_full"),
    (SessionStoreUnavailable, "sessions_unavailable"),
    (JournalUnavailable, "tasks_unavailable"),
    (TaskConflict, "task_conflict"),
    (TaskNotFound, "task_not_found"),
)

#: Those that say when to try again.
_TRY_AGAIN: Final = (GuardRefused, EngineUnavailable, HubFull, SessionStoreUnavailable, JournalUnavailable)


def returned(cycle: HttpCycle) -> None:
    """The application has returned, and its answer is not complete."""
    if cycle.farewell and cycle.stage == 2:
        cycle.finish_stream()
    elif cycle.lost:
        pass
    elif cycle.failure is not None:
        # receive() had told it that the client closed its side, so it saw no reason to go on: that is the cause.
        cycle.connection.end(cycle.failure, abort=True)
    else:
        missing = "a complete answer" if cycle.stage else "http.response.start"
        error = ApplicationError(f"the application returned without {missing}")
        _fail(cycle, "app_returned_without_response", error)


def raised(cycle: HttpCycle, error: BaseException) -> None:
    """The application has raised an error."""
    if cycle.lost or (isinstance(error, ClientDisconnected) and cycle.stage == 4):
        return
    if cycle.farewell and cycle.stage == 2:
        cycle.finish_stream()
    elif cycle.stage == 4:
        # After its answer; nobody waits for anything any more, but somebody should know.
        if cycle.failure is None:
            _tell(cycle, "error_after_response", error)
    elif cycle.stage < 2 and _excuse(cycle, error):
        pass
    elif isinstance(error, ApplicationError):
        mismatch = "Content-Length said" in str(error)
        _fail(cycle, "response_content_length_mismatch" if mismatch else "invalid_response", error)
    else:
        _fail(cycle, "app_error_before_head" if cycle.stage < 2 else "error_after_starting_response", error)


def cancelled_itself(cycle: HttpCycle) -> None:
    """The application's task was cancelled, and not by the server: that would have ended the request before."""
    raised(cycle, asyncio.CancelledError("the application cancelled its own task"))


def excused(cycle: HttpCycle) -> bool:
    """Whether the answer of 500 that is about to be sent is about an error that is no bug; another is sent then."""
    error = sys.exc_info()[1]
    return error is not None and _excuse(cycle, error)


def _excuse(cycle: HttpCycle, error: BaseException) -> bool:
    word = next((word for kind, word in _EXCUSES if isinstance(error, kind)), "")
    if not word:
        return False
    detail, how = str(error), None
    if isinstance(error, DeadlineExceeded):
        detail, how = error.deadline, How.TIMEOUT
        connection = cycle.connection
        if DeadlineMissed in connection.runtime.bus.observers:
            connection.runtime.bus.emit(DeadlineMissed(connection.id, "application", error.seconds, connection.path))
    elif isinstance(error, _TRY_AGAIN) and error.retry_after is not None:
        cycle.retry_after = error.retry_after
    cycle.fail(Ending(word, Phase.HANDLER, how, detail), REASONS[word].status or 500)
    return True


def _fail(cycle: HttpCycle, reason: str, error: BaseException) -> None:
    _tell(cycle, reason, error)
    phase = Phase.HANDLER if cycle.stage < 2 else Phase.RESPONSE
    cycle.fail(Ending(reason, phase, How.LOCAL_ABORT if cycle.stage >= 2 else None, str(error)), 500)


def _tell(cycle: HttpCycle, reason: str, error: BaseException) -> None:
    connection, scope = cycle.connection, cycle.scope
    connection.runtime.bus.emit(ApplicationFailed(connection.id, scope["method"], scope["path"], reason, error))
