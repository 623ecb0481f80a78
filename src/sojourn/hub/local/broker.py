"""The broker: one log and one roster for all workers of a host. It opens nothing; `serving` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from sojourn.errors import ConfigError
from sojourn.hub.engine import Publish, Published, Wanted
from sojourn.hub.local.messages import (
    VERSION,
    Bye,
    Change,
    Count,
    Enter,
    Hello,
    Join,
    Kept,
    Leave,
    News,
    Part,
    Put,
    Read,
    Refresh,
    Request,
    Tell,
    Where,
    Who,
    Word,
    frame,
)
from sojourn.hub.log import Log
from sojourn.hub.roster import Roster
from sojourn.hub.rules import History
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Broker", "Peer", "Refused"]

#: Seconds for a worker whose connection was lost to come back, before its members are gone.
GRACE: Final = 1.0
#: Channels that all workers together can have delivered, each counted once for each of them.
_MOST_JOINED: Final = 2_000_000
#: Bytes of payload in one page of history; the rest comes with the next page.
_PAGE: Final = 4 * 1024 * 1024
#: Rules of history that are remembered: a hub has a handful.
_RULES: Final = 1000


class Refused(Exception):
    """What was asked for is not done; the text says why."""


class Peer(Protocol):
    """The connection to one worker, as the broker sees it."""

    node: str

    def send(self, data: bytes) -> None:
        """Write a message, or cut the connection when too much waits already. Never waits, raises nothing."""

    def cut(self) -> None:
        """Close it at once."""


class Broker:
    """Orders and keeps what the workers publish, and knows who is present.

    Args:
        epoch: Names the life of what it keeps.
        size: Bytes of publications that are kept at most.

    Attributes:
        log: What was published.
        roster: Who is present.
        pause: Seconds between two sweeps: as many as the shortest ttl of members needs.
    """

    def __init__(self, epoch: str, *, size: int = 256 * 1024 * 1024) -> None:
        self.log = Log(epoch, size=size)
        self.roster = Roster()
        self.pause = 1.0
        self.now = 0.0
        self._peers: dict[str, Peer] = {}
        #: Who has which channels delivered, in both directions.
        self._listeners: dict[str, dict[Peer, None]] = {}
        self._joined: dict[Peer, dict[str, None]] = {}
        self._total = 0
        #: Nodes whose connection was lost, with the moment at which they are given up.
        self._missed: dict[str, float] = {}
        self._rules: dict[tuple[int, float, str], History] = {}
        self._calls: dict[type[Request], Callable[[Peer, Any], Any]] = {
            Put: self._put,
            Join: self._join,
            Part: self._part,
            Where: self._where,
            Read: self._read,
            Tell: self._tell,
            Enter: self._enter,
            Leave: self._leave,
            Refresh: self._refresh,
            Who: self._who,
            Count: self._count,
            Bye: self._bye,
        }

    def __len__(self) -> int:
        return len(self._peers)

    def greet(self, peer: Peer, hello: Hello, now: float) -> Any:
        """A worker has come, or has come back.

        Args:
            peer: Its connection.
            hello: Who it is.
            now: The present moment.

        Returns:
            The answer.

        Raises:
            Refused: It speaks another version, or has been greeted.
        """
        if peer.node:
            raise Refused("hello was said before")
        if hello.version != VERSION:
            raise Refused(f"the broker speaks version {VERSION}, not {hello.version}: start all of it anew")
        self.now = now
        before = self._peers.pop(hello.node, None)
        if before is not None:  # it is back before its end was noticed
            self.lost(before, now)
            before.cut()
        peer.node = hello.node
        self._peers[hello.node] = peer
        self._joined[peer] = {}
        self._missed.pop(hello.node, None)
        return self._where(peer, hello)

    def handle(self, peer: Peer, request: Request, now: float) -> Any:
        """Do what a worker asks.

        Returns:
            The answer.

        Raises:
            Refused: It is not done.
        """
        self.now = now
        return self._calls[type(request)](peer, request)

    def lost(self, peer: Peer, now: float) -> None:
        """A connection is gone. Calling it again does nothing."""
        joined = self._joined.pop(peer, None)
        if joined is None:
            return
        self._unlisten(peer, joined)
        if self._peers.get(peer.node) is peer:
            del self._peers[peer.node]
            self._missed[peer.node] = now + GRACE

    def sweep(self, now: float) -> None:
        """Let go what is over; to be called each ``pause`` seconds."""
        self.now = now
        for node in [node for node, moment in self._missed.items() if moment <= now]:
            del self._missed[node]
            self._tell_left(node, self.roster.gone(node))
        for node, left in self.roster.expire(now).items():
            self._tell_left(node, left)
        self.log.sweep(now, self._listeners)

    # Publications

    def _put(self, peer: Peer, asked: Put) -> Any:
        rule = self._rule(asked)
        made = self.log.publish(Publish(asked.channel, asked.kind, asked.data, rule, asked.key, asked.id), self.now)
        if isinstance(made, Published):
            return (*made.cursor, True)
        listeners = self._listeners.get(asked.channel)
        if listeners:
            _send(listeners, News.of(made))
        return made.epoch, made.seq, False

    def _rule(self, asked: Put | Kept) -> History:
        key = (asked.size, asked.ttl, asked.mode)
        rule = self._rules.get(key)
        if rule is None:
            if len(self._rules) >= _RULES:
                self._rules.clear()
            try:
                rule = History(size=asked.size, ttl=asked.ttl, mode=asked.mode)
            except ConfigError as error:
                raise Refused(str(error)) from None
            self._rules[key] = rule
        return rule

    def _join(self, peer: Peer, asked: Join) -> Any:
        joined = self._joined[peer]
        if self._total + len(asked.channels) > _MOST_JOINED:
            raise Refused(f"{_MOST_JOINED} channels are delivered already: that is the bound")
        for channel in asked.channels:
            if channel not in joined:
                joined[channel] = None
                self._listeners.setdefault(channel, {})[peer] = None
                self._total += 1
        return self._where(peer, asked)

    def _part(self, peer: Peer, asked: Part) -> Any:
        joined = self._joined[peer]
        known = [channel for channel in asked.channels if channel in joined]
        self._unlisten(peer, known)
        for channel in known:
            del joined[channel]
        return None

    def _unlisten(self, peer: Peer, channels: Iterable[str]) -> None:
        for channel in channels:
            self._total -= 1
            listeners = self._listeners[channel]
            del listeners[peer]
            if not listeners:
                del self._listeners[channel]

    def _where(self, peer: Peer, asked: Request) -> Any:
        return self.log.position

    def _read(self, peer: Peer, asked: Read) -> Any:
        wanted = [
            Wanted(each.channel, None if each.since is None else Cursor(*each.since), self._rule(each))
            for each in asked.wanted
        ]
        page = self.log.page(wanted, asked.limit, self.now)
        taken: list[News] = []
        size = 0
        for publication in page.publications:
            size += len(publication.data)
            if taken and size > _PAGE:
                return taken, *page.publications[len(taken) - 1].cursor, page.lost, True
            taken.append(News.of(publication))
        return taken, *page.position, page.lost, page.more

    # Words and members

    def _tell(self, peer: Peer, asked: Tell) -> Any:
        _send((other for other in self._peers.values() if other is not peer), Word(asked.data))
        return None

    def _enter(self, peer: Peer, asked: Enter) -> Any:
        came = self.roster.enter(peer.node, asked.channel, asked.members, asked.ttl, self.now)
        self.pause = min(self.pause, max(asked.ttl / 4, 0.05))
        if came:
            _send(self._others(asked.channel, peer.node), Change(asked.channel, came, []))
        return None

    def _leave(self, peer: Peer, asked: Leave) -> Any:
        left = self.roster.leave(peer.node, asked.channel, asked.members)
        if left:
            self._tell_left(peer.node, {asked.channel: left})
        return None

    def _refresh(self, peer: Peer, asked: Refresh) -> Any:
        return self.roster.refresh(peer.node, asked.present, asked.ttl, self.now)

    def _who(self, peer: Peer, asked: Who) -> Any:
        return self.roster.present(asked.channel, asked.limit)

    def _count(self, peer: Peer, asked: Count) -> Any:
        return self.roster.count(asked.channel)

    def _bye(self, peer: Peer, asked: Bye) -> Any:
        self._tell_left(peer.node, self.roster.gone(peer.node))
        return None

    def _tell_left(self, node: str, left: Mapping[str, list[str]]) -> None:
        for channel, members in left.items():
            _send(self._others(channel, node), Change(channel, [], members))

    def _others(self, channel: str, node: str) -> Iterator[Peer]:
        return (peer for peer in self._listeners.get(channel, ()) if peer.node != node)


def _send(peers: Iterable[Peer], message: msgspec.Struct) -> None:
    """Write one message to many; it is encoded once, if there is anybody."""
    data = b""
    for peer in peers:
        data = data or frame(message)
        peer.send(data)
