"""What is used by what a server runs, and shows itself in the server's metrics: hubs, services of durable tasks.

Such a thing is often made before there is a server, so it tells who it is when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakSet

from sojourn.bus import Bus
from sojourn.events import Event

__all__ = ["Figures", "Key", "Times", "Used"]

T = TypeVar("T")

#: Name of a metric without its prefix, and a value for each of its labels.
Key = tuple[str, ...]


class Times(NamedTuple):
    """Durations, as a histogram has them.

    Attributes:
        buckets: How many there were in each bucket, and one number for those above.
        total: Seconds of all of them.
    """

    buckets: Sequence[int]
    total: float


class Figures(NamedTuple):
    """What something has done so far, and what it has now. The names are those of metrics.

    Attributes:
        counts: What only grows.
        levels: What goes up and down.
        times: Durations.
    """

    counts: Mapping[Key, float]
    levels: Mapping[Key, float]
    times: Mapping[Key, Times] = {}


class Used(Generic[T]):
    """Those of one sort that are used. It keeps none of them alive.

    Args:
        bus: Where they tell what has happened.
    """

    __slots__ = ("_all", "_bus")

    def __init__(self, bus: Bus) -> None:
        self._all: WeakSet[T] = WeakSet()
        self._bus = bus

    def join(self, one: T) -> None:
        """One is used. Calling it again does nothing."""
        self._all.add(one)

    def leave(self, one: T) -> None:
        """One has ended."""
        self._all.discard(one)

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody wants to hear of such events; who has none of them to make need not."""
        return self._bus.wants(kind)

    def tell(self, event: Event) -> None:
        """Something has happened. Observers are called in the context of who tells."""
        self._bus.emit(event)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)
