"""Sessions in a file: for its user only, shared by processes, and never waited for by the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import DeadlineExceeded, SessionStoreUnavailable
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import deadline
from sojourn.sessions import tables
from sojourn.sessions.sqlite import SqliteSessions
from sojourn.sessions.stored import Draft, Revocation
from tests.sessions.scene import play

DRAFT = Draft("ann", b'{"n":0}', 100.0, 1000.0)

#: Adds to one number in the file, as often as it is told to.
ADDER = """
import asyncio, sys
from sojourn.sessions.sqlite import SqliteSessions

async def main(path, times):
    store = SqliteSessions(path)
    for _ in range(times):
        stored = await store.load("counter")
        while True:
            number = int(stored.data[5:-1]) + 1
            saved = await store.save("counter", stored.version, b'{"n":%d}' % number)
            if saved.done:
                break
            stored = saved.stored
    await store.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_that_change_one_session_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"

    async def begin() -> None:
        store = SqliteSessions(path)
        await store.create("counter", DRAFT)
        await store.aclose()

    async def found() -> bytes:
        store = SqliteSessions(path)
        stored = await store.load("counter")
        await store.aclose()
        assert stored is not None
        return stored.data

    asyncio.run(begin())
    adders = [subprocess.Popen([sys.executable, "-c", ADDER, str(path), "50"]) for _ in range(3)]
    assert [adder.wait(60) for adder in adders] == [0, 0, 0]
    assert asyncio.run(found()) == b'{"n":150}'


def test_stores_that_make_the_file_at_the_same_time_all_work(tmp_path: Path) -> None:
    async def main() -> None:
        stores = [SqliteSessions(tmp_path / "sessions.db") for _ in range(8)]
        await asyncio.gather(*(store.create(f"key {number}", DRAFT) for number, store in enumerate(stores)))
        assert len(await stores[0].of("ann")) == 8
        await asyncio.gather(*(store.aclose() for store in stores))

    play(main())


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteSessions(tmp_path / "sessions.db")
        await store.create("a", DRAFT)
        modes = [stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)]
        assert modes == [0o600] * 3
        await store.aclose()

    play(main())


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteSessions(tmp_path / "sessions.db")
        await store.create("a", DRAFT)
        await store.aclose()
        assert (await store.load("a")) is not None  # used again, it opens again
        await store.aclose()

    play(main())
    play(main_again(tmp_path))


async def main_again(folder: Path) -> None:
    store = SqliteSessions(folder / "sessions.db")
    stored = await store.load("a")
    assert stored is not None
    assert stored.data == DRAFT.data
    await store.aclose()


def test_a_file_that_somebody_holds_is_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BUSY_MS", 50)

    async def main() -> None:
        store = SqliteSessions(tmp_path / "sessions.db")
        await store.create("a", DRAFT)
        with sqlite3.connect(tmp_path / "sessions.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await store.load("a") is not None  # who reads does not wait for who writes
            with pytest.raises(SessionStoreUnavailable, match="locked"):
                await store.save("a", 1, b"{}")
            other.execute("ROLLBACK")
        other.close()
        assert (await store.save("a", 1, b"{}")).done
        await store.aclose()

    play(main())


def test_its_time_is_a_budget_and_the_callers_own_deadline_stays_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteSessions(tmp_path / "sessions.db")
        await store.create("a", DRAFT)
        with sqlite3.connect(tmp_path / "sessions.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            BUDGETS.set(Budgets({"sessions": 0.05}))
            with pytest.raises(SessionStoreUnavailable, match=r"0\.05 s"):
                await store.save("a", 1, b"{}")
            BUDGETS.set(Budgets({"sessions": 5.0}))
            with pytest.raises(DeadlineExceeded, match="mine"):
                async with deadline(0.05, "mine"):
                    await store.save("a", 1, b"{}")
            other.execute("ROLLBACK")
        other.close()
        BUDGETS.set(Budgets({}))
        await store.aclose()

    play(main())


def test_a_folder_that_is_not_there_is_a_store_that_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteSessions(tmp_path / "nowhere" / "sessions.db")
        with pytest.raises(SessionStoreUnavailable, match="nowhere"):
            await store.load("a")
        await store.aclose()

    play(main())


def test_what_is_over_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        store = SqliteSessions(tmp_path / "sessions.db", clock=clock)
        for number in range(20):
            await store.create(f"key {number}", DRAFT)
            await store.revoke(Revocation("user", "nobody"))
        clock.advance(101)
        await store.create("fresh", DRAFT)
        with sqlite3.connect(tmp_path / "sessions.db") as other:
            assert other.execute("SELECT key FROM sessions").fetchall() == [("fresh",)]
            assert other.execute("SELECT count(*) FROM revocations").fetchone() == (0,)
        other.close()
        await store.aclose()

    play(main())


def test_who_has_slept_longer_than_revocations_are_kept_knows_that_it_has_missed_some(tmp_path: Path) -> None:
    clock = ManualClock()
    file = tables.Tables(str(tmp_path / "sessions.db"), clock)
    _, latest, _ = file.told(-1)
    for _ in range(3):
        file.revoke(Revocation("user", "ann"))
    told, latest, hole = file.told(latest)
    assert (len(told), hole) == (3, False)
    assert file.told(latest) == ([], latest, False)
    for _ in range(2):
        file.revoke(Revocation("user", "ann"))
        clock.advance(70)
        file.touch([])
    file.revoke(Revocation("user", "bob"))
    assert file.told(latest) == ([Revocation("user", "bob")], latest + 3, True)
    file.close()


def test_the_idle_time_is_written_once_in_a_quarter_of_it(tmp_path: Path) -> None:
    clock = ManualClock()
    file = tables.Tables(str(tmp_path / "sessions.db"), clock)
    file.create("a", DRAFT)
    changes = file._opened().total_changes
    for _ in range(20):
        clock.advance(1)
        assert file.load("a") is not None
    assert file._opened().total_changes == changes
    clock.advance(10)
    assert file.load("a") is not None
    assert file._opened().total_changes == changes + 1
    file.close()


def test_no_store_of_a_process_takes_the_locks_of_another(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    visitor = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM sessions'); c.close()"

    def visited() -> bool:
        subprocess.run([sys.executable, "-c", visitor, str(path)], check=True, timeout=20)
        return Path(f"{path}-wal").exists()

    async def main() -> None:
        one, two = SqliteSessions(path), SqliteSessions(path)
        await one.create("a", DRAFT)
        await two.create("b", DRAFT)
        # Whoever closes the file last removes its log: the visitor is not the last.
        assert await asyncio.to_thread(visited)
        await one.create("c", DRAFT)
        found = [await two.load(key) for key in ("a", "b", "c")]
        assert None not in found
        await one.aclose()
        await two.aclose()

    asyncio.run(main())
