"""asyncpg: its pool has no events and no room for attributes, so a watched one becomes of a class that tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sojourn.observe.leaks.adapters.lent import Lent

__all__ = ["watch"]

#: Name of the attribute of the class by which it is known.
_LENT: Final = "_sojourn_lent"


def watch(pool: Any, name: str, patience: float | None) -> Callable[[], None]:
    """Watch a pool; it may be initialized later."""
    plain: Any = type(pool)
    if hasattr(plain, _LENT):
        raise TypeError("this pool is watched already")
    lent = Lent(name, patience)

    class WatchedPool(plain):  # type: ignore[misc]
        # A layout like that of the pool: without it the class of an object can't be changed.
        __slots__ = ()
        _sojourn_lent = lent

        async def _acquire(self, timeout: float | None) -> Any:
            """Cancel: as the pool's own, which takes back what it was about to lend."""
            connection = await plain._acquire(self, timeout)
            lent.taken(connection)
            return connection

        async def release(self, connection: Any, *, timeout: float | None = None) -> Any:
            """Cancel: the pool finishes the release by itself."""
            # Before the wait: from here on it is the pool's, also when who gives it back is cancelled.
            lent.returned(connection)
            return await plain.release(self, connection, timeout=timeout)

    pool.__class__ = WatchedPool

    def forget() -> None:
        if type(pool) is WatchedPool:
            pool.__class__ = plain
        lent.forget()

    return forget
