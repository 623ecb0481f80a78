"""Files of SQLite: for their user only, and whole while somebody of the process has them open."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

from sojourn.stores.sqlite import make_private

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
