"""While the engine is away its node serves the members it has, and what they said is stored later, once, in order."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import EngineUnavailable
from sojourn.hub import outage as module
from sojourn.hub.engine import Publish, Published
from sojourn.hub.hub import Hub
from sojourn.hub.publication import Kind
from sojourn.hub.rules import Channel, History
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, Recording, in_a_loop, joined, started, turn, until


class Losing(Engine):
    """An engine that publishes, and whose answers get lost."""

    losing = 0

    async def publish(self, publish: Publish) -> Published:
        answer = await super().publish(publish)
        if self.losing:
            self.losing -= 1
            raise EngineUnavailable("the answer was lost")
        return answer


def payloads(member: Recording) -> list[bytes]:
    return [each.data for each in member.publications]


async def kept(hub: Hub) -> list[bytes]:
    return [each.data for each in (await hub.history("a")).publications]


def back(hub: Hub, engine: Engine) -> None:
    """The engine can be reached again."""
    engine.away = False
    hub.node.away(None)


@in_a_loop
async def test_members_here_get_it_at_once_without_a_number_and_it_is_stored_later_in_order() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        await hub.publish("a", 0)
        engine.away = True
        sent = [await hub.publish("a", number) for number in range(1, 5)]
        await turn()
        assert payloads(member) == [b"0", b"1", b"2", b"3", b"4"]
        assert member.seqs() == [1, 0, 0, 0, 0]
        assert {(each.stored, each.receivers) for each in sent} == {(False, 1)}
        back(hub, engine)
        await turn()
        assert await kept(hub) == [b"0", b"1", b"2", b"3", b"4"]
        assert payloads(member) == [b"0", b"1", b"2", b"3", b"4"]
        await hub.publish("a", 5)
        await turn()
        assert payloads(member)[5:] == [b"5"]


@in_a_loop
async def test_what_is_published_before_all_is_stored_comes_behind_it() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.away = True
        await hub.publish("a", 1)
        engine.away = False  # and nobody has said so yet
        assert not (await hub.publish("a", 2)).stored
        hub.node.away(None)
        await turn()
        assert (await hub.publish("a", 3)).stored
        await turn()
        assert payloads(member) == await kept(hub) == [b"1", b"2", b"3"]


@in_a_loop
async def test_nobody_gets_it_twice_when_it_comes_back_late() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.away = True
        for number in range(3):
            await hub.publish("a", number)
        engine.lagging = True
        back(hub, engine)
        await turn()
        await hub.publish("a", "new")
        engine.arrive()
        await turn()
        assert payloads(member) == [b"0", b"1", b"2", b"new"]


@in_a_loop
async def test_an_answer_that_gets_lost_stores_it_once_and_delivers_it_once() -> None:
    engine = Losing()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.away = True
        await hub.publish("a", 1)
        await hub.publish("a", 2)
        engine.losing = 1
        back(hub, engine)
        await turn()
        assert hub.node.outage.lasts
        hub.node.away(None)
        await turn()
        assert not hub.node.outage.lasts
        assert payloads(member) == await kept(hub) == [b"1", b"2"]


@in_a_loop
async def test_it_is_tried_again_by_itself() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        engine.away = True
        await hub.publish("a", 1)
        module_again = hub.node.outage._timer
        assert module_again is not None
        engine.away = False
        hub.node.outage._again()
        await turn()
        assert await kept(hub) == [b"1"]


@in_a_loop
async def test_the_same_content_of_others_is_not_taken_for_ours() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        engine.away = True
        await hub.publish("a", "ping")  # nobody here is in the channel: it never comes back to this node
        back(hub, engine)
        await turn()
        member = await joined(hub, "a")
        await hub.publish("a", "ping")
        await turn()
        assert payloads(member) == [b"ping"]


@in_a_loop
async def test_a_repeated_id_is_neither_delivered_nor_stored_twice() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        await hub.publish("a", "before", id="0")
        engine.away = True
        first, second = await hub.publish("a", "x", id="1"), await hub.publish("a", "x", id="1")
        assert (first.repeated, second.repeated) == (False, True)
        await hub.publish("a", "before", id="0")
        back(hub, engine)
        await turn()
        assert await kept(hub) == [b"before", b"x"]
        await hub.publish("a", "x")
        await hub.publish("a", "before")
        await turn()
        assert payloads(member)[-2:] == [b"x", b"before"]
        assert payloads(member).count(b"x") == 2


@in_a_loop
async def test_who_joins_meanwhile_gets_what_was_said_before_when_it_is_stored() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        first = await joined(hub, "a")
        await hub.publish("a", 0)
        place = (await hub.history("a")).position
        engine.away = True
        await hub.publish("a", 1)
        await turn()
        second = await joined(hub, "a", since=place)
        await hub.publish("a", 2)
        await turn()
        assert payloads(second) == [b"2"]
        back(hub, engine)
        await turn()
        assert payloads(first) == [b"0", b"1", b"2"]
        assert payloads(second) == [b"2", b"1"]
        third = await joined(hub, "a", since=place)
        assert payloads(third) == [b"1", b"2"]


@in_a_loop
async def test_more_than_may_wait_is_refused_and_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.away = True
        for number in range(3):
            await hub.publish("a", number)
        with pytest.raises(EngineUnavailable):
            await hub.publish("a", 3)
        await turn()
        assert len(payloads(member)) == 3
        monkeypatch.setattr(module, "_MOST_BYTES", 10)
        assert not hub.node.outage.keep(Publish("a", Kind.TEXT, b"x" * 11, History()))
        back(hub, engine)
        await turn()
        assert (await hub.publish("a", 4)).stored


@in_a_loop
async def test_a_channel_may_rather_refuse() -> None:
    engine = Engine()
    async with started(Channel("{name}", while_away="refuse", public=True), engine=engine) as hub:
        member = await joined(hub, "a")
        engine.away = True
        with pytest.raises(EngineUnavailable):
            await hub.publish("a", 1)
        await turn()
        assert payloads(member) == []
        assert not hub.node.outage.lasts
        engine.away = False
        assert (await hub.publish("a", 2)).stored


@in_a_loop
async def test_a_hub_that_ends_meanwhile_leaves_no_timer_and_no_task() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        engine.away = True
        await hub.publish("a", 1)
        outage = hub.node.outage
    assert outage._timer is None
    await until(lambda: not outage._storing)


@in_a_loop
async def test_who_is_about_to_join_when_it_is_stored_gets_it() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        await joined(hub, "a")
        await hub.publish("a", 0)
        engine.away = True
        await hub.publish("a", 1)
        engine.away = False
        opened = asyncio.Event()
        engine.answering = opened.wait
        joining = asyncio.ensure_future(joined(hub, "a", since=Cursor(engine.epoch, 0)))
        await until(lambda: engine.asked)
        await turn()
        hub.node.away(None)
        await turn()
        opened.set()
        assert payloads(await joining) == [b"0", b"1"]
