"""Connections of our own: what the server does for the others when one of us is no more to be talked to."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.tasks.postgres.connecting import Connector
from tests.tasks.postgres.scene import Scene, run, until


def test_who_takes_no_answer_is_cut_off_so_that_others_get_what_it_has_locked(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            frozen = await Connector(scene.dsn(), seconds=0.25)()
            transport = frozen._transport
            asked = asyncio.ensure_future(frozen.execute("SELECT repeat('x', 1000000) FROM generate_series(1, 40)"))
            await asyncio.sleep(0)
            transport.pause_reading()  # as a process that is stopped
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"

            async def stuck() -> bool:
                return int(await scene.sql.fetchval(waits)) == 1

            async def gone() -> bool:
                return await scene.sessions() == 0

            await until(stuck)
            await until(gone, 5.0)
            transport.resume_reading()
            await asyncio.wait((asked,))
            assert asked.exception() is not None
            await until(lambda: _closed(frozen))

    run(main)


async def _closed(connection: Any) -> bool:
    return bool(connection.is_closed())
