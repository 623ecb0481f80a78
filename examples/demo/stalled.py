"""One client that reads nothing: what waits for it, and what it gets when it reads on."""

from __future__ import annotations

import time
from typing import Any, Final

from examples.demo.channels import ROOMS, SYMBOLS
from examples.demo.market import Market
from examples.demo.member import RawMember
from sojourn.hub.member import Member
from sojourn.hub.node import Node

__all__ = ["Stalled"]

#: Seconds for which it stalls at most, and for which it stays when it reads on.
_STALLS: Final = 90.0
_STAYS: Final = 5.0
#: Bytes that the kernel takes on either side: on the loopback address it would take megabytes before anybody felt it.
_SMALL: Final = 4096


class Stalled:
    """A client that joins, takes its first price, and reads nothing from then on; made by ``begin``.

    Args:
        market: What it misses.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._member: RawMember | None = None
        self._since = 0.0
        self._reads_since = 0.0
        self._from = 0
        self._got = 0
        #: What somebody saw who looked last while it stalled.
        self._seen: dict[str, Any] = {"seconds": 0, "published": 0}
        self._waits: dict[str, Any] = {"messages": 0, "bytes": 0, "buffer": 0, "conflated": 0, "suspect": False}

    @classmethod
    async def begin(cls, market: Market, address: tuple[str, int]) -> Stalled:
        """Connect it.

        Raises:
            OSError: It can't.
        """
        stalled = cls(market)
        joins: list[dict[str, Any]] = [{"ch": f"price:{symbol}"} for symbol in SYMBOLS]
        joins.append({"ch": f"chat:{ROOMS[0]}", "info": {"name": "Stalled client"}})
        stalled._member = await RawMember.connect(address, "/hub/stalled", joins, stalled._heard, _SMALL)
        return stalled

    @property
    def over(self) -> bool:
        """Whether it is gone."""
        return self._member is None or self._member.over.done()

    def read_on(self) -> None:
        """Let it read again; it leaves soon after that."""
        if self._member is not None and self._since and not self._reads_since:
            self._reads_since = time.monotonic()
            self._member.read(True)

    def leave(self) -> None:
        """Close its connection."""
        if self._member is not None:
            self._member.leave()

    def look(self, node: Node) -> dict[str, Any]:
        """How it stands, for the page; twice a second somebody must look, so that it ends in time."""
        now = time.monotonic()
        if self._since and not self._reads_since and now - self._since > _STALLS:
            self.read_on()
        if self._reads_since and now - self._reads_since > _STAYS:
            self.leave()
        assert self._member is not None
        stalls = bool(self._since) and not self._reads_since and not self.over
        if stalls:
            published = (self._market.updates - self._from) * len(SYMBOLS)
            self._seen = {"seconds": round(now - self._since, 1), "published": published}
            self._look(node.members.get(self._member.id))
        state = "over" if self.over else "stalls" if stalls else "reads" if self._reads_since else "comes"
        return {"state": state, "got": self._got, "code": self._member.close_code, **self._seen, **self._waits}

    def _look(self, member: Member | None) -> None:
        if member is None:
            return
        waiting, connection = member.waiting, getattr(member, "connection", None)
        self._waits = {
            "messages": 0 if waiting is None else waiting.count,
            "bytes": member.buffered,
            "buffer": 0 if connection is None else connection.buffered,
            "conflated": 0 if waiting is None else waiting.conflated,
            "suspect": member.suspect,
        }

    def _heard(self, channel: str, data: Any) -> None:
        if self._reads_since:
            self._got += channel.startswith("price:")
        elif not self._since and channel.startswith("price:"):
            assert self._member is not None
            self._since = time.monotonic()
            self._from = self._market.updates
            self._member.read(False)
