"""What speaks a protocol on a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sojourn.ending import Ending, How

if TYPE_CHECKING:
    from sojourn.net.connection import Connection
    from sojourn.net.outbox import Outbox

__all__ = ["Handler"]


class Handler(asyncio.Protocol):
    """Owns the bytes of a connection for a while. The transport calls it without a detour."""

    __slots__ = ("connection",)

    #: What is spoken, for logs.
    protocol = ""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.established(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.connection.lost(error)

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def opened(self) -> None:
        """The transport is there, after the TLS handshake if there is one."""

    def deadline_passed(self, slot: str, now: float) -> None:
        """A slot of this handler's concern is due. It must end something, or set the slot later or to NEVER."""
        raise NotImplementedError

    def ending(self, ending: Ending) -> None:
        """The connection ends; the transport is still there."""

    def ended(self, ending: Ending) -> None:
        """The transport is gone."""

    def patience(self) -> tuple[float | None, int | None]:
        """For a peer that is behind: seconds it may take nothing, and bytes per second it must take on average."""
        config = self.connection.runtime.config
        return config.timeouts.write_idle, config.limits.write_min_rate

    def behind(self, outbox: Outbox, now: float) -> None:
        """The peer is behind; called about every second while it is."""

    def length_of(self, deadline: str) -> float:
        """How long a deadline is, in seconds; for reports.

        Args:
            deadline: Its key in the configuration, without ``timeouts.`` or ``limits.``. The length of a minimum rate
                is the time before it is asked for.
        """
        config = self.connection.runtime.config
        group, _, key = deadline.rpartition(".")
        if key.endswith("_min_rate"):
            key = "rate_grace"
        for owner in (getattr(config, group),) if group else (config.timeouts, config.limits):
            length: float | None = getattr(owner, key, None)
            if length is not None:
                return length
        return 0.0

    def cause_of_eof(self, how: How) -> Ending:
        """What it means that the peer closed at this point."""
        return Ending("connected_no_data", self.connection.phase, how)
