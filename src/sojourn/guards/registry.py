"""Which guards there are: so that what each does shows up in the metrics of the server it works for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from sojourn.bus import Bus

__all__ = ["GUARDS", "Counting", "Figures", "Guard", "Guards", "met"]


class Figures(NamedTuple):
    """What a guard does now, and has done.

    Attributes:
        counts: Calls by outcome; they only grow.
        running: Calls that are let through and have not ended.
        waiting: Calls that wait to be let through.
        state: Of a circuit breaker: 0 closed, 1 half-open, 2 open. None: it has none.
    """

    counts: Mapping[str, int]
    running: int
    waiting: int = 0
    state: int | None = None


class Guard(Protocol):
    """Something that lets calls through, or not."""

    @property
    def kind(self) -> str:
        """What it is, in one word."""

    @property
    def name(self) -> str:
        """Which one it is. Chosen by the code: it becomes a label."""

    def figures(self) -> Figures:
        """What it does now."""


class Counting(Protocol):
    """Takes numbers by the name of a metric: the meter of ``observe.metrics``."""

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, **labels: str) -> None: ...


class Guards:
    """The guards that were used by what a server runs. It keeps none of them alive.

    A guard is often made before there is a server, so it tells who it is when it is used.

    Args:
        bus: Where a guard tells what an operator should know at once.
    """

    __slots__ = ("_told", "bus")

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        #: Each guard, and what was counted of it so far.
        self._told: WeakKeyDictionary[Guard, Mapping[str, int]] = WeakKeyDictionary()

    def join(self, guard: Guard) -> None:
        """A guard is used. Calling it again does nothing."""
        self._told.setdefault(guard, {})

    def __iter__(self) -> Iterator[Guard]:
        return iter(list(self._told))

    def report(self, meter: Counting) -> None:
        """Bring what each does to the metrics; guards of one kind and name are one to them."""
        states: dict[tuple[str, str], int] = {}
        running: dict[tuple[str, str], int] = {}
        waiting: dict[tuple[str, str], int] = {}
        for guard, told in list(self._told.items()):
            key, figures = (guard.kind, guard.name), guard.figures()
            for outcome, number in figures.counts.items():
                if number > (before := told.get(outcome, 0)):
                    meter.count("guard_calls_total", float(number - before), kind=key[0], guard=key[1], outcome=outcome)
            self._told[guard] = dict(figures.counts)
            running[key] = running.get(key, 0) + figures.running
            waiting[key] = waiting.get(key, 0) + figures.waiting
            if figures.state is not None:
                states[key] = max(states.get(key, 0), figures.state)
        for name, numbers in (("guard_running", running), ("guard_waiting", waiting), ("guard_state", states)):
            for (kind, guard_name), number in numbers.items():
                meter.gauge(name, float(number), kind=kind, guard=guard_name)


#: The guards of the server that runs the present context; None when no server does.
GUARDS: Final[ContextVar[Guards | None]] = ContextVar("sojourn_guards", default=None)


def met(guards: Guards | None, guard: Guard) -> Guards | None:
    """A guard that is used tells those of the present context, if there are any. Returns them, to compare next time."""
    if guards is not None:
        guards.join(guard)
    return guards
