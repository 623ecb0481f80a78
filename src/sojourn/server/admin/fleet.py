"""What the admin listener shows, and what it asks: of a supervisor with its workers, or of one process alone."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from sojourn.server.reconfigure import ConfigVersion, Running

__all__ = ["Countdown", "Fleet", "Status", "WorkerStatus"]


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


class Fleet(Protocol):
    """What the admin listener asks. Whatever can't be done raises an ErrandError, which becomes the answer."""

    def status(self) -> Status:
        """How it stands."""

    def config(self) -> Running:
        """The settings in force."""

    def drain(self) -> None:
        """Begin to end everything. Nothing happens when that has begun."""

    def restart(self) -> None:
        """Begin a rolling restart; 409 where nobody could do it."""

    def upgrade(self) -> None:
        """Begin to replace the supervisor itself; 409 where there is none."""

    def metrics(self, accept: str) -> Awaitable[tuple[str, bytes]]:
        """The page of metrics: its content type and the page.

        Args:
            accept: The Accept header of the request; "" without one.
        """

    async def ask(self, worker: int, name: str, arguments: Mapping[str, Any], seconds: float) -> bytes:
        """The answer of a worker to a question, as MessagePack.

        Args:
            worker: Its number.
            name: What is asked.
            arguments: Plain values.
            seconds: How long it may take.
        """

    def stacks(self, worker: int) -> Awaitable[str]:
        """Where all threads of a worker stand, also of one that hangs."""

    async def configure(self, changes: Mapping[str, Any], who: str) -> ConfigVersion:
        """Change settings of all workers, or of none.

        Args:
            changes: New values by dotted path.
            who: Who asked for it.
        """
