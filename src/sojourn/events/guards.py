"""What stands before a dependency or the process itself has changed its mind."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CircuitChanged", "PressureChanged"]


class PressureChanged(NamedTuple):
    """A worker has too much of something, or less than before: it takes a measure, or takes one back.

    Attributes:
        cause: What there is too little of: ``space`` or ``processor``.
        level: The level now; 0 is no pressure.
        before: The level before.
        why: The signal: ``lag``, ``queue``, ``memory``, ``buffered`` or ``descriptors``; "" on level 0.
        measures: What is done now, in words of the configuration's documentation.
    """

    cause: str
    level: int
    before: int
    why: str
    measures: tuple[str, ...]


class CircuitChanged(NamedTuple):
    """A circuit breaker has opened, or closed again. That it tries whether it can close is not told.

    Attributes:
        guard: Its name.
        open: Whether its dependency is not called now.
        detail: Why.
    """

    guard: str
    open: bool
    detail: str
