"""Delivery of events to observers: bounded work, never waiting, never raising into the emitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sojourn.events import Event

__all__ = ["Bus"]

E = TypeVar("E", bound=Event)


class Bus:
    """Calls observers by the type of the event.

    The emitter on a hot path asks first, so that an event nobody wants is not even built::

        if bus.wants(RequestEnded):
            bus.emit(RequestEnded(...))

    An observer that raises is counted in :attr:`failures` and its first error is kept in :attr:`last_failure`; the
    emitter never sees it.
    """

    __slots__ = ("failures", "last_failure", "observers")

    def __init__(self) -> None:
        #: Observers by type of event. Read it to ask ``RequestEnded in bus.observers`` on a hot path.
        self.observers: dict[type, tuple[Callable[[Any], None], ...]] = {}
        self.failures = 0
        self.last_failure: Exception | None = None

    def observe(self, kind: type[E], observer: Callable[[E], None]) -> Callable[[], None]:
        """Call ``observer`` for each event of exactly this type.

        Returns:
            A function that ends the subscription; calling it twice does nothing.
        """
        self.observers[kind] = (*self.observers.get(kind, ()), observer)

        def forget() -> None:
            rest = tuple(o for o in self.observers.get(kind, ()) if o is not observer)
            if rest:
                self.observers[kind] = rest
            else:
                self.observers.pop(kind, None)

        return forget

    def wants(self, kind: type[Event]) -> bool:
        """Whether anyone observes this type."""
        return kind in self.observers

    def emit(self, event: Event) -> None:
        """Hand the event to its observers, in the order they came."""
        observers = self.observers.get(type(event))
        if observers is None:
            return
        for observer in observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - an observer's bug must not end a connection; it is counted and kept
                self.failures += 1
                self.last_failure = error
