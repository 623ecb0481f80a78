"""What nodes tell each other: at once in the own process, and by NOTIFY what has come together in some milliseconds.

A NOTIFY takes a lock that is one for the whole server, and holds it until its transaction is on disk. So it is never a
part of a transaction that writes: it is sent after that, alone, which needs no disk, and at most so often.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Final

import msgspec

from sojourn.errors import JournalUnavailable
from sojourn.tasks.journal import Listener

__all__ = ["Hint", "Hints"]

#: Seconds between two.
_PAUSE: Final = 0.01
#: Seconds for the last ones.
_LAST: Final = 1.0
#: Bytes of the ids in one; PostgreSQL takes 8,000 in all.
_BYTES: Final = 7000
#: Ids that may wait; with more, all that listen are told that they may have missed something.
_WAITING: Final = 5000

_encode: Final = msgspec.json.Encoder().encode


class Hint(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What one notification says.

    Attributes:
        sender: Whose own process knows it already.
        due: Whether something may be claimable.
        missed: Whether there was more than can be told.
        changed: Tasks.
        cancelled: Tasks.
    """

    sender: str
    due: bool = False
    missed: bool = False
    changed: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()

    def tell(self, listener: Listener) -> None:
        """Pass it on."""
        if self.missed:
            listener.missed()
            return
        if self.due:
            listener.due()
        for ident in self.cancelled:
            listener.cancelled(ident)
        for ident in self.changed:
            listener.changed(ident)


class Hints:
    """Collects what is to be told.

    Args:
        send: Notifies; called with payloads.
        launch: Makes a task of the journal's own.

    Attributes:
        sender: Who this is.
        listeners: Of this process: those that hear of everything else, too.
    """

    def __init__(
        self,
        send: Callable[[Sequence[str]], Coroutine[Any, Any, None]],
        launch: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self.sender = secrets.token_hex(4)
        self.listeners: list[Listener] = []
        self._send = send
        self._launch = launch
        self._due = False
        self._changed: set[str] = set()
        self._cancelled: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def tell(self, *, due: bool = False, changed: Collection[str] = (), cancelled: Collection[str] = ()) -> None:
        """Something has happened: it is written down. Without anything to say, it does nothing."""
        if not (due or changed or cancelled):
            return
        if self.listeners:
            hint = Hint(self.sender, due, False, tuple(changed), tuple(cancelled))
            for listener in tuple(self.listeners):
                hint.tell(listener)
        self._due = self._due or due
        self._changed.update(changed)
        self._cancelled.update(cancelled)
        if self._task is None:
            self._task = self._launch(self._work(), "tasks hints")
            self._task.add_done_callback(self._ended)

    def heard(self, payload: str, listener: Listener) -> None:
        """A notification has come. What is none of ours, by its form, is left alone."""
        try:
            hint = msgspec.json.decode(payload, type=Hint)
        except msgspec.DecodeError:
            return
        if hint.sender != self.sender:
            hint.tell(listener)

    async def _work(self) -> None:
        while payloads := self._take():
            try:
                await self._send(payloads)
            except JournalUnavailable:
                pass  # who listens is cut off as well, and asks again when that is over
            await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=_PAUSE)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()

    def _take(self) -> list[str]:
        due, self._due = self._due, False
        changed, self._changed = self._changed, set()
        cancelled, self._cancelled = self._cancelled, set()
        if len(changed) + len(cancelled) > _WAITING:
            return [_encode(Hint(self.sender, missed=True)).decode()]
        told = [Hint(self.sender, cancelled=some) for some in _portions(cancelled)]
        told += [Hint(self.sender, changed=some) for some in _portions(changed)]
        if due:
            told[:1] = [msgspec.structs.replace(told[0], due=True)] if told else [Hint(self.sender, due=True)]
        return [_encode(hint).decode() for hint in told]

    async def aclose(self) -> None:
        """Tell what is left to tell, and no more. Cancel: safe."""
        task = self._task
        if task is None:
            return
        try:
            await asyncio.wait((task,), timeout=_LAST)
        finally:
            task.cancel()
        await asyncio.wait((task,), timeout=_LAST)


def _portions(ids: Iterable[str]) -> Iterable[tuple[str, ...]]:
    """As many together as fit."""
    some: list[str] = []
    size = 0
    for ident in ids:
        size += len(ident.encode()) + 8
        if some and size > _BYTES:
            yield tuple(some)
            some, size = [], len(ident.encode()) + 8
        some.append(ident)
    if some:
        yield tuple(some)
