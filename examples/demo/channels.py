"""The demo's hub: its channels, and what holds in each."""

from __future__ import annotations

from typing import Final

from sojourn import Channel, History, Hub, HubDrain, HubLimits, HubPing, Outbox, Presence
from sojourn.hub.access import Asker

__all__ = ["MEASURING", "PANEL", "PING", "ROOMS", "SYMBOLS", "make_hub"]

ROOMS: Final = ("lobby", "garden", "attic")
SYMBOLS: Final = ("ACORN", "BIRCH", "CEDAR", "DAISY", "ELDER")
#: Sooner than by default, because on this page people wait to see it: suspect after 7 s, dead after 16 s.
PING: Final = HubPing(every=4, pong_within=3, misses=4)
#: Where the hub's own numbers are published.
PANEL: Final = "panel"
#: Path by which the members that measure come, so that the table of connections can leave them out.
MEASURING: Final = "/hub/measuring"


def make_hub() -> Hub:
    """A hub with a rule for each kind of channel. Its engine is in the memory of one process: one worker, please."""
    hub = Hub(
        channels=[
            # Every line counts: who was away gets all it missed, and who is too far behind is sent away to resume.
            Channel(
                "chat:{room}",
                history=History(size=100, ttl=3600),
                presence=Presence(ttl=30),
                outbox=Outbox(max_age=60),
                publish=True,
            ),
            # Only the latest counts: what waits for a member is one price of each symbol, however long it waits.
            Channel(
                "price:{symbol}",
                history=History(size=1, ttl=60, mode="latest"),
                outbox=Outbox(on_full="latest", max_messages=8, high=0.5, max_age=60),
                public=True,
            ),
            Channel(PANEL, outbox=Outbox(on_full="latest"), public=True),
        ],
        ping=PING,
        limits=HubLimits(total=1000, channels=16, inbound_rate=10, inbound_burst=30, message=2048),
        drain=HubDrain(retry=(500, 2000)),
    )

    @hub.authorize("chat:{room}")
    async def may_join(asker: Asker, room: str) -> bool:
        return room in ROOMS  # anybody may, but nobody may make up rooms

    return hub
