"""Slots, and a line of those who wait for one: what bulkhead and workers have in common."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from sojourn.clock import Clock, SystemClock
from sojourn.errors import DeadlineExceeded
from sojourn.policy.admission import Slots
from sojourn.scopes.deadline import current_limit, deadline, remaining

__all__ = ["Line"]

#: Why somebody got no slot: the line is full, or the wait was over.
Refusal = Literal["full", "waited"]


class Line:
    """Lets so many run at once; the others wait in order, each no longer than told and than its ambient deadline.

    Args:
        name: What the deadline of the wait is called.
        limit: How many run at once; at least one.
        queue: How many may wait; 0 refuses at once.
        wait: Longest wait in seconds, above zero; None: only the ambient deadline ends it.
        clock: Measures the waits.

    Attributes:
        slots: Who runs and who waits. ``slots.running < slots.limit`` means that nobody waits, and that who adds one to
            ``running`` has a slot.
    """

    __slots__ = ("_idle", "_monotonic", "_name", "_wait", "slots")

    def __init__(self, name: str, limit: int, queue: int, wait: float | None, clock: Clock | None = None) -> None:
        if limit < 1 or queue < 0 or (wait is not None and not wait > 0):
            raise ValueError(
                f"{name}: {limit!r} at once, {queue!r} in line for {wait!r} s: at least 1, 0 and above zero"
            )
        self._name = f"{name}.wait"
        self._wait = wait
        #: Who waits until nobody runs.
        self._idle: list[asyncio.Future[None]] = []
        self._monotonic = (clock or SystemClock()).monotonic
        self.slots: Final[Slots[asyncio.Future[None]]] = Slots(limit, queue, 0.0 if wait is None else wait)

    async def enter(self) -> Refusal | None:
        """Get a slot.

        Returns:
            None with a slot: :meth:`leave` must follow. Else why there is none.

        Raises:
            DeadlineExceeded: The ambient deadline passed first, or before: then nobody waits at all.

        Cancel: safe; a slot that comes in the same turn goes on to the next.
        """
        slots = self.slots
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entered = slots.enter(self._monotonic(), ticket)
        if entered != "queued":
            return None if entered == "run" else "full"
        try:
            async with deadline(self._wait, self._name):
                await ticket
        except BaseException as error:
            if ticket.done() and not ticket.cancelled():
                self.leave()
            else:
                slots.forget(ticket)
            # Both may have passed by now; then the one around it is what the caller has to know.
            if isinstance(error, DeadlineExceeded) and error.deadline == self._name and remaining() != 0.0:
                return "waited"
            raise
        limit = current_limit()
        if limit is not None and remaining() == 0.0:
            # Nothing could run when the moment came, so nobody was told: the slot comes too late all the same.
            self.leave()
            raise DeadlineExceeded(limit.name, limit.seconds, limit)
        return None

    def leave(self) -> None:
        """Give a slot back: it goes to who has waited longest."""
        slots = self.slots
        if slots.waiting:
            while (ticket := slots.leave(self._monotonic())) is not None:
                # One that is done was cancelled in this turn, and will find that it is not in line any more.
                if not ticket.done():
                    ticket.set_result(None)
                    return
        else:
            slots.running -= 1
        if self._idle and not slots.running:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)

    async def empty(self) -> None:
        """Wait until nobody runs or waits.

        Cancel: safe.
        """
        while self.slots.running:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                await waiter
            finally:
                self._idle.remove(waiter)
