"""Whether a WebSocket peer lives: normal, suspect, dead.

Any byte from the peer is life. After ``interval`` seconds of silence a ping is due; if nothing arrives within
``timeout`` seconds after it, it counts as missed; after ``misses`` missed pings in a row the peer is dead
(RFC 6455 section 5.5.2 leaves the policy to the endpoint). So a peer that vanishes is dead
``interval + misses * timeout`` seconds after its last byte.
"""

from __future__ import annotations

from enum import Enum
from math import ceil
from typing import Final

__all__ = ["Beat", "Heartbeat", "Life"]

#: Seconds between two moments at which peers are pinged.
_GRAIN: Final = 1.0


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


# To name a member of an Enum costs a call on Python 3.11, a global does not.
_NOTHING: Final = Beat.NOTHING
_PING: Final = Beat.PING


class Heartbeat:
    """The state of one peer.

    Args:
        interval: Seconds of silence before a ping.
        timeout: Seconds for any byte to arrive after it.
        misses: Missed pings in a row that make the peer dead.
        now: Present moment, in seconds.
        jitter: Part of the interval, from 0 to 1, by which the first ping comes earlier, so that a thousand peers that
            came together are not pinged together for ever.
    """

    __slots__ = ("_early", "_grain", "_interval", "_misses", "_pinged_at", "_timeout", "due", "missed", "round_trip")

    def __init__(self, interval: float, timeout: float, misses: int, now: float, jitter: float = 0.0) -> None:
        self._interval = interval
        self._grain = min(_GRAIN, interval / 20)
        self._timeout = timeout
        self._misses = misses
        # Seconds by which the silence before the first ping is shorter.
        self._early = interval * jitter
        # When the ping was sent that is not answered; None when there is none.
        self._pinged_at: float | None = None
        #: When ``look`` must be called next.
        self.due = now + interval - self._early
        #: Pings missed in a row.
        self.missed = 0
        #: Seconds from the last answered ping to its pong, to the tick; None before the first.
        self.round_trip: float | None = None

    @property
    def interval(self) -> float:
        """Seconds of silence before a ping."""
        return self._interval

    def meeting(self) -> float:
        """When to look: ``due``, put off, by a twentieth of the interval or timeout at most, to a shared moment.

        Their pings then leave in one go and their pongs are read in one go. At 5,000 peers that saves most of the
        processor time of pings one by one, which goes to waking up and to memory that has gone cold. Where interval and
        timeout are alike, a peer whose pong has come is found at the moment of its next ping, not shortly before.
        """
        grain = self._grain
        if self._pinged_at is not None and grain > self._timeout / 20:
            return self.due
        return ceil(self.due / grain) * grain

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
        if pinged_at is not None and last_byte < pinged_at:
            self.missed += 1
            return Beat.END if self.missed >= self._misses else self._ping(now)
        self._pinged_at = None
        self.missed = 0
        self.due = last_byte + self._interval - self._early
        return _NOTHING if self.due > now else self._ping(now)

    def excuse(self, now: float) -> None:
        """Its bytes were not read up to now: nothing that did not arrive is held against the peer."""
        self._pinged_at = None
        self.missed = 0
        self.due = now + self._interval

    def pong(self, now: float) -> None:
        """A pong arrived: ``due`` moves to the end of the next silence."""
        if self._pinged_at is not None:
            self.round_trip = now - self._pinged_at
            self._pinged_at = None
            self.missed = 0
            self.due = now + self._interval

    def _ping(self, now: float) -> Beat:
        self._early = 0.0
        self._pinged_at = now
        self.due = now + self._timeout
        return _PING
