"""Whether a WebSocket peer lives: normal, suspect, dead.

Any byte from the peer is life. After ``interval`` seconds of silence a ping is due; if nothing arrives within
``timeout`` seconds after it, it counts as missed; after ``misses`` missed pings in a row the peer is dead
(RFC 6455 section 5.5.2 leaves the policy to the endpoint).
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Beat", "Heartbeat", "Life"]


class Life(Enum):
    """What is thought of the peer."""

    NORMAL = "normal"
    SUSPECT = "suspect"
    DEAD = "dead"


class Beat(Enum):
    """What to do now."""

    NOTHING = "nothing"
    PING = "ping"
    END = "end"


class Heartbeat:
    """The state of one peer.

    Args:
        interval: Seconds of silence before a ping.
        timeout: Seconds for any byte to arrive after it.
        misses: Missed pings in a row that make the peer dead.
        now: Present moment, in seconds.
        jitter: Part of the interval, from 0 to 1, by which the first ping comes earlier, so that a thousand peers that
            came together are not pinged together.
    """

    __slots__ = ("_interval", "_misses", "_pinged_at", "_timeout", "due", "missed", "round_trip")

    def __init__(self, interval: float, timeout: float, misses: int, now: float, jitter: float = 0.0) -> None:
        self._interval = interval
        self._timeout = timeout
        self._misses = misses
        self._pinged_at: float | None = None
        #: When ``look`` must be called next.
        self.due = now + interval * (1.0 - jitter)
        #: Pings missed in a row.
        self.missed = 0
        #: Seconds from the last answered ping to its pong; None before the first.
        self.round_trip: float | None = None

    @property
    def life(self) -> Life:
        """What is thought of the peer."""
        if self.missed >= self._misses:
            return Life.DEAD
        return Life.SUSPECT if self.missed else Life.NORMAL

    def look(self, now: float, last_byte: float) -> Beat:
        """Decide what to do at ``due`` or later.

        Args:
            now: Present moment, in seconds.
            last_byte: When the last byte arrived from the peer.
        """
        pinged_at = self._pinged_at
        if pinged_at is None:
            silent_until = last_byte + self._interval
            if silent_until > now and self.due < silent_until:
                self.due = silent_until
                return Beat.NOTHING
            return self._ping(now)
        if last_byte >= pinged_at:
            self.missed = 0
            self._pinged_at = None
            self.due = max(last_byte + self._interval, now)
            return self._ping(now) if self.due <= now else Beat.NOTHING
        self.missed += 1
        if self.missed >= self._misses:
            return Beat.END
        return self._ping(now)

    def pong(self, now: float) -> None:
        """A pong arrived."""
        if self._pinged_at is not None:
            self.round_trip = now - self._pinged_at

    def _ping(self, now: float) -> Beat:
        self._pinged_at = now
        self.due = now + self._timeout
        return Beat.PING
