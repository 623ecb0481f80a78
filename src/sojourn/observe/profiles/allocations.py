"""The profile of allocations: where memory is taken that is not given back within a while, on demand.

With the package mprofile it is a sample of blocks, one for each 512 KiB, and costs 3 to 15 percent. Without it each
block is noted by ``tracemalloc``, which makes a server some six times slower: so it is short, and says so. Both see
memory, not objects: an empty list or dictionary that the interpreter uses again bears the place of its first use.

The collector's own count of objects was tried as a sampler that needs nothing and costs nothing: a stack whenever a
thousand more are alive. It is wrong where it matters: objects that a request makes and drops push the count over the
threshold, and a place that keeps a little after them is never seen.
"""

from __future__ import annotations

import importlib.util
import os
import tracemalloc
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.aside import aside
from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample
from sojourn.observe.profiles.window import passed, seconds_of

__all__ = ["ENGINES", "AllocationProfiler"]

#: How it may be gathered; "" takes the first that is there.
ENGINES: Final = ("mprofile", "tracemalloc")
_SECONDS: Final = {"mprofile": 10.0, "tracemalloc": 5.0}
_SHORTEST: Final = 1.0
_LONGEST: Final = {"mprofile": 300.0, "tracemalloc": 30.0}
#: Frames of a block's stack with tracemalloc; each costs time at each allocation.
_FRAMES: Final = 5
#: Bytes between two samples of mprofile.
_RATE: Final = 512 * 1024
#: Places told.
_MOST: Final = 2000
_KINDS: Final = (Kind("grown_objects", "count"), Kind("grown_space", "bytes"))


class AllocationProfiler:
    """One at a time.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._loop = site.runtime.loop
        self._clock = site.runtime.ticker.clock
        self._busy = False

    async def profile(self, arguments: Mapping[str, Any]) -> Profile:
        """Gather for a while.

        Args:
            arguments: ``engine``: ``mprofile`` (a sample of blocks) or ``tracemalloc`` (each block); the first when it
                is installed and nothing is said. ``seconds``: 1 to 300, with tracemalloc 1 to 30; 10 and 5 when nothing
                is said.

        Raises:
            ErrandError: An argument is no good, or one is being made.

        Cancel: safe; it stops.
        """
        installed = importlib.util.find_spec("mprofile") is not None
        engine = str(arguments.get("engine") or ENGINES[0 if installed else 1])
        if engine not in ENGINES:
            raise ErrandError(400, "bad_argument", f"engine is {' or '.join(ENGINES)}; not {engine!r}")
        seconds = seconds_of(arguments, _SECONDS[engine], _SHORTEST, _LONGEST[engine])
        if engine == "mprofile" and not installed:
            raise ErrandError(409, "not_installed", "mprofile is not installed; take engine=tracemalloc")
        if self._busy:
            raise ErrandError(409, "busy", "allocations of this worker are being watched; ask again when it is done")
        self._busy = True
        start = self._clock.monotonic()
        try:
            gather = self._mprofile if engine == "mprofile" else self._tracemalloc
            samples, comment = await gather(seconds)
        finally:
            self._busy = False
        return Profile(
            name="allocs",
            kinds=_KINDS,
            samples=samples,
            moment=self._clock.wall(),
            seconds=self._clock.monotonic() - start,
            period=_RATE if engine == "mprofile" else 1,
            period_kind=_KINDS[1],
            default=1,
            comments=[f"engine={engine}: {comment}"],
        )

    async def _tracemalloc(self, seconds: float) -> tuple[list[Sample], str]:
        if tracemalloc.is_tracing():
            raise ErrandError(409, "busy", "the application uses tracemalloc itself; ask again when it does not")
        tracemalloc.start(_FRAMES)
        try:
            await passed(self._loop, seconds)
            taken = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        samples = await aside(self._loop, "sojourn-samples", partial(_samples, taken))
        told = "each block made meanwhile and alive at the end; the server was some six times slower"
        return samples, f"{told}, and stood still for the snapshot"

    async def _mprofile(self, seconds: float) -> tuple[list[Sample], str]:
        import mprofile  # type: ignore[import-not-found]  # optional, and it hooks the allocator when it starts

        mprofile.start(sample_rate=_RATE)
        try:
            await passed(self._loop, seconds)
            taken = mprofile.take_snapshot()
        finally:
            mprofile.stop()
        samples = await aside(self._loop, "sojourn-samples", partial(_samples, taken))
        told = f"a block for each {_RATE >> 10} KiB, of those made meanwhile and alive at the end"
        return samples, f"{told}; cost 3 %, 15 % where much is allocated"


def _samples(snapshot: Any) -> list[Sample]:
    """Of a snapshot of tracemalloc, or of mprofile, which has the same shape and knows functions."""
    statistics = snapshot.statistics("traceback")[:_MOST]
    own = tracemalloc.__file__
    return [
        Sample(frames, (statistic.count, statistic.size))
        for statistic in statistics
        if (frames := _frames(statistic.traceback))[0].file != own
    ]


def _frames(places: Iterable[Any]) -> tuple[Frame, ...]:
    """The most recent call comes last in both."""
    found = []
    for place in places:
        name = getattr(place, "name", "") or f"{os.path.basename(place.filename)}:{place.lineno}"
        found.append(Frame(name, place.filename, place.lineno))
    return tuple(reversed(found)) or (Frame("(unknown)", "", 0),)
