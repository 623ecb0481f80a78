"""One client that all but stops reading: what waits for it, and what it gets when it reads on."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

from examples.demo.channels import SYMBOLS
from examples.demo.market import Market
from examples.demo.member import RawMember
from sojourn.hub.member import Member
from sojourn.hub.node import Node
from sojourn.hub.waiting import Waiting

__all__ = ["Stalled"]

#: Seconds for which it stalls at most, and for which it stays when it reads on.
_STALLS: Final = 60.0
_STAYS: Final = 5.0
#: Seconds between two sips, of some 2 KB: one that takes less than limits.write_min_rate the server would reset soon.
_SIPS: Final = 4.0
#: Bytes that the kernel takes on either side: on the loopback address it would take megabytes before anybody felt it.
_SMALL: Final = 4096


class Stalled:
    """A client that joins, takes its first price, and from then on only a sip now and then; made by ``begin``.

    What its kernel acknowledges is a sign of life, so the hub does not doubt it.

    Args:
        market: What it misses.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._member: RawMember | None = None
        self._state = "comes"
        self._since = self._sipped = 0.0
        self._first = self._last = 0
        self._got = 0
        self._connection: Any = None
        #: What waits for it; whenever it catches up that is forgotten, and begins anew.
        self._waiting: Waiting | None = None
        self._conflated = 0
        self._waits: dict[str, Any] = {"messages": 0, "bytes": 0, "buffer": 0, "conflated": 0}

    @classmethod
    async def begin(cls, market: Market, address: tuple[str, int]) -> Stalled:
        """Connect it.

        Raises:
            OSError: It can't.
        """
        stalled = cls(market)
        joins = [{"ch": f"price:{symbol}"} for symbol in SYMBOLS]
        stalled._member = await RawMember.connect(address, "/hub/stalled", joins, stalled._heard, _SMALL)
        return stalled

    @property
    def over(self) -> bool:
        """Whether it is gone."""
        return self._member is None or self._member.over.done()

    def read_on(self) -> None:
        """Let it read again; it leaves soon after that."""
        if self._state == "stalls" and self._member is not None:
            self._state = "reads"
            self._since = time.monotonic()
            self._member.read_on()

    def leave(self) -> None:
        """Close its connection."""
        if self._member is not None:
            self._member.leave()

    def look(self, node: Node) -> dict[str, Any]:
        """How it stands, for the page. Somebody must look now and then, so that it ends in time."""
        assert self._member is not None
        now = time.monotonic()
        lasted = now - self._since
        member = node.members.get(self._member.id)
        if self._state == "stalls" and member is not None:
            self._last = self._market.updates
            self._see(member)
            if lasted > _STALLS:
                self.read_on()
            elif now - self._sipped > _SIPS:
                self._sipped = now
                self._member.sip()
        elif self._state == "stalls" or (self._state == "reads" and lasted > _STAYS):
            self.leave()
        ending = None if self._connection is None else self._connection.ending
        return {
            "state": "over" if self.over else self._state,
            "seconds": round(lasted, 1) if self._state == "stalls" else 0,
            "published": (self._last - self._first) * len(SYMBOLS),
            "got": self._got,
            "ending": ending.reason if self.over and ending is not None else "",
            **self._waits,
        }

    def _see(self, member: Member) -> None:
        waiting, connection = member.waiting, getattr(member, "connection", None)
        if waiting is not self._waiting:
            self._conflated += 0 if self._waiting is None else self._waiting.conflated
            self._waiting = waiting
        if connection is not None and connection.transport is not None and self._connection is None:
            self._connection = connection
            sock = connection.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL)
        self._waits = {
            "messages": 0 if waiting is None else waiting.count,
            "bytes": member.buffered,
            "buffer": 0 if connection is None else connection.buffered,
            "conflated": self._conflated + (0 if waiting is None else waiting.conflated),
        }

    def _heard(self, channel: str, data: Any) -> None:
        assert self._member is not None
        if self._state == "comes":
            self._first = self._last = data["number"]
            self._state = "stalls"
            self._since = self._sipped = time.monotonic()
            self._member.stall()
        elif data["number"] > self._first:
            self._got += self._state == "stalls" or data["number"] <= self._last
