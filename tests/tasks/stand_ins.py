"""What the tests of a node put in place of a journal: one in memory, whose time they move and which they take away."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvloop

from sojourn.errors import JournalUnavailable
from sojourn.tasks.journal import Beat, Claimed, Counts, Listener, Query, Want
from sojourn.tasks.record import (
    ENDED,
    Claim,
    Event,
    NewTask,
    Progress,
    Reading,
    Settlement,
    Submitted,
    Task,
)
from sojourn.tasks.tasks import Tasks
from sojourn.testing.leaks import assert_no_leaks

__all__ = ["MemoryJournal", "Store", "in_a_loop", "service", "until"]

BOUND = 10.0
Test = Callable[..., Coroutine[Any, Any, None]]
_replace = msgspec.structs.replace


def in_a_loop(test: Test) -> Callable[..., None]:
    """Run an async test on uvloop, within a bound, and look for tasks that it has left."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(BOUND), assert_no_leaks():
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())

    return run


async def until(true: Callable[[], Any], seconds: float = 3.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what it waits for is in another task
            await asyncio.sleep(0.002)


class Store:
    """What several journals share. Its time is its own: that of the loop, and what tests add."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.fingerprints: dict[str, str] = {}
        self.events: dict[str, list[Event]] = {}
        self.added = 0.0
        #: Raised by all calls, if any; and seconds that each takes.
        self.down: str = ""
        self.slow = 0.0
        self.calls: list[str] = []
        self.settled: list[Settlement] = []
        self.listeners: list[Listener] = []
        #: Awaited before each call, with its name.
        self.before: Callable[[str], Awaitable[None]] | None = None

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.added

    def tell(self, what: str, *args: Any) -> None:
        for listener in list(self.listeners):
            getattr(listener, what)(*args)

    async def call(self, name: str) -> None:
        self.calls.append(name)
        if self.before is not None:
            await self.before(name)
        await asyncio.sleep(self.slow)
        if self.down:
            raise JournalUnavailable(self.down, 0.05)


class MemoryJournal:
    """A journal in a Store."""

    name = "memory"

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.node = ""
        self.closed = False

    async def open(self, node: str) -> None:
        await self.store.call("open")
        self.node = node

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        await self.store.call("submit")
        answers = [self._submit(task) for task in tasks]
        self.store.tell("due")
        return answers

    def _submit(self, new: NewTask) -> Submitted:
        store = self.store
        for task in store.tasks.values():
            if task.id == new.id or (new.key and (task.owner, task.key) == (new.owner, new.key)):
                return Submitted(task.id, task.id == new.id, store.fingerprints[task.id], task.state)
        now = store.now
        task = Task(
            id=new.id, kind=new.kind, state="running" if new.node else "pending", payload=new.payload, spec=new.spec,
            owner=new.owner, key=new.key, priority=new.priority, keep=new.keep, created=now, updated=now,
            run_at=now + new.delay if new.run_at is None else new.run_at, epoch=1 if new.node else 0, node=new.node,
            lease_until=now + new.lease if new.node else 0.0, begun=now if new.node else 0.0,
        )  # fmt: skip
        store.tasks[new.id] = task
        store.fingerprints[new.id] = new.fingerprint
        return Submitted(new.id, True, new.fingerprint, task.state)

    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        await self.store.call("claim")
        store, now, claims = self.store, self.store.now, []
        more = False
        for want in wants:
            found = [
                task
                for task in store.tasks.values()
                if task.kind in want.kinds
                and (
                    (task.state == "pending" and task.run_at <= now)
                    or (task.state == "running" and task.lease_until < now)
                )
            ]
            found.sort(key=lambda task: (-task.priority, task.run_at))
            more = more or len(found) > want.n
            for task in found[: want.n]:
                lost = task.state == "running"
                task = store.tasks[task.id] = _replace(
                    task, state="running", epoch=task.epoch + 1, node=node, lease_until=now + lease,
                    interruptions=task.interruptions + lost, crashes=task.crashes + lost, begun=task.begun or now,
                )  # fmt: skip
                claims.append(
                    Claim(
                        id=task.id,
                        kind=task.kind,
                        epoch=task.epoch,
                        payload=task.payload,
                        spec=task.spec,
                        owner=task.owner,
                        checkpoint=task.checkpoint,
                        failures=task.failures,
                        crashes=task.crashes,
                        interruptions=task.interruptions,
                        waited=max(0.0, now - task.run_at),
                        age=now - task.created,
                    )
                )
        moments = [
            task.run_at if task.state == "pending" else task.lease_until
            for task in store.tasks.values()
            if task.state not in ENDED and any(task.kind in want.kinds for want in wants)
        ]
        return Claimed(tuple(claims), 0.0 if more else max(0.001, min(moments) - now) if moments else None)

    def _mine(self, id: str, epoch: int) -> Task | None:
        task = self.store.tasks.get(id)
        return task if task is not None and task.state == "running" and task.epoch == epoch else None

    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        await self.store.call("beat")
        lost, cancelled = set(), set()
        for id, epoch in held:
            task = self._mine(id, epoch)
            if task is None:
                lost.add(id)
            else:
                self.store.tasks[id] = _replace(task, lease_until=self.store.now + lease)
                if task.cancelling:
                    cancelled.add(id)
        return Beat(frozenset(lost), frozenset(cancelled))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        await self.store.call("settle")
        return [self._settle(each) for each in settlements]

    def _settle(self, end: Settlement) -> bool:
        task, now = self._mine(end.id, end.epoch), self.store.now
        if task is None:
            found = self.store.tasks.get(end.id)
            return found is not None and found.epoch == end.epoch and found.state != "running"
        self.store.settled.append(end)
        outcome: Any = end.outcome
        changed: dict[str, Any] = {"lease_until": 0.0, "updated": now, "cancelling": False}
        if end.checkpoint is not None:
            changed["checkpoint"] = end.checkpoint
        if outcome in ENDED:
            changed |= {"state": outcome, "result": end.result, "error": end.error, "ended": now}
        else:
            changed |= {"state": "cancelled" if task.cancelling else "pending", "run_at": now + end.delay}
            if outcome == "retry":
                changed |= {"failures": task.failures + 1, "error": end.error}
            elif outcome == "handover":
                changed |= {"interruptions": task.interruptions + 1}
        self.store.tasks[end.id] = _replace(task, **changed)
        for each in end.then:
            self._submit(each)
        self.store.tell("changed", end.id)
        if self.store.tasks[end.id].state == "pending" or end.then:
            self.store.tell("due")
        return True

    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        await self.store.call("append")
        answers = []
        for said in progress:
            task = self._mine(said.id, said.epoch)
            if task is None:
                answers.append(0)
                continue
            if said.checkpoint is not None:
                task = _replace(task, checkpoint=said.checkpoint)
            if said.data:
                task = _replace(task, seq=task.seq + 1)
                self.store.events.setdefault(said.id, []).append(Event(task.seq, said.data, self.store.now))
            self.store.tasks[said.id] = task
            answers.append(task.seq or -1)
            self.store.tell("changed", said.id)
        return answers

    async def cancel(self, id: str) -> Task | None:
        await self.store.call("cancel")
        task = self.store.tasks.get(id)
        if task is not None and task.state == "pending":
            task = self.store.tasks[id] = _replace(task, state="cancelled", ended=self.store.now)
            self.store.tell("changed", id)
        elif task is not None and task.state == "running":
            task = self.store.tasks[id] = _replace(task, cancelling=True)
            self.store.tell("cancelled", id)
        return task

    async def retry(self, id: str) -> Task | None:
        await self.store.call("retry")
        task = self.store.tasks.get(id)
        if task is not None and task.state in ("failed", "cancelled"):
            task = self.store.tasks[id] = _replace(
                task, state="pending", failures=0, crashes=0, ended=0.0, error=b"", run_at=self.store.now
            )
            self.store.tell("due")
        return task

    async def get(self, id: str) -> Task | None:
        await self.store.call("get")
        return self.store.tasks.get(id)

    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:
        await self.store.call("read")
        task = self.store.tasks.get(id)
        events = [event for event in self.store.events.get(id, ()) if event.seq > after]
        return None if task is None else Reading(task, tuple(events[:limit]))

    async def list(self, query: Query) -> Sequence[Task]:
        await self.store.call("list")
        found = [
            task
            for task in reversed(self.store.tasks.values())
            if (not query.states or task.state in query.states)
            and (not query.kind or task.kind == query.kind)
            and (query.owner is None or task.owner == query.owner)
        ]
        return found[: query.limit]

    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        await self.store.call("counts")
        states: dict[str, dict[str, int]] = {}
        for task in self.store.tasks.values():
            of_kind = states.setdefault(task.kind, {})
            of_kind[task.state] = of_kind.get(task.state, 0) + 1
        return Counts(states, {})

    async def follow(self, id: str) -> None:
        pass

    def unfollow(self, id: str) -> None:
        pass

    async def sweep(self, limit: int = 1000) -> int:
        await self.store.call("sweep")
        over = [t.id for t in self.store.tasks.values() if t.state in ENDED and t.ended + t.keep < self.store.now]
        for id in over:
            del self.store.tasks[id]
        return len(over)

    async def listen(self, listener: Listener) -> None:
        self.store.listeners.append(listener)
        listener.missed()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.store.listeners.remove(listener)

    async def aclose(self) -> None:
        self.closed = True


@asynccontextmanager
async def service(store: Store | None = None, **settings: Any) -> AsyncIterator[Tasks]:
    """A service over a journal in memory; it begins with its first use, after tasks were defined."""
    tasks = Tasks(MemoryJournal(store), **{"handover": 1.0, **settings})
    try:
        yield tasks
    finally:
        await tasks.aclose()
