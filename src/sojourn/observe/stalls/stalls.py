"""Stalls of a worker's event loop: watched, told once each, kept for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sojourn.asgi.site import Site
from sojourn.clock import SystemClock
from sojourn.events import LoopStalled
from sojourn.observe.answers import Answers
from sojourn.observe.profiles.model import Profile
from sojourn.observe.stalls.limit import HardLimit
from sojourn.observe.stalls.stack import frames, in_words
from sojourn.observe.stalls.store import StallInfo, StallStore
from sojourn.observe.stalls.watchdog import Stall, Watchdog

__all__ = ["Stalls"]

#: Longest text of stacks in an event, in characters.
_LONGEST: Final = 16 * 1024


class Stalls:
    """Made on the event loop, after whoever else asks the ticker for lateness.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        runtime = site.runtime
        self._bus = runtime.bus
        self._clock = clock = runtime.ticker.clock
        self._store = StallStore()
        settings = site.config.diagnostics
        self._watchdog: Watchdog | None = None
        # A thread can't sleep by a clock that somebody moves by hand.
        if settings.watchdog and isinstance(clock, SystemClock):
            self._watchdog = Watchdog(runtime.loop, runtime.ticker, settings.stall, self._stalled, clock)
        #: The errands it does.
        self.answers: Answers = {"stalls": self.list}

    @property
    def watching(self) -> bool:
        """Whether it tells of stalls, so that nobody else needs to."""
        return self._watchdog is not None

    def own_process(self, seconds: float = 3.0, fd: int | None = None) -> None:
        """Use the process's one timer of faulthandler too.

        Args:
            seconds: See :class:`HardLimit`.
            fd: Where stacks go that are written in the middle of a stall; None puts them into its event.
        """
        if self._watchdog is not None:
            self._watchdog.limit(HardLimit(seconds, fd))

    def close(self) -> None:
        """End the thread. Calling it twice does nothing."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.close()

    async def list(self, arguments: Mapping[str, Any]) -> list[StallInfo]:
        """The last stalls, those with the same stack together, the costliest first. It takes no arguments.

        Cancel: safe.
        """
        return self._store.known()

    def profile(self) -> Profile:
        """The last stalls as a profile."""
        return self._store.profile(self._clock.wall())

    def _stalled(self, stall: Stall) -> None:
        """On the loop: it goes on after a stall."""
        now = self._clock.wall()
        function = in_words(stall.stack[stall.blamed]) if stall.blamed is not None else ""
        info = StallInfo(
            cause=stall.cause,
            function=function,
            thread=stall.thread,
            known=1,
            seconds=stall.seconds,
            longest=stall.seconds,
            processor=stall.processor,
            collector=stall.collector,
            first_seen=now,
            last_seen=now,
            stack=frames(stall.stack),
        )
        self._store.add(info)
        on = f"on the thread {stall.thread}\n" if stall.thread else ""
        told = on + stall.text[-_LONGEST:]
        self._bus.emit(LoopStalled(stall.seconds, stall.cause, function, told, stall.processor, stall.collector))
