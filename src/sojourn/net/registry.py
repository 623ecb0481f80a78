"""The only list of connections. All counts are read from it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sojourn.bus import Bus
from sojourn.events import ConnectionEnded, ConnectionOpened

if TYPE_CHECKING:
    from sojourn.net.connection import Connection

__all__ = ["Registry"]

_REMEMBERED: Final = 100


class Registry:
    """Connections of a worker, from accept to the closing of their socket: ``accepted == len(registry) + ended``.

    Args:
        bus: Where ConnectionOpened and ConnectionEnded go, once each.
    """

    __slots__ = ("_bus", "_open", "accepted", "buffered_high", "ended", "ended_by", "left", "on_empty", "recent")

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._open: dict[int, Connection] = {}
        #: Connections ever accepted; also the id of the newest.
        self.accepted = 0
        #: Most bytes that have waited for one client, noted when it gets behind; whoever reads it sets it to 0.
        self.buffered_high = 0
        #: Connections that have ended.
        self.ended = 0
        #: How many ended by each reason word.
        self.ended_by: Counter[str] = Counter()
        #: Called with each connection that left; called when none is left.
        self.left: Callable[[Connection], None] | None = None
        self.on_empty: Callable[[], None] | None = None
        #: The last endings, newest last.
        self.recent: deque[ConnectionEnded] = deque(maxlen=_REMEMBERED)

    def enter(self, connection: Connection) -> int:
        """Take a connection in, before its first byte; returns its id."""
        self.accepted += 1
        number = self.accepted
        self._open[number] = connection
        if self._bus.wants(ConnectionOpened):
            self._bus.emit(ConnectionOpened(number, connection.peer_name, connection.listener))
        return number

    def leave(self, connection: Connection, ended: ConnectionEnded) -> None:
        """Its socket is closed."""
        if self._open.pop(connection.id, None) is None:
            return
        self.ended += 1
        self.ended_by[ended.ending.reason] += 1
        self.recent.append(ended)
        if self.left is not None:
            self.left(connection)
        self._bus.emit(ended)
        if not self._open and self.on_empty is not None:
            self.on_empty()

    def get(self, number: int) -> Connection | None:
        """The open connection of that id."""
        return self._open.get(number)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """The open connections, as they are now; ending one on the way is safe."""
        return iter(list(self._open.values()))
