"""What a journal promises of claims, leases, and how runs end, as checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sojourn.tasks.journal import Want
from sojourn.tasks.record import Outcome, Progress, Settlement
from sojourn.testing.task_recorder import LONG, SHORT, TaskNode, expect, pause, steady
from sojourn.testing.task_submits import Promise

__all__ = ["CLAIMS"]


async def the_most_urgent_are_claimed_first(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    urgent = [(0, 3000.0), (5, 2000.0), (0, 1000.0), (5, 1000.0), (-5, 1.0), (0, 2000.0)]
    news = [one.new(priority=priority, run_at=run_at) for priority, run_at in urgent]
    await one.journal.submit(news)
    wanted = [news[index].id for index in (3, 1, 2, 5, 0, 4)]
    first, rest = await one.claim(2), await two.claim(10)
    expect([claim.id for claim in first] == wanted[:2], f"not the most urgent first: {first}")
    expect([claim.id for claim in rest] == wanted[2:], f"not the most urgent first: {rest}")
    expect(all(claim.waited > 1000.0 for claim in first + rest), "it was due long ago, and has not waited")


async def a_claim_has_all_that_a_run_needs(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ident = await one.submit(payload=b'{"a":1}', spec=b'{"b":2}', owner="ann")
    (claim,) = await two.claim()
    got = (claim.id, claim.kind, claim.epoch, claim.payload, claim.spec, claim.owner, claim.checkpoint)
    expect(got == (ident, "k", 1, b'{"a":1}', b'{"b":2}', "ann", b""), f"other: {claim}")
    expect((claim.failures, claim.interruptions, claim.crashes) == (0, 0, 0), f"other: {claim}")
    expect(0 <= claim.waited < 5 and 0 <= claim.age < 5, f"other times: {claim}")
    task = await one.task(ident)
    expect((task.state, task.node, task.epoch) == ("running", two.name, 1), f"not the claimer's: {task}")
    expect(task.begun >= task.created and 0 < task.lease_until - task.begun <= LONG + 1, f"other times: {task}")


async def only_what_is_wanted_is_claimed(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    for kind in "aaabbc":
        await one.submit(kind)
    done = await two.journal.claim(two.name, [Want(("a",), 2), Want(("b", "c"), 2)], LONG)
    kinds = sorted(claim.kind for claim in done.claims)
    expect(kinds.count("a") == 2 and len(kinds) == 4, f"wanted 2 a and 2 of b and c, got {kinds}")
    expect(done.after == 0, f"more is due than was wanted, and it says {done.after}")
    expect(await two.claim(10, "other") == [], "of another kind")
    done = await two.journal.claim(two.name, [], LONG)
    expect(not done.claims, "nothing was wanted")


async def what_is_delayed_is_due_by_the_journals_time(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ident = await one.submit(delay=SHORT)
    run_at = (await one.task(await one.submit("other"))).created + SHORT
    later = await one.submit(run_at=run_at)
    await one.submit("far", delay=40.0)
    first = await two.journal.claim(two.name, [Want(("k",), 10)], LONG)
    expect(not first.claims, "claimed before it is due")
    expect(first.after is not None and 0 < first.after <= SHORT + 0.01, f"due in {SHORT}, and it says {first.after}")
    await pause(SHORT + 0.05)
    claims = await two.claim()
    expect({claim.id for claim in claims} == {ident, later}, f"due, and not claimed: {claims}")
    expect(all(0 <= claim.waited < claim.age for claim in claims), f"it has waited since it was due: {claims}")
    far = await two.journal.claim(two.name, [Want(("far", "none"), 10)], LONG)
    expect(far.after is not None and 30 < far.after <= 40.01, f"due in 40, and it says {far.after}")
    none = await two.journal.claim(two.name, [Want(("none",), 10)], LONG)
    expect(none.after is None, f"nothing is known of these kinds, and it says {none.after}")


async def a_lost_task_is_claimed_by_the_ordinary_claim(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    old = await one.begin(lease=SHORT, payload=b"1", priority=1)
    found = await two.journal.claim(two.name, [Want(("k",), 10)], LONG)
    expect(not found.claims, "claimed from who has it")
    expect(
        found.after is not None and 0 < found.after <= SHORT + 0.01, f"a lease of {SHORT}, and it says {found.after}"
    )
    fresh = await two.submit()
    await pause(SHORT + 0.1)
    claims = await two.claim()
    expect([claim.id for claim in claims] == [old.id, fresh], f"lost, and not claimed in its turn: {claims}")
    new = claims[0]
    expect((new.epoch, new.interruptions, new.crashes, new.failures) == (2, 1, 1, 0), f"counted otherwise: {new}")
    expect(new.payload == b"1" and (await one.task(old.id)).node == two.name, "not the claimer's")


async def what_a_lost_run_says_changes_nothing(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    old = await one.begin(lease=0.1)
    await pause(0.2)
    (new,) = await two.claim()
    before = steady(await two.task(old.id))
    outcomes: tuple[Outcome, ...] = ("completed", "failed", "cancelled", "retry", "handover", "unbegun")
    for outcome in outcomes:
        then = one.new("then")
        expect(not await one.settle(old, outcome, result=b"1", then=(then,)), f"lost, and {outcome} counts")
        expect(await one.journal.get(then.id) is None, "what was to follow was submitted")
    said = await one.journal.append([Progress(old.id, old.epoch, b"1"), Progress(old.id, old.epoch, b"", b"2")])
    expect(list(said) == [0, 0], f"lost, and it may speak: {said}")
    beat = await one.journal.beat(one.name, [(old.id, old.epoch)], LONG)
    expect(set(beat.lost) == {old.id}, f"lost, and not told: {beat}")
    beat = await one.journal.beat(one.name, [(new.id, new.epoch)], LONG)
    expect(set(beat.lost) == {old.id}, f"another's, and renewed: {beat}")
    expect(steady(await two.task(old.id)) == before, "something has changed")
    expect(not (await two.journal.beat(two.name, [(new.id, new.epoch)], LONG)).lost, "its own, and lost")
    expect(await two.settle(new, "completed", result=b"2"), "its own, and it can't end it")
    expect(not await one.settle(old, "completed", result=b"1"), "lost, and it counts")
    expect((await one.task(old.id)).result == b"2", "another result")


async def a_lease_is_renewed_from_now_on(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    kept, left, renewed = [await one.begin(lease=SHORT) for _ in range(3)]
    for _ in range(4):
        await pause(SHORT / 3)
        beat = await one.journal.beat(one.name, [(kept.id, kept.epoch), (renewed.id, renewed.epoch)], SHORT)
        expect(not beat.lost and not beat.cancelled, f"its own, and lost: {beat}")
    claims = await two.claim()
    expect([claim.id for claim in claims] == [left.id], f"only what was not renewed is lost: {claims}")
    await one.journal.beat(one.name, [(renewed.id, renewed.epoch)], 0.1)
    await pause(0.2)
    # Late, but nobody has it: it is still its own.
    beat = await one.journal.beat(one.name, [(renewed.id, renewed.epoch), ("nothing", 1)], LONG)
    expect(set(beat.lost) == {"nothing"}, f"nobody has claimed it, and it is lost: {beat}")
    expect(renewed.id not in {claim.id for claim in await two.claim()}, "renewed, and claimed")


async def who_has_ended_a_run_has_it_no_more(nodes: Sequence[TaskNode]) -> None:
    (node,) = nodes
    outcomes: tuple[Outcome, ...] = ("completed", "failed", "cancelled", "retry")
    for outcome in outcomes:
        claim = await node.begin(delay=0.0)
        await node.settle(claim, outcome, delay=100.0)
        beat = await node.journal.beat(node.name, [(claim.id, claim.epoch)], LONG)
        expect(set(beat.lost) == {claim.id}, f"{outcome}, and it has it still")
        said = await node.journal.append([Progress(claim.id, claim.epoch, b"1")])
        expect(list(said) == [0], f"{outcome}, and it may speak")
    expect(await node.claim() == [], "something that has ended was claimed")


async def a_late_end_counts_while_nobody_has_claimed_since(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim = await one.begin(lease=0.05)
    await pause(0.15)
    expect(await one.settle(claim, "completed", result=b"1"), "nobody has it, and it does not count")
    expect(await two.claim() == [], "it has ended, and is claimed")
    expect((await two.task(claim.id)).crashes == 0, "not lost, and counted")


async def how_a_run_ends_is_written_down_once(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    outcomes: tuple[Outcome, ...] = ("completed", "failed", "cancelled")
    for outcome in outcomes:
        claim = await one.begin()
        for node in (one, two, one):
            counted = await node.settle(claim, outcome, result=b"[1]" if outcome == "completed" else b"", error=b"{}")
            expect(counted, f"{outcome} said again does not count")
        task = await two.task(claim.id)
        expect(task.state == outcome and task.ended >= task.begun > 0, f"not {outcome}: {task}")
        expect(task.lease_until == 0 and task.failures == (outcome == "failed"), f"other: {task}")
        expect(task.result == (b"[1]" if outcome == "completed" else b""), f"another result: {task}")
        expect(outcome != "failed" or task.error == b"{}", f"another error: {task}")
        for other in outcomes:
            if other != outcome:
                expect(not await one.settle(claim, other, result=b"2"), f"{outcome}, then {other}")
        if outcome != "cancelled":  # one that was to end, and was handed over, has ended so
            again = await one.settle(claim, "retry") or await one.settle(claim, "handover")
            expect(not again, f"{outcome}, and it begins again")
        expect(await two.task(claim.id) == task, "changed after its end")
    expect(await one.claim() == [], "ended, and begins again")


async def a_retry_is_due_after_its_delay_and_counts_a_failure(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim = await one.begin(payload=b"1")
    for _ in range(3):
        expect(
            await one.settle(claim, "retry", error=b'{"type":"E"}', delay=SHORT, checkpoint=b"7"), "it does not count"
        )
    task = await two.task(claim.id)
    expect((task.state, task.failures, task.interruptions, task.crashes) == ("pending", 1, 0, 0), f"other: {task}")
    expect((task.error, task.checkpoint, task.lease_until) == (b'{"type":"E"}', b"7", 0.0), f"other: {task}")
    expect(await two.claim() == [], "begins again at once")
    await pause(SHORT + 0.05)
    (again,) = await two.claim()
    got = (again.id, again.epoch, again.failures, again.checkpoint, again.payload)
    expect(got == (claim.id, 2, 1, b"7", b"1"), f"other: {again}")
    await two.settle(again, "retry", error=b"{}")
    expect([each.failures for each in await one.claim()] == [2], "without a delay it is due at once")


async def what_is_handed_over_is_due_at_once_and_has_not_failed(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim = await one.begin()
    await one.journal.append([Progress(claim.id, claim.epoch, b"", b"1")])
    for _ in range(2):
        expect(await one.settle(claim, "handover"), "it does not count")
    task = await two.task(claim.id)
    expect((task.state, task.failures, task.interruptions, task.crashes) == ("pending", 0, 1, 0), f"other: {task}")
    (again,) = await two.claim()
    got = (again.id, again.epoch, again.interruptions, again.crashes, again.checkpoint)
    expect(got == (claim.id, 2, 1, 0, b"1"), f"other: {again}")
    expect(await two.settle(again, "handover", checkpoint=b"2"), "it does not count")
    (again,) = await one.claim()
    expect((again.interruptions, again.checkpoint) == (2, b"2"), f"other: {again}")


async def what_was_claimed_too_early_shows_no_trace_of_it(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    ident = await one.submit(run_at=1000.0)
    before = await one.task(ident)
    (claim,) = await one.claim()
    for _ in range(2):
        expect(await one.settle(claim, "unbegun"), "it does not count")
    task = await two.task(ident)
    for name in "state run_at failures interruptions crashes begun ended lease_until checkpoint error".split():
        expect(getattr(task, name) == getattr(before, name), f"{name} is {getattr(task, name)!r}")
    (again,) = await two.claim()
    expect(again.id == ident and again.epoch > claim.epoch, f"an epoch was used twice: {again}")
    expect(not await one.settle(claim, "completed"), "an earlier claim counts")


async def what_follows_is_submitted_with_the_end_and_once(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claim = await one.begin()
    known = await one.submit("then", key="used")
    then = (one.new("then", payload=b"1", delay=0.0), one.new("then", delay=60.0), one.new("then", key="used"))
    for _ in range(3):
        expect(await one.settle(claim, "completed", then=then), "it does not count")
    first = await two.task(then[0].id)
    expect(first.state == "pending" and first.payload == b"1", f"other: {first}")
    expect(await two.journal.get(then[2].id) is None, "its key was used")
    claims = await two.claim(10, "then")
    expect({each.id for each in claims} == {then[0].id, known}, f"what follows is not there once: {claims}")
    expect(not await one.settle(claim, "failed", then=(one.new("then"),)), "it has ended otherwise")
    expect(await two.claim(10, "then") == [], "what follows an end that does not count")


async def each_of_a_batch_is_answered_for_itself(nodes: Sequence[TaskNode]) -> None:
    one, two = nodes
    claims = [await one.begin() for _ in range(4)]
    lost = await two.begin()
    said = [Settlement(id=each.id, epoch=each.epoch, outcome="completed", result=b"1") for each in claims]
    wrong = [
        Settlement(id="nothing", epoch=1, outcome="completed"),
        Settlement(id=lost.id, epoch=lost.epoch + 1, outcome="completed"),
        Settlement(id=await one.submit("other"), epoch=0, outcome="completed"),
    ]
    batch = [said[0], wrong[0], said[1], wrong[1], said[2], said[0], wrong[2], said[3]]
    for _ in range(2):
        counted = list(await one.journal.settle(batch))
        expect(counted == [True, False, True, False, True, True, False, True], f"answered otherwise: {counted}")
    expect((await two.task(lost.id)).state == "running", "an epoch that is to come counts")
    expect((await two.task(wrong[2].id)).state == "pending", "ended before it was claimed")
    held = [(each.id, each.epoch) for each in claims]
    beat = await one.journal.beat(one.name, [*held, (lost.id, lost.epoch + 1)], LONG)
    expect(set(beat.lost) == {ident for ident, _ in held} | {lost.id}, f"told otherwise: {beat}")
    expect(await one.journal.beat(one.name, [], LONG) == await two.journal.beat(two.name, [], LONG), "of nothing")


CLAIMS: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, nodes)
    for promise, nodes in (
        (the_most_urgent_are_claimed_first, 2),
        (a_claim_has_all_that_a_run_needs, 2),
        (only_what_is_wanted_is_claimed, 2),
        (what_is_delayed_is_due_by_the_journals_time, 2),
        (a_lost_task_is_claimed_by_the_ordinary_claim, 2),
        (what_a_lost_run_says_changes_nothing, 2),
        (a_lease_is_renewed_from_now_on, 2),
        (who_has_ended_a_run_has_it_no_more, 1),
        (a_late_end_counts_while_nobody_has_claimed_since, 2),
        (how_a_run_ends_is_written_down_once, 2),
        (a_retry_is_due_after_its_delay_and_counts_a_failure, 2),
        (what_is_handed_over_is_due_at_once_and_has_not_failed, 2),
        (what_was_claimed_too_early_shows_no_trace_of_it, 2),
        (what_follows_is_submitted_with_the_end_and_once, 2),
        (each_of_a_batch_is_answered_for_itself, 2),
    )
}
