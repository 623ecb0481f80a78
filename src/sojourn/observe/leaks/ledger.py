"""What was found so far: one record for each signature, told once and counted after that."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Final, NamedTuple

import msgspec

from sojourn.bus import Bus
from sojourn.clock import Clock
from sojourn.events import LeakFound
from sojourn.observe.leaks.places import text
from sojourn.observe.profiles.model import Frame

__all__ = ["KINDS", "LeakRecord", "Ledger", "Signature"]

#: What can leak.
KINDS: Final = ("task", "lost_task", "run", "coroutine", "lease", "fd", "connection", "resource")
#: Signatures kept, of all kinds together; more are counted only.
_MOST: Final = 500


class Signature(NamedTuple):
    """What makes two leaks the same: their kind, what they are, and where they were made and are now."""

    kind: str
    what: str
    created: str
    waiting: str = ""


class LeakRecord(msgspec.Struct, kw_only=True):
    """All leaks of one signature.

    Attributes:
        kind: ``task``, ``lost_task``, ``run``, ``coroutine``, ``lease``, ``fd``, ``connection`` or ``resource``.
        what: What it is: the coroutine's name, the pool, the file, the kind of socket.
        created: Where it was made or taken, as ``file:line in function``; "" when nothing is known.
        waiting: Where it is now, as ``file:line in function``; "" when nothing is known.
        owner: What the first belonged to, such as ``connection 12 GET /slow``; "" when nothing is known.
        age: Seconds since the first was made, when it was found.
        known: How many there were so far.
        alive: How many of them are still there.
        first_seen: When the first was found, in seconds since the epoch.
        last_seen: When the latest was found.
        holder: What holds it, as a path of references; "" when that was not searched.
        stack: Where it was made or where it waits, innermost first.
    """

    kind: str
    what: str
    created: str
    waiting: str
    owner: str
    age: float
    known: int
    alive: int
    first_seen: float
    last_seen: float
    holder: str = ""
    stack: list[Frame] = []


class Ledger:
    """Keeps the records.

    Args:
        bus: Gets a LeakFound for the first of each signature.
        clock: Its ``wall`` stamps the records.
        loop: Of the thread that makes it, where events belong: the collector finds leaks in any thread. None: there is
            no other.

    Attributes:
        found: How many leaks there were so far, by kind.
        records: By signature, oldest first.
        left_out: Leaks without a record, because there were too many signatures.
    """

    def __init__(self, bus: Bus, clock: Clock, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._bus = bus
        self._clock = clock
        self._loop = loop
        self._home = threading.get_ident()
        self.found: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.records: dict[Signature, LeakRecord] = {}
        self.left_out = 0

    def add(
        self,
        signature: Signature,
        *,
        owner: str = "",
        age: float = 0.0,
        stack: list[Frame] | None = None,
        holder: str = "",
        alive: bool = True,
    ) -> LeakRecord | None:
        """One more leak was found.

        Args:
            signature: What it is.
            owner: What it belonged to.
            age: Seconds since it was made.
            stack: Where it was made or where it waits, innermost first.
            holder: What holds it.
            alive: Whether it is still there; :meth:`gone` then tells when it is not any more.

        Returns:
            Its record; None when there are too many, or when another thread calls: then it comes there soon.
        """
        if self._loop is not None and threading.get_ident() != self._home:
            found = partial(self.add, signature, owner=owner, age=age, stack=stack, holder=holder, alive=alive)
            try:
                self._loop.call_soon_threadsafe(found)
            except RuntimeError:
                pass  # the loop is closed: nobody asks any more
            return None
        self.found[signature.kind] += 1
        now = self._clock.wall()
        record = self.records.get(signature)
        if record is not None:
            record.known += 1
            record.alive += alive
            record.last_seen = now
            record.holder = record.holder or holder
            return record
        if len(self.records) >= _MOST:
            self.left_out += 1
            return None
        frames = stack or []
        record = self.records[signature] = LeakRecord(
            kind=signature.kind,
            what=signature.what,
            created=signature.created,
            waiting=signature.waiting,
            owner=owner,
            age=round(age, 3),
            known=1,
            alive=int(alive),
            first_seen=now,
            last_seen=now,
            holder=holder,
            stack=frames,
        )
        kind, what, created, waiting = signature
        self._bus.emit(LeakFound(kind, what, created, waiting, owner, age, 1, holder, text(frames)))
        return record

    def gone(self, signature: Signature) -> None:
        """One that was alive has ended after all."""
        record = self.records.get(signature)
        if record is not None and record.alive:
            record.alive -= 1

    def alive(self) -> dict[str, int]:
        """How many leaks are there now, by kind."""
        counts = dict.fromkeys(KINDS, 0)
        for record in list(self.records.values()):  # the collector may add one at any time
            counts[record.kind] += record.alive
        return counts
