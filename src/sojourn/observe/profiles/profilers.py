"""The profiles that a worker makes of itself when somebody asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers
from sojourn.observe.profiles.allocations import AllocationProfiler
from sojourn.observe.profiles.heap import HeapProfiler
from sojourn.observe.profiles.model import Profile
from sojourn.observe.profiles.processor import ProcessorProfiler
from sojourn.observe.profiles.trace import TraceMaker
from sojourn.observe.stalls.stalls import Stalls

__all__ = ["Make", "Profilers"]

#: Makes a profile from plain arguments.
Make = Callable[[Mapping[str, Any]], Awaitable[Profile]]


class Profilers:
    """Nothing of it runs before it is asked for.

    Args:
        site: What the worker serves.
        stalls: Who knows of stalls.
        others: Profiles that others make, by name.
    """

    def __init__(self, site: Site, stalls: Stalls, others: Mapping[str, Make] | None = None) -> None:
        self._processor = ProcessorProfiler(site)
        self._trace = TraceMaker(site)
        self._stalls = stalls
        #: All that can be made, by name.
        self.profiles: Mapping[str, Make] = {
            **(others or {}),
            "profile": self._processor.profile,
            "heap": HeapProfiler(site).profile,
            "allocs": AllocationProfiler(site).profile,
            "stall": self._stall,
        }
        #: The errands it does.
        self.answers: Answers = {
            "profile": self.profile,
            "trace": self._trace.trace,
        }

    def close(self) -> None:
        """End what runs. Calling it twice does nothing."""
        self._processor.close()
        self._trace.close()

    async def profile(self, arguments: Mapping[str, Any]) -> Profile:
        """Make a profile.

        Args:
            arguments: ``name``: which; the others are its own.

        Raises:
            ErrandError: There is none of that name, an argument is no good, or one is being made.

        Cancel: safe; what runs for it stops.
        """
        name = str(arguments.get("name") or "")
        make = self.profiles.get(name)
        if make is None:
            raise ErrandError(
                404, "unknown_profile", f"there is no profile {name!r}; there are {', '.join(self.profiles)}"
            )
        return await make(arguments)

    async def _stall(self, arguments: Mapping[str, Any]) -> Profile:
        return self._stalls.profile()
