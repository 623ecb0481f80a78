"""Those who take part in the drain: run at the same time, each with its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from sojourn.asgi.server_control import Participant
from sojourn.bus import Bus
from sojourn.events import DrainParticipantEnded
from sojourn.net.ticker import Ticker
from sojourn.scopes.work import LADDER, Work

__all__ = ["PATIENCE", "Participants"]

#: Seconds for a cancelled task: the whole ladder, and a little.
PATIENCE: Final = LADDER[-1] + 1.0
_NONE: Final[Mapping[str, int]] = {}


class Participants:
    """Runs participants, and knows who is not done.

    Args:
        work: Where their tasks are made and cancelled.
        ticker: Their time.
        bus: Gets a DrainParticipantEnded for each.
        idle: Called when none is left.

    Attributes:
        ended: How each ended, in order.
    """

    def __init__(self, work: Work, ticker: Ticker, bus: Bus, idle: Callable[[], None]) -> None:
        self._work = work
        self._ticker = ticker
        self._bus = bus
        self._idle = idle
        self._running: dict[asyncio.Task[Mapping[str, int] | None], tuple[Participant, float]] = {}
        self.ended: list[DrainParticipantEnded] = []

    @property
    def busy(self) -> int:
        """How many are not done."""
        return len(self._running)

    def begin(self, participants: Iterable[Participant]) -> None:
        """Let these run."""
        for participant in participants:
            task = self._work.run(_call(participant), f"drain {participant.name}")
            self._running[task] = (participant, self._ticker.now)
            self._ticker.call_later(participant.timeout, partial(self._cancel, task, "drain_participant"))
            task.add_done_callback(self._done)

    def give_up(self) -> None:
        """Nobody has time any more."""
        for task in list(self._running):
            self._cancel(task, "drain_forced")

    def _cancel(self, task: asyncio.Task[Any], cause: str) -> None:
        if task in self._running:
            self._work.cancel(task, cause, f"drain participant {self._running[task][0].name}")
            # Nobody waits longer than that, even for one that does not heed it.
            self._ticker.call_later(PATIENCE, partial(self._end, task, "did not end when it was cancelled"))

    def _done(self, task: asyncio.Task[Mapping[str, int] | None]) -> None:
        counts: Mapping[str, int] = {}
        if task.cancelled():
            since = self._ticker.now - self._running[task][1] if task in self._running else 0.0
            problem: str | None = f"was cancelled after {since:.1f} s"
        else:
            error = task.exception()
            problem = None if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
            counts = _counts(task.result()) if error is None else {}
        self._end(task, problem, counts)

    def _end(self, task: asyncio.Task[Any], problem: str | None, counts: Mapping[str, int] = _NONE) -> None:
        participant, since = self._running.pop(task, (None, 0.0))
        if participant is None:
            return
        seconds = self._ticker.now - since
        ended = DrainParticipantEnded(participant.name, participant.phase, seconds, problem, counts)
        self.ended.append(ended)
        self._bus.emit(ended)
        if not self._running:
            self._idle()


async def _call(participant: Participant) -> Mapping[str, int] | None:
    return await participant.call()


def _counts(said: object) -> dict[str, int]:
    """What a participant says that it did. It is an application's: anything else than numbers by words is nothing."""
    if not isinstance(said, Mapping):
        return {}
    return {str(what): number for what, number in said.items() if isinstance(number, int)}
