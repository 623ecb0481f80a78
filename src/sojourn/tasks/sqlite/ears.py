"""Those of one process who listen to a journal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from sojourn.errors import JournalUnavailable
from sojourn.tasks.journal import Listener
from sojourn.tasks.sqlite.bell import Bell
from sojourn.tasks.sqlite.hints import Hint, bound, drained
from sojourn.tasks.sqlite.host import Host

__all__ = ["LOOK", "Ears"]

#: Seconds between two looks for dead nodes.
LOOK: Final = 0.5


class Ears:
    """Used in the event loop. While anybody listens there is a socket, which others send hints to.

    Args:
        host: Whose node this is.
        bell: Is rung after each transaction.
    """

    def __init__(self, host: Host, bell: Bell) -> None:
        self._host = host
        self._bell = bell
        self._listeners: list[Listener] = []
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def listen(self, listener: Listener, look: Callable[[], Awaitable[None]]) -> None:
        """Tell somebody until it is cancelled.

        Args:
            listener: Whom.
            look: Whether the journal is there, and all nodes live.

        Cancel: safe.
        """
        loop = asyncio.get_running_loop()
        self._listeners.append(listener)
        here = True
        try:
            self._hear(loop)
            listener.missed()
            while True:
                pause = loop.create_future()
                await asyncio.wait((pause,), timeout=LOOK)
                try:
                    await look()
                except JournalUnavailable:
                    if here:
                        here = False
                        listener.away()
                    continue
                if not here or self._rebound(loop):
                    here = True
                    listener.missed()
        finally:
            self._listeners.remove(listener)
            if not self._listeners:
                self._close()

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:  # that of an earlier asyncio.run; nobody listens there any more
            self._close()
            self._loop = loop
        self._host.on_hint = self._said
        self._rebound(loop)

    def _rebound(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Make the socket, if there is none or its file was removed.

        Returns:
            Whether something may have been missed: also each time that there can be none.
        """
        nodes = self._host.nodes
        if nodes is None or (self._socket is not None and (nodes.folder / f"{nodes.stem}.sock").exists()):
            return False
        self._silence()
        try:
            self._socket = bound(nodes.folder, nodes.stem)
        except OSError:  # such as in a folder without sockets: it looks for itself, each time
            return True
        loop.add_reader(self._socket, self._readable)
        return True

    def _said(self, hint: Hint) -> None:
        """This process has done something; called in the thread that writes."""
        loop = self._loop
        if loop is None or not (hint.changed or hint.missed or any(each.claims for each in self._listeners)):
            return
        if loop is self._bell.loop and self._bell.put(self._pass_on, hint):
            return
        try:
            loop.call_soon_threadsafe(self._pass_on, hint)
        except RuntimeError:  # it is closed: nobody listens
            return

    def _readable(self) -> None:
        if self._socket is not None:
            for hint in drained(self._socket):
                self._pass_on(hint)

    def _pass_on(self, hint: Hint) -> None:
        for listener in list(self._listeners):
            if hint.missed:
                listener.missed()
            if hint.due:
                listener.due()
            for ident in hint.changed:
                listener.changed(ident)
            for ident in hint.cancelled:
                listener.cancelled(ident)

    def _close(self) -> None:
        self._host.on_hint = None
        self._silence()
        self._loop = None

    def _silence(self) -> None:
        if self._socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            nodes = self._host.nodes
            if nodes is not None:
                (nodes.folder / f"{nodes.stem}.sock").unlink(missing_ok=True)
