"""What is seen of a hub from outside: numbers, channels, who is slow; and members that an operator ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sojourn.bus import Bus
from sojourn.errors import EngineUnavailable
from sojourn.events import StoreAway, StoreBack
from sojourn.hub.engine import Publish
from sojourn.hub.forms import PLAIN_MESSAGES
from sojourn.hub.identity import Identity
from sojourn.hub.memory import MemoryEngine
from sojourn.hub.node import Node
from sojourn.hub.patterns import Patterns
from sojourn.hub.publication import Kind
from sojourn.hub.pulled import PulledMember
from sojourn.hub.rules import Channel, History, Outbox
from sojourn.hub.stats import Stats
from sojourn.hub.view import View
from sojourn.scopes.hubs import Hubs

RULE = Channel("chat:{room}", outbox=Outbox(max_messages=10))


class Scene:
    """A hub's part of this process, and what is seen of it."""

    def __init__(self) -> None:
        self.engine, self.stats = MemoryEngine(), Stats()
        rules: Patterns[Channel] = Patterns()
        rules.add(RULE.pattern, RULE)
        self.node = Node(self.engine, rules, self.stats)
        self.view = View("shop", self.engine, self.stats)

    async def member(self, user: str, *channels: str) -> PulledMember:
        """A member that takes nothing of what waits for it."""
        member = PulledMember(self.node, Identity(user), PLAIN_MESSAGES, "websocket", "192.0.2.7")
        self.node.admit(member)
        await self.node.joins.join(member, dict.fromkeys(channels), lambda joined: None)
        return member

    async def publish(self, channel: str, count: int) -> None:
        for number in range(count):
            await self.engine.publish(Publish(channel, Kind.TEXT, b"%d" % number, History()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def play(act: Callable[[Scene], Awaitable[Any]]) -> None:
    async def main() -> None:
        scene = Scene()
        await scene.engine.start(scene.node)
        scene.view.node = scene.node
        try:
            await act(scene)
        finally:
            for member in list(scene.node.members.values()):
                scene.node.gone(member)
            scene.node.stop()
            await scene.engine.aclose()

    asyncio.run(main())


def test_a_hub_that_has_not_begun_has_nothing_and_ends_nobody() -> None:
    view = View("shop", MemoryEngine(), Stats())
    info = asyncio.run(view.look(10))
    assert (info.name, info.engine, info.away, info.channels, info.largest) == ("shop", "memory", None, 0, [])
    assert view.figures().levels["hub_channels",] == 0.0
    assert view.disconnect_here("ada", "", 4503) == 0


def test_an_engine_that_goes_and_comes_back_is_told_once_each_with_the_reason_and_the_time() -> None:
    async def act(scene: Scene) -> None:
        bus, heard, node = Bus(), [], scene.node
        for kind in (StoreAway, StoreBack):
            bus.observe(kind, heard.append)
        scene.view.hubs, node.engine_is = Hubs(bus), scene.view.engine_is
        await scene.member("ada", "chat:1")
        node.away(None)  # as an engine says when it was reached the first time
        node.now = lambda: 100.0
        node.away(EngineUnavailable("no route to host"))
        node.away(OSError("still none"))
        node.now = lambda: 103.5
        node.away(None)
        node.away(None)
        assert heard == [
            StoreAway("hub", "shop", "memory", "no route to host", 1),
            StoreBack("hub", "shop", "memory", 3.5),
        ]

    play(act)


def test_channels_are_shown_with_their_members_the_largest_first() -> None:
    async def act(scene: Scene) -> None:
        await scene.member("ada", "chat:1", "chat:2")
        await scene.member("bob", "chat:1")
        await scene.publish("chat:1", 1)
        info = await scene.view.look(10)
        assert [(each.channel, each.members) for each in info.largest] == [("chat:1", 2), ("chat:2", 1)]
        assert info.largest[0].position == str(scene.node.topics.all()[0].epoch) + ".1"
        assert (info.members["websocket"], info.users, info.channels) == (2, 2, 2)
        assert [each.channel for each in (await scene.view.look(1)).largest] == ["chat:1"]
        assert scene.view.figures().levels["hub_channels",] == 2.0
        assert scene.view.figures().levels["hub_members", "websocket"] == 2.0

    play(act)


def test_a_channel_that_everybody_has_left_is_not_shown() -> None:
    async def act(scene: Scene) -> None:
        member = await scene.member("ada", "chat:1")
        scene.node.leave(member, "chat:1")
        assert (await scene.view.look(10)).largest == []
        assert scene.view.figures().levels["hub_channels",] == 0.0

    play(act)


def test_a_slow_member_is_named_with_what_waits_for_it() -> None:
    async def act(scene: Scene) -> None:
        member = await scene.member("ada", "chat:1")
        await scene.publish("chat:1", 2)
        assert (await scene.view.look(10)).waiting == [], "something waits, and it is not slow"
        await scene.publish("chat:1", 7)
        info = await scene.view.look(10)
        (shown,) = info.waiting
        assert (shown.member, shown.user, shown.peer, shown.transport) == (member.id, "ada", "192.0.2.7", "websocket")
        assert (shown.state, shown.channels, shown.messages, shown.bytes) == ("normal", 1, 9, member.buffered)
        assert 0.0 <= shown.waits < 5.0
        assert (await scene.view.look(0)).waiting == []
        assert info.buffered == shown.bytes > 0

    play(act)


def test_members_are_ended_by_user_or_by_id() -> None:
    async def act(scene: Scene) -> None:
        ada = [await scene.member("ada", "chat:1") for _ in range(2)]
        bob = await scene.member("bob", "chat:1")
        assert scene.view.disconnect_here("ada", bob.id, 4503) == 0
        assert scene.view.disconnect_here("ada", "", 4503) == 2
        assert [member.ending for member in ada] == [(4503, "ended by an operator")] * 2
        assert scene.view.disconnect_here("", bob.id, 4000) == 1
        assert scene.stats.closes == {4503: 2, 4000: 1}

    play(act)
