"""From what services tell of themselves to the metrics of their worker; all of one sort are one to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakKeyDictionary

from sojourn.observe.metrics.families import PREFIX, TABLE, Join
from sojourn.observe.metrics.meter import Meter
from sojourn.scopes.used import Figures, Key, Times

__all__ = ["Sampler"]


class Told(Protocol):
    """Tells what it has done, and has."""

    def figures(self) -> Figures:
        """All of it, under the names of metrics."""


class Sampler:
    """Remembers what was counted of each service, and which gauges were set."""

    __slots__ = ("_known", "_told")

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Told, Figures] = WeakKeyDictionary()
        #: What no service tells of any more is zero.
        self._known: set[Key] = set()

    def sample(self, services: Iterable[Told], meter: Meter) -> None:
        """Bring what has changed since the last time to the metrics."""
        levels = dict.fromkeys(self._known, 0.0)
        for service in services:
            figures, before = service.figures(), self._told.get(service, Figures({}, {}))
            self._told[service] = figures
            for key, number in figures.counts.items():
                if number > (told := before.counts.get(key, 0.0)):
                    meter.values[meter.place(*key)] += number - told
            for key, level in figures.levels.items():
                known = levels.get(key, 0.0)
                levels[key] = max(known, level) if TABLE[PREFIX + key[0]].join is Join.MAX else known + level
            for key, times in figures.times.items():
                _add_times(meter, key, times, before.times.get(key))
        self._known.update(levels)
        for key, level in levels.items():
            meter.values[meter.place(*key)] = level


def _add_times(meter: Meter, key: Key, now: Times, before: Times | None) -> None:
    if before is not None and now.buckets == before.buckets:
        return
    old = (0,) * len(now.buckets) if before is None else before.buckets
    at, values = meter.place(*key), meter.values
    for index, (number, then) in enumerate(zip(now.buckets, old, strict=True)):
        values[at + index] += number - then
    values[at + len(now.buckets)] += now.total - (0.0 if before is None else before.total)
