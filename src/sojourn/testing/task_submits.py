"""What a journal promises of writing tasks down, and of ending, retrying and removing them, as checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sojourn.scopes.work import attend, together
from sojourn.tasks.record import Outcome, Progress
from sojourn.testing.task_recorder import TaskNode, expect, pause, steady

__all__ = ["SUBMITS", "Promise"]

Promise = Callable[[Sequence[TaskNode]], Awaitable[None]]


async def what_is_submitted_is_there_as_it_was_given(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    new = one.new(
        kind="shop.Bericht für ✓",
        payload='{"name": "ü\\u0000", "n": 1}'.encode() + b" " * 300_000,
        spec=b'{"attempts":3}',
        owner="änn",
        key="a key: with (signs) %_*?[",
        fingerprint="f",
        priority=-7,
        delay=100.0,
        keep=12.5,
    )
    (done,) = await one.journal.submit([new])
    expect((done.id, done.new, done.fingerprint, done.state) == (new.id, True, "f", "pending"), f"other: {done}")
    for node in (one, two):
        task = await node.task(new.id)
        for name in "id kind payload spec owner key priority keep".split():
            expect(getattr(task, name) == getattr(new, name), f"{name} is {getattr(task, name)!r:.200}")
        expect(type(task.payload) is bytes and type(task.spec) is bytes, "payload or spec are not bytes")
        expect(
            task.state == "pending" and task.epoch == 0 and task.node == "", f"not as at the beginning: {task!r:.200}"
        )
        zero = (task.failures, task.interruptions, task.crashes, task.seq, task.begun, task.ended, task.lease_until)
        expect(not any(zero) and not task.cancelling, f"not as at the beginning: {zero}")
        expect(not (task.result or task.error or task.checkpoint), "a result, error or checkpoint of nothing")
        expect(task.created > 1_600_000_000, f"created at {task.created}")
        expect(abs(task.run_at - task.created - 100.0) < 0.01, "not due after its delay")
    expect(await one.journal.get("nothing") is None, "a task that nobody has submitted")


async def who_submits_an_id_again_gets_what_is_there(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    new = one.new(payload=b"1", fingerprint="f", key="k", owner="ann")
    for _ in range(3):
        for node in nodes:
            (done,) = await node.journal.submit([new])
            expect((done.id, done.new, done.fingerprint) == (new.id, True, "f"), f"said again it is another: {done}")
    (claim,) = await one.claim()
    expect(claim.id == new.id, "another task")
    (done,) = await two.journal.submit([new])
    expect(done.new and done.state == "running", f"not the state it is in: {done}")
    expect(await two.claim() == [], "written down twice")
    await one.settle(claim, "completed", result=b"2")
    (done,) = await two.journal.submit([new])
    expect(done.state == "completed" and (await one.task(new.id)).result == b"2", f"not the state it is in: {done}")


async def a_key_is_used_once_by_its_owner(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    first = one.new(key="k", owner="ann", fingerprint="f")
    again = two.new(key="k", owner="ann", fingerprint="f")
    other = two.new(key="k", owner="ann", fingerprint="other")
    bobs = two.new(key="k", owner="bob", fingerprint="b")
    nobodys = two.new(key="k", fingerprint="n")
    free = [two.new(owner="ann", fingerprint="x"), two.new(owner="ann", fingerprint="y")]
    await one.journal.submit([first])
    found = await two.journal.submit([again, bobs, other, nobodys, *free])
    wanted = [(first.id, False, "f"), (bobs.id, True, "b"), (first.id, False, "f"), (nobodys.id, True, "n")]
    wanted += [(free[0].id, True, "x"), (free[1].id, True, "y")]
    expect([(each.id, each.new, each.fingerprint) for each in found] == wanted, f"other answers: {found}")
    expect(await two.journal.get(again.id) is None, "written down though its key was used")
    (claim,) = [each for each in await one.claim(10) if each.id == first.id]
    await one.settle(claim, "completed")
    (done,) = await one.journal.submit([two.new(key="k", owner="ann", fingerprint="f")])
    expect((done.id, done.new, done.state) == (first.id, False, "completed"), f"the key is forgotten: {done}")


async def a_key_is_used_once_also_in_one_batch(nodes: Sequence[TaskNode]) -> None:
    (node,) = nodes
    same = [node.new(key="k", fingerprint=f"f{index}") for index in range(3)]
    found = await node.journal.submit([*same, same[0]])
    expect([each.id for each in found] == [same[0].id] * 4, f"one key for several tasks: {found}")
    expect([each.new for each in found] == [True, False, False, True], f"which of them is new? {found}")
    expect({each.fingerprint for each in found} == {"f0"}, "not the fingerprint of what is there")


async def many_who_use_a_key_at_the_same_time_get_one_task(nodes: Sequence[TaskNode]) -> None:
    for turn in range(5):
        news = [node.new(key=f"k{turn}", owner="ann") for node in nodes for _ in range(5)]
        done = await together(
            [nodes[index % len(nodes)].journal.submit([new]) for index, new in enumerate(news)], "contract"
        )
        expect(len({answer.id for (answer,) in done}) == 1, "one key, several tasks")
        expect([answer.new for (answer,) in done].count(True) == 1, "not exactly one is new")
    expect(len(await nodes[0].claim(100)) == 5, "not one task for each key")


async def who_takes_it_at_once_has_it_from_the_beginning(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    held = one.new(payload=b"1", node=one.name, lease=30.0)
    short = one.new(node=one.name, lease=0.3)
    for _ in range(2):
        done = await one.journal.submit([held, short])
        expect([each.state for each in done] == ["running"] * 2, f"not running: {done}")
    task = await two.task(held.id)
    expect((task.state, task.epoch, task.node) == ("running", 1, one.name), f"not one's: {task}")
    expect(task.begun > 0 and task.lease_until > task.created + 20, f"without a lease: {task}")
    expect(await two.claim() == [], "claimed from who has it")
    beat = await one.journal.beat(one.name, [(held.id, 1)], 30.0)
    expect(not beat.lost, "what it took is not its own")
    await pause(0.4)
    (claim,) = await two.claim()
    expect((claim.id, claim.epoch, claim.crashes) == (short.id, 2, 1), f"its lease has run out: {claim}")
    expect(await one.journal.settle([]) == [], "an answer to nothing")


async def a_batch_is_written_down_as_one(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    seen: set[int] = set()
    going = True

    async def look() -> None:
        while going:
            counts = await two.journal.counts(["k"])
            seen.add(counts.states.get("k", {}).get("pending", 0))
            await pause(0)

    looking = attend(look(), "contract")
    for _ in range(10):
        await one.journal.submit([one.new(priority=index % 3) for index in range(40)])
    going = False
    await asyncio.wait([looking])
    expect(looking.exception() is None, "looking has failed")
    expect(not any(number % 40 for number in seen), f"a part of a batch was seen: {sorted(seen)}")
    expect(await one.journal.submit([]) == [], "an answer to nothing")


async def cancelling_ends_what_is_pending_and_asks_what_runs(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    waiting, late = await one.submit("p"), await one.submit("p", delay=50.0)
    for ident in (waiting, late):
        for _ in range(2):
            task = await two.journal.cancel(ident)
            expect(task is not None and task.id == ident and task.state == "cancelled", f"pending, not ended: {task}")
        task = await one.task(ident)
        expect(task.ended > 0 and not task.cancelling and task.state == "cancelled", f"not ended: {task}")
    expect(await one.claim(10, "p") == [], "what was cancelled is claimed")
    claim = await one.begin()
    for _ in range(2):
        task = await two.journal.cancel(claim.id)
        expect(task is not None and task.state == "running" and task.cancelling, f"not to end: {task}")
    beat = await one.journal.beat(one.name, [(claim.id, claim.epoch)], 30.0)
    expect((set(beat.lost), set(beat.cancelled)) == (set(), {claim.id}), f"who has it is not told: {beat}")
    expect(await one.settle(claim, "cancelled"), "who has it can't end it")
    task = await two.task(claim.id)
    expect(task.state == "cancelled" and task.ended > 0 and not task.cancelling, f"not ended: {task}")
    expect(await one.journal.cancel("nothing") is None, "there is no such task")


async def what_has_ended_is_not_cancelled(nodes: Sequence[TaskNode]) -> None:
    (node,) = nodes
    ends: tuple[Outcome, ...] = ("completed", "failed")
    for outcome in ends:
        claim = await node.begin()
        await node.journal.cancel(claim.id)
        expect(
            await node.settle(claim, outcome, result=b"1", error=b"2"), "a run that ends counts, asked to end or not"
        )
        before = await node.task(claim.id)
        expect(before.state == outcome and not before.cancelling, f"not {outcome}: {before}")
        expect(await node.journal.cancel(claim.id) == before == await node.task(claim.id), "changed after its end")


async def what_is_to_end_does_not_begin_again(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ends: tuple[Outcome, ...] = ("retry", "handover", "unbegun")
    for outcome in ends:
        claim = await one.begin()
        await two.journal.cancel(claim.id)
        for _ in range(2):
            expect(await one.settle(claim, outcome, error=b"{}"), f"{outcome} does not count")
        task = await two.task(claim.id)
        expect(task.state == "cancelled" and task.ended > 0, f"to end, and after {outcome} {task.state}")
        expect(not task.cancelling, "it does not run any more")
    claim = await one.begin(lease=0.2)
    await two.journal.cancel(claim.id)
    await pause(0.3)
    # Either it ends with the claim that finds it lost, or who claims it is told.
    for found in await two.claim():
        expect(found.id == claim.id and found.epoch > claim.epoch, f"claimed otherwise: {found}")
        beat = await two.journal.beat(two.name, [(found.id, found.epoch)], 30.0)
        expect(found.id in beat.cancelled, "who claims what is to end is not told")
        expect(await two.settle(found, "cancelled"), "who has it can't end it")
    expect((await one.task(claim.id)).state == "cancelled", "to end, and lost, and it has not ended")
    expect(not await one.settle(claim, "completed"), "lost, and it counts")


async def a_failed_or_cancelled_task_begins_again_when_it_is_retried(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ends: tuple[Outcome, ...] = ("failed", "cancelled")
    for outcome in ends:
        claim = await one.begin(key=outcome, lease=0.2)
        await pause(0.3)
        (claim,) = await one.claim()
        await one.settle(claim, outcome, error=b'{"type":"E"}')
        for _ in range(2):
            task = await two.journal.retry(claim.id)
            expect(task is not None and task.state == "pending", f"{outcome}, then not pending: {task}")
        task = await one.task(claim.id)
        expect((task.failures, task.crashes, task.ended) == (0, 0, 0.0), f"not forgotten: {task}")
        expect(not await one.settle(claim, "completed") or (await one.task(claim.id)).state == "pending", "an old run")
        (again,) = await two.claim()
        expect(again.id == claim.id and again.epoch == claim.epoch + 1, f"claimed otherwise: {again}")
        expect((again.failures, again.crashes) == (0, 0), f"not forgotten: {again}")
        expect(await two.settle(again, "completed", result=b"1"), "who has it can't end it")
        (done,) = await one.journal.submit([one.new(key=outcome)])
        expect(done.id == claim.id, "its key is not its own any more")
    expect(await one.journal.retry("nothing") is None, "there is no such task")


async def what_did_not_fail_is_not_retried(nodes: Sequence[TaskNode]) -> None:
    (node,) = nodes
    done = await node.begin()
    await node.settle(done, "completed", result=b"1")
    running = await node.begin()
    pending = await node.submit(delay=20.0)
    for ident in (done.id, running.id, pending):
        before = await node.task(ident)
        found = await node.journal.retry(ident)
        same = found is not None and steady(found) == steady(before) == steady(await node.task(ident))
        expect(same, f"{before.state}, and it was changed")


async def ended_tasks_are_removed_after_their_time(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    over = [await one.begin(key=f"k{index}", keep=0.1) for index in range(3)]
    kept = await one.begin(keep=50.0)
    await one.journal.append([Progress(over[0].id, over[0].epoch, b"1")])
    for claim in (*over, kept):
        await one.settle(claim, "completed")
    running = await one.begin(keep=0.0)
    pending = await one.submit(keep=0.0, delay=20.0)
    await pause(0.25)
    found = [await two.journal.sweep(2), await one.journal.sweep(2), await two.journal.sweep(2)]
    expect(found == [2, 1, 0], f"removed {found} of 3, two at a time")
    expect([await one.journal.get(claim.id) for claim in over] == [None] * 3, "not removed")
    expect(await one.journal.read(over[0].id, 0) is None, "not removed")
    left = [(await one.task(ident)).state for ident in (kept.id, running.id, pending)]
    expect(left == ["completed", "running", "pending"], f"others are {left}")
    again = one.new(key="k0")
    (done,) = await one.journal.submit([again])
    expect(done.new and done.id == again.id, "the key of what is gone is not free")
    expect(await one.settle(kept, "completed"), "said again, it does not count")
    expect(not await one.settle(over[0], "completed"), "what is gone has ended again")


#: All of them, by what they promise, with the nodes that each needs.
SUBMITS: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, nodes)
    for promise, nodes in (
        (what_is_submitted_is_there_as_it_was_given, 2),
        (who_submits_an_id_again_gets_what_is_there, 2),
        (a_key_is_used_once_by_its_owner, 2),
        (a_key_is_used_once_also_in_one_batch, 1),
        (many_who_use_a_key_at_the_same_time_get_one_task, 2),
        (who_takes_it_at_once_has_it_from_the_beginning, 2),
        (a_batch_is_written_down_as_one, 2),
        (cancelling_ends_what_is_pending_and_asks_what_runs, 2),
        (what_has_ended_is_not_cancelled, 1),
        (what_is_to_end_does_not_begin_again, 2),
        (a_failed_or_cancelled_task_begins_again_when_it_is_retried, 2),
        (what_did_not_fail_is_not_retried, 1),
        (ended_tasks_are_removed_after_their_time, 2),
    )
}
