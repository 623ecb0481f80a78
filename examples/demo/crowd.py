"""A few members that measure: how long after it was published a price is with those who read."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

from examples.demo.channels import MEASURING, SYMBOLS
from examples.demo.member import RawMember

__all__ = ["Crowd"]

_MEMBERS: Final = 20
#: Measurements that are kept at most until somebody looks.
_KEPT: Final = 20_000


class Crowd:
    """Members in this process, each on a socket of its own. They share its clock, so no clocks have to agree."""

    def __init__(self) -> None:
        self._members: list[RawMember] = []
        self._late: deque[float] = deque(maxlen=_KEPT)

    def __len__(self) -> int:
        return len(self._members)

    async def gather(self, address: tuple[str, int]) -> None:
        """See to it that all are there.

        Raises:
            OSError: They can't connect.
        """
        self._members = [member for member in self._members if not member.over.done()]
        joins = [{"ch": f"price:{symbol}"} for symbol in SYMBOLS]
        while len(self._members) < _MEMBERS:
            self._members.append(await RawMember.connect(address, MEASURING, joins, self._heard))

    def dismiss(self) -> None:
        """All leave."""
        members, self._members = self._members, []
        for member in members:
            member.leave()

    def late(self) -> list[float] | None:
        """Milliseconds within which half of all prices came, and 99 in 100, since this was asked; None: none came."""
        late = sorted(self._late)
        self._late.clear()
        return [round(1000 * late[len(late) * part // 100], 2) for part in (50, 99)] if late else None

    def _heard(self, channel: str, update: Any) -> None:
        self._late.append(time.monotonic() - update["at"])
