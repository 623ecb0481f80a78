"""What a journal promises of progress, of who reads and of who listens, as checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sojourn.tasks.journal import Query
from sojourn.tasks.record import Progress
from sojourn.testing.task_recorder import LONG, Ears, TaskNode, expect, pause, steady
from sojourn.testing.task_submits import Promise

__all__ = ["READING"]


async def what_a_run_says_is_numbered_and_read_in_its_order(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim, other = await one.begin(), await one.begin()
    expect(list(await one.journal.append([Progress(claim.id, 1, b"", b"0")])) == [-1], "nothing is said yet")
    said = [Progress(claim.id, 1, b'"a"'), Progress(other.id, 1, b"9"), Progress(claim.id, 1, b'"b"', b"1")]
    said += [Progress(claim.id, 1, b"", b"2"), Progress("nothing", 1, b"3"), Progress(claim.id, 1, '"ü"'.encode())]
    expect(list(await one.journal.append(said)) == [1, 1, 2, 2, 0, 3], "numbered otherwise")
    for after in range(4):
        reading = await two.journal.read(claim.id, after)
        expect(reading is not None and reading.task.seq == 3, f"not up to the latest: {reading}")
        if reading is not None:
            events = [(event.seq, event.data) for event in reading.events]
            expect(events == [(1, b'"a"'), (2, b'"b"'), (3, '"ü"'.encode())][after:], f"after {after}: {events}")
            expect(all(event.at > 1_600_000_000 for event in reading.events), "without a time")
            expect(steady(reading.task) == steady(await one.task(claim.id)), "another task")
    limited = await two.journal.read(claim.id, 0, 2)
    expect(limited is not None and [event.seq for event in limited.events] == [1, 2], f"not the first two: {limited}")
    expect((await two.task(claim.id)).checkpoint == b"2", "another checkpoint")
    await one.settle(claim, "handover")
    (again,) = await two.claim()
    expect(again.checkpoint == b"2", f"without its checkpoint: {again}")
    expect(list(await two.journal.append([Progress(again.id, again.epoch, b"4")])) == [4], "not counted over all runs")
    await two.settle(again, "completed")
    reading = await one.journal.read(claim.id, 2)
    expect(reading is not None and [event.seq for event in reading.events] == [3, 4], f"not after its end: {reading}")
    expect(await one.journal.read("nothing", 0) is None, "there is no such task")
    expect(list(await one.journal.append([])) == [], "an answer to nothing")


async def the_last_thousand_events_are_kept(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim = await one.begin()
    for begin in range(0, 1100, 275):
        numbers = await one.journal.append([Progress(claim.id, 1, b"%d" % (begin + n)) for n in range(1, 276)])
        expect(list(numbers) == list(range(begin + 1, begin + 276)), "numbered otherwise")
    for after, first in ((0, 101), (50, 101), (100, 101), (101, 102), (1099, 1100), (1100, 1101)):
        reading = await two.journal.read(claim.id, after)
        found = [] if reading is None else [event.seq for event in reading.events]
        expect(found == list(range(first, 1101)), f"after {after}: {found[:2]} to {found[-2:]}, {len(found)} of them")
    reading = await two.journal.read(claim.id, 0, 10)
    expect(reading is not None and reading.events[0].data == b"101", "not the first that is kept")
    expect((await two.task(claim.id)).seq == 1100, "not the latest number")


async def tasks_are_listed_from_the_newest(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    made: list[str] = []
    for kind, owner in (("a", "ann"), ("a", ""), ("b", "ann"), ("b", "bob"), ("a", "ann"), ("b", "")):
        made.append(await one.submit(kind, owner=owner, payload=b'{"n":1}', key=f"k{len(made)}"))
    (claim,) = await one.claim(1, "b")
    await one.journal.append([Progress(claim.id, 1, b"1", b"2")])
    await one.settle(claim, "completed", result=b"1")
    (running,) = await two.claim(1, "a")

    async def ids(**query: object) -> list[str]:
        return [task.id for task in await two.journal.list(Query(**query))]  # type: ignore[arg-type]

    newest = made[::-1]
    expect(await ids() == newest, "not all, from the newest")
    expect(await ids(kind="a") == [made[4], made[1], made[0]], "not those of a kind")
    expect(await ids(owner="ann") == [made[4], made[2], made[0]], "not those of an owner")
    expect(await ids(owner="") == [made[5], made[1]], "not those of nobody")
    expect(await ids(states=("completed",)) == [claim.id], "not those that are completed")
    both = [ident for ident in newest if ident in (claim.id, running.id)]
    expect(await ids(states=("completed", "running")) == both, "not those in one of two states")
    expect(await ids(kind="b", owner="bob", states=("failed",)) == [], "all questions together")
    pages, before = [], ""
    while page := await ids(before=before, limit=4):
        pages.append(page)
        before = page[-1]
    expect(pages == [newest[:4], newest[4:]], f"other pages: {pages}")
    expect(await ids(kind="a", before=made[4], limit=1) == [made[1]], "not the next page of a kind")
    await ids(before="nothing")
    for task in await two.journal.list(Query()):
        full = await one.task(task.id)
        expect((task.payload, task.result, task.checkpoint) == (b"", b"", b""), f"with what is long: {task}")
        same = (task.kind, task.state, task.owner, task.key, task.created, task.epoch, task.seq, task.ended)
        wanted = (full.kind, full.state, full.owner, full.key, full.created, full.epoch, full.seq, full.ended)
        expect(same == wanted, f"not as it is: {task}")


async def all_there_is_is_counted_by_kind_and_state(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    expect(not any((await two.journal.counts()).states.values()), "something is there")
    for kind in "aaab":
        await one.submit(kind, run_at=1000.0)
    await one.submit("late", delay=40.0)
    done, failed = await one.claim(2, "a")
    await one.settle(done, "completed")
    await one.settle(failed, "failed", error=b"{}")
    counts = await two.journal.counts()
    states = {kind: {state: n for state, n in each.items() if n} for kind, each in counts.states.items() if each}
    wanted = {"a": {"pending": 1, "completed": 1, "failed": 1}, "b": {"pending": 1}, "late": {"pending": 1}}
    expect(states == wanted, f"counted otherwise: {states}")
    expect(set(counts.oldest) == {"a", "b"}, f"these have something that is due: {counts.oldest}")
    expect(all(seconds > 1_000_000 for seconds in counts.oldest.values()), f"due since 1970: {counts.oldest}")
    some = await two.journal.counts(["b", "none"])
    expect({kind for kind, each in some.states.items() if any(each.values())} == {"b"}, f"of b only: {some}")
    expect(set(some.oldest) == {"b"}, f"of b only: {some}")
    await one.claim(10, "a", "b")
    counts = await two.journal.counts(["a"])
    expect(counts.states["a"].get("running") == 1 and not counts.oldest, f"all are claimed: {counts}")


async def who_listens_is_told_in_a_moment(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    for node, other in ((two, one), (one, one)):
        async with node.hearing() as ears:
            ident = await other.submit("heard")
            await node.journal.follow(ident)
            await ears.until(lambda ears: ears.dues > 0, "something is due, and it is not told")
            (claim,) = await other.claim(1, "heard")
            ears.clear()
            await other.journal.append([Progress(claim.id, claim.epoch, b"1")])
            await ears.until(_in(ears.changes, ident), "a task has said something, and it is not told")
            ears.clear()
            await other.journal.cancel(claim.id)
            await ears.until(_in(ears.cancels, ident), "a task is to end, and it is not told")
            ears.clear()
            await other.settle(claim, "completed")
            await ears.until(_in(ears.changes, ident), "a task has ended, and it is not told")
            node.journal.unfollow(ident)
            claim = await other.begin("heard")
            ears.clear()
            await other.settle(claim, "handover")
            await ears.until(lambda ears: ears.dues > 0, "a task was handed over, and it is not told")
            (claim,) = await other.claim(1, "heard")
            ears.clear()
            await other.settle(claim, "failed", error=b"{}", then=(other.new("heard"),))
            await ears.until(lambda ears: ears.dues > 0, "what follows is due, and it is not told")
            left = await other.claim(10, "heard")
            ears.clear()
            await other.journal.retry(claim.id)
            await ears.until(lambda ears: ears.dues > 0, "a task is retried, and it is not told")
            for each in (*left, *await other.claim(10, "heard")):
                await other.settle(each, "completed")


def _in(told: list[str], ident: str) -> Callable[[Ears], bool]:
    return lambda _: ident in told


async def many_listen_and_each_as_long_as_it_likes(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    async with two.hearing() as ears:
        async with two.hearing() as first:
            await one.submit()
            await first.until(lambda ears: ears.dues > 0, "the second one is not told")
            await ears.until(lambda ears: ears.dues > 0, "the first one is not told")
        first.clear()
        ears.clear()
        await one.claim()
        await one.submit()
        await ears.until(lambda ears: ears.dues > 0, "not told after another one has left")
        await pause(0.05)
        expect(not (first.dues or first.misses or first.aways), "told after it has left")


async def it_is_opened_once_and_closed_once(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ident = await one.submit()
    for _ in range(2):
        await one.journal.open(one.name)
    claim = (await one.claim())[0]
    await one.journal.open(one.name)
    beat = await one.journal.beat(one.name, [(ident, claim.epoch)], LONG)
    expect(not beat.lost, "opened again, it has lost a task")
    expect(one.journal.name == two.journal.name and bool(one.journal.name), "an engine has a name")
    for _ in range(2):
        await two.journal.aclose()
    expect((await one.task(ident)).state == "running", "closed by one, and gone for others")


READING: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, 2)
    for promise in (
        what_a_run_says_is_numbered_and_read_in_its_order,
        the_last_thousand_events_are_kept,
        tasks_are_listed_from_the_newest,
        all_there_is_is_counted_by_kind_and_state,
        who_listens_is_told_in_a_moment,
        many_listen_and_each_as_long_as_it_likes,
        it_is_opened_once_and_closed_once,
    )
}
