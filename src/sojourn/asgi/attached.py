"""Who writes to a WebSocket past its application: a service that fans out to thousands of them."""

from __future__ import annotations

from typing import Protocol

from sojourn.policy.heartbeat import Life

__all__ = ["Attached"]


class Attached(Protocol):
    """What has attached itself to a WebSocket, and writes whole frames to its transport.

    It looks at ``Connection.blocked`` before, keeps the order of what it writes, and counts its bytes itself.

    Attributes:
        sent: Messages it has written; read when the WebSocket has ended.
    """

    sent: int

    @property
    def last_message(self) -> float:
        """When it wrote the last message, in served time."""

    def ended(self) -> None:
        """The WebSocket has ended, or its closing handshake begins: nothing may be written any more."""

    def goodbye(self, code: int, reason: str) -> None:
        """The server is about to close it because it stops; something can still be written."""

    def lives(self, life: Life) -> None:
        """The heartbeat thinks otherwise of the client than before."""

    def heard(self, round_trip: float) -> None:
        """A ping was answered after so many seconds."""
