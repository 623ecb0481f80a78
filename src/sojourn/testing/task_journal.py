"""The contract suite of journals: what :mod:`sojourn.tasks.journal` promises, checked on a journal of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from sojourn.tasks.journal import Journal
from sojourn.testing.task_claims import CLAIMS
from sojourn.testing.task_races import RACES
from sojourn.testing.task_reading import READING
from sojourn.testing.task_recorder import BrokenPromise, Ears, TaskNode, expect
from sojourn.testing.task_submits import SUBMITS

__all__ = ["TASK_PROMISES", "BrokenPromise", "Ears", "JournalContract", "TaskNode", "expect"]

#: All promises, with the nodes that each needs.
TASK_PROMISES: Final = {**SUBMITS, **CLAIMS, **READING, **RACES}


class JournalContract:
    """The promises of a journal, one by one. It depends on no test framework, and takes some seconds in all.

    Args:
        store: Makes journals that were not opened yet, all of one new and empty store: called with their number, it
            gives an ``async with`` that ends what it has begun. The journals are opened and closed here.
        nodes: How many journals one store can have; what needs more is not checked.

    Example:
        With pytest, in a file of its own::

            @asynccontextmanager
            async def store(nodes: int) -> AsyncIterator[list[MyJournal]]:
                prefix = f"test-{uuid4()}:"
                yield [MyJournal(prefix=prefix) for _ in range(nodes)]


            CONTRACT = JournalContract(store)


            @pytest.mark.parametrize("promise", CONTRACT.promises)
            def test_contract(promise: str) -> None:
                asyncio.run(CONTRACT.check(promise))

        >>> "a_lost_task_is_claimed_by_the_ordinary_claim" in TASK_PROMISES
        True
    """

    def __init__(
        self, store: Callable[[int], AbstractAsyncContextManager[Sequence[Journal]]], *, nodes: int = 4
    ) -> None:
        self._store = store
        self._nodes = nodes

    @property
    def promises(self) -> list[str]:
        """Their names: all that can be checked with so many nodes."""
        return [name for name, (_, needed) in TASK_PROMISES.items() if needed <= self._nodes]

    async def check(self, promise: str) -> None:
        """Check one, on a store of its own.

        Args:
            promise: Its name.

        Raises:
            BrokenPromise: It is not held.
        """
        check, needed = TASK_PROMISES[promise]
        async with self._store(needed) as journals:
            nodes = TaskNode.all(journals)
            try:
                for node in nodes:
                    await node.journal.open(node.name)
                await check(nodes)
            finally:
                for node in nodes:
                    await node.journal.aclose()
