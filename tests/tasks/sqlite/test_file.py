"""The file: time that jumps, disks that are full, files that are locked, damaged, of somebody else, or gone."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import ConfigError, DeadlineExceeded, JournalUnavailable
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import deadline
from sojourn.scopes.work import attend
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.sqlite import SqliteJournal, file, host, nodes, schema
from sojourn.testing.task_recorder import Ears
from tests.tasks.sqlite.processes import until

WANTED = [Want(("k",), 100)]


@asynccontextmanager
async def opened(path: Path, **settings: Any) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(path, **settings)
    await journal.open("here")
    try:
        yield journal
    finally:
        await journal.aclose()


def new(id: str, **fields: Any) -> NewTask:
    return NewTask(id=id, kind="k", **fields)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process writes, and does not end."""
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    other.close()


class JumpingClock(ManualClock):
    """A machine whose time of day is set."""

    def jump(self, seconds: float) -> None:
        self._wall += seconds


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_no_lease_begins_or_ends_when_the_time_of_day_is_set(tmp_path: Path, jump: float) -> None:
    async def main() -> None:
        clock = JumpingClock()
        async with opened(tmp_path / "tasks.db", clock=clock) as journal:
            await journal.submit([new("a")])
            assert len((await journal.claim("here", WANTED, 30.0)).claims) == 1
            clock.jump(jump)
            clock.advance(29.0)
            found = await journal.claim("there", WANTED, 30.0)
            assert (len(found.claims), found.after) == (0, 1.0)
            clock.advance(1.0)
            assert [each.crashes for each in (await journal.claim("there", WANTED, 30.0)).claims] == [1]

    asyncio.run(main())


def test_what_is_to_end_and_is_lost_has_ended_and_counts_as_lost(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path / "tasks.db", clock=clock) as journal:
            await journal.submit([new("a"), new("b")])
            await journal.claim("here", WANTED, 30.0)
            await journal.cancel("a")
            clock.advance(31)
            assert [each.id for each in (await journal.claim("there", WANTED, 30.0)).claims] == ["b"]
            task = await journal.get("a")
            assert task is not None
            assert (task.state, task.interruptions, task.crashes, task.cancelling) == ("cancelled", 1, 1, False)

    asyncio.run(main())


def test_hundreds_of_kinds_are_claimed_in_one_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            kinds = tuple(f"kind-{number}" for number in range(250))
            tasks = [NewTask(id=kind, kind=kind, priority=index % 7) for index, kind in enumerate(kinds)]
            await journal.submit(tasks)
            wanted = [task.id for task in sorted(tasks, key=lambda task: -task.priority)]
            first = await journal.claim("here", [Want(kinds, 100)], 30.0)
            rest = await journal.claim("here", [Want(kinds[:200], 300), Want(kinds[200:], 300)], 30.0)
            assert [each.id for each in first.claims] == wanted[:100]
            assert first.after == 0
            assert [each.id for each in rest.claims] == wanted[100:]
            assert rest.after is not None
            assert 25 < rest.after <= 30

    asyncio.run(main())


def test_after_another_boot_all_leases_are_over_and_no_epoch_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            await journal.submit([new("a"), new("b", priority=1)])
            assert [each.epoch for each in (await journal.claim("here", [Want(("k",), 1)], 1e6)).claims] == [1]
        monkeypatch.setattr("sojourn.tasks.sqlite.host.boot_of", lambda: "another")
        async with opened(tmp_path / "tasks.db") as journal:
            claims = (await journal.claim("here", WANTED, 30.0)).claims
            assert [(each.id, each.epoch, each.crashes) for each in claims] == [("b", 3, 1), ("a", 2, 0)]
        async with opened(tmp_path / "tasks.db") as journal:
            assert not (await journal.claim("there", WANTED, 30.0)).claims

    asyncio.run(main())


def test_a_full_disk_is_said_loses_nothing_and_is_over_when_there_is_space(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            await journal.submit([new("before")])
            limit = limited(journal, 60)
            large = b'"' + b"x" * 1_000_000 + b'"'
            calls = [journal.submit([new("large", payload=large)]), journal.submit([new("small")])]
            large_one, small_one = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(large_one, JournalUnavailable)
            assert "no space left" in str(large_one)
            assert not isinstance(small_one, BaseException)  # who asks for little is not refused with it
            assert sorted(task.id for task in await journal.list(Query())) == ["before", "small"]
            claims = (await journal.claim("here", WANTED, 30.0)).claims
            said = [Settlement(id=each.id, epoch=1, outcome="completed", result=large) for each in claims]
            with pytest.raises(JournalUnavailable):
                await journal.settle(said)
            limited(journal, limit)
            assert await journal.settle(said) == [True, True]
            assert (await journal.submit([new("large", payload=large)]))[0].new

    asyncio.run(main())


def limited(journal: SqliteJournal, pages: int) -> int:
    """Give the file as many pages at most. Returns what was before."""
    assert journal._host is not None
    connection = journal._host.writing._connection
    assert connection is not None
    (before,) = connection.execute("PRAGMA max_page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    return int(before)


def test_a_folder_for_which_there_is_no_space_is_an_outage_and_no_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(host, "Nodes", full)
    journal = SqliteJournal(tmp_path / "tasks.db")
    with pytest.raises(JournalUnavailable, match="No space left"):
        asyncio.run(journal.open("one"))
    monkeypatch.undo()

    async def later() -> None:
        await journal.open("one")
        await journal.aclose()

    asyncio.run(later())


@pytest.mark.root
def test_a_file_system_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {tmp_path}") != 0:
        pytest.fail("no tmpfs can be mounted")

    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            calls = [journal.submit([new(f"{number}", payload=b"1" + b" " * 50_000)]) for number in range(50)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            written = [f"{number}" for number, each in enumerate(answers) if not isinstance(each, BaseException)]
            assert {type(each) for each in answers} == {list, JournalUnavailable}
            await asyncio.to_thread(os.system, f"mount -o remount,size=20m {tmp_path}")
            await journal.submit([new("after")])
            found = {task.id for task in await journal.list(Query(limit=200))}
            assert found == {*written, "after"}

    try:
        asyncio.run(main())
    finally:
        os.system(f"umount -l {tmp_path}")


def test_a_file_that_another_process_holds_is_away_for_who_writes_and_not_for_who_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_BUSY", 0.05)

    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            await journal.submit([new("a")])
            with held(journal.path):
                calls = [journal.submit([new(f"b{number}")]) for number in range(20)]
                errors = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(error) for error in errors} == {JournalUnavailable}
                assert "another process" in str(errors[0])
                assert await journal.get("a") is not None
                nothing = await journal.claim("here", [Want(("other",), 1)], 30.0)
                assert (nothing.claims, nothing.after) == ((), None)
            await journal.submit([new("c")])
            assert [task.id for task in await journal.list(Query())] == ["c", "a"]

    asyncio.run(main())


def test_who_waits_for_another_process_goes_on_as_soon_as_it_can(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            with held(journal.path):
                submitting = attend(journal.submit([new("a")]), "submit")
                await asyncio.sleep(0.1)
                assert not submitting.done()
            async with asyncio.timeout(2.0):
                assert (await submitting)[0].new

    asyncio.run(main())


def test_its_time_is_a_budget_and_the_callers_own_deadline_stays_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            with held(journal.path):
                BUDGETS.set(Budgets({"tasks": 0.05}))
                with pytest.raises(JournalUnavailable, match=r"0\.05 s"):
                    await journal.submit([new("a")])
                BUDGETS.set(Budgets({}))
                with pytest.raises(DeadlineExceeded, match="mine"):
                    async with deadline(0.05, "mine"):
                        await journal.submit([new("a")])

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_and_has_not_begun_is_not_done(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            with held(journal.path):
                first = attend(journal.submit([new("a")]), "submit")
                await asyncio.sleep(0.02)
                second = attend(journal.submit([new("b")]), "submit")
                await asyncio.sleep(0)
                first.cancel()
                second.cancel()
                await asyncio.wait([first, second])
            await journal.submit([new("c")])
            assert "b" not in {task.id for task in await journal.list(Query())}

    asyncio.run(main())


def test_a_missing_folder_and_a_file_of_somebody_else_are_refused_at_the_beginning(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="folder is not there"):
            await SqliteJournal(tmp_path / "nowhere" / "tasks.db").open("here")
        with sqlite3.connect(tmp_path / "other.db") as other:
            other.execute("CREATE TABLE mine (a)")
        other.close()
        with pytest.raises(ConfigError, match="something else"):
            await SqliteJournal(tmp_path / "other.db").open("here")
        (tmp_path / "text.db").write_text("no database " * 1000)
        with pytest.raises(JournalUnavailable, match="not an SQLite file"):
            await SqliteJournal(tmp_path / "text.db").open("here")
        async with opened(tmp_path / "newer.db") as journal:
            assert journal._host is not None
            journal._host.writing.run(lambda turn: turn.run(f"PRAGMA user_version = {schema.VERSION + 1}"))
        with pytest.raises(ConfigError, match="version 2"):
            await SqliteJournal(tmp_path / "newer.db").open("here")
        with pytest.raises(JournalUnavailable, match="not open"):
            await SqliteJournal(tmp_path / "tasks.db").get("a")

    asyncio.run(main())


def test_a_file_that_can_only_be_read_is_away_for_who_writes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            await journal.submit([new("a")])
            assert journal._host is not None
            connection = journal._host.writing._connection
            assert connection is not None
            connection.execute("PRAGMA query_only = ON").fetchall()
            with pytest.raises(JournalUnavailable, match="can't be written to"):
                await journal.submit([new("b")])
            await journal.submit([new("b")])  # another connection was made

    asyncio.run(main())


def test_when_the_file_is_gone_a_new_one_is_made_and_with_its_folder_it_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        journal = SqliteJournal(folder / "tasks.db")
        await journal.open("here")
        await journal.submit([new("a")])
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(JournalUnavailable):
            await journal.submit([new("b")])
        ears = Ears()
        listening = attend(journal.listen(ears), "listen")
        await until(lambda: ears.aways == 1)
        folder.mkdir()
        await until(lambda: ears.misses == 2)
        await journal.submit([new("c")])
        assert await journal.get("a") is None
        listening.cancel()
        await asyncio.wait([listening])
        await journal.aclose()

    asyncio.run(main())


def test_one_call_at_fault_fails_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            wrong: Any = object()
            batches = [[new("a")], [new("wrong", payload=wrong)], [new("b"), new("surrogate \ud800")], [new("c")]]
            answers = await asyncio.gather(*(journal.submit(each) for each in batches), return_exceptions=True)
            kinds = [type(each) for each in answers]
            assert kinds == [list, ValueError, UnicodeEncodeError, list]
            assert {task.id for task in await journal.list(Query())} == {"a", "c"}

    asyncio.run(main())


def test_nobody_else_can_read_what_it_writes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            await journal.submit([new("a")])
            listening = attend(journal.listen(Ears()), "listen")
            await asyncio.sleep(0.01)
            modes = modes_of(tmp_path)
            assert len(modes) == 6, modes
            assert {mode for name, mode in modes.items() if name != "tasks.db-nodes"} == {0o600}
            assert modes["tasks.db-nodes"] == 0o700
            listening.cancel()
            await asyncio.wait([listening])

    asyncio.run(main())


def modes_of(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_many_calls_at_the_same_time_share_a_few_transactions(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "tasks.db") as journal:
            assert journal._host is not None
            statements: list[str] = []
            connection = journal._host.writing._connection
            assert connection is not None
            connection.set_trace_callback(statements.append)
            await asyncio.gather(*(journal.submit([new(f"{number}")]) for number in range(200)))
            connection.set_trace_callback(None)
            assert statements.count("COMMIT") <= 20
            assert len(await journal.list(Query(limit=500))) == 200

    asyncio.run(main())


async def _in_turn(path: Path, count: int, payload: bytes = b"{}") -> int:
    """Submit some tasks one after the other. Returns how long the log is then, in bytes."""
    async with opened(path) as journal:
        for number in range(count):
            assert (await journal.submit([new(f"{number}", payload=payload)]))[0].new
        length = path.with_name(f"{path.name}-wal").stat().st_size
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert other.execute("SELECT count(*) FROM sqlite_master WHERE name = 'room'").fetchone() == (0,)
            assert other.execute("SELECT count(*) FROM tasks").fetchone() == (count,)
        return length


def test_who_submits_in_earnest_writes_over_a_log_that_does_not_grow(tmp_path: Path) -> None:
    few = asyncio.run(_in_turn(tmp_path / "few.db", 5))
    some = asyncio.run(_in_turn(tmp_path / "some.db", 15))
    many = asyncio.run(_in_turn(tmp_path / "many.db", 60, b" " * 100_000))
    assert few < schema._ROOM // 2
    assert schema._ROOM * 0.95 < some < schema._ROOM * 1.05
    assert many < schema._ROOM * 1.05


def test_a_log_takes_nothing_beforehand_of_a_disk_with_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_SPARE", 1 << 60)
    assert asyncio.run(_in_turn(tmp_path / "tasks.db", 15)) < schema._ROOM // 2


def test_a_journal_is_used_by_one_event_loop_after_another(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "tasks.db")

    async def first() -> None:
        await journal.open("here")
        await journal.submit([new("a")])

    async def second() -> None:
        await journal.open("here")
        assert await journal.get("a") is not None
        ears = Ears()
        listening = attend(journal.listen(ears), "listen")
        await journal.submit([new("b")])
        await until(lambda: ears.dues)
        listening.cancel()
        await asyncio.wait([listening])
        await journal.aclose()

    asyncio.run(first())
    asyncio.run(second())


def test_a_file_of_a_node_is_never_there_without_its_lock(tmp_path: Path) -> None:
    one = nodes.Nodes(tmp_path / "nodes", "one")
    assert one.dead() == {}
    stale = tmp_path / "nodes" / "1.1.0123456789abcdef.lock"
    stale.write_text("somebody")
    (tmp_path / "nodes" / "1.1.0123456789abcdef.sock").touch()
    assert one.dead() == {"1.1.0123456789abcdef": "somebody"}
    one.remove(["1.1.0123456789abcdef"])
    assert [path.name for path in (tmp_path / "nodes").iterdir()] == [f"{one.stem}.lock"]
    one.close()
    assert list((tmp_path / "nodes").iterdir()) == []
