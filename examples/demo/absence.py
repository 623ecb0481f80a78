"""What networks do to clients: one is cut off and comes back, another one falls silent for good."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import parse_qsl

from examples.demo.channels import ROOMS
from examples.demo.member import RawMember
from examples.demo.web import respond, respond_json
from sojourn import Hub
from sojourn.ending import Ending, How, Phase
from sojourn.typing import Receive, Scope, Send

__all__ = ["Absence"]

#: Lines that are said meanwhile, and seconds before each.
_LINES: Final = 10
_PAUSE: Final = 0.5
#: Ghosts at most, and seconds for one to join.
_GHOSTS: Final = 3
_JOINS: Final = 5.0


class Absence:
    """Cuts connections, one in each room at a time, and has clients come that fall silent.

    Args:
        hub: Whose members.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rooms: set[str] = set()
        self._ghosts: list[RawMember] = []

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

    async def haunt(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a client join the room that the query names, and never say anything again: no pong, and no goodbye."""
        room = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("room", "")
        server = scope.get("server")
        self._ghosts = [ghost for ghost in self._ghosts if not ghost.over.done()]
        if room not in ROOMS:
            await respond(send, 400, b"in which room?\n", b"text/plain")
        elif scope.get("scheme") != "http" or not server or not server[1]:
            await respond(send, 503, b"only over http\n", b"text/plain")
        elif len(self._ghosts) >= _GHOSTS:
            await respond(send, 409, b"that is enough of them\n", b"text/plain")
        else:
            joins = [{"ch": f"chat:{room}", "info": {"name": "Ghost"}}]
            ghost = await RawMember.connect((server[0], server[1]), "/hub/ghost", joins, _nothing)
            self._ghosts.append(ghost)
            await asyncio.wait({ghost.joined}, timeout=_JOINS)
            ghost.stall()
            await respond_json(send, {"ghosts": len(self._ghosts)})

    def close(self) -> None:
        """All ghosts leave."""
        for ghost in self._ghosts:
            ghost.leave()

    async def _cut(self, member: str) -> bool:
        """Reset its connection, without a word, as a network does. Under another server the hub closes it."""
        found = (await self._hub.start()).find("", member)
        for each in found:
            connection: Any = getattr(each, "connection", None)
            if connection is not None:
                connection.end(Ending("tcp_dead", Phase.WEBSOCKET, How.RST, "cut by the demo"), abort=True)
            else:
                await self._hub.disconnect(member=member, code=4012)
        return bool(found)

    async def _talk(self, room: str) -> None:
        for number in range(1, _LINES + 1):
            await asyncio.sleep(_PAUSE)
            text = f"{number} of {_LINES}, while somebody was away"
            await self._hub.publish(f"chat:{room}", {"name": "Narrator", "text": text})


def _nothing(channel: str, data: Any) -> None:
    """What a ghost makes of what it hears."""
