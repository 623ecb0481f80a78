"""Prices that move all the time: fifty updates a second for each symbol, and nobody has to keep up with them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from examples.demo.channels import SYMBOLS
from sojourn import Hub

__all__ = ["Market"]

#: Seconds between two updates of a symbol, and between two looks whether somebody listens again.
_PAUSE: Final = 0.02
_NOBODY: Final = 0.5


class Market:
    """Publishes prices as long as somebody listens.

    Args:
        hub: Where.

    Attributes:
        updates: Updates of each symbol, up to now.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._prices = dict.fromkeys(SYMBOLS, 100.0)
        self.updates = 0

    async def run(self) -> None:
        """Publish until this is cancelled."""
        due = time.monotonic()
        while True:
            listeners = await self._publish()
            now = time.monotonic()
            due = max(due + (_PAUSE if listeners else _NOBODY), now - 1)  # late by more than a second: not made up for
            await asyncio.sleep(due - now)

    async def _publish(self) -> int:
        """One update of each symbol. Returns how many members got them."""
        self.updates += 1
        listeners = 0
        for symbol, price in self._prices.items():
            self._prices[symbol] = price = max(1.0, price * random.gauss(1.0, 0.0008))
            # `at` is for the members that measure, which share this clock.
            update = {"price": round(price, 2), "number": self.updates, "at": time.monotonic()}
            listeners += (await self._hub.publish(f"price:{symbol}", update)).receivers
        return listeners
