"""Long poll: what came since a cursor, as soon as there is something. Nothing is held between two polls."""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sojourn.asgi.control import RequestControl
from sojourn.hub.dialects import wired
from sojourn.hub.forms import V1_MESSAGES
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.publication import Publication
from sojourn.hub.pulled import PulledMember
from sojourn.hub.resume import Joined
from sojourn.hub.topic import Topic
from sojourn.scopes.work import attend
from sojourn.typing import Receive
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub
    from sojourn.hub.node import Node

__all__ = ["Poll"]

#: Bytes of publications in one answer, about.
_ROOM: Final = 256 * 1024
#: Milliseconds between which a client polls again after an answer with something in it; they should not come together.
_RETRY: Final[tuple[int, int]] = (0, 100)


class _Polling(PulledMember):
    """A member for the time of one poll: it keeps publications, not bytes."""

    __slots__ = ("came", "gaps", "size")

    def __init__(self, node: Node, identity: Identity, address: str) -> None:
        super().__init__(node, identity, V1_MESSAGES, "poll", address)
        self.came: list[Publication] = []
        self.gaps: list[str] = []
        self.size = 0

    def deliver(self, publications: object) -> None:
        for publication in publications:  # type: ignore[attr-defined]  # a sequence of them, as in the base
            if self.size < _ROOM:
                self.came.append(publication)
                self.size += len(publication.data)
        self.wake_up()

    def hold_gap(self, topic: Topic, cursor: Cursor) -> None:
        self.gaps.append(topic.channel)
        self.wake_up()

    def deliver_state(self, topic: Topic, state: Publication, cursor: Cursor) -> None:
        self.hold_gap(topic, cursor)  # a poll has no word for it: its client loads the state itself

    def wake_up(self) -> None:
        """Something has come."""
        if not self.finished.done():
            self.finished.set_result(None)


class Poll:
    """One poll.

    Args:
        hub: The hub.
        identity: Who asks.
        wanted: Channels, each with the place its client was at.
        seconds: How long it may wait.
    """

    def __init__(self, hub: Hub, identity: Identity, wanted: Mapping[str, Cursor | None], seconds: float) -> None:
        self._hub = hub
        self._identity = identity
        self._wanted = wanted
        self._seconds = seconds

    async def answer(self, caller: Caller, receive: Receive) -> wire.Polled:
        """What has come since then; waits until something does, the time is over, or the server stops.

        Args:
            caller: The request.
            receive: Of ASGI.

        Raises:
            EngineUnavailable: It can't be found out.

        Cancel: safe.
        """
        hub = self._hub
        node = hub.node
        member = _Polling(node, self._identity, caller.address)
        told: list[Joined] = []
        retry = _RETRY
        try:
            hub.reception.admit(member)
            if self._wanted:
                await hub.reception.let_in(member, self._wanted, told.extend, None)
            place = min((each.has for each in told), key=lambda each: each.seq) if told else await hub.reception.place()
            if not member.came and not member.gaps and any(self._wanted.values()):
                control = (caller.scope.get("extensions") or {}).get("sojourn")
                draining = control.draining if isinstance(control, RequestControl) else None
                # A server of ours cancels us when the client has left; others only say so.
                ends = _left(receive) if draining is None else draining.wait()
                watch = attend(ends, "hub poll")
                try:
                    await asyncio.wait((member.finished, watch), timeout=self._seconds, return_when=FIRST_COMPLETED)
                finally:
                    watch.cancel()
                if draining is not None and draining.is_set():
                    retry = hub.drain.retry
            if member.came:
                last = member.came[-1].cursor
                if last.seq > place.seq or last.epoch != place.epoch or member.size >= _ROOM:
                    place = last
            pubs = [said for each in member.came if isinstance(said := wired(each), wire.Publication)]
            return wire.Polled(str(place), pubs, member.gaps, retry)
        finally:
            node.gone(member)


async def _left(receive: Receive) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True
