"""The profile of processor time: where the worker computes, by route and task; or, by the wall clock, where it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.aside import aside
from sojourn.observe.profiles.model import Kind, Profile
from sojourn.observe.profiles.recorder import Recorder
from sojourn.observe.profiles.sampling import PERIOD, Engine, SignalEngine, ThreadEngine
from sojourn.observe.profiles.window import passed, seconds_of

__all__ = ["ENGINES", "ProcessorProfiler"]

#: How it may be gathered; "" chooses.
ENGINES: Final = ("", "signal", "thread", "wall")
_SECONDS: Final = 30.0
_SHORTEST, _LONGEST = 1.0, 300.0


class ProcessorProfiler:
    """One at a time.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._loop = site.runtime.loop
        self._clock = site.runtime.ticker.clock
        self._engine: Engine | None = None

    def close(self) -> None:
        """End what runs."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    async def profile(self, arguments: Mapping[str, Any]) -> Profile:
        """Gather for a while.

        Args:
            arguments: ``seconds``: 1 to 300, 30 when it is not given; ``engine``: ``signal`` (processor time, needs the
                main thread), ``thread`` (processor time, seen by another thread) or ``wall`` (all time of the event
                loop's thread); the best for processor time when it is not given.

        Raises:
            ErrandError: An argument is no good, or one is being made.

        Cancel: safe; sampling stops.
        """
        seconds = seconds_of(arguments, _SECONDS, _SHORTEST, _LONGEST)
        engine = str(arguments.get("engine") or "")
        if engine not in ENGINES:
            raise ErrandError(400, "bad_argument", f"engine is {', '.join(ENGINES[1:])}; not {engine!r}")
        if self._engine is not None:
            raise ErrandError(409, "busy", "a profile of this worker is being made; ask again when it is done")
        possible = SignalEngine.possible()
        if engine == "signal" and not possible:
            detail = "the event loop is not in the main thread, or something else uses SIGPROF; take engine=thread"
            raise ErrandError(409, "no_signal", detail)
        engine = engine or ("signal" if possible else "thread")
        recorder = Recorder()
        start, used = self._clock.monotonic(), time.process_time()
        self._engine = (
            SignalEngine(self._loop, recorder)
            if engine == "signal"
            else ThreadEngine(self._loop, recorder, self._clock.monotonic, wall=engine == "wall")
        )
        try:
            await passed(self._loop, seconds)
        finally:
            self.close()
        took, used = self._clock.monotonic() - start, time.process_time() - used
        # Lines are worked out in another thread: 20,000 stacks would take half a second.
        samples = await aside(self._loop, "sojourn-samples", recorder.samples)
        kind = "wall" if engine == "wall" else "cpu"
        return Profile(
            name="profile",
            kinds=(Kind("samples", "count"), Kind(kind, "nanoseconds")),
            samples=samples,
            moment=self._clock.wall(),
            seconds=took,
            period=round(PERIOD * 1e9),
            period_kind=Kind(kind, "nanoseconds"),
            default=1,
            comments=[_COSTS[engine], f"the process used {used:.3f} s of processor time in {took:.3f} s"]
            + ([f"{recorder.lost} samples of rare stacks are together"] if recorder.lost else []),
        )


_BIASED: Final = "a busy loop is seen mostly where it lets go of the interpreter; right for what takes longer than 5 ms"
_COSTS: Final = {
    "signal": "engine=signal: 100 samples for each second of processor time; cost 1 %",
    "thread": f"engine=thread: 100 samples a second; {_BIASED}; cost 2 %",
    "wall": f"engine=wall: 100 samples a second of the event loop's thread; {_BIASED}; cost 2 %",
}
