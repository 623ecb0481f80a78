"""When a worker has done enough, by requests, age or memory. It is then replaced, and drains; it is never killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sojourn.clock import NEVER
from sojourn.config import Worker

__all__ = ["Retirement"]

#: Seconds of service before memory counts: one that is too large from the start would be replaced again and again.
_SETTLED: Final = 60.0


class Retirement:
    """The limits of one worker.

    Each is lowered by a random share of up to ``worker.jitter``, so that workers which were started together are not
    replaced together.

    Args:
        settings: ``max_requests``, ``max_lifetime``, ``max_memory`` and ``jitter``.
        random: Returns numbers from 0 to 1.

    Attributes:
        requests: Requests and WebSockets; infinite without a limit, as the others.
        lifetime: Seconds.
        memory: Resident bytes.
    """

    __slots__ = ("lifetime", "memory", "requests")

    def __init__(self, settings: Worker, random: Callable[[], float]) -> None:
        jitter = min(settings.jitter, 1.0)

        def varied(limit: float | None) -> float:
            return NEVER if limit is None else limit * (1.0 - jitter * random())

        self.requests = varied(settings.max_requests)
        self.lifetime = varied(settings.max_lifetime)
        self.memory = varied(settings.max_memory)

    @property
    def wanted(self) -> bool:
        """Whether there is any limit."""
        return min(self.requests, self.lifetime, self.memory) < NEVER

    def due(self, requests: int, age: float, memory: int) -> str | None:
        """The name of the first limit that is reached; None when none is.

        Args:
            requests: Requests and WebSockets it has begun.
            age: Seconds since it began to serve.
            memory: Its resident memory in bytes.
        """
        if requests >= self.requests and requests:
            return "max_requests"
        if age >= self.lifetime:
            return "max_lifetime"
        if memory >= self.memory and age >= _SETTLED:
            return "max_memory"
        return None
