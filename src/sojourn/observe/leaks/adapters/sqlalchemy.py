"""SQLAlchemy: the events of its pools. Source: sqlalchemy.events.PoolEvents."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sojourn.observe.leaks.adapters.lent import Lent

__all__ = ["watch"]


def watch(engine: Any, name: str, patience: float | None) -> Callable[[], None]:
    """Watch an engine, an asynchronous engine or a pool."""
    event: Any = importlib.import_module("sqlalchemy.event")
    target = getattr(engine, "sync_engine", engine)
    lent = Lent(name, patience)

    # By the pool's record, which stays while the connection in it is replaced.
    def checkout(connection: object, record: object, fairy: object) -> None:
        lent.taken(record)

    def returned(connection: object, record: object) -> None:
        lent.returned(record)

    def close(connection: object, record: object) -> None:
        lent.returned(record)

    listeners: list[tuple[str, Callable[..., None]]] = [
        ("checkout", checkout),
        # A connection that was invalidated is checked in as well, and one that is detached never.
        ("checkin", returned),
        ("detach", close),
    ]
    for word, listener in listeners:
        event.listen(target, word, listener)

    def forget() -> None:
        while listeners:
            event.remove(target, *listeners.pop())
        lent.forget()

    return forget
