"""The contract suite of journals finds what is broken: each of these journals breaks one promise."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from sojourn.tasks.journal import Beat, Claimed, Counts, Listener, Want
from sojourn.tasks.record import NewTask, Progress, Reading, Settlement, Submitted, Task
from sojourn.tasks.sqlite import SqliteJournal
from sojourn.testing import task_recorder
from sojourn.testing.task_journal import TASK_PROMISES, BrokenPromise, JournalContract


class ForgetsKeys(SqliteJournal):
    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        return await super().submit([replace(task, key="") for task in tasks])


class SaysEverythingIsNew(SqliteJournal):
    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        return [replace(each, new=True) for each in await super().submit(tasks)]


class WritesOneByOne(SqliteJournal):
    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        return [(await SqliteJournal.submit(self, [task]))[0] for task in tasks]


class NeverBegins(SqliteJournal):
    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        return await super().submit([replace(task, node="") for task in tasks])


class ClaimsTooMany(SqliteJournal):
    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        return await super().claim(node, [Want(want.kinds, want.n + 1) for want in wants], lease)


class ForgetsLeases(SqliteJournal):
    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        return await super().claim(node, wants, 1000.0)


class ReusesEpochs(SqliteJournal):
    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        claimed = await super().claim(node, wants, lease)
        return Claimed(tuple(replace(each, epoch=1) for each in claimed.claims), claimed.after)


class KnowsNoNext(SqliteJournal):
    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        return replace(await super().claim(node, wants, lease), after=None)


class LosesNothing(SqliteJournal):
    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        return replace(await super().beat(node, held, lease), lost=frozenset())


class NeverRenews(SqliteJournal):
    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        return Beat()


class CountsEveryEnd(SqliteJournal):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        await super().settle(settlements)
        return [True for _ in settlements]


class ForgetsWhatFollows(SqliteJournal):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await super().settle([replace(each, then=()) for each in settlements])


class SubmitsWhatFollowsAnyway(SqliteJournal):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        await self.submit([new for each in settlements for new in each.then])
        return await super().settle(settlements)


class CountsHandOversAsFailures(SqliteJournal):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await super().settle(
            [replace(each, outcome="retry") if each.outcome == "handover" else each for each in settlements]
        )


class LosesCheckpoints(SqliteJournal):
    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        return await super().append([replace(each, checkpoint=None) for each in progress])


class ReadsFromTheBeginning(SqliteJournal):
    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:  # noqa: A002
        return await super().read(id, 0, limit)


class CancelsNothing(SqliteJournal):
    async def cancel(self, id: str) -> Task | None:  # noqa: A002
        return await self.get(id)


class RetriesNothing(SqliteJournal):
    async def retry(self, id: str) -> Task | None:  # noqa: A002
        return await self.get(id)


class CountsAll(SqliteJournal):
    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        return await super().counts()


class SweepsNothing(SqliteJournal):
    async def sweep(self, limit: int = 1000) -> int:
        return 0


class HearsNothing(SqliteJournal):
    async def listen(self, listener: Listener) -> None:
        listener.missed()
        await asyncio.get_running_loop().create_future()


class GivesUpAtCancellation(SqliteJournal):
    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        first = await super().submit(tasks[:1])
        await asyncio.sleep(0.03 if len(tasks) > 1 else 0.0)
        return [*first, *await super().submit(tasks[1:])]


BROKEN: list[tuple[Callable[..., SqliteJournal], str]] = [
    (ForgetsKeys, "a_key_is_used_once_by_its_owner"),
    (ForgetsKeys, "many_who_use_a_key_at_the_same_time_get_one_task"),
    (SaysEverythingIsNew, "a_key_is_used_once_also_in_one_batch"),
    (WritesOneByOne, "a_batch_is_written_down_as_one"),
    (NeverBegins, "who_takes_it_at_once_has_it_from_the_beginning"),
    (ClaimsTooMany, "only_what_is_wanted_is_claimed"),
    (ForgetsLeases, "a_lost_task_is_claimed_by_the_ordinary_claim"),
    (ReusesEpochs, "what_was_claimed_too_early_shows_no_trace_of_it"),
    (ReusesEpochs, "an_epoch_is_held_by_one_also_while_leases_run_out"),
    (KnowsNoNext, "what_is_delayed_is_due_by_the_journals_time"),
    (LosesNothing, "what_a_lost_run_says_changes_nothing"),
    (LosesNothing, "who_has_ended_a_run_has_it_no_more"),
    (NeverRenews, "a_lease_is_renewed_from_now_on"),
    (CountsEveryEnd, "what_a_lost_run_says_changes_nothing"),
    (CountsEveryEnd, "a_run_ends_once_whoever_says_so"),
    (CountsEveryEnd, "each_of_a_batch_is_answered_for_itself"),
    (ForgetsWhatFollows, "what_follows_is_submitted_with_the_end_and_once"),
    (SubmitsWhatFollowsAnyway, "what_follows_is_submitted_with_the_end_and_once"),
    (CountsHandOversAsFailures, "what_is_handed_over_is_due_at_once_and_has_not_failed"),
    (LosesCheckpoints, "what_a_run_says_is_numbered_and_read_in_its_order"),
    (ReadsFromTheBeginning, "the_last_thousand_events_are_kept"),
    (CancelsNothing, "cancelling_ends_what_is_pending_and_asks_what_runs"),
    (CancelsNothing, "what_is_to_end_does_not_begin_again"),
    (RetriesNothing, "a_failed_or_cancelled_task_begins_again_when_it_is_retried"),
    (CountsAll, "all_there_is_is_counted_by_kind_and_state"),
    (SweepsNothing, "ended_tasks_are_removed_after_their_time"),
    (HearsNothing, "who_listens_is_told_in_a_moment"),
    (GivesUpAtCancellation, "who_stops_waiting_harms_nothing"),
]


@pytest.mark.parametrize(("kind", "promise"), BROKEN)
def test_a_broken_journal_is_found(
    kind: Callable[..., SqliteJournal], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_recorder, "PATIENCE", 0.1)
    with pytest.raises(BrokenPromise):
        asyncio.run(JournalContract(store_of(kind)).check(promise))


def test_what_needs_more_nodes_is_not_asked_of_fewer() -> None:
    contract = JournalContract(store_of(SqliteJournal))
    assert contract.promises == list(TASK_PROMISES)
    alone = JournalContract(store_of(SqliteJournal), nodes=1).promises
    assert set(alone) == {name for name, (_, needed) in TASK_PROMISES.items() if needed == 1}


def store_of(kind: Callable[..., SqliteJournal]) -> Any:
    @asynccontextmanager
    async def store(nodes: int) -> AsyncIterator[list[SqliteJournal]]:
        with tempfile.TemporaryDirectory() as folder:
            yield [kind(f"{folder}/tasks.db") for _ in range(nodes)]

    return store
