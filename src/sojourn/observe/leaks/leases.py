"""What is taken from a pool and must be given back: who took it, since when, and whether its request still runs."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from sojourn.asgi.site import CURRENT
from sojourn.bus import Bus
from sojourn.clock import NEVER
from sojourn.events import LeaseOverdue, LeaseReturned
from sojourn.net.ticker import Ticker
from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.leaks.places import Noted, frames, noted, place, text
from sojourn.observe.profiles.model import Frame

__all__ = ["LEASES", "Lease", "Leases", "OverdueLease", "lease"]

#: Who counts the leases of the server that serves in the present context.
LEASES: Final[ContextVar[Leases]] = ContextVar("sojourn_leases")

#: Seconds between two looks at what is held.
_LOOK: Final = 1.0
#: Of one pool and one place of the code an overdue lease is told once in so many seconds: when a database stands still,
#: everything it lent is overdue at once.
_QUIET: Final = 60.0
#: Places remembered for that.
_PLACES: Final = 500


class OverdueLease(NamedTuple):
    """A lease that is held for too long.

    Attributes:
        pool: Name of the pool.
        seconds: For how long it is held.
        owner: What took it.
        leaked: Whether its request has ended.
        created: Where it was taken, as ``file:line in function``.
        stack: The application's and the libraries' frames when it was taken, innermost first.
    """

    pool: str
    seconds: float
    owner: str
    leaked: bool
    created: str
    stack: list[Frame]


class Lease:
    """Something taken from a pool. Made by :func:`lease`; give it back by leaving its ``with`` block, or by hand.

    Attributes:
        pool: Name of the pool.
        owner: The request that took it, such as ``connection 12 GET /slow``; "" outside of one.
        since: When, in served time.
        patience: Seconds after which it is overdue.
    """

    __slots__ = (
        "__weakref__",
        "_leases",
        "_request",
        "_resource",
        "_taken",
        "_taker",
        "overdue",
        "owner",
        "patience",
        "pool",
        "signature",
        "since",
        "told",
    )

    def __init__(self, leases: Leases | None, pool: str, taken: Noted, since: float, patience: float) -> None:
        self._leases = leases
        self._taken = taken
        self._request: weakref.ref[asyncio.Task[Any]] | None = None
        self._taker: weakref.ref[asyncio.Task[Any]] | None = None
        self._resource: weakref.ref[Any] | None = None
        self.pool = pool
        self.owner = ""
        self.since = since
        self.patience = patience
        #: Whether it was held for too long, whether that was told, and what it was reported as when it leaked.
        self.overdue = self.told = False
        self.signature: Signature | None = None

    def give_back(self) -> None:
        """It is back in its pool. Calling it twice does nothing; it may be called in any thread."""
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.given_back(self)

    @property
    def over(self) -> bool:
        """Whether it was given back, or what was taken is no more."""
        return self._leases is None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()

    @property
    def frames(self) -> list[Frame]:
        """Who took it, innermost first."""
        return frames(self._taken)

    @property
    def created(self) -> str:
        """Where it was taken."""
        return place(self._taken)

    @property
    def abandoned(self) -> bool:
        """Whether the request that took it has ended, and so has the task in which it did."""
        return _has_ended(self._request) and (self._taker is None or _has_ended(self._taker))

    def belongs_to(self, task: asyncio.Task[Any] | None) -> None:
        """The request's task, when a request takes it; what runs now may be a task that it made."""
        self._request = weakref.ref(task) if task is not None else None
        try:
            taker = asyncio.current_task()
        except RuntimeError:  # in a thread that runs no loop
            taker = None
        if taker is not None and taker is not task:
            self._taker = weakref.ref(taker)

    def watch(self, resource: object, gone: Callable[[weakref.ref[Any]], None]) -> None:
        """Call ``gone`` when the collector takes the resource."""
        try:
            self._resource = weakref.ref(resource, gone)
        except TypeError:  # a kind of object that can't be watched: then only its return counts
            self._resource = None


def _has_ended(task: weakref.ref[asyncio.Task[Any]] | None) -> bool:
    """Whether a task has ended; False when there never was one."""
    if task is None:
        return False
    found = task()
    return found is None or found.done()


class Leases:
    """Who holds what.

    Args:
        bus: Gets LeaseOverdue, and LeaseReturned of what was told before.
        later: The worker's ticker; an idle server wakes no more often for this.
        ledger: Gets the leases whose request has ended.
        held: Seconds after which a lease is overdue, unless it has its own patience.

    Attributes:
        taken: Leases taken so far, by pool.
        overdue: Of them, those that were held for too long.
    """

    def __init__(self, bus: Bus, later: Ticker, ledger: Ledger, held: float) -> None:
        self._bus = bus
        self._later = later
        self._ledger = ledger
        self._patience = held
        self._held: dict[int, Lease] = {}
        #: Told before, and given back since. Possibly by another thread: events belong to the loop.
        self._returned: deque[tuple[Lease, float]] = deque()
        #: Collected before they were given back.
        self._lost: deque[Lease] = deque()
        self._quiet: dict[tuple[str, str], float] = {}
        self.taken: Counter[str] = Counter()
        self.overdue: Counter[str] = Counter()
        self._call = later.call_together(_LOOK, self._look)

    def take(self, pool: str, resource: object = None, *, patience: float | None = 0.0, above: int = 1) -> Lease:
        """Something leaves a pool. Call it in the context of who takes it.

        Args:
            pool: Name of the pool.
            resource: What is taken. It may be collected: then the lease is lost.
            patience: Seconds after which it is overdue; 0 takes ``diagnostics.lease_held``, None never.
            above: Frames to leave out of the stack: 1 begins with who calls this.
        """
        wait = NEVER if patience is None else patience or self._patience
        taken = Lease(self, pool, noted(above + 1), self._later.now, wait)
        request: Any = CURRENT.get(None)
        task = getattr(request, "task", None)
        if task is not None:
            taken.owner = request.owner
        taken.belongs_to(task)
        if resource is not None:
            number = id(taken)
            taken.watch(resource, lambda _: self._collected(number))
        self.taken[pool] += 1
        self._held[id(taken)] = taken
        return taken

    def given_back(self, lease: Lease) -> None:
        """Called by the lease."""
        if self._held.pop(id(lease), None) is not None and (lease.told or lease.signature is not None):
            self._returned.append((lease, self._later.now - lease.since))

    def counts(self) -> dict[str, int]:
        """How many are held now, by pool; pools that were ever used are there with 0."""
        counts = dict.fromkeys(list(self.taken), 0)
        for held in list(self._held.values()):
            counts[held.pool] += 1
        return counts

    def late(self) -> list[OverdueLease]:
        """What is held for too long now, the longest first."""
        now = self._later.now
        late = [held for held in list(self._held.values()) if held.signature or now - held.since >= held.patience]
        late.sort(key=lambda held: held.since)
        return [
            OverdueLease(
                held.pool,
                round(now - held.since, 3),
                held.owner,
                held.signature is not None,
                held.created,
                held.frames,
            )
            for held in late
        ]

    def close(self) -> None:
        """Look no more. What is held can still be given back."""
        self._call.cancel()

    def _collected(self, number: int) -> None:
        """What was taken is garbage, and its pool will not see it again."""
        lost = self._held.pop(number, None)
        if lost is not None:
            self._lost.append(lost)

    def _look(self) -> None:
        self._call = self._later.call_together(_LOOK, self._look)
        now = self._later.now
        while self._returned:
            lease, seconds = self._returned.popleft()
            if lease.signature is not None:
                self._ledger.gone(lease.signature)
            self._bus.emit(LeaseReturned(lease.pool, seconds, lease.owner))
        while self._lost:
            self._leaked(self._lost.popleft(), now, alive=False)
        if not self._held:
            return
        for held in list(self._held.values()):
            if held.signature is None and held.abandoned:
                self._leaked(held, now, alive=True)
            elif not held.overdue and now - held.since >= held.patience:
                self._overdue(held, now)

    def _leaked(self, lease: Lease, now: float, *, alive: bool) -> None:
        """Nobody will give it back: its request has ended, or it is gone."""
        stack = lease.frames
        waiting = "" if alive else "collected before it was given back"
        lease.signature = Signature("lease", lease.pool, lease.created, waiting)
        self._ledger.add(lease.signature, owner=lease.owner, age=now - lease.since, stack=stack, alive=alive)

    def _overdue(self, lease: Lease, now: float) -> None:
        lease.overdue = True
        self.overdue[lease.pool] += 1
        key = (lease.pool, lease.created)
        if now < self._quiet.get(key, 0.0):
            return
        if len(self._quiet) >= _PLACES:
            self._quiet.clear()
        self._quiet[key] = now + _QUIET
        lease.told = True
        self._bus.emit(LeaseOverdue(lease.pool, now - lease.since, lease.owner, text(lease.frames)))


def lease(pool: str, resource: object = None, *, patience: float | None = 0.0) -> Lease:
    """Say that something was taken from a pool, so that a report names who does not give it back.

    It is overdue after ``diagnostics.lease_held`` seconds, and has leaked when its request ends without giving it back.
    Where no Sojourn server runs the code, nothing is counted.

    Args:
        pool: Name of the pool, such as ``pg``. It becomes a label of a metric: a fixed few.
        resource: What was taken; None says nothing about it. A lease whose resource is collected has leaked.
        patience: Seconds after which it is overdue; 0 takes ``diagnostics.lease_held``, None never.

    Returns:
        The lease. Leave its ``with`` block, or call ``give_back``.

    Example:
        >>> with lease("licences"):
        ...     pass
    """
    leases = LEASES.get(None)
    if leases is None:
        return Lease(None, pool, (), 0.0, NEVER)
    return leases.take(pool, resource, patience=patience, above=2)
