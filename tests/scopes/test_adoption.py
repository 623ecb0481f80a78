"""A task that is declared as meant to live on."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.scopes.adoption import adopt, adopter_of


def test_an_adopted_task_is_given_back_and_knows_its_owner() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert adopter_of(task) == ""
        assert adopt(task, owner="cache refresher") is task
        assert adopter_of(task) == "cache refresher"
        await task

    asyncio.run(main())


def test_an_owner_has_a_name() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        with pytest.raises(ValueError, match="name"):
            adopt(task, owner="")
        await task

    asyncio.run(main())
