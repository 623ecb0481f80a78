"""What a hub counts of itself. Whoever does something adds to a slot; nothing here is asked while messages go out."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Literal

from sojourn.scopes.used import Figures, Key, Times

__all__ = ["ROUND_TRIPS", "TRANSPORTS", "Outcome", "Stats", "Transport"]

#: How a member is connected: ``direct`` writes to the connection of Sojourn's own server.
Transport = Literal["direct", "websocket", "sse", "poll"]
#: What became of a resume: everything came, something is missing, or nothing was asked for.
Outcome = Literal["recovered", "gap", "fresh"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("direct", "websocket", "sse", "poll")
_OUTCOMES: Final[tuple[Outcome, ...]] = ("recovered", "gap", "fresh")
_POLICIES: Final = ("disconnect", "drop_oldest", "drop_newest", "block")
#: Upper bounds of the buckets of round trips, in seconds: those of ``sojourn_hub_round_trip_seconds``.
ROUND_TRIPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
#: Close codes that are told apart; an application may choose any.
_CODES: Final = 64
_ROUND_TRIP: Final[Key] = ("hub_round_trip_seconds",)

#: Slots that only grow, and the metric of each.
_COUNTS: Final = {
    "published": "hub_published_total",
    "received": "hub_received_total",
    "deliveries": "hub_deliveries_total",
    "bytes_out": "hub_bytes_total",
    "conflated": "hub_conflated_total",
    "gaps": "hub_gaps_total",
    "holes": "hub_holes_total",
    "repositioned": "hub_repositioned_total",
    "engine_losses": "hub_engine_losses_total",
}
#: Slots that go up and down, and the metric of each.
_LEVELS: Final = {
    "channels": "hub_channels",
    "present": "hub_present",
    "suspect": "hub_members_suspect",
    "slow": "hub_members_slow",
    "buffered": "hub_buffered_bytes",
    "engine_lag": "hub_engine_lag_seconds",
}


class Stats:
    """The numbers of one hub in one process.

    Attributes:
        members: Members now, by transport; all of ``TRANSPORTS`` are there.
        channels: Channels that have members here, now.
        present: Members that presence shows, once for each channel, now.
        suspect: Members that have missed a ping, now; the others are normal.
        slow: Members for whom more waits than the high watermark, now.
        buffered: Bytes that wait for all members together, now; changed by ``wait`` where it may rise.
        buffered_high: The most of ``buffered`` since it was last looked at.
        published: Publications of this process.
        received: Messages that came from members.
        deliveries: Messages handed to members: a publication to a thousand members is a thousand.
        bytes_out: Bytes of those.
        conflated: Messages that a later one of the same key took the place of, before they were sent.
        dropped: Messages that were not sent, by the policy that dropped them; ``disconnect`` and ``block``: those that
            waited for a member when it was closed for being slow.
        gaps: Gaps that members were told of.
        resumes: Channels that were joined, by what became of their ``since``.
        refused: What was refused, by the limit that was reached: names of the code, such as ``per_ip`` or ``origin``.
        closes: Members that the hub closed, by close code; 0 stands for those beyond the first 64 codes.
        holes: Publications that were missing between two that the engine delivered, and were looked for in the history.
        repositioned: Channels that were read from their position again, because the engine may have lost something.
        engine_lag: Seconds that the engine took to answer lately.
        engine_losses: How often the engine could not be reached any more.
        round_trips: Answered pings by their time; one more than ``ROUND_TRIPS`` for those above.
        round_trip_sum: Seconds of all of them.
    """

    __slots__ = (
        "_away",
        "_away_since",
        "buffered",
        "buffered_high",
        "bytes_out",
        "channels",
        "closes",
        "conflated",
        "deliveries",
        "dropped",
        "engine_lag",
        "engine_losses",
        "gaps",
        "holes",
        "members",
        "present",
        "published",
        "received",
        "refused",
        "repositioned",
        "resumes",
        "round_trip_sum",
        "round_trips",
        "slow",
        "suspect",
    )

    def __init__(self) -> None:
        self.members: dict[Transport, int] = dict.fromkeys(TRANSPORTS, 0)
        self.channels = self.present = self.suspect = self.slow = 0
        self.buffered = self.buffered_high = 0
        self.published = self.received = self.deliveries = self.bytes_out = 0
        self.conflated = self.gaps = self.holes = self.repositioned = 0
        self.dropped: dict[str, int] = dict.fromkeys(_POLICIES, 0)
        self.resumes: dict[Outcome, int] = dict.fromkeys(_OUTCOMES, 0)
        self.refused: Counter[str] = Counter()
        self.closes: Counter[int] = Counter()
        self.engine_lag = 0.0
        self.engine_losses = 0
        self.round_trips = [0] * (len(ROUND_TRIPS) + 1)
        self.round_trip_sum = 0.0
        self._away = 0.0
        self._away_since: float | None = None

    @property
    def total(self) -> int:
        """Members now, of all transports."""
        return sum(self.members.values())

    def wait(self, size: int) -> None:
        """So many bytes more wait for members; fewer: take them from ``buffered``."""
        self.buffered = buffered = self.buffered + size
        if buffered > self.buffered_high:
            self.buffered_high = buffered

    def round_trip(self, seconds: float) -> None:
        """A member has answered a ping."""
        self.round_trips[bisect_left(ROUND_TRIPS, seconds)] += 1
        self.round_trip_sum += seconds

    def closed(self, code: int) -> None:
        """The hub has closed a member. What a client closed with is not counted here: it could be anything."""
        self.closes[code if code in self.closes or len(self.closes) < _CODES else 0] += 1

    def engine_gone(self, now: float) -> None:
        """The engine can't be reached since now; telling it again changes nothing."""
        if self._away_since is None:
            self._away_since = now
            self.engine_losses += 1

    def engine_back(self, now: float) -> None:
        """It can be reached again."""
        if self._away_since is not None:
            self._away += now - self._away_since
            self._away_since = None

    def away(self, now: float) -> float | None:
        """Seconds since the engine can't be reached; None while it can."""
        return None if self._away_since is None else now - self._away_since

    def figures(self, now: float) -> Figures:
        """All of it under the names of the metrics; the highest of ``buffered`` begins anew.

        Args:
            now: Monotonic seconds, as for ``engine_gone``.
        """
        away = self.away(now) or 0.0
        counts: dict[Key, float] = {(metric,): float(getattr(self, slot)) for slot, metric in _COUNTS.items()}
        counts["hub_engine_away_seconds_total",] = self._away + away
        counts.update(self._labelled())
        levels: dict[Key, float] = {(metric,): float(getattr(self, slot)) for slot, metric in _LEVELS.items()}
        levels["hub_engine_away_for_seconds",] = away
        levels["hub_buffered_high_bytes",] = float(self.buffered_high)
        self.buffered_high = self.buffered
        levels.update({("hub_members", transport): float(number) for transport, number in self.members.items()})
        return Figures(counts, levels, {_ROUND_TRIP: Times(tuple(self.round_trips), self.round_trip_sum)})

    def _labelled(self) -> Iterator[tuple[Key, float]]:
        for policy, number in self.dropped.items():
            yield ("hub_dropped_total", policy), float(number)
        for outcome, number in self.resumes.items():
            yield ("hub_resumes_total", outcome), float(number)
        for limit, number in self.refused.items():
            yield ("hub_refused_total", limit), float(number)
        for code, number in self.closes.items():
            yield ("hub_closes_total", str(code) if code else "other"), float(number)

    def snapshot(self, now: float) -> dict[str, Any]:
        """All of it as plain values, for who asks the hub itself. Changes nothing.

        Args:
            now: Monotonic seconds, as for ``engine_gone``.
        """
        slots = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        copies = {name: dict(value) if isinstance(value, dict) else value for name, value in slots.items()}
        away = self.away(now)
        whole = {"round_trips": list(self.round_trips), "engine_away": away}
        return {**copies, **whole, "engine_away_seconds": self._away + (away or 0.0)}
