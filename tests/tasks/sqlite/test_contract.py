"""The file keeps every promise of a journal."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sojourn.tasks.sqlite import SqliteJournal
from sojourn.testing.task_journal import JournalContract


@asynccontextmanager
async def store(nodes: int) -> AsyncIterator[list[SqliteJournal]]:
    with tempfile.TemporaryDirectory() as folder:
        yield [SqliteJournal(Path(folder) / "tasks.db") for _ in range(nodes)]


CONTRACT = JournalContract(store)


@pytest.mark.parametrize("promise", CONTRACT.promises)
def test_contract(promise: str) -> None:
    asyncio.run(CONTRACT.check(promise))
