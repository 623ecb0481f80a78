"""A bounded queue and so many workers: a burst waits for a moment, and what is more than that is refused or made do."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeVar

from sojourn.asgi.server_control import CURRENT_SERVER
from sojourn.errors import WorkersFull
from sojourn.guards.line import Line
from sojourn.guards.registry import GUARDS, Figures, Guards, met

__all__ = ["Workers"]

P = ParamSpec("P")
T = TypeVar("T")

_OUTCOMES: Final = ("ran", "degraded", "full", "waited", "stopped")


class Workers:
    """Runs so many jobs at once; so many more wait in line; what is beyond that is refused, or done in a lesser way.

    A worker is a place, not a task: a job runs in the task that submits it, when its turn has come. So it has that
    task's context and ambient deadline, is cancelled with it, and is never run when its deadline passed in the queue.
    Jobs are ``async def`` functions; for what keeps a processor busy there is :func:`sojourn.offload`.

    ``async with workers:``, in the application's lifespan, ends them in order: no job is accepted any more, and those
    that were are done before it is left. Under a Sojourn server its drain waits for them, too, in the phase
    ``persist``: when no request runs any more, and before the application's own shutdown.

    Args:
        queue: Jobs that may wait.
        workers: Jobs that run at once.
        on_full: What becomes of a job that finds no place, or none in time: ``reject`` raises, ``degrade`` calls
            ``degrade`` in its place.
        degrade: Gets the arguments of the job; its result, awaited if need be, is that of the job.
        wait: Longest time in the queue, in seconds; the ambient deadline may end it sooner.
        name: What errors and metrics call them.

    Attributes:
        name: As given.
        stopped: Whether no job is accepted any more.

    Belongs to one event loop.

    Raises:
        ValueError: ``degrade`` is missing, or would never be called.

    Example:
        >>> import asyncio
        >>> async def resize(size):
        ...     return size * 2
        >>> async def main():
        ...     async with Workers(queue=100, workers=10) as workers:
        ...         return await workers.submit(resize, 21)
        >>> asyncio.run(main())
        42
    """

    __slots__ = ("__weakref__", "_counts", "_degrade", "_forget", "_guards", "_line", "name", "stopped")

    kind: Final = "workers"

    def __init__(
        self,
        *,
        queue: int = 100,
        workers: int = 10,
        on_full: Literal["reject", "degrade"] = "reject",
        degrade: Callable[..., Any] | None = None,
        wait: float = 30.0,
        name: str = "workers",
    ) -> None:
        if on_full not in ("reject", "degrade") or (on_full == "degrade") != (degrade is not None):
            raise ValueError(
                f"on_full is 'reject', or 'degrade' with a function for it, not {on_full!r} with {degrade!r}"
            )
        self.name = name
        self.stopped = False
        self._line = Line(name, workers, queue, wait)
        self._degrade = degrade
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._guards: Guards | None = None
        self._forget: Callable[[], None] | None = None

    @property
    def running(self) -> int:
        """Jobs that run."""
        return self._line.slots.running

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return self._line.slots.waiting

    def figures(self) -> Figures:
        """For the metrics."""
        return Figures(self._counts, self.running, self.waiting)

    async def submit(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)`` when a worker is free.

        Returns:
            What the job returns; or ``degrade``, when it finds no place.

        Raises:
            WorkersFull: There is no place, or none in time; or the workers are stopped.
            DeadlineExceeded: The ambient deadline passed before a worker was free.

        Cancel: safe; a job that waits is withdrawn.
        """
        guards = GUARDS.get()
        if guards is not self._guards:
            self._guards = met(guards, self)
        line = self._line
        slots = line.slots
        if self.stopped:
            self._counts["stopped"] += 1
            raise WorkersFull(self.name, "the workers are stopped")
        if slots.running < slots.limit:
            slots.running += 1
        else:
            refusal = await line.enter()
            if refusal is not None:
                degrade = self._refused(refusal)
                result: Any = degrade(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result  # type: ignore[no-any-return]
        self._counts["ran"] += 1
        try:
            return await function(*args, **kwargs)
        finally:
            line.leave()

    async def stop(self) -> None:
        """Accept no job any more, and wait until those that were accepted are done.

        It has no deadline of its own: in a lifespan ``timeouts.lifespan_shutdown`` is one, elsewhere put one around it.

        Cancel: safe; the jobs go on, as their submitters do.
        """
        self.stopped = True
        await self._line.empty()

    async def __aenter__(self) -> Workers:
        self.stopped = False
        server = CURRENT_SERVER.get(None)
        if server is not None:
            self._forget = server.on_drain(self._line.empty, name=f"workers {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._forget is not None:
            self._forget()
            self._forget = None
        await self.stop()

    def _refused(self, refusal: str) -> Callable[..., Any]:
        """There is no worker for a job. Returns what to call in its place."""
        if self._degrade is not None:
            self._counts["degraded"] += 1
            return self._degrade
        self._counts[refusal] += 1
        slots = self._line.slots
        if refusal == "full":
            raise WorkersFull(self.name, f"{slots.running} jobs run and {slots.waiting} wait, as many as may")
        raise WorkersFull(self.name, f"no worker was free in {slots.queue_wait:g} s: {slots.running} jobs run")
