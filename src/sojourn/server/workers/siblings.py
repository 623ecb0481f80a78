"""What a worker asks about the others: may one more come in, and should another take it.

Limits that hold for all workers together are exact, wherever a worker may be stopped: each writes its own new count
first and adds up the others' after that, so of two that come at the same time one at least sees both. With room for one
more connection of each worker that is all. Nearer to the limit they go one by one, under a lock, so that not both are
refused the last place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.config import Config, Limits
from sojourn.policy.addresses import AddressTable
from sojourn.policy.admission import Connections
from sojourn.server.workers.board import Board, Row, State

__all__ = ["Siblings"]

#: A sibling whose loop gave no sign of life for so long, in seconds, is not waited for. Four beats.
FRESH: Final = 1.0
#: Connections by which a worker may be ahead of another without waiting for it: four, and one in 2**6.
_LEAD: Final = 4
_LEAD_SHARE: Final = 6
#: Longest wait for the lock, in seconds: it is held for microseconds, unless its holder was stopped.
_PATIENCE: Final = 0.002
_ZERO: Final = bytes(8)


class Siblings:
    """The other workers, as far as the board tells. ``policy.admission.Elsewhere`` in processes of one machine.

    Args:
        board: The board all workers share.
        row: This worker's row; its ``open`` is written here.
        config: Settings; ``limits`` of it.
        clock: Where time comes from; the beats of the board are of the same clock.

    Attributes:
        connections: Admission for this worker: its own limits, and those of all together.
        total: Open connections of all workers; None for no limit. May be changed at any time.
    """

    __slots__ = (
        "_board",
        "_cells",
        "_clock",
        "_epoch",
        "_patient",
        "_row",
        "_rows",
        "_secret",
        "_table",
        "_tables",
        "connections",
        "total",
    )

    def __init__(self, board: Board, row: Row, config: Config, clock: Clock | None = None) -> None:
        limits = config.limits
        self.total = limits.connections_total
        self.connections = Connections(limits.connections, limits.connections_per_ip, elsewhere=self)
        self._board = board
        self._row = row
        self._clock = clock or SystemClock()
        self._secret = board.secret
        self._epoch = -1
        self._rows: list[Row] = []
        #: Who is connected here, for the others to read; None when addresses are not limited.
        self._table = AddressTable(board.addresses(row)) if limits.connections_per_ip is not None else None
        self._tables: list[AddressTable] = []
        #: Cell of each address that is in the table.
        self._cells: dict[str, int] = {}
        self._patient = True

    def adopt(self, limits: Limits) -> None:
        """Other limits from now on; connections that are open stay.

        Args:
            limits: ``connections``, ``connections_total`` and ``connections_per_ip`` of them.
        """
        self.total = limits.connections_total
        self.connections.limit = limits.connections
        self.connections.per_address = limits.connections_per_ip
        if self._table is None and limits.connections_per_ip is not None:
            # Addresses were nobody's business so far: show the others who is connected here, and look at theirs. A
            # worker that is told of the limit a moment later shows its own a moment later.
            self._table = table = AddressTable(self._board.addresses(self._row))
            self._epoch = -1
            for key, count in self.connections.counts():
                self._record(table, key, self._hash(key), count)

    def ahead(self) -> bool:
        """Whether another worker should accept first: one that serves, is awake, and has less to do.

        A small lead is none: who takes turns in waiting with others serves short connections no faster, and no more
        evenly. One that drains lets all go first that don't.
        """
        mine = self.connections.open
        for row in self._others():
            its = row.open
            if (
                (its + _LEAD + (its >> _LEAD_SHARE) < mine or self._row.state is State.DRAINING)
                and row.state is State.READY
                and self._clock.monotonic() - row.beat < FRESH
            ):
                return True
        return False

    def enter(self, mine: int) -> bool:
        """One connection more; see ``policy.admission.Elsewhere``."""
        if self.total is None:
            self._row.open = mine
            return True
        return self._fits(self.total, mine, self.leave, self._open_elsewhere)

    def leave(self, mine: int) -> None:
        """One connection less."""
        self._row.open = mine

    def enter_address(self, key: str, mine: int, limit: int | None) -> bool:
        """One connection of an address more."""
        if self._table is None:
            return True
        hashed = self._hash(key)
        if limit is None:
            self._record(self._table, key, hashed, mine)
            return True
        table = self._table
        return self._fits(
            limit, mine, lambda count: self._record(table, key, hashed, count), lambda: self._count_elsewhere(hashed)
        )

    def leave_address(self, key: str, mine: int) -> None:
        """One connection of an address less."""
        cell = self._cells.get(key)
        if cell is not None and self._table is not None:
            self._table.change(cell, mine)
            if mine == 0:
                del self._cells[key]

    def _fits(self, limit: int, mine: int, tell: Callable[[int], None], elsewhere: Callable[[], int]) -> bool:
        """Whether this worker's new count and those of the others stay within the limit; then it is told."""
        # A processor may show the others a number a moment after it has read theirs: one connection of each at most.
        room = len(self._others()) + 1
        if mine + room <= limit:
            tell(mine)
            if mine + elsewhere() + room <= limit:
                return True
            tell(mine - 1)
        locked = self._lock()
        try:
            tell(mine)
            if mine + elsewhere() <= limit:
                return True
            tell(mine - 1)
            return False
        finally:
            if locked:
                fcntl.lockf(self._board.fd, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        """Be the only one near a limit; whether that worked.

        A process can be stopped while it has the lock, and nobody may hang for that. Without the lock the limit holds
        all the same.
        """
        until = self._clock.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.lockf(self._board.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # EACCES or EAGAIN: another has it
                if not self._patient or self._clock.monotonic() > until:
                    self._patient = False  # its holder was stopped: don't wait for it at each connection
                    return False
                os.sched_yield()
            else:
                self._patient = True
                return True

    def _others(self) -> list[Row]:
        """The rows of the other workers."""
        epoch = self._board.epoch
        if epoch != self._epoch:
            self._rows = [row for row in self._board if row.index != self._row.index]
            shared = self._rows if self._table is not None else []
            self._tables = [AddressTable(self._board.addresses(row)) for row in shared]
            self._epoch = epoch
        return self._rows

    def _open_elsewhere(self) -> int:
        return sum([row.open for row in self._others()])

    def _count_elsewhere(self, hashed: bytes) -> int:
        self._others()
        return sum([table.count(hashed) for table in self._tables])

    def _hash(self, key: str) -> bytes:
        hashed = blake2b(key.encode(), digest_size=8, key=self._secret).digest()
        return hashed if hashed != _ZERO else b"\x01" * 8  # zeros mean an empty cell

    def _record(self, table: AddressTable, key: str, hashed: bytes, count: int) -> None:
        """Show the others how often an address is connected here."""
        if key in self._cells:
            self.leave_address(key, count)
        elif count:
            cell = table.enter(hashed, count)
            if cell is None:
                # Here it is limited all the same: the others' limits don't see it, that is all.
                self._row.untracked += 1
            else:
                self._cells[key] = cell
