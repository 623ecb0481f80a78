"""Watches whether workers live: one whose event loop gives no sign of life says where it stands, and is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from sojourn.bus import Bus
from sojourn.events import WorkerHung
from sojourn.net.ticker import Ticker
from sojourn.server.workers.child import Child
from sojourn.server.workers.hang import pulse

__all__ = ["Vigil"]

#: Seconds between two looks at a dump that is being written, and how many there are at most.
_DUMP_LOOK: Final = 0.2
_DUMP_LOOKS: Final = 10


class Vigil:
    """Over all workers of a supervisor.

    Args:
        children: The workers, by their number; as it is at each look.
        heartbeat: Returns the seconds without a beat after which a worker counts as hung; None for no limit.
        ticker: The supervisor's time: it stands still when the supervisor does.
        bus: Gets a WorkerHung for each that is killed.
    """

    def __init__(
        self, children: Mapping[int, Child], heartbeat: Callable[[], float | None], ticker: Ticker, bus: Bus
    ) -> None:
        self._children = children
        self._heartbeat = heartbeat
        self._ticker = ticker
        self._bus = bus

    def begin(self) -> None:
        """Look now and again from here on."""
        self._ticker.call_together(pulse(self._heartbeat()), self._look)

    def overdue(self, child: Child, limit: float) -> None:
        """It was not ready in its time: it may say where it stands, and is killed."""
        child.failure = child.failure or (f"a worker was not ready after {limit:g} s (worker.start)", 3)
        self._examine(child, None)

    def _look(self) -> None:
        self._ticker.call_together(pulse(self._heartbeat()), self._look)
        limit = self._heartbeat()
        if limit is None:
            return
        for child in self._beating():
            silent = child.beats.silent(self._ticker.now, child.row.beat)
            if silent >= limit and not child.examined:
                self._examine(child, limit)

    def _beating(self) -> Iterator[Child]:
        """Those that serve or drain; before, they may import; after their report, they only end."""
        for child in self._children.values():
            if child.ready is not None and child.report is None and not child.killed:
                yield child

    def _examine(self, child: Child, limit: float | None) -> None:
        """It does not live any more, as far as anybody can see: ask where it stands, then kill it.

        Args:
            child: Whom.
            limit: Seconds without a beat after which it counts as hung; None for one that does not beat yet.
        """
        child.examined = True
        child.stacks.ask(child.pid)
        self._read_later(child, limit, "", _DUMP_LOOKS)

    def _read_later(self, child: Child, limit: float | None, before: str, looks: int) -> None:
        read = partial(self._read_stacks, child, limit, before, looks)
        child.calls.append(self._ticker.call_later(_DUMP_LOOK, read))

    def _read_stacks(self, child: Child, limit: float | None, before: str, looks: int) -> None:
        stacks = child.stacks.read()
        now = self._ticker.now
        if limit is None:
            silent = now - child.born
        else:
            silent = child.beats.silent(now, child.row.beat)
            if silent < limit:
                child.examined = False  # it has come back
                return
        if looks and (not stacks or stacks != before):  # it still writes
            self._read_later(child, limit, stacks, looks - 1)
            return
        told = stacks or "(it did not say where it stands: it is stopped, or waits in the kernel)"
        self._bus.emit(WorkerHung(child.number, child.pid, silent, told))
        child.kill()
