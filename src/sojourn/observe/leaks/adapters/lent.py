"""What one pool has lent, by object: adapters tell it what they see."""

from __future__ import annotations

from typing import Final

from sojourn.observe.leaks.leases import LEASES, Lease

__all__ = ["Lent"]

_MANY: Final = 256


class Lent:
    """The leases of a watched pool.

    Args:
        pool: Its name.
        patience: Seconds after which a lease is overdue; 0 takes the setting, None never.
    """

    def __init__(self, pool: str, patience: float | None) -> None:
        self._pool = pool
        self._patience = patience
        # A thread that has no context of its own (``run_in_executor``) works for the server in whose context the
        # pool was made.
        self._home = LEASES.get(None)
        self._leases: dict[int, Lease] = {}
        #: At so many, those that are over without having come back are forgotten.
        self._most = _MANY

    def taken(self, thing: object, *, resource: object = None, endless: bool = False) -> Lease | None:
        """Something left the pool; who did it is on the stack. Called right from the adapter's hook.

        Args:
            thing: What its return will be told by. It must live as long as it is lent.
            resource: What may be collected before it is given back; None when that is the pool's own affair.
            endless: Whether it is meant to be held for as long as its holder likes.
        """
        leases = LEASES.get(None) or self._home
        if leases is None:
            return None
        patience = None if endless else self._patience
        lease = leases.take(self._pool, resource, patience=patience, above=2)
        before = self._leases.pop(id(thing), None)
        if before is not None:  # its return was not seen
            before.give_back()
        if len(self._leases) >= self._most:
            self._leases = {key: lease for key, lease in self._leases.items() if not lease.over}
            self._most = max(_MANY, 2 * len(self._leases))
        self._leases[id(thing)] = lease
        return lease

    def returned(self, thing: object) -> None:
        """It is back; nothing happens when it was not seen to leave."""
        lease = self._leases.pop(id(thing), None)
        if lease is not None:
            lease.give_back()

    def forget(self) -> None:
        """Count nothing that is lent now."""
        leases, self._leases = self._leases, {}
        for lease in leases.values():
            lease.give_back()
