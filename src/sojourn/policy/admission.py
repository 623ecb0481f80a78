"""Who may come in: connections by number and address, requests by slots and a bounded queue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Generic, Literal, Protocol, TypeVar

from sojourn.clock import NEVER

__all__ = ["Connections", "Elsewhere", "Slots", "client_key"]

#: The host of a Unix socket's peer: whoever may open the file; not limited by address.
UNIX: Final = "unix"

Refused = Literal["connection_limit", "address_limit"]
Entered = Literal["run", "queued", "concurrency_limit", "queue_full"]
T = TypeVar("T", bound=Hashable)


class Elsewhere(Protocol):
    """Those who share the limits: other workers of the same service."""

    def enter(self, mine: int) -> bool:
        """This worker is about to hold so many connections. When the others leave no room, nothing has changed."""

    def leave(self, mine: int) -> None:
        """This worker holds so many connections now."""

    def enter_address(self, key: str, mine: int, limit: int | None) -> bool:
        """This worker is about to hold so many connections of an address, and ``limit`` are allowed in all."""

    def leave_address(self, key: str, mine: int) -> None:
        """This worker holds so many connections of an address now."""


def client_key(address: str, drop: int = 64) -> str:
    """What makes two addresses the same client: an IPv4 address as it is, of an IPv6 address the network.

    Args:
        address: An IP address; anything else is its own key.
        drop: Bits of an IPv6 address that do not count; 64 leaves the smallest network that a site gets.
    """
    if ":" not in address:
        return address
    try:
        number = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return f"{int(number) >> drop:x}"


class Connections:
    """Counts open connections, in all and by address; only addresses with an open connection take memory.

    IPv6 is counted by network: a site gets at least a /64 (RFC 6177) and each of its hosts may take any of the 2**64
    addresses in it (RFC 8981), so a limit on single addresses would limit nobody.

    Args:
        limit: Open connections; None admits any number.
        per_address: Open connections of one address; None admits any number.
        ipv6_prefix: Bits of an IPv6 address that make two of them the same client; 128 tells all apart.
        elsewhere: Is asked for room, and told what is open here; None when nobody shares the limits.

    ``limit`` and ``per_address`` may be changed at any time; connections that are open stay.
    """

    __slots__ = ("_addresses", "_drop", "_elsewhere", "limit", "open", "per_address")

    def __init__(
        self,
        limit: int | None,
        per_address: int | None,
        *,
        ipv6_prefix: int = 64,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.limit = limit
        self.per_address = per_address
        self.open = 0
        self._addresses: dict[str, int] = {}
        self._drop = 128 - ipv6_prefix
        self._elsewhere = elsewhere

    @property
    def addresses(self) -> int:
        """How many addresses have an open connection."""
        return len(self._addresses)

    def counts(self) -> list[tuple[str, int]]:
        """The addresses with open connections as ``Elsewhere`` knows them, and how many each has."""
        return list(self._addresses.items())

    def admit(self, address: str) -> Refused | None:
        """Ask for one more connection.

        Args:
            address: The peer's IP address, or ``unix``.

        Returns:
            None when it is admitted and counted: :meth:`leave` must follow. Else the reason's word; nothing is counted.
        """
        if self.limit is not None and self.open >= self.limit:
            return "connection_limit"
        elsewhere = self._elsewhere
        if elsewhere is not None and not elsewhere.enter(self.open + 1):
            return "connection_limit"
        if not self._add(address):
            if elsewhere is not None:
                elsewhere.leave(self.open)
            return "address_limit"
        self.open += 1
        return None

    def move(self, address: str, to: str) -> Refused | None:
        """Count an open connection under another address: a PROXY header told whose it is.

        Returns:
            None when done: the connection leaves by the new address. Else the reason's word; it leaves by the old one.
        """
        self._remove(address)  # first, so that a connection never stands in its own way
        if self._add(to):
            return None
        key = self._key(address)
        if key is not None:
            self._addresses[key] = count = self._addresses.get(key, 0) + 1
            if self._elsewhere is not None:
                self._elsewhere.enter_address(key, count, None)
        return "address_limit"

    def leave(self, address: str) -> None:
        """An admitted connection ended; once for each."""
        if self.open == 0:
            raise ValueError("more connections left than were admitted")
        self._remove(address)
        self.open -= 1
        if self._elsewhere is not None:
            self._elsewhere.leave(self.open)

    def _add(self, address: str) -> bool:
        key = self._key(address)
        if key is None:
            return True
        count = self._addresses.get(key, 0)
        if self.per_address is not None and count >= self.per_address:
            return False
        elsewhere = self._elsewhere
        if elsewhere is not None and not elsewhere.enter_address(key, count + 1, self.per_address):
            return False
        self._addresses[key] = count + 1
        return True

    def _remove(self, address: str) -> None:
        key = self._key(address)
        if key is None:
            return
        count = self._addresses.get(key)
        if count is None:
            raise ValueError(f"no connection of {address} is open")
        if count == 1:
            del self._addresses[key]
        else:
            self._addresses[key] = count - 1
        if self._elsewhere is not None:
            self._elsewhere.leave_address(key, count - 1)

    def _key(self, address: str) -> str | None:
        if ":" not in address:
            return address if address != UNIX else None
        return client_key(address, self._drop)


class Slots(Generic[T]):
    """Lets so many requests run at once; some more wait in line, oldest first, and no longer than told.

    Without a limit on requests there is no Slots: the caller holds None and its hot path pays one test. With one,
    entering and leaving cost a comparison and an addition while nobody waits.

    Args:
        limit: Requests that run at once.
        queue: Requests that may wait; 0 refuses at once.
        queue_wait: Longest wait in seconds.
        running: Requests that run already, when the limit is switched on later.

    Attributes:
        running: Requests that run.
        last_wait: Seconds that the request started last from the queue had waited: the measure of overload.
    """

    __slots__ = ("_waiting", "last_wait", "limit", "queue", "queue_wait", "running")

    def __init__(self, limit: int, queue: int, queue_wait: float, *, running: int = 0) -> None:
        self.limit = limit
        self.queue = queue
        self.queue_wait = queue_wait
        self.running = running
        self.last_wait = 0.0
        # Ticket -> when it came. A dict would do but for its first key, which it finds by walking over all that were
        # deleted before it; this one has it at hand.
        self._waiting: OrderedDict[T, float] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def next_expiry(self) -> float:
        """When the next wait is over; NEVER when nobody waits."""
        for since in self._waiting.values():
            return since + self.queue_wait
        return NEVER

    def enter(self, now: float, ticket: T) -> Entered:
        """Ask for a slot.

        Args:
            now: Monotonic seconds.
            ticket: Whatever the caller finds its request by; not one that is waiting.

        Returns:
            ``run``: :meth:`leave` must follow. ``queued``: the ticket comes out of :meth:`leave`, :meth:`resize` or
            :meth:`expired`, unless :meth:`forget` takes it away. Else the reason's word.
        """
        if self.running < self.limit:
            self.running += 1
            return "run"
        if len(self._waiting) < self.queue:
            if ticket in self._waiting:
                raise ValueError(f"{ticket!r} is waiting already")
            self._waiting[ticket] = now
            return "queued"
        return "queue_full" if self.queue else "concurrency_limit"

    def leave(self, now: float) -> T | None:
        """A request that ran has ended; once for each.

        Returns:
            The ticket that runs in its place, and must leave too; None when nobody waits. One whose wait is just over,
            and that :meth:`expired` has not taken out yet, runs as well: with a slot free, refusing it helps nobody.
        """
        if self.running == 0:
            raise ValueError("more requests left than were running")
        self.running -= 1
        return self._next(now) if self._waiting else None

    def forget(self, ticket: T) -> bool:
        """Its client left: take it out of the queue. False when it does not wait (any more)."""
        return self._waiting.pop(ticket, None) is not None

    def expired(self, now: float) -> list[T]:
        """Take out those who waited too long, oldest first; their reason's word is ``queue_timeout``."""
        tickets: list[T] = []
        while self.next_expiry <= now:
            tickets.append(self._waiting.popitem(last=False)[0])
        return tickets

    def resize(self, now: float, limit: int, queue: int, queue_wait: float) -> list[T]:
        """Change the limits; those who wait stay in line, and the new wait counts for them too.

        Returns:
            Tickets that run now.
        """
        self.limit, self.queue, self.queue_wait = limit, queue, queue_wait
        tickets: list[T] = []
        while (ticket := self._next(now)) is not None:
            tickets.append(ticket)
        return tickets

    def _next(self, now: float) -> T | None:
        if not self._waiting or self.running >= self.limit:
            return None
        ticket, since = self._waiting.popitem(last=False)
        self.running += 1
        self.last_wait = now - since
        return ticket
