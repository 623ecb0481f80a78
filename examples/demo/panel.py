"""The hub's own numbers, published in a channel of the hub: who is there, what waits, and how late the others are."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from examples.demo.channels import PANEL, SYMBOLS
from examples.demo.crowd import Crowd
from examples.demo.market import Market
from examples.demo.stalled import Stalled
from examples.demo.web import respond, respond_json
from sojourn import Hub
from sojourn.typing import Receive, Scope, Send

__all__ = ["Panel"]

#: Seconds between two looks, and without a page after which nobody has to be measured.
_EVERY: Final = 0.5
_QUIET: Final = 30.0


class Panel:
    """Looks at the hub twice a second, and has members connect that measure while somebody watches.

    Args:
        hub: The hub.
        market: What is published in it.
    """

    def __init__(self, hub: Hub, market: Market) -> None:
        self._hub = hub
        self._market = market
        self._crowd = Crowd()
        self._stalled: Stalled | None = None
        self._address: tuple[str, int] | None = None

    def follow(self, scope: Scope) -> None:
        """Learn from a WebSocket where this server is."""
        server = scope.get("server")
        if self._address is None and scope.get("scheme") == "ws" and server and server[1]:
            self._address = (server[0], server[1])

    async def stall(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a client connect that reads nothing; one at most."""
        if self._address is None:
            await respond(send, 503, b"open the page first, over http\n", b"text/plain")
        elif self._stalled is not None and not self._stalled.over:
            await respond(send, 409, b"one client stalls already\n", b"text/plain")
        else:
            self._stalled = await Stalled.begin(self._market, self._address)
            await respond_json(send, {"stalls": True})

    async def read_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let that client read again."""
        if self._stalled is None or self._stalled.over:
            await respond(send, 409, b"no client stalls\n", b"text/plain")
        else:
            self._stalled.read_on()
            await respond_json(send, {"stalls": False})

    async def run(self) -> None:
        """Look and tell, until this is cancelled."""
        watched = time.monotonic() - _QUIET
        try:
            while True:
                sent = await self._hub.publish(PANEL, await self._look())
                now = time.monotonic()
                watched = now if sent.receivers else watched
                if now - watched > _QUIET:
                    self._crowd.dismiss()
                elif self._address is not None:
                    await self._gather(self._address)
                await asyncio.sleep(_EVERY)
        finally:
            self._crowd.dismiss()
            if self._stalled is not None:
                self._stalled.leave()

    async def _gather(self, address: tuple[str, int]) -> None:
        try:
            await self._crowd.gather(address)
        except OSError:
            pass  # the server takes no connections just now; asked again at the next look

    async def _look(self) -> dict[str, Any]:
        node, stats = await self._hub.start(), self._hub.stats()
        waiting = [member.waiting for member in node.backlog.behind if member.waiting is not None]
        return {
            "members": sum(stats["members"].values()),
            "measuring": len(self._crowd),
            "slow": stats["slow"],
            "suspect": stats["suspect"],
            "buffered": stats["buffered"],
            # The hub adds up what was conflated for a member when that has caught up.
            "conflated": stats["conflated"] + sum(each.conflated for each in waiting),
            "dropped": sum(stats["dropped"].values()),
            "updates": self._market.updates * len(SYMBOLS),
            "late": self._crowd.late(),
            "stalled": None if self._stalled is None else self._stalled.look(node),
        }
