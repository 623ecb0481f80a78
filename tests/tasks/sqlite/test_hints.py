"""What nodes of a host tell each other: never waited for, and what could not be told is told as missed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from sojourn.scopes.work import attend
from sojourn.tasks.record import NewTask
from sojourn.tasks.sqlite import SqliteJournal, ears, hints
from sojourn.tasks.sqlite.hints import Hint, Mouth, bound, drained
from sojourn.testing.task_recorder import Ears
from tests.tasks.sqlite.processes import until


def test_a_hint_reaches_all_who_listen_and_not_who_said_it(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)  # longer than the address of a socket may be
    folder.mkdir()
    listening = {stem: bound(folder, stem) for stem in ("one", "two", "own")}
    mouth = Mouth(folder, "own")
    said = Hint(True, ["a", "b"], ["c"])
    mouth.tell(said)
    assert {stem: drained(ear) for stem, ear in listening.items()} == {"one": [said], "two": [said], "own": []}
    mouth.close()
    for ear in listening.values():
        ear.close()


def test_a_long_hint_comes_in_parts(tmp_path: Path) -> None:
    ear, mouth = bound(tmp_path, "one"), Mouth(tmp_path, "own")
    ids = [f"{number:043}" for number in range(1200)]
    mouth.tell(Hint(True, ids, ids[:1]))
    parts = drained(ear)
    assert [each for part in parts for each in part.changed] == ids
    assert [(part.due, len(part.cancelled)) for part in parts] == [(True, 1), (False, 0), (False, 0)]
    mouth.close()
    ear.close()


def test_who_can_not_take_any_more_is_told_later_that_it_has_missed_something(tmp_path: Path) -> None:
    ear, mouth = bound(tmp_path, "one"), Mouth(tmp_path, "own")
    for number in range(2000):
        mouth.tell(Hint(True, [f"{number}"]))
    mouth.catch_up()
    taken = []
    while some := drained(ear):
        taken += some
    assert len(taken) < 2000
    assert not any(hint.missed for hint in taken)
    mouth.catch_up()
    mouth.catch_up()
    assert drained(ear) == [Hint(missed=True)]
    mouth.tell(Hint(True))
    assert drained(ear) == [Hint(True)]
    mouth.close()
    ear.close()


def test_who_is_gone_holds_nobody_up_and_what_makes_no_sense_was_missed(tmp_path: Path) -> None:
    ear, mouth = bound(tmp_path, "one"), Mouth(tmp_path, "own")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.sendto(b"nonsense", str(tmp_path / "one.sock"))
    assert drained(ear) == [Hint(missed=True)]
    ear.close()
    mouth.tell(Hint(True))  # its file is still there
    (tmp_path / "one.sock").unlink()
    mouth.tell(Hint(True))
    mouth.close()


def test_who_can_have_no_socket_looks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, stem: str) -> socket.socket:
        raise OSError("no sockets here")

    monkeypatch.setattr(ears, "bound", refused)
    monkeypatch.setattr(ears, "LOOK", 0.05)

    async def main() -> None:
        one, two = SqliteJournal(tmp_path / "tasks.db"), SqliteJournal(tmp_path / "tasks.db")
        await one.open("one")
        await two.open("two")
        heard = Ears()
        listening = attend(one.listen(heard), "listen")
        await until(lambda: heard.misses == 1)
        await two.submit([NewTask(id="a", kind="k")])
        await until(lambda: heard.misses > 2)
        await one.submit([NewTask(id="b", kind="k")])
        await until(lambda: heard.dues == 1)  # what is said here needs no socket
        listening.cancel()
        await asyncio.wait([listening])
        await one.aclose()
        await two.aclose()

    asyncio.run(main())


def test_a_socket_whose_file_was_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ears, "LOOK", 0.05)

    async def main() -> None:
        one, two = SqliteJournal(tmp_path / "tasks.db"), SqliteJournal(tmp_path / "tasks.db")
        await one.open("one")
        await two.open("two")
        heard = Ears()
        listening = attend(one.listen(heard), "listen")
        await until(lambda: heard.misses == 1)
        for path in sockets(tmp_path):
            path.unlink()
        await until(lambda: heard.misses == 2)
        await two.submit([NewTask(id="a", kind="k")])
        await until(lambda: heard.dues == 1)
        listening.cancel()
        await asyncio.wait([listening])
        assert sockets(tmp_path) == []
        await one.aclose()
        await two.aclose()

    asyncio.run(main())


def sockets(folder: Path) -> list[Path]:
    return [path for path in (folder / "tasks.db-nodes").iterdir() if path.suffix == hints._SOCKET]
