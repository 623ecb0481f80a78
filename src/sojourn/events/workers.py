"""Worker processes, as their supervisor sees them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RestartFailed", "WorkerEnded", "WorkerHung", "WorkerReady", "WorkerRetired", "WorkerStarted"]


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
