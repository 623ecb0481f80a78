"""The durable tasks of a worker, counted each second.

Services make themselves known (``scopes.journals``); this does not know what one is made of. To the metrics all of a
process are one. What is in a journal is asked only when somebody reads the metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sojourn.asgi.site import Site
from sojourn.errors import JournalUnavailable
from sojourn.observe.answers import Answers
from sojourn.observe.journal_answers import JournalAnswers
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.sampling import Sampler
from sojourn.scopes.deadline import deadline
from sojourn.scopes.journals import JOURNALS, Amounts, Journals
from sojourn.scopes.used import Key

__all__ = ["JournalWatch"]

#: Seconds between two looks.
_SECOND: Final = 1.0
#: Seconds between two questions to a journal about what is in it, and for one; and how long the page waits for that.
_BETWEEN, _ASKING, _PATIENCE = 5.0, 10.0, 0.5
#: Seconds after which nobody has read the metrics for so long that what was asked for them is not shown any more.
_OLD: Final = 150.0


class JournalWatch:
    """Looks at the durable tasks of a worker.

    Args:
        site: What the worker serves; its services are known in the context of everything it runs from now on.
        meter: Counts; None when nobody does.

    Attributes:
        journals: Those that were used.
        answers: The errands it does.
    """

    def __init__(self, site: Site, meter: Meter | None) -> None:
        self.journals = Journals(site.runtime.bus)
        site.runtime.context.run(JOURNALS.set, self.journals)
        self.answers: Answers = {"journal_gauges": self.gauges, **JournalAnswers(self.journals).answers}
        self._site = site
        self._ticker = site.ticker
        self._meter = meter
        self._sampler = Sampler()
        #: Gauges of what is in the journals.
        self._there: set[Key] = set()
        self._asked = -_OLD
        self._asking: asyncio.Task[None] | None = None
        if meter is not None:
            self._call = self._ticker.call_together(_SECOND, self._each_second)

    def close(self) -> None:
        """Look a last time, and then no more; calling it twice does nothing."""
        if self._meter is not None:
            self._call.cancel()
            self.sample(self._meter)
            self._forget(self._meter)
            self._meter = None
        if self._asking is not None:
            self._asking.cancel()

    def _each_second(self) -> None:
        self._call = self._ticker.call_together(_SECOND, self._each_second)
        if self._meter is not None:
            self.sample(self._meter)
            if self._there and self._ticker.now - self._asked > _OLD:
                self._forget(self._meter)

    def sample(self, meter: Meter) -> None:
        """Bring what all services count to the metrics."""
        self._sampler.sample(self.journals, meter)

    # -- what there is in the journals

    async def gauges(self, arguments: Mapping[str, Any]) -> bool:
        """Somebody reads the metrics: bring what is in the journals to them, unless that was done a moment ago.

        Returns:
            Whether it is there now. What takes longer than half a second is there for the next who reads.

        Cancel: safe; what was asked goes on.
        """
        now = self._ticker.now
        if self._meter is None or not len(self.journals):
            return True
        if self._asking is None and now - self._asked >= _BETWEEN:
            self._asked = now
            self._asking = self._site.work.run(self._ask(), "what is in the journals")
            self._asking.add_done_callback(self._has_asked)
        if self._asking is None:
            return True
        await asyncio.wait((self._asking,), timeout=_PATIENCE)
        return self._asking is None

    def _has_asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # read: the metrics tell of calls that failed

    async def _ask(self) -> None:
        levels = dict.fromkeys(self._there, 0.0)
        async with deadline(_ASKING, "what is in the journals"):
            for service in self.journals:
                try:
                    amounts = await service.amounts()
                except JournalUnavailable:
                    continue  # its service counts that it is away
                for key, level in _levels(amounts):
                    levels[key] = max(levels.get(key, 0.0), level)
        if self._meter is not None:
            self._there.update(levels)
            for key, level in levels.items():
                self._meter.values[self._meter.place(*key)] = level

    def _forget(self, meter: Meter) -> None:
        """Nobody reads it here any more: another worker is asked, or nobody."""
        for key in self._there:
            meter.values[meter.place(*key)] = 0.0
        self._there.clear()


def _levels(amounts: Amounts) -> Iterable[tuple[Key, float]]:
    for kind, states in amounts.states.items():
        for state, number in states.items():
            yield ("journal_tasks", kind, state), float(number)
        yield ("journal_due_oldest_seconds", kind), amounts.oldest.get(kind, 0.0)
