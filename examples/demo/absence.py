"""A connection is cut, and talk goes on without it. Its client gets all of that when it comes back, each line once."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import parse_qsl

from examples.demo.channels import ROOMS
from examples.demo.web import respond, respond_json
from sojourn import Hub
from sojourn.ending import Ending, Phase
from sojourn.typing import Receive, Scope, Send

__all__ = ["Absence"]

#: Lines that are said meanwhile, and seconds before each.
_LINES: Final = 10
_PAUSE: Final = 0.5


class Absence:
    """Cuts connections, one in each room at a time.

    Args:
        hub: Whose members.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rooms: set[str] = set()

    async def cut(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut the member that the query names, talk for five seconds in its room, then say how many lines that were."""
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        room = asked.get("room", "")
        if room not in ROOMS or not asked.get("member"):
            await respond(send, 400, b"which member, and in which room?\n", b"text/plain")
        elif room in self._rooms:
            await respond(send, 409, b"somebody else is away already\n", b"text/plain")
        elif not await self._cut(asked["member"]):
            await respond(send, 404, b"there is no such member\n", b"text/plain")
        else:
            self._rooms.add(room)
            try:
                await self._talk(room)
            finally:
                self._rooms.discard(room)
            await respond_json(send, {"lines": _LINES})

    async def _cut(self, member: str) -> bool:
        """Reset its connection, without a word, as a network does. Under another server the hub closes it."""
        found = (await self._hub.start()).find("", member)
        for each in found:
            connection: Any = getattr(each, "connection", None)
            if connection is not None:
                connection.end(Ending("admin_kill", Phase.WEBSOCKET, None, "cut by the demo"), abort=True)
            else:
                await self._hub.disconnect(member=member, code=4012)
        return bool(found)

    async def _talk(self, room: str) -> None:
        for number in range(1, _LINES + 1):
            await asyncio.sleep(_PAUSE)
            text = f"Line {number} of {_LINES}, said while somebody was away."
            await self._hub.publish(f"chat:{room}", {"name": "Narrator", "text": text})
