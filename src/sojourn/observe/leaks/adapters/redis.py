"""redis.asyncio: the two methods of its connection pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sojourn.observe.leaks.adapters.lent import Lent
from sojourn.observe.leaks.places import noted

__all__ = ["watch"]

#: A subscription keeps its connection for as long as it is subscribed: that is no lease that could be overdue.
_ENDLESS: Final = ("PubSub.", "Monitor.")
#: Frames between the pool and who uses it, at most.
_NEAR: Final = 8


def watch(client: Any, name: str, patience: float | None) -> Callable[[], None]:
    """Watch a client or a connection pool."""
    pool = getattr(client, "connection_pool", client)
    lent = Lent(name, patience)
    get, release = pool.get_connection, pool.release

    async def get_connection(*args: Any, **options: Any) -> Any:
        """Cancel: as the pool's own, which takes back what it was about to lend."""
        connection = await get(*args, **options)
        endless = any(code.co_qualname.startswith(_ENDLESS) for code, _ in noted(depth=_NEAR))
        lent.taken(connection, endless=endless)
        return connection

    async def release_(connection: Any) -> Any:
        """Cancel: as the pool's own."""
        # Before the wait: from here on it is the pool's.
        lent.returned(connection)
        return await release(connection)

    pool.get_connection, pool.release = get_connection, release_

    def forget() -> None:
        for word, ours in (("get_connection", get_connection), ("release", release_)):
            if vars(pool).get(word) is ours:
                delattr(pool, word)
        lent.forget()

    return forget
