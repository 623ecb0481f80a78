"""The wait profile: where tasks spend their time while they don't run, told from a look once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any, Final

from sojourn.net.ticker import Call, Ticker
from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample
from sojourn.observe.turn import turn

__all__ = ["Waits"]

Stack = tuple[Frame, ...]
Labels = tuple[tuple[str, str], ...]
#: At most so many tasks: how many each stands for, and the stacks and labels of those that wait.
Look = Callable[[int], tuple[float, Iterator[tuple[Stack, Labels]]]]

#: Seconds between two looks while a window is asked for, and otherwise.
_INTERVAL: Final = 1.0
_SELDOM: Final = 5.0
#: Of one core, at most, while nobody asks: with many tasks it looks less often.
_SHARE: Final = 0.0001
#: Tasks looked at; of more, so many at random, and each stands for several.
_MOST: Final = 500
#: Stacks kept; beyond that the smaller half is put together as one.
_STACKS: Final = 1000
#: Seconds of one turn of the loop spent on it.
_SLICE: Final = 0.001
_OTHER: Final = (Frame("(other stacks)", "", 0),)


class Waits:
    """Adds up waiting time by stack.

    Args:
        loop: Where the tasks run.
        ticker: The worker's; it ticks anyway, so an idle server wakes up no more often for this.
        monotonic: The monotonic clock.
        look: Chooses and reads tasks.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ticker: Ticker, monotonic: Callable[[], float], look: Look
    ) -> None:
        self._loop = loop
        self._ticker = ticker
        self._monotonic = monotonic
        self._look = look
        #: Times seen and nanoseconds, by stack and labels.
        self._table: dict[tuple[Stack, Labels], tuple[float, float]] = {}
        self._call: Call | None = None
        self._last = 0.0
        self._looks = 0
        self._spent = 0.0
        #: Seconds that the present look has taken so far.
        self._took = 0.0
        #: Windows that are waited for: then it looks as often as it can.
        self._windows = 0
        #: Whether a look goes on in the next turn of the loop.
        self._adding = False

    def start(self) -> None:
        """Look from now on."""
        self._last = self._ticker.now
        self._again()

    def stop(self) -> None:
        """Look no more. Idempotent."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def copy(self) -> dict[tuple[Stack, Labels], tuple[float, float]]:
        """What was added up so far."""
        return dict(self._table)

    async def window(self, seconds: float) -> dict[tuple[Stack, Labels], tuple[float, float]]:
        """Wait so many seconds of served time, and look often meanwhile.

        Returns:
            What was added up before.

        Cancel: safe.
        """
        over: asyncio.Future[None] = self._loop.create_future()
        call = self._ticker.call_later(seconds, lambda: None if over.done() else over.set_result(None))
        self._windows += 1
        if self._call is not None:
            self._call.cancel()
            self._ring()
        while self._adding:  # what waited until now is not of this window
            await turn(self._loop)
        before = self.copy()
        try:
            await over
            return before
        finally:
            self._windows -= 1
            call.cancel()

    def profile(self, moment: float, before: dict[tuple[Stack, Labels], tuple[float, float]] | None) -> Profile:
        """What was added up.

        Args:
            moment: Now, in seconds since the epoch.
            before: What is taken off; None for nothing.
        """
        samples = []
        for key, (times, delay) in self._table.items():
            earlier = (before or {}).get(key, (0.0, 0.0))
            values = (round(times - earlier[0]), round(delay - earlier[1]))
            if values[1] > 0:
                samples.append(Sample(key[0], values, key[1]))
        cost = 1000 * self._spent / max(1, self._looks)
        return Profile(
            name="block",
            kinds=(Kind("contentions", "count"), Kind("delay", "nanoseconds")),
            samples=samples,
            moment=moment,
            period=round(_INTERVAL * 1e9),
            period_kind=Kind("delay", "nanoseconds"),
            default=1,
            comments=[
                f"an estimate: once in {_INTERVAL:g} s at most {_MOST} tasks are looked at, which takes {cost:.2f} ms;",
                f"while nobody asks, once in {_SELDOM:g} s or so seldom that it takes {_SHARE:.2%} of a core",
                "contentions are tasks that were seen to wait, delay is how long they waited, all tasks together",
            ],
        )

    def _ring(self) -> None:
        now = self._ticker.now
        elapsed, self._last = now - self._last, now
        self._again()
        began = self._monotonic()
        weight, found = self._look(_MOST)
        self._looks += 1
        self._took = took = self._monotonic() - began
        self._spent += took
        self._add(found, weight, elapsed * weight * 1e9)

    def _again(self) -> None:
        pause = _INTERVAL if self._windows else max(_SELDOM, ceil(self._took / _SHARE))
        self._call = self._ticker.call_together(pause, self._ring)

    def _add(self, found: Iterator[tuple[Stack, Labels]], times: float, delay: float) -> None:
        """Add what is found, for a millisecond; then go on in the next turn of the loop."""
        self._adding = False
        if self._call is None:
            return
        table, began = self._table, self._monotonic()
        for index, key in enumerate(found, 1):
            before = table.get(key, (0.0, 0.0))
            table[key] = (before[0] + times, before[1] + delay)
            if index % 8 == 0 and self._monotonic() - began > _SLICE:
                self._adding = True
                self._loop.call_soon(self._add, found, times, delay)
                break
        if len(table) > _STACKS:
            self._shrink()
        took = self._monotonic() - began
        self._took += took
        self._spent += took

    def _shrink(self) -> None:
        """Put the smaller half together, so that the table stays bounded whatever the application does."""
        ordered = sorted(self._table.items(), key=lambda item: item[1][1], reverse=True)
        kept, rest = ordered[: _STACKS // 2], ordered[_STACKS // 2 :]
        self._table = dict(kept)
        key: Any = (_OTHER, ())
        before = self._table.get(key, (0.0, 0.0))
        times, delay = (sum(value[place] for _, value in rest) for place in (0, 1))
        self._table[key] = (before[0] + times, before[1] + delay)
