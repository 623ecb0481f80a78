"""Processes of one host share the file: a dead one is not waited for, and one that lives is not taken for dead."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import pytest

from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.scopes.work import attend
from sojourn.tasks.journal import Want
from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.sqlite import SqliteJournal
from sojourn.testing.task_recorder import Ears
from tests.tasks.sqlite.processes import other, until

#: Claims all there is for half a minute, says so, and waits.
HOLDER = """
claimed = await journal.claim(name, [Want(("k",), 100)], 30.0)
print(len(claimed.claims), flush=True)
sys.stdin.read()
"""
#: Claims and completes until there is nothing left.
WORKER = """
done = 0
while claims := (await journal.claim(name, [Want(("k",), 7)], 30.0)).claims:
    said = [Settlement(id=each.id, epoch=each.epoch, outcome="completed", result=b"1") for each in claims]
    assert all(await journal.settle(said))
    done += len(said)
print(done, flush=True)
await journal.aclose()
"""
#: Submits one when it is told to, and tells its id.
SUBMITTER = """
await asyncio.to_thread(sys.stdin.readline)
await journal.submit([NewTask(id="told", kind="k")])
await asyncio.to_thread(sys.stdin.readline)
await journal.aclose()
"""


async def begun(path: Path, count: int = 3) -> SqliteJournal:
    """A journal with some tasks."""
    journal = SqliteJournal(path)
    await journal.open("here")
    await journal.submit([NewTask(id=f"task-{number}", kind="k") for number in range(count)])
    return journal


def files(path: Path) -> list[str]:
    return sorted(entry.suffix for entry in Path(f"{path}-nodes").iterdir())


def test_what_a_killed_process_held_is_claimed_within_a_second(tmp_path: Path) -> None:
    async def main() -> None:
        journal = await begun(tmp_path / "tasks.db")
        ears = Ears()
        listening = attend(journal.listen(ears), "listen")
        with other(tmp_path / "tasks.db", "there", HOLDER) as holder:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == "3\n"
            assert files(journal.path).count(".lock") == 2
            assert not (await journal.claim("here", [Want(("k",), 10)], 30.0)).claims
            ears.clear()
            holder.send_signal(signal.SIGKILL)
            began = time.monotonic()
            await until(lambda: ears.dues or ears.misses)
            claimed = await journal.claim("here", [Want(("k",), 10)], 30.0)
            assert time.monotonic() - began < 1.5
            assert {(each.id, each.crashes, each.epoch) for each in claimed.claims} == {
                (f"task-{number}", 1, 2) for number in range(3)
            }
        assert files(journal.path).count(".lock") == 1
        listening.cancel()
        await asyncio.wait([listening])
        await journal.aclose()
        assert files(journal.path) == []

    asyncio.run(main())


def test_the_ordinary_claim_finds_the_dead_though_nobody_listens(tmp_path: Path) -> None:
    async def main() -> None:
        journal = await begun(tmp_path / "tasks.db")
        with other(tmp_path / "tasks.db", "there", HOLDER) as holder:
            assert holder.stdout is not None
            await asyncio.to_thread(holder.stdout.readline)
            holder.send_signal(signal.SIGKILL)
            await asyncio.to_thread(holder.wait)
        claims = None
        async with asyncio.timeout(1.5):
            while not claims:
                await asyncio.sleep(0.05)
                claims = (await journal.claim("here", [Want(("k",), 10)], 30.0)).claims
        assert len(claims) == 3
        await journal.aclose()

    asyncio.run(main())


def test_a_process_that_is_stopped_is_not_dead(tmp_path: Path) -> None:
    async def main() -> None:
        journal = await begun(tmp_path / "tasks.db")
        with other(tmp_path / "tasks.db", "there", HOLDER) as holder:
            assert holder.stdout is not None
            await asyncio.to_thread(holder.stdout.readline)
            holder.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.6)
            for _ in range(3):
                assert not (await journal.claim("here", [Want(("k",), 10)], 30.0)).claims
        await journal.aclose()

    asyncio.run(main())


def test_processes_that_share_the_work_complete_each_task_once(tmp_path: Path) -> None:
    async def main() -> None:
        journal = await begun(tmp_path / "tasks.db", 300)
        with ExitStack() as stack:
            workers = [stack.enter_context(other(journal.path, f"there-{n}", WORKER)) for n in range(3)]
            done = [int(await asyncio.to_thread(worker.stdout.readline)) for worker in workers if worker.stdout]
            assert sum(done) == 300
            assert [await asyncio.to_thread(worker.wait, 10) for worker in workers] == [0, 0, 0]
        counts = await journal.counts()
        assert counts.states == {"k": {"completed": 300}}
        await journal.aclose()
        assert files(journal.path) == []

    asyncio.run(main())


def test_another_process_is_told_without_asking(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / ("long" * 40) / "tasks.db"  # longer than the address of a socket may be
        path.parent.mkdir()
        journal = await begun(path, 0)
        ears = Ears()
        listening = attend(journal.listen(ears), "listen")
        with other(path, "there", SUBMITTER) as there:
            assert there.stdin is not None
            await until(lambda: files(path).count(".lock") == 2)
            ears.clear()
            there.stdin.write("\n")
            there.stdin.flush()
            await until(lambda: ears.dues, 2.0)
            assert not ears.misses
            there.stdin.write("\n")
            there.stdin.close()
            assert await asyncio.to_thread(there.wait, 10) == 0
        listening.cancel()
        await asyncio.wait([listening])
        await journal.aclose()

    asyncio.run(main())


def test_a_forked_child_is_refused_and_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    async def main() -> None:
        journal = await begun(tmp_path / "tasks.db")
        (claim,) = (await journal.claim("here", [Want(("k",), 1)], 30.0)).claims
        child = os.fork()
        if not child:
            os._exit(in_the_child(journal))
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 0
        # It had the same files open, and has closed them by its end: the parent has its locks, and goes on.
        assert locked(journal.path)
        assert all(locked(path) for path in lock_files(journal.path))
        assert await journal.settle([Settlement(id=claim.id, epoch=1, outcome="completed")]) == [True]
        await journal.aclose()

    asyncio.run(main())


def in_the_child(journal: SqliteJournal) -> int:
    """Returns 0 when all is as it should be."""

    async def main() -> None:
        with pytest.raises(JournalUnavailable, match="fork"):
            await journal.get("task-0")
        with pytest.raises(ConfigError, match="fork"):
            await journal.open("child")
        await journal.aclose()

    try:
        asyncio.new_event_loop().run_until_complete(main())
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def test_of_many_that_open_a_new_file_at_once_all_can_use_it(tmp_path: Path) -> None:
    async def main() -> None:
        for turn in range(60):
            journals = [SqliteJournal(tmp_path / f"{turn}.db") for _ in range(4)]
            await asyncio.gather(*(journal.open(f"n{number}") for number, journal in enumerate(journals)))
            for journal in journals:
                await journal.aclose()

    asyncio.run(main())


def test_no_journal_of_a_process_takes_the_locks_of_another(tmp_path: Path) -> None:
    async def main() -> None:
        one, two = SqliteJournal(tmp_path / "tasks.db"), SqliteJournal(tmp_path / "tasks.db")
        await asyncio.gather(one.open("one"), two.open("two"))
        assert await one.get("a") is None
        assert await two.get("a") is None
        assert locked(one.path), "SQLite must know that the file is used"
        await two.aclose()
        assert locked(one.path), "SQLite must know that the file is used"
        assert [locked(path) for path in lock_files(one.path)] == [True]
        await one.aclose()

    asyncio.run(main())


def lock_files(path: Path) -> list[Path]:
    return list(Path(f"{path}-nodes").iterdir())


def locked(path: Path) -> bool:
    """Whether this process has a lock on a file."""
    return any(
        line.split()[4] == str(os.getpid()) and line.split()[5].endswith(f":{path.stat().st_ino}")
        for line in Path("/proc/locks").read_text().splitlines()
        if "POSIX" in line and "->" not in line
    )
