"""The profile of the heap: what is alive by type, counted by a forked child, and who holds the biggest types."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.forked import in_child
from sojourn.observe.profiles.holders import MOST, Walk, type_name
from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample

__all__ = ["Census", "HeapProfiler", "Row", "census"]

#: Seconds for the child, which has little claim to the processor.
_DEADLINE: Final = 60.0
#: Types that are told; the others are one.
_TYPES: Final = 500
#: The biggest types for which a holder is told.
_HELD: Final = 20


class Row(NamedTuple):
    """All objects of a type.

    Attributes:
        name: Qualified name of the type.
        known: How many.
        size: Bytes of the objects themselves, without what they hold.
        held: The way to one of them; "" when none was looked for or found.
    """

    name: str
    known: int
    size: int
    held: str


class Census(NamedTuple):
    """What is alive.

    Attributes:
        rows: By type, the biggest first.
        unreached: Objects that the collector knows, and that no module or running frame leads to: what the event loop
            holds, and cycles that will be collected.
        complete: Whether all of them were counted.
    """

    rows: list[Row]
    unreached: int
    complete: bool


class HeapProfiler:
    """One at a time.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._clock = site.runtime.ticker.clock
        self._busy = False

    async def profile(self, arguments: Mapping[str, Any]) -> Profile:
        """Count. It takes no arguments.

        Raises:
            ErrandError: There can be no child, it was not in time, or one is counting.

        Cancel: safe; the child is killed.
        """
        if self._busy:
            raise ErrandError(409, "busy", "the heap of this worker is being counted; ask again when it is done")
        self._busy = True
        start = self._clock.monotonic()
        try:
            data = await in_child(_work, timeout=_DEADLINE)
        finally:
            self._busy = False
        took = self._clock.monotonic() - start
        counted = msgspec.msgpack.decode(data, type=Census)
        comments = [
            f"counted by a forked child in {took:.2f} s; the event loop stood still for the fork, 5 ms at 190 MB",
            "size is that of the objects themselves, without memory that extensions allocate or the allocator keeps",
            f"{counted.unreached} objects are held by the event loop only, or are garbage that is not collected yet",
        ]
        if not counted.complete:
            comments.append(f"only the first {MOST:,} objects were counted")
        return Profile(
            name="heap",
            kinds=(Kind("inuse_objects", "count"), Kind("inuse_space", "bytes")),
            samples=[_sample(row) for row in counted.rows],
            moment=self._clock.wall(),
            default=1,
            comments=comments,
        )


def _sample(row: Row) -> Sample:
    labels = (("held", row.held),) if row.held else ()
    return Sample((Frame(row.name, "", 0),), (row.known, row.size), labels)


def _work() -> bytes:
    """In the child."""
    gc.unfreeze()  # what the server has taken out of the collector's sight is counted too
    return msgspec.msgpack.encode(census())


def census(most: int = MOST) -> Census:
    """Count this process's objects. Takes a microsecond and more for each: not for an event loop.

    Args:
        most: Objects at most.
    """
    known = gc.get_objects()
    sizes: dict[type, list[int]] = {}
    examples: dict[type, list[Any]] = {}
    walk = Walk({id(known), id(sizes), id(examples)}, most)
    getsizeof = sys.getsizeof

    def count(thing: Any) -> int:
        kind = type(thing)
        tally = sizes.get(kind)
        if tally is None:
            tally = sizes[kind] = [0, 0]
            examples[kind] = []
        tally[0] += 1
        try:
            tally[1] += getsizeof(thing)
        except Exception:  # noqa: BLE001 - an application's own __sizeof__; the object counts without its size
            tally[1] += 0
        return tally[0]

    for thing in walk.objects():
        # An example from the middle of those that are found: the first are often constants of a module.
        number = count(thing)
        if number & (number - 1) == 0:
            examples[type(thing)] = [thing]
    unreached = 0
    seen: set[int] = set()
    if walk.complete:
        for thing in known:
            if thing not in walk:
                unreached += 1
                count(thing)
                for other in gc.get_referents(thing):
                    # Strings and numbers are held by others only; the collector does not know them.
                    if not gc.is_tracked(other) and other not in walk and id(other) not in seen:
                        seen.add(id(other))
                        count(other)
    ordered = sorted(sizes, key=lambda kind: -sizes[kind][1])
    rows = []
    for index, kind in enumerate(ordered[:_TYPES]):
        held = walk.way(examples[kind][0]) if index < _HELD and examples[kind] else ""
        rows.append(Row(type_name(kind), sizes[kind][0], sizes[kind][1], held))
    if rest := [sizes[kind] for kind in ordered[_TYPES:]]:
        rows.append(Row("(other types)", sum(tally[0] for tally in rest), sum(tally[1] for tally in rest), ""))
    return Census(rows, unreached, walk.complete)
