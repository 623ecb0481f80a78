"""Connections that are alive after their end, and what holds them."""

from __future__ import annotations

import re
import sys
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.net.connection import Connection
from sojourn.observe.forked import in_child
from sojourn.observe.leaks.holders import Held, search
from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.tasks.every import alive, references
from sojourn.observe.tasks.factory import origin_of
from sojourn.observe.turn import turn

__all__ = ["Afterlife"]

#: Seconds after its end at which a connection should be gone.
_GRACE: Final = 5.0
#: So many that are still there, and so long, are a reason to look who holds them.
_RETAINED, _PATIENCE = 5, 30.0
#: Seconds between two searches, and for one of them.
_BETWEEN, _SEARCH = 300.0, 20.0
#: Connections remembered from their end on; of more the oldest are let go unseen.
_MOST: Final = 20_000
#: Looked at in one turn of the loop.
_SLICE: Final = 2000


class Afterlife:
    """Remembers each connection that ended, weakly, and asks later whether it is gone.

    Nobody holds one for a reason, but a task that runs on holds the context of its request, and so its connection: such
    a task is named for itself, so what it holds is left out here.

    Args:
        site: What the worker serves.
        ledger: Gets what is held.
        patience: Seconds after which those that are still there count.

    Attributes:
        retained: How many are alive now, at least five seconds after their end.
        unreachable: Searches that found nobody: the collector will take those in its time.
    """

    def __init__(self, site: Site, ledger: Ledger, *, patience: float = _PATIENCE) -> None:
        self._site = site
        self._ledger = ledger
        self._patience = patience
        #: Since the last look. When each ended is not noted, because that would cost every connection a quarter more.
        self._ended: deque[weakref.ref[Connection]] = deque(maxlen=_MOST)
        #: Those before it, and when it was.
        self._leaving: list[weakref.ref[Connection]] = []
        self._looked = site.ticker.now
        #: Those that are still there, and when they were seen to have ended.
        self._late: list[tuple[weakref.ref[Connection], float]] = []
        self._next = 0.0
        self._before: Callable[[Connection], None] | None = None
        self._hook: Callable[[Connection], None] | None = None
        self._told: dict[weakref.ref[Connection], Signature] = {}
        self.retained = self.unreachable = 0

    def close(self) -> None:
        """Remember nobody any more. Idempotent."""
        registry = self._site.runtime.registry
        if self._hook is not None and registry.left is self._hook:
            registry.left = self._before
        self._hook = None
        self._ended.clear()

    async def look(self) -> None:
        """See who is still there. To be called every few seconds. Cancel: safe."""
        self._listen()
        now = self._site.ticker.now
        if now - self._looked >= _GRACE:
            for index, reference in enumerate(self._leaving, 1):
                if reference() is not None and len(self._late) < _MOST:
                    self._late.append((reference, self._looked))
                if index % _SLICE == 0:
                    await turn(self._site.runtime.loop)
            self._leaving, self._looked = list(self._ended), now
            self._ended.clear()
        self._late = [entry for entry in self._late if entry[0]() is not None]
        self.retained = len(self._late)
        for reference in [each for each in self._told if each() is None]:
            self._ledger.gone(self._told.pop(reference))
        old = [reference for reference, at in self._late if now - at >= self._patience]
        if len(old) >= _RETAINED and now >= self._next:
            held = await self._held_by_tasks()
            old = [each for each in old if (it := each()) is not None and it.id not in held and each not in self._told]
            if len(old) >= _RETAINED:
                self._next = now + _BETWEEN
                await self._search(old)

    def _listen(self) -> None:
        """Hear of each end. The registry has room for one listener, who may come later than this object."""
        registry = self._site.runtime.registry
        if self._hook is not None and registry.left is self._hook:
            return
        before = self._before = registry.left
        remember, reference = self._ended.append, weakref.ref

        def left(connection: Connection) -> None:
            remember(reference(connection))
            if before is not None:
                before(connection)

        self._hook = registry.left = left

    async def _held_by_tasks(self) -> set[int]:
        """Ids of connections that are held by the context of a task which has not ended."""
        loop = self._site.runtime.loop
        held: set[int] = set()
        for index, each in enumerate(references(loop), 1):
            task = alive(each, loop)
            origin = origin_of(task) if task is not None else None
            if origin is not None and origin.request is not None:
                held.add(origin.request.connection_id)
            if index % _SLICE == 0:
                await turn(loop)
        return held

    async def _search(self, old: list[weakref.ref[Connection]]) -> None:
        """Ask a copy of the process who holds them."""
        try:
            answer = await in_child(search, old[:_RETAINED], timeout=_SEARCH)
        except ErrandError:
            return  # no memory for a copy, or too many objects for its time: the next search comes
        held = msgspec.msgpack.decode(answer, type=Held)
        if not held.path:
            self.unreachable += 1
            return
        signature = Signature("connection", "Connection", _defined(held), "")
        now = self._site.ticker.now
        since = {id(reference): at for reference, at in self._late}  # one whose object is gone has no hash
        for reference in old:
            connection = reference()
            if connection is not None:
                self._told[reference] = signature
                owner = f"connection {connection.id} {connection.path}".rstrip()
                self._ledger.add(signature, owner=owner, age=now - since[id(reference)], holder=held.path)


def _defined(held: Held) -> str:
    """Where the variable that holds it is first assigned, as ``file:line in <module>``; the path's root otherwise."""
    module = sys.modules.get(held.module) if held.module else None
    file = getattr(module, "__file__", None)
    if file is None:
        return held.path.partition(" -> ")[0]
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{held.variable} of {held.module}"
    assigned = re.compile(rf"{re.escape(held.variable)}\s*(:[^=]+)?=")
    line = next((at for at, text in enumerate(lines, 1) if assigned.match(text)), 1)
    return f"{file}:{line} in <module>"
