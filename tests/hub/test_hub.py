"""The life of a hub: it begins once, for nobody in particular, does the same on all nodes, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
import uvloop

from sojourn.errors import AccessDenied, DeadlineExceeded, EngineUnavailable
from sojourn.hub.engine import Receiver
from sojourn.hub.hub import Hub
from sojourn.hub.rules import Channel, History, Outbox, Presence
from sojourn.scopes.deadline import deadline, remaining
from tests.hub.memory_clients import serving
from tests.hub.nodes import two_nodes
from tests.hub.stand_ins import Engine, gone, in_a_loop, joined, pulled, started, turn, until

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="nobody's")
ALL = Channel("{name}", History(size=100), presence=Presence(batch=0), public=True)


class Slow(Engine):
    """An engine that takes its time to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.ended = 0
        self.goes_on = asyncio.Event()
        self.seen: list[Any] = []
        self.fails: list[Exception] = []

    async def start(self, receiver: Receiver) -> None:
        self.begun += 1
        self.seen.append((REQUEST.get(), remaining()))
        await self.goes_on.wait()
        if self.fails:
            raise self.fails.pop()
        await super().start(receiver)

    async def aclose(self) -> None:
        self.ended += 1
        await super().aclose()


# Its beginning


@in_a_loop
async def test_it_begins_once_however_many_need_it_at_the_same_time() -> None:
    engine = Slow()
    hub = Hub(engine, [ALL])
    asked = [asyncio.ensure_future(each) for each in (hub.start(), hub.publish("a", 1), hub.presence("a"), hub.start())]
    await turn()
    engine.goes_on.set()
    first, sent, _, last = await asyncio.gather(*asked)
    assert engine.begun == 1
    assert first is last is hub.node
    assert sent.cursor.seq == 1
    await hub.aclose()


@in_a_loop
async def test_it_begins_neither_in_the_deadline_nor_in_the_context_of_who_comes_first() -> None:
    engine = Slow()
    hub = Hub(engine, [ALL])
    REQUEST.set("the first request's")
    with pytest.raises(DeadlineExceeded):
        async with deadline(0.02, "request"):
            await hub.publish("a", 1)
    assert engine.seen == [("nobody's", None)]
    engine.goes_on.set()
    await hub.start()
    assert engine.begun == 1
    assert REQUEST not in hub.node.context
    await hub.aclose()


@in_a_loop
async def test_who_is_cancelled_while_it_begins_stops_nobody_else() -> None:
    engine = Slow()
    hub = Hub(engine, [ALL])
    first, second = (asyncio.ensure_future(hub.start()) for _ in range(2))
    await turn()
    first.cancel()
    await turn()
    assert first.cancelled()
    engine.goes_on.set()
    assert await second is hub.node
    await hub.aclose()


@in_a_loop
async def test_a_beginning_that_failed_can_be_tried_again() -> None:
    engine = Slow()
    engine.goes_on.set()
    engine.fails = [EngineUnavailable("never"), EngineUnavailable("never")]
    hub = Hub(engine, [ALL])
    with pytest.raises(EngineUnavailable):
        await hub.start()
    with pytest.raises(RuntimeError):
        _ = hub.node
    assert isinstance((await asyncio.gather(hub.start(), return_exceptions=True))[0], EngineUnavailable)
    await hub.start()
    await hub.aclose()


@in_a_loop
async def test_a_hub_that_ends_while_it_begins_ends_its_engine_too() -> None:
    engine = Slow()
    hub = Hub(engine, [ALL])
    starting = asyncio.ensure_future(hub.start())
    await turn()
    ending = asyncio.ensure_future(hub.aclose())
    await turn()
    engine.goes_on.set()
    await ending
    await asyncio.gather(starting, return_exceptions=True)
    assert engine.ended == 1
    assert not engine.available


# Its end


@in_a_loop
async def test_at_its_end_members_are_sent_away_to_come_back() -> None:
    engine = Slow()
    engine.goes_on.set()
    hub = Hub(engine, [ALL])
    async with hub:
        recording, waiting = await joined(hub, "a", user="ada"), pulled(hub)
        await hub.publish("a", "the last")
    assert recording.closed == waiting.ending == (1012, "the hub ends")
    assert [each.data for each in recording.publications] == [b"the last"]
    assert engine.ended == 1
    for call in (
        hub.start,
        lambda: hub.publish("a", 1),
        lambda: hub.send(1, user="ada"),
        lambda: hub.add("a", user="x"),
    ):
        with pytest.raises(RuntimeError, match="has ended"):
            await call()
    await hub.aclose()
    assert engine.ended == 1


@in_a_loop
async def test_two_may_end_it_at_the_same_time() -> None:
    hub = Hub(Engine(), [ALL])
    await hub.start()
    await joined(hub, "a")
    await asyncio.gather(hub.aclose(), hub.aclose())
    await hub.aclose()


@in_a_loop
async def test_cancelled_while_it_ends_it_can_be_ended_again() -> None:
    for steps in range(6):
        engine = Slow()
        engine.goes_on.set()
        hub = Hub(engine, [ALL])
        await hub.start()
        await joined(hub, "a")
        ending = asyncio.ensure_future(hub.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await hub.aclose()
        assert not engine.available


@in_a_loop
async def test_publishers_that_wait_for_room_when_it_ends_do_not_wait_for_ever() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=1, on_full="block"), public=True)) as hub:
        slow = pulled(hub)
        await hub.reception.let_in(slow, {"a": None}, lambda joined: None, None)
        for number in range(2):
            await hub.publish("a", number)
        await turn()
        waiting = asyncio.ensure_future(hub.publish("a", 3))
        await turn()
        hub.node.end([slow], 1012, "the hub ends")
        await waiting


def test_it_belongs_to_one_event_loop() -> None:
    hub = Hub(channels=[ALL])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as first, asyncio.Runner() as second:
        first.run(hub.start())  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(hub.start())  # type: ignore[arg-type]
        first.run(hub.aclose())


# Over all nodes


@in_a_loop
async def test_a_user_is_put_into_a_channel_and_out_of_it_on_all_nodes() -> None:
    async with two_nodes(ALL) as (one, two):
        here, there = await joined(one, user="ada"), await joined(two, user="ada")
        other = await joined(two, user="bob")
        assert await one.add("room", user="ada") == 1
        await until(lambda: "room" in there.topics)
        await one.publish("room", 1)
        await until(lambda: there.publications)
        await until(lambda: here.publications)
        assert {each.member for each in await two.presence("room")} == {here.id, there.id}
        assert await two.remove("room", user="ada") == 1
        await until(lambda: "room" not in here.topics)
        await two.publish("room", 2)
        await turn()
        assert other.publications == []
        assert len(here.publications) == len(there.publications) == 1
        await until(lambda: one.counts.present == two.counts.present == 0)


@in_a_loop
async def test_one_member_is_found_wherever_it_is() -> None:
    async with two_nodes(ALL) as (one, two):
        there = await joined(two, user="ada")
        assert await one.add("room", member=there.id) == 0
        await until(lambda: "room" in there.topics)
        assert await two.remove("room", member=there.id) == 1
        assert "room" not in there.topics
        assert await one.send("psst", member=there.id) == 0
        await until(lambda: there.publications)
        assert [(each.channel, each.data) for each in there.publications] == [("", b"psst")]
        assert await one.disconnect(member=there.id, user="bob") == 0  # it is not bob's
        await one.send("again", member=there.id)
        await until(lambda: len(there.publications) == 2)
        assert not there.over
        assert await one.disconnect(member=there.id) == 0
        await until(lambda: there.over)
        assert there.closed == (4503, "disconnected")
        assert two.counts.closes == {4503: 1}


@in_a_loop
async def test_words_to_a_user_reach_all_its_connections_and_those_of_nobody_else() -> None:
    async with two_nodes(ALL) as (one, two):
        mine = [await joined(one, user="ada"), await joined(one, user="ada"), await joined(two, user="ada")]
        others = [await joined(one, user="bob"), await joined(two), await joined(two, user="bob")]
        assert await one.send(b"\x00", user="ada") == 2
        assert await two.send({"a": 1}, user="ada", written=1) == 1
        await until(lambda: all(len(each.publications) == 2 for each in mine))
        assert [each.publications for each in others] == [[], [], []]
        assert await two.disconnect(user="ada", code=4502, reason="out") == 1
        await until(lambda: all(each.over for each in mine))
        assert {each.closed for each in mine} == {(4502, "out")}
        assert not any(each.over for each in others)


@in_a_loop
async def test_what_another_node_asks_that_makes_no_sense_is_let_pass() -> None:
    async with started() as hub:
        member = await joined(hub, user="ada")
        for data in (b"", b"\xff", b"\x90", b"\x94\xa3ada\xa0\xa1?\xc4\x00", b"\x91\xa3ada"):
            hub.node.told(data)
        await turn()
        assert not member.over
        assert member.publications == []


@in_a_loop
async def test_nobody_and_channels_that_there_are_not_are_refused() -> None:
    async with started(Channel("chat:{room}")) as hub:
        for call in (hub.disconnect(), hub.add("chat:1"), hub.remove("chat:1"), hub.send(1)):
            with pytest.raises(ValueError, match="user or a member"):
                await call
        for call in (hub.add("x", user="ada"), hub.remove("x", user="ada"), hub.history("x")):
            with pytest.raises(AccessDenied):
                await call
        with pytest.raises(ValueError, match="no place"):
            await hub.history("chat:1", since="?")


@in_a_loop
async def test_a_member_that_leaves_while_it_is_put_into_a_channel_is_in_none() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, user="ada")
        opened = asyncio.Event()
        engine.subscribing = opened.wait
        adding = asyncio.ensure_future(hub.add("room", user="ada"))
        await turn()
        hub.node.gone(member)
        opened.set()
        assert await adding == 1
        gone(hub)


@in_a_loop
async def test_after_all_have_left_nothing_remains() -> None:
    async with serving(ALL) as site:
        hub = site.hub
        clients = [await site.client(f"/?ch=room{number % 3}", v1=number % 2 == 0) for number in range(12)]
        streams = [await site.stream("/?ch=room1") for _ in range(3)]
        for number in range(9):
            await hub.publish(f"room{number % 3}", "x" * 300)
        await site.settle()
        assert len(hub.node.members) == 15
        for number, client in enumerate(clients):
            client.close() if number % 2 else client.peer.reset()
        for stream in streams:
            stream.peer.reset()
        await site.server.advance(2)
        gone(hub)
        assert not hub.node.presences._topics
        assert all(topic.roll is None for topic in hub.node.topics.all())
        assert hub.door._doors.__sizeof__() < 1000
        for topic in hub.node.topics.all():
            hub.node.topics._lingering[topic.channel].cancel()
            hub.node.topics._forget(topic)
        await site.settle()
        assert len(hub.node.topics) == 0
        assert hub.engine.subscribed == set()  # type: ignore[attr-defined]
