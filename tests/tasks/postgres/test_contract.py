"""PostgreSQL keeps what a journal promises, also behind a pooler that shares its sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sojourn.tasks.postgres.journal import PostgresJournal
from sojourn.testing.task_journal import TASK_PROMISES, JournalContract
from sojourn.testing.task_races import RACES
from tests.tasks.postgres.scene import Scene, run

#: Those that wait for time to pass, which they can do together; what makes all it can is checked alone.
QUIET = [promise for promise in TASK_PROMISES if promise not in RACES]


def contract(port: int, *, shared: bool = False) -> JournalContract:
    """The promises, each on tables of its own. ``shared``: as if there were a pooler in between."""

    @asynccontextmanager
    async def store(nodes: int) -> AsyncIterator[list[PostgresJournal]]:
        async with Scene(port) as scene:
            direct: dict[str, Any] = {"direct": scene.dsn()} if shared else {}
            yield [scene.journal(connections=2, **direct) for _ in range(nodes)]

    return JournalContract(store)


@pytest.fixture(scope="module")
def quiet(postgres: int) -> dict[str, BaseException | None]:
    """What came of each promise."""

    async def check(promise: str, some: asyncio.Semaphore) -> None:
        async with some:
            await contract(postgres).check(promise)

    async def main() -> list[BaseException | None]:
        some = asyncio.Semaphore(3)
        return await asyncio.gather(*[check(promise, some) for promise in QUIET], return_exceptions=True)

    return dict(zip(QUIET, run(main), strict=True))


@pytest.mark.parametrize("promise", QUIET)
def test_contract(promise: str, quiet: dict[str, BaseException | None], postgres: int) -> None:
    if quiet[promise] is not None:  # leases of some tenths of a second can be too short among others: again, alone
        run(lambda: contract(postgres).check(promise))


@pytest.mark.parametrize("promise", RACES)
def test_races(promise: str, postgres: int) -> None:
    run(lambda: contract(postgres).check(promise))


@pytest.mark.parametrize(
    "promise",
    [
        "what_is_submitted_is_there_as_it_was_given",
        "the_most_urgent_are_claimed_first",
        "what_follows_is_submitted_with_the_end_and_once",
        "what_a_run_says_is_numbered_and_read_in_its_order",
        "tasks_are_listed_from_the_newest",
        "who_listens_is_told_in_a_moment",
    ],
)
def test_nothing_is_left_in_a_session_where_a_pooler_shares_them(promise: str, postgres: int) -> None:
    run(lambda: contract(postgres, shared=True).check(promise))
