"""Two nodes of one hub in one process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sojourn.hub.hub import Hub
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.rules import Channel
from tests.hub.stand_ins import gone

__all__ = ["two_nodes"]


@asynccontextmanager
async def two_nodes(*channels: Channel, **options: Any) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two hubs that share a store; at the end nothing is left of members in those that have not ended."""
    with tempfile.TemporaryDirectory() as folder:  # that of pytest may be too long for a socket
        one, two = (Hub(LocalEngine(f"{folder}/hub.sock"), channels, **options) for _ in range(2))
        async with one, two:
            yield one, two
            for hub in (one, two):
                if not hub.engine.available:
                    continue
                for member in list(hub.node.members.values()):
                    hub.node.gone(member)
                gone(hub)
