"""Every task of a worker: listed, counted, profiled."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from sojourn.asgi.site import CURRENT, Site
from sojourn.clock import NEVER
from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers, refuse_unknown
from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample
from sojourn.observe.tasks.chain import waiter_of
from sojourn.observe.tasks.counter import Counter
from sojourn.observe.tasks.describer import Describer, TaskInfo
from sojourn.observe.tasks.every import Reference, alive, references
from sojourn.observe.tasks.factory import Attribution
from sojourn.observe.tasks.outliving import Late, Outliving
from sojourn.observe.tasks.pace import Pace
from sojourn.observe.tasks.threads import threads_profile
from sojourn.observe.tasks.waits import Waits

__all__ = ["Outliving", "TaskInfo", "Tasks"]

#: What the filters take.
_FILTERS: Final = frozenset({"older", "owner", "limit", "stacks"})
#: Tasks that are sorted in one go.
_RUN: Final = 500
#: Seconds of a difference between two looks.
_LONGEST: Final = 300.0


class Tasks:
    """Knows the tasks of a worker.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = loop = site.runtime.loop
        self._monotonic = site.monotonic
        self._wall = site.ticker.clock.wall
        self._describer = describer = Describer(site)
        self._counter = Counter(loop, describer.kind)
        self._late = Late(loop, site.monotonic, describer)
        self._attribution = (
            Attribution(loop, site.ticker.clock, partial(CURRENT.get, None)) if site.config.diagnostics.tasks else None
        )
        self._waits = Waits(loop, site.ticker, self._monotonic, self._waiting)
        if site.config.diagnostics.tasks:
            self._waits.start()
        #: The errands it does.
        self.answers: Answers = {"tasks": self.list}
        #: The profiles it makes, by name.
        self.profiles: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Profile]]] = {
            "goroutine": self._goroutine,
            "block": self._block,
            "thread": self._threads,
        }

    @property
    def attribution(self) -> str:
        """``on``, ``off``, or why tasks are not noted as they are made."""
        return "off" if self._attribution is None else str(self._attribution)

    def close(self) -> None:
        """Note nothing any more. Idempotent."""
        self._waits.stop()
        if self._attribution is not None:
            self._attribution.close()

    def counts(self) -> dict[str, int]:
        """How many tasks there are of each kind of owner: now, or where there are many, when this was last asked."""
        return self._counter.counts()

    async def list(self, arguments: Mapping[str, Any]) -> list[TaskInfo]:
        """The tasks, oldest first; one whose age nobody noted counts as the oldest.

        Args:
            arguments: ``older``: at least so many seconds; ``owner``: with this in the words for its owner, or of this
                kind (request, connection, server, application); ``limit``: at most so many; ``stacks``: with their
                frames.

        Raises:
            ErrandError: There is no such filter.

        Cancel: safe.
        """
        refuse_unknown(arguments, _FILTERS)
        owner, stacks = str(arguments.get("owner") or ""), bool(arguments.get("stacks"))
        limit = int(arguments.get("limit") or 0)
        found: list[TaskInfo] = []
        pace = Pace(self._loop, self._monotonic)
        for task in await self._oldest_first(float(arguments.get("older") or 0.0), pace):
            if pace.over():
                await pace.rest()
            if task.done():
                continue
            whose = self._describer.owner(task)
            if owner and owner != whose.kind and owner not in whose.text:
                continue
            found.append(self._describer.describe(task, whose, stacks=stacks))
            if len(found) == limit:
                break
        return found

    def outliving(self, grace: float) -> AsyncIterator[Outliving]:
        """The tasks whose request or WebSocket has ended. Nobody adopted them, nor a task that waits for them.

        Args:
            grace: Seconds for which a task may run on, since the first look that found it behind the end.

        Cancel: safe.
        """
        return self._late.longer_than(grace)

    def describe(self, task: asyncio.Task[Any], *, stacks: bool = False) -> TaskInfo:
        """One task as it is now; ``stacks``: with its frames."""
        return self._describer.describe(task, stacks=stacks)

    async def _oldest_first(self, older: float, pace: Pace) -> Iterator[asyncio.Task[Any]]:
        """The tasks that are at least so many seconds old. Sorted in pieces, which are merged as they are taken."""
        latest = self._monotonic() - older if older > 0 else NEVER
        runs: list[list[tuple[float, int, asyncio.Task[Any]]]] = [[]]
        for index, reference in enumerate(references(self._loop)):
            if pace.over():
                await pace.rest()
            task = alive(reference, self._loop)
            if task is None:
                continue
            born = self._describer.born(task) or 0.0
            if born <= latest:
                if len(runs[-1]) >= _RUN:
                    runs[-1].sort()
                    runs.append([])
                runs[-1].append((born, index, task))
        runs[-1].sort()
        return (task for _, _, task in heapq.merge(*runs))

    # Profiles

    async def _goroutine(self, arguments: Mapping[str, Any]) -> Profile:
        """All tasks, with equal ones put together."""
        began = self._monotonic()
        moment = self._wall()
        groups: dict[tuple[Any, ...], list[int]] = {}
        count = 0
        pace, look = Pace(self._loop, self._monotonic), self._describer
        for reference in references(self._loop):
            if pace.over():
                await pace.rest()
            task = alive(reference, self._loop)
            if task is None:
                continue
            count += 1
            owner = look.owner(task)
            stack, wait = look.standing(task, owner)
            created, born = look.created(task), look.born(task)
            labels = [("owner", owner.kind), ("state", look.state(task, wait))]
            if owner.route:
                labels.append(("route", owner.route))
            if wait.kind:
                labels.append(("wait", wait.kind))
            if created is not None:
                labels.append(("created", str(created)))
            values = groups.setdefault((stack, tuple(labels)), [0, 0])
            values[0] += 1
            values[1] += round(1000 * max(0.0, self._monotonic() - born)) if born is not None else 0
        return Profile(
            name="goroutine",
            kinds=(Kind("goroutine", "count"), Kind("age", "milliseconds")),
            samples=[Sample(stack, (n, age), labels) for (stack, labels), (n, age) in groups.items()],
            moment=moment,
            comments=[
                f"{count} tasks of the event loop, looked at in slices within {self._monotonic() - began:.3f} s",
                f"attribution: {self.attribution}",
            ],
        )

    async def _block(self, arguments: Mapping[str, Any]) -> Profile:
        """What tasks waited for: since the start, or in the next ``seconds``."""
        if not self._site.config.diagnostics.tasks:
            raise ErrandError(409, "switched_off", "waits are looked at when diagnostics.tasks is on")
        seconds = float(arguments.get("seconds") or 0.0)
        if not 0.0 <= seconds <= _LONGEST:
            raise ErrandError(400, "bad_argument", f"seconds are between 0 and {_LONGEST:g}, not {seconds:g}")
        before = await self._waits.window(seconds) if seconds else None
        return self._waits.profile(self._wall(), before)

    async def _threads(self, arguments: Mapping[str, Any]) -> Profile:
        """Where each thread of the process is."""
        return threads_profile(self._loop, self._wall())

    def _waiting(self, most: int) -> tuple[float, Iterator[tuple[tuple[Frame, ...], tuple[tuple[str, str], ...]]]]:
        """Random tasks for the wait profile: how many each stands for, and stacks and labels of those that wait."""
        every = references(self._loop)
        chosen = random.sample(every, most) if len(every) > most else every
        return len(every) / max(1, len(chosen)), filter(None, map(self._look, chosen))

    def _look(self, reference: Reference) -> tuple[tuple[Frame, ...], tuple[tuple[str, str], ...]] | None:
        task = alive(reference, self._loop)
        waiter = waiter_of(task) if task is not None else None
        if task is None or waiter is None or waiter.done():
            return None
        stack = self._describer.stack(task)
        return (stack, (("owner", self._describer.kind(task)),)) if stack else None
