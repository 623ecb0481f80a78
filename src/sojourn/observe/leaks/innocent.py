"""Tasks that may outlive the request that made them: what the settings name, and what libraries keep for themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from sojourn.observe.leaks.places import module_of
from sojourn.observe.profiles.model import Frame

__all__ = ["HOUSEKEEPERS", "Innocent"]

#: Packages that start housekeeping of their own when they are first used, often in a request. Only a task that they
#: make and that runs their own code is let off: one that the application makes of it is the application's.
HOUSEKEEPERS: Final = frozenset(
    {
        "aiokafka",  # a client's metadata, sender, coordinator and fetcher
        "aiormq",  # reader and writer of a connection
        "asyncpg",  # a pool's maintenance; the cancellation of a query
        "engineio",  # python-socketio: the service task begins with the first client
        "mcp",  # sessions outlive the request that began them
        "nats",  # a client's reader, pinger and flusher
        "psycopg_pool",  # workers and scheduler of a pool that is opened when it is first used
        "pymongo",  # periodic executors: monitors, the killing of cursors
        "redis",  # health checks of several databases, tokens, the clean-up of a cluster's nodes
        "sse_starlette",  # the watcher of the server's shutdown, one for each loop
        "websockets",  # keep-alive of a client's connection
    }
)


class Innocent:
    """Decides whether a task is meant to live on. Adopted tasks never come here.

    Args:
        names: ``diagnostics.leak_ignore``: modules or qualified names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def is_meant(self, task: asyncio.Task[Any], created: Frame) -> bool:
        """Whether nobody needs to hear of it.

        Args:
            task: The task.
            created: Where it was made.
        """
        code, module = _runs(task)
        if code is None:
            return False
        name = f"{module}.{code.co_qualname}"
        if any(name == each or name.startswith(f"{each}.") for each in self._names):
            return True
        maker = module_of(created.file).partition(".")[0]
        return maker in HOUSEKEEPERS and module_of(code.co_filename).partition(".")[0] in HOUSEKEEPERS


def _runs(task: asyncio.Task[Any]) -> tuple[Any, str]:
    """The code of a task's coroutine, and the module it is from; None and "" where there is none."""
    coroutine = task.get_coro()
    for kind in ("cr", "gi"):
        code, frame = getattr(coroutine, f"{kind}_code", None), getattr(coroutine, f"{kind}_frame", None)
        if code is not None:
            return code, str(frame.f_globals.get("__name__", "")) if frame is not None else ""
    return None, ""
