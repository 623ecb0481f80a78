"""Files of SQLite: for their user only, and whole while somebody of the process has them open."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sojourn.stores.sqlite import is_busy, make_private, when_free

#: Opens the file as anybody may, reads, and closes it: the last one to do so removes the log.
VISITOR = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM things").fetchone()
connection.close()
"""


def test_a_new_file_is_for_its_user_only_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    make_private(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["things.db"]


def test_what_is_there_is_not_touched_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE things (name)")
    make_private(str(path))
    subprocess.run([sys.executable, "-c", VISITOR, str(path)], check=True, timeout=20)
    assert Path(f"{path}-wal").exists()  # its locks are there: the visitor knew that it was not the last
    connection.close()


def test_of_many_that_make_it_at_once_each_finds_one(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    gate = threading.Barrier(8)

    def make() -> None:
        gate.wait(5)
        make_private(str(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert os.listdir(tmp_path) == ["things.db"]


def test_what_others_are_in_the_way_of_is_done_when_they_have_gone(tmp_path: Path) -> None:
    holder, other = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    holder.execute("BEGIN EXCLUSIVE")
    letting_go = threading.Timer(0.05, holder.execute, ("COMMIT",))
    letting_go.start()
    (mode,) = when_free(lambda: other.execute("PRAGMA journal_mode = WAL").fetchone(), 5.0)
    assert mode == "wal"
    letting_go.join()
    for connection in (holder, other):
        connection.close()


def test_who_waits_for_others_does_so_for_so_long_and_for_nothing_else(tmp_path: Path) -> None:
    holder, other = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked") as refused:
        when_free(lambda: other.execute("PRAGMA journal_mode = WAL"), 0.05)
    assert is_busy(refused.value)
    assert 0.05 <= time.monotonic() - began < 2.0
    tried: list[int] = []
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        when_free(lambda: [tried.append(1), other.execute("WHAT")], 5.0)  # type: ignore[func-returns-value]
    assert tried == [1]
    for connection in (holder, other):
        connection.close()


def opened(path: Path) -> sqlite3.Connection:
    """A connection that waits for nobody, of whichever thread."""
    return sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
