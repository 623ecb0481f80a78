"""What a journal promises when many ask at the same time, and when somebody stops to wait, as checks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from sojourn.clock import SystemClock
from sojourn.scopes.work import attend, together
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import Claim, NewTask, Outcome, Progress, Settlement
from sojourn.testing.task_recorder import LONG, TaskNode, expect, pause
from sojourn.testing.task_submits import Promise

__all__ = ["RACES"]


async def one_task_is_claimed_by_one_of_many(nodes: Sequence[TaskNode]) -> None:
    for _ in range(10):
        ident = await nodes[0].submit()
        found = await together([node.claim() for node in nodes for _ in range(4)], "contract")
        expect([claim.id for claims in found for claim in claims] == [ident], "not claimed by exactly one")
        expect((await nodes[0].task(ident)).epoch == 1, "claimed more than once")


async def every_task_is_claimed_once(nodes: Sequence[TaskNode]) -> None:
    news = [nodes[0].new(priority=index % 3) for index in range(2000)]
    for begin in range(0, 2000, 250):
        await nodes[0].journal.submit(news[begin : begin + 250])

    async def work(node: TaskNode) -> list[tuple[str, int]]:
        got = []
        while claims := await node.claim(50):
            got += [(claim.id, claim.epoch) for claim in claims]
            said = [Settlement(id=claim.id, epoch=claim.epoch, outcome="completed", result=b"1") for claim in claims]
            expect(list(await node.journal.settle(said)) == [True] * len(said), "its own, and it can't end it")
        return got

    got = [each for some in await together([work(node) for node in nodes], "contract") for each in some]
    expect(len(got) == 2000, f"{len(got)} claims of 2000 tasks")
    expect({ident for ident, _ in got} == {new.id for new in news}, "not all of them were claimed")
    expect({epoch for _, epoch in got} == {1}, "claimed more than once")
    states = (await nodes[-1].journal.counts()).states["k"]
    expect({state: n for state, n in states.items() if n} == {"completed": 2000}, f"recorded otherwise: {states}")


async def an_epoch_is_held_by_one_also_while_leases_run_out(nodes: Sequence[TaskNode]) -> None:
    """Half of what is claimed is left alone, and ended too late."""
    total = 60
    await nodes[0].journal.submit([nodes[0].new() for _ in range(total)])
    epochs: Counter[tuple[str, int]] = Counter()
    ends: Counter[str] = Counter()
    limit = SystemClock.monotonic() + 15.0

    async def work(node: TaskNode) -> None:
        slow: list[Claim] = []
        turn = 0
        while len(ends) < total and SystemClock.monotonic() < limit:
            claims = await node.claim(5, lease=0.05)
            epochs.update((claim.id, claim.epoch) for claim in claims)
            expect(max(epochs.values(), default=1) == 1, "an epoch was given twice")
            for claim in claims:
                turn += 1
                if turn % 2:
                    slow.append(claim)
                elif await node.settle(claim, "completed", result=b"1"):
                    ends[claim.id] += 1
            await pause(0.02)
            if len(slow) > 4:
                for claim in slow:
                    if await node.settle(claim, "completed", result=b"2"):
                        ends[claim.id] += 1
                slow.clear()

    await together([work(node) for node in nodes], "contract")
    expect(set(ends.values()) == {1}, "completed more than once")
    expect(len(ends) == total, f"{len(ends)} of {total} completed")
    for task in await nodes[0].journal.list(Query(limit=total)):
        expect(task.state == "completed" and epochs[(task.id, task.epoch)] == 1, f"recorded otherwise: {task}")


async def a_run_ends_once_whoever_says_so(nodes: Sequence[TaskNode]) -> None:
    for _ in range(5):
        claim = await nodes[0].begin()
        then = [node.new("then") for node in nodes]
        outcomes: tuple[Outcome, ...] = ("completed", "failed", "cancelled", "completed")
        said = [
            Settlement(id=claim.id, epoch=claim.epoch, outcome=outcome, then=(new,))
            for outcome, new in zip(outcomes, then, strict=True)
        ]
        counted = await together(
            [node.journal.settle([each]) for node, each in zip(nodes, said, strict=True)], "contract"
        )
        state = (await nodes[0].task(claim.id)).state
        told = {each.outcome for each, (right,) in zip(said, counted, strict=True) if right}
        expect(told == {state}, f"told of {told}, and it is {state}")


async def who_stops_waiting_harms_nothing(nodes: Sequence[TaskNode]) -> None:
    """Each call is cancelled after some turns of the loop: it is done or not, all of it, and may be said again."""
    one, two = nodes
    for turn, pauses in enumerate(((), (0.0,), (0.0,) * 3, (0.0,) * 10, (0.01,))):
        held = await one.begin()
        batch = [one.new("batch", key=f"{turn}-{index}") for index in range(20)]
        then = one.new("then")
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda batch=batch: one.journal.submit(batch),  # type: ignore[misc]
            lambda: one.journal.claim(one.name, [Want(("none",), 1)], LONG),
            lambda held=held: one.journal.beat(one.name, [(held.id, 1)], LONG),  # type: ignore[misc]
            lambda held=held: one.journal.append([Progress(held.id, 1, b"", b"1")]),  # type: ignore[misc]
            lambda held=held, then=then: one.settle(held, "completed", then=(then,)),  # type: ignore[misc]
            lambda held=held: one.journal.get(held.id),  # type: ignore[misc]
            lambda held=held: one.journal.read(held.id, 0),  # type: ignore[misc]
            lambda: one.journal.list(Query()),
            lambda: one.journal.counts(),
            lambda: one.journal.sweep(),
        ]
        for call in calls:
            await _stopped(call(), pauses)
        await _half(two, batch)
        await together([call() for call in calls], "contract")
        expect((await two.task(held.id)).state == "completed", "said again, it is not done")
        expect((await two.task(then.id)).state == "pending", "what follows is not there")
        (again,) = [await two.journal.submit(batch)]
        expect([(each.id, each.new) for each in again] == [(each.id, True) for each in batch], "said again: another")
        expect(len(await two.claim(100, "batch")) == 20, "not each of them once")


async def _stopped(call: Coroutine[Any, Any, object], pauses: Sequence[float]) -> None:
    """Begin to wait for a call, and stop after some turns of the loop, or some time."""
    waiting = attend(call, "contract")
    for seconds in pauses:
        await pause(seconds)
    waiting.cancel()
    await asyncio.wait([waiting])
    expect(waiting.cancelled() or waiting.exception() is None, "who stops waiting gets an error")


async def _half(node: TaskNode, batch: Sequence[NewTask]) -> None:
    """All of a batch is there, or nothing."""
    await pause(0.01)
    there = [await node.journal.get(each.id) is not None for each in batch]
    expect(all(there) or not any(there) or await _settled(node, batch), "a part of a batch is there")


async def _settled(node: TaskNode, batch: Sequence[NewTask]) -> bool:
    """Whether it is all there now: it was written down while somebody looked."""
    return all([await node.journal.get(each.id) is not None for each in batch])


RACES: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, nodes)
    for promise, nodes in (
        (one_task_is_claimed_by_one_of_many, 4),
        (every_task_is_claimed_once, 4),
        (an_epoch_is_held_by_one_also_while_leases_run_out, 4),
        (a_run_ends_once_whoever_says_so, 4),
        (who_stops_waiting_harms_nothing, 2),
    )
}
