"""What the log says of stores that can't be reached."""

from __future__ import annotations

from typing import Final

from sojourn.events import StoreAway, StoreBack
from sojourn.observe.log.text import message

__all__ = ["away", "back"]

_WHAT: Final = {"tasks": "the journal of", "hub": "the engine of", "sessions": "the store of"}
_HELD: Final = {"tasks": "tasks are held here", "hub": "members are here"}


def away(event: StoreAway) -> str:
    """It can't be reached. Names and problems are the application's: they are escaped."""
    held = f"; {event.held} {_HELD[event.service]}" if event.held else ""
    return f"{_store(event)} can't be reached, serving goes on: {message(event.problem)}{held}"


def back(event: StoreBack) -> str:
    """It answers again."""
    return f"{_store(event)} answers again after {event.seconds:.1f} s"


def _store(event: StoreAway | StoreBack) -> str:
    return f"{_WHAT[event.service]} {message(event.name)} ({message(event.engine)})"
