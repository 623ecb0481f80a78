"""The chat: one WebSocket for each member, and nobody waits for a member who is slow."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from typing import Any, Final

from sojourn.typing import Receive, Scope, Send

__all__ = ["Room"]

_LONGEST: Final = 500
_REMEMBERED: Final = 30
_WAITING: Final = 64

#: What waits for one member. When it is full the oldest message is dropped: who is behind gets the latest.
Inbox = asyncio.Queue[str]


class Room:
    """Everyone who is here, and what was said last."""

    def __init__(self) -> None:
        self._members: dict[str, Inbox] = {}
        self._said: deque[str] = deque(maxlen=_REMEMBERED)
        self._numbers = itertools.count(1)

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take part, from the opening handshake until the WebSocket closes."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        control = scope.get("extensions", {}).get("sojourn")
        name = f"guest {control.connection_id if control is not None else next(self._numbers)}"
        inbox: Inbox = asyncio.Queue(_WAITING)
        for line in (_line("welcome", name=name), *self._said):
            inbox.put_nowait(line)
        self._members[name] = inbox
        self._tell_presence()
        delivering = asyncio.create_task(_deliver(inbox, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                text = (message.get("text") or "").strip()[:_LONGEST]
                if text:
                    line = _line("message", name=name, text=text, at=time.time())
                    self._said.append(line)
                    self._broadcast(line)
        finally:
            delivering.cancel()
            del self._members[name]
            self._tell_presence()

    def _tell_presence(self) -> None:
        self._broadcast(_line("present", names=list(self._members)))

    def _broadcast(self, line: str) -> None:
        for inbox in self._members.values():
            if inbox.full():
                inbox.get_nowait()
            inbox.put_nowait(line)


async def _deliver(inbox: Inbox, send: Send) -> None:
    """Send what waits for one member, at its own pace."""
    try:
        while True:
            await send({"type": "websocket.send", "text": await inbox.get()})
    except OSError:
        pass  # the member left; enter() hears of it from receive()


def _line(kind: str, **members: Any) -> str:
    return json.dumps({"kind": kind, **members})
