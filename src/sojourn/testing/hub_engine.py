"""The contract suite of a hub's engines: what :mod:`sojourn.hub.engine` promises, checked on an engine of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from sojourn.hub.engine import Engine
from sojourn.testing.hub_members import MEMBERS
from sojourn.testing.hub_promises import PUBLISHING
from sojourn.testing.hub_recorder import BrokenPromise, Node, Recorder, expect

__all__ = ["PROMISES", "BrokenPromise", "EngineContract", "Node", "Recorder", "expect"]

#: All promises, with the nodes that each needs.
PROMISES: Final = {**PUBLISHING, **MEMBERS}


class EngineContract:
    """The promises of an engine, one by one. It depends on no test framework.

    Args:
        store: Makes engines that were not started yet, all nodes of one new store: called with their number, it gives
            an ``async with`` that ends what it has begun. The engines themselves are started and closed here.
        nodes: How many nodes of one store there can be; more than two are no better than two.

    Example:
        With pytest, in a file of its own::

            @asynccontextmanager
            async def store(nodes: int) -> AsyncIterator[list[MyEngine]]:
                prefix = f"test-{uuid4()}:"
                yield [MyEngine(prefix=prefix) for _ in range(nodes)]


            CONTRACT = EngineContract(store)


            @pytest.mark.parametrize("promise", CONTRACT.promises)
            def test_contract(promise: str) -> None:
                asyncio.run(CONTRACT.check(promise))

        >>> "what_has_an_id_is_published_once" in PROMISES
        True
    """

    def __init__(
        self, store: Callable[[int], AbstractAsyncContextManager[Sequence[Engine]]], *, nodes: int = 2
    ) -> None:
        self._store = store
        self._nodes = nodes

    @property
    def promises(self) -> list[str]:
        """Their names: all that can be checked with so many nodes."""
        return [name for name, (_, needed) in PROMISES.items() if needed <= self._nodes]

    async def check(self, promise: str) -> None:
        """Check one, on a store of its own.

        Args:
            promise: Its name.

        Raises:
            BrokenPromise: It is not held.
        """
        check, _ = PROMISES[promise]
        async with self._store(self._nodes) as engines:
            nodes = [Node(engine, Recorder()) for engine in engines]
            try:
                for node in nodes:
                    await node.engine.start(node.seen)
                    await node.seen.until(lambda engine=node.engine: engine.available, "not available after its start")  # type: ignore[misc]
                await check(nodes)
                for node in nodes:
                    expect(not node.seen.late, f"it told something when it may not: {node.seen.late}")
            finally:
                for node in nodes:
                    await node.engine.aclose()
