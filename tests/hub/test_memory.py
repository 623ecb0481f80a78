"""The engine in memory holds the contract, and delivers before a publication returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Present
from sojourn.hub.memory import MemoryEngine
from sojourn.testing.hub_engine import EngineContract, Node, Recorder
from sojourn.testing.leaks import assert_no_leaks


@asynccontextmanager
async def store(nodes: int) -> AsyncIterator[list[MemoryEngine]]:
    yield [MemoryEngine() for _ in range(nodes)]


CONTRACT = EngineContract(store, nodes=1)


@pytest.mark.parametrize("promise", CONTRACT.promises)
def test_contract(promise: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, assert_no_leaks():
        runner.run(CONTRACT.check(promise))


def test_what_is_published_is_delivered_before_publish_returns() -> None:
    async def main() -> None:
        node = Node(MemoryEngine(), Recorder())
        await node.engine.start(node.seen)
        await node.engine.subscribe("c")
        publishing = node.publish("c")
        with pytest.raises(StopIteration):  # it has not waited for anything
            publishing.send(None)
        assert len(node.seen.of("c")) == 1
        await node.engine.aclose()

    asyncio.run(main())


def test_an_engine_that_was_not_started_says_so() -> None:
    async def main() -> None:
        engine = MemoryEngine()
        assert not engine.available
        with pytest.raises(EngineUnavailable, match="not started"):
            await engine.position()
        with pytest.raises(EngineUnavailable):
            await engine.enter("c", [Present("m", "")], 60)
        await engine.aclose()

    asyncio.run(main())


def test_two_engines_are_two_lives() -> None:
    async def main() -> None:
        cursors = []
        for _ in range(2):
            engine = MemoryEngine()
            await engine.start(Recorder())
            cursors.append(await engine.position())
            await engine.aclose()
        assert cursors[0].epoch != cursors[1].epoch

    asyncio.run(main())
