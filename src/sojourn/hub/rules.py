"""What a hub allows and keeps: the settings of its channels, its members and itself.

All of it is checked once, when the hub is made.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sojourn.errors import ConfigError
from sojourn.hub.patterns import Pattern

__all__ = ["Channel", "History", "HubDrain", "HubLimits", "HubPing", "OnFull", "Outbox", "Presence"]

OnFull = Literal["disconnect", "latest", "drop_oldest", "drop_newest", "block"]


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    def _require(self, right: bool, text: str) -> None:
        if not right:
            raise ConfigError(f"{type(self).__name__}: {text}")


class History(_Rule, frozen=True, kw_only=True):
    """What is kept of a channel for those who come back.

    Args:
        size: Publications at most; 0 keeps none.
        ttl: Seconds for which each is kept.
        mode: ``stream``: who comes back gets all that came meanwhile, or is told of a gap. ``latest``: gets the latest
            value of each key, and there are no gaps.
    """

    size: int = 0
    ttl: float = 300.0
    mode: Literal["stream", "latest"] = "stream"

    def __post_init__(self) -> None:
        self._require(self.size >= 0, f"size is no number of publications: {self.size!r}")
        self._require(self.ttl > 0, f"ttl must be above zero, not {self.ttl!r}")
        self._require(self.mode != "latest" or self.size > 0, "mode='latest' keeps at least one: size=1 or more")


class Outbox(_Rule, frozen=True, kw_only=True):
    """How much may wait for one member, and what happens when that is too little. Whichever bound is reached first.

    Args:
        max_bytes: Bytes, as they are sent.
        max_messages: Publications.
        max_age: Seconds that the oldest may wait.
        on_full: ``disconnect``: the member is closed with 4008, comes back and resumes. ``latest``: only the latest of
            each key waits. ``drop_oldest``, ``drop_newest``: those are dropped, and a gap notice says so. ``block``:
            who publishes in this process waits up to ``wait`` seconds, then the member is closed.
        key: Field of a JSON object that ``latest`` takes as the key; None: the ``key`` it was published with.
        low: Part of the bounds below which a member that was slow counts as caught up.
        high: Part of the bounds above which a member counts as slow.
        wait: Seconds, for ``block``.
    """

    max_bytes: int = 1024 * 1024
    max_messages: int = 1024
    max_age: float = 10.0
    on_full: OnFull = "disconnect"
    key: str | None = None
    low: float = 0.25
    high: float = 0.75
    wait: float = 5.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_messages", "max_age", "wait"):
            self._require(getattr(self, name) > 0, f"{name} must be above zero, not {getattr(self, name)!r}")
        self._require(0 <= self.low < self.high <= 1, "0 <= low < high <= 1")
        self._require(self.key is None or self.on_full == "latest", "key is for on_full='latest'")


class Presence(_Rule, frozen=True, kw_only=True):
    """Who is in a channel, shown to those who may see it.

    Args:
        ttl: Seconds after which members of a node that is gone are gone too; renewed by their node each third of it.
        batch: Seconds for which joins and leaves are gathered before they are told.
        events: Whether members are told of joins and leaves.
    """

    ttl: float = 60.0
    batch: float = 0.25
    events: bool = True

    def __post_init__(self) -> None:
        self._require(self.ttl >= 1, f"ttl is at least a second, not {self.ttl!r}")
        self._require(self.batch >= 0, f"batch is no number of seconds: {self.batch!r}")


class Channel(_Rule, frozen=True):
    """The rule of all channels that match a pattern.

    Args:
        pattern: Such as ``chat:{room}``; a parameter stands for one or more characters without ``:``.
        history: What is kept for those who come back.
        outbox: How much of it may wait for one member.
        presence: None: nobody is told who is there.
        public: Whether clients may join without being asked about (:meth:`sojourn.Hub.authorize`).
        publish: Whether clients that are in it may publish without being asked about.
        while_away: While the engine is away: ``local``: the members of this node get it, and it is stored when the
            engine is back. ``refuse``: publishing fails.
    """

    pattern: str
    history: History = History()
    outbox: Outbox = Outbox()
    presence: Presence | None = None
    public: bool = False
    publish: bool = False
    while_away: Literal["local", "refuse"] = "local"

    def __post_init__(self) -> None:
        Pattern(self.pattern)
        lossy = self.outbox.on_full in ("latest", "drop_oldest", "drop_newest")
        exact = self.history.size > 0 and self.history.mode == "stream"
        self._require(
            not (lossy and exact),
            f"{self.pattern!r} drops messages ({self.outbox.on_full}) and promises all of them (history): take "
            "on_full='disconnect' or 'block', or history mode='latest'",
        )


class HubPing(_Rule, frozen=True, kw_only=True):
    """How a member proves that it lives. Any byte from it counts.

    Args:
        every: Seconds of silence before a ping.
        pong_within: Seconds for any byte to arrive after it.
        misses: Missed pings in a row that make it dead; after the first it is suspect.
    """

    every: float = 25.0
    pong_within: float = 8.0
    misses: int = 2

    def __post_init__(self) -> None:
        self._require(self.every > 0 and self.pong_within > 0 and self.misses > 0, "all are above zero")


class HubLimits(_Rule, frozen=True, kw_only=True):
    """How much of anything there may be. None is no limit.

    Args:
        total: Members of this process.
        per_ip: Members of one client address, in this process.
        per_user: Members of one user, in this process.
        channels: Channels of one member.
        connect_rate: Members that may come in a second, in this process; twice as many in a burst.
        inbound_rate: Messages of one member in a second, on average.
        inbound_burst: Messages of one member that may come at once.
        on_rate: Who says more: ``throttle``, nothing more is read of it for a while; ``close``, with 4029.
        message: Bytes of one message of a member.
        auth_within: Seconds for a member to say who it is.
        buffered: Bytes that wait for all members of this process together, above which publishing waits or fails.
    """

    total: int | None = 100_000
    per_ip: int | None = None
    per_user: int | None = None
    channels: int = 128
    connect_rate: float | None = 500.0
    inbound_rate: float = 50.0
    inbound_burst: int = 100
    on_rate: Literal["throttle", "close"] = "throttle"
    message: int = 65_536
    auth_within: float = 10.0
    buffered: int | None = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            self._require(
                value is None or isinstance(value, str) or value > 0, f"{name} must be above zero, not {value!r}"
            )


class HubDrain(_Rule, frozen=True, kw_only=True):
    """How members are sent away when the server stops.

    Args:
        retry: Range of milliseconds after which they come back, each at a random moment in it.
    """

    retry: tuple[int, int] = (500, 8000)

    def __post_init__(self) -> None:
        self._require(0 <= self.retry[0] <= self.retry[1], f"retry is a range of milliseconds, not {self.retry!r}")
