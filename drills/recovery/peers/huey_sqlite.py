"""Huey on SQLite."""

from __future__ import annotations

from huey import SqliteHuey

from drills.recovery.work import STORE, work_blocking

huey = SqliteHuey(filename=STORE)


@huey.task(retries=3)
def task() -> None:
    work_blocking()


if __name__ == "__main__":
    from drills.recovery.peers import huey_sqlite  # tasks are named after their module: not after __main__

    huey_sqlite.task()
