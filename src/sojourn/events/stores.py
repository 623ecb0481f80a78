"""Where services keep their state: a journal of tasks, the engine of a hub, a store of sessions."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["StoreAway", "StoreBack"]


class StoreAway(NamedTuple):
    """It can't be reached, or can't be written to. Serving goes on.

    Attributes:
        service: Of what it is: ``tasks``, ``hub`` or ``sessions``.
        name: Of the service; chosen by the code.
        engine: What it is: ``sqlite``, ``postgres``, ``redis``, ``local``, ...
        problem: What went wrong.
        held: How much of it is in this process: tasks, which run on while their leases last; members of the hub, who
            go on hearing each other.
    """

    service: Literal["tasks", "hub", "sessions"]
    name: str
    engine: str
    problem: str
    held: int = 0


class StoreBack(NamedTuple):
    """It answers again.

    Attributes:
        service: Of what it is.
        name: Of the service.
        engine: What it is.
        seconds: For how long it did not.
    """

    service: Literal["tasks", "hub", "sessions"]
    name: str
    engine: str
    seconds: float
