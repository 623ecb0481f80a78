"""Channels of a node: delivered in order, a hole is seen and repaired, and nobody is left subscribed by accident."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import EngineUnavailable
from sojourn.hub import repair
from sojourn.hub import topics as module
from sojourn.hub.rules import Channel, History
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, Recording, gone, in_a_loop, joined, started, turn, until


@in_a_loop
async def test_a_hole_in_the_stream_is_repaired_from_history() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        await hub.publish("a", 1)
        engine.lagging = True
        for _ in range(2):
            await hub.publish("a", 2)
        engine.lose()
        for _ in range(3):
            await hub.publish("a", 3)
        engine.arrive()
        await until(lambda: len(member.seqs()) == 6)
        assert member.told == [("joined", None), *(("pub", "a", seq) for seq in range(1, 7))]
        assert hub.counts.holes == 1


@in_a_loop
async def test_a_hole_that_history_does_not_fill_is_told_as_a_gap() -> None:
    engine = Engine()
    async with started(Channel("{name}", History(size=2)), engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        for _ in range(4):
            await hub.publish("a", 1)
        engine.lose()
        await hub.publish("a", 2)
        engine.arrive()
        await turn()
        assert member.told == [("joined", None), ("gap", "a", 0), ("pub", "a", 4), ("pub", "a", 5)]


@in_a_loop
async def test_what_comes_twice_is_delivered_once() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        for _ in range(3):
            await hub.publish("a", 1)
        engine.on_way.extend(list(engine.on_way))
        engine.arrive()
        await turn()
        assert member.seqs() == [1, 2, 3]


@in_a_loop
async def test_a_loss_that_the_engine_tells_of_is_repaired_though_nothing_more_comes() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        members = [await joined(hub, name) for name in "abc"]
        engine.lagging = True
        for name in "abcabc":
            await hub.publish(name, 1)
        engine.lose()
        hub.node.lost(["a"])
        await turn()
        # Others are read as well: who is in several channels must not get the later one first.
        assert [each.seqs() for each in members] == [[1, 4], [2, 5], [3, 6]]
        hub.node.lost(None)
        await turn()
        assert [each.seqs() for each in members] == [[1, 4], [2, 5], [3, 6]]
        assert all(each.told[0] == ("joined", None) and len(each.told) == 3 for each in members)


@in_a_loop
async def test_what_comes_during_a_repair_comes_after_it() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        gate = asyncio.Event()
        engine.answering = gate.wait
        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        engine.lagging = False
        hub.node.lost(None)
        await turn()
        for _ in range(3):
            await hub.publish("a", 2)
        await turn()
        assert member.seqs() == []
        gate.set()
        await turn()
        assert member.seqs() == [1, 2, 3, 4]


@in_a_loop
async def test_a_repair_waits_for_an_engine_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_AGAIN", 0.01)
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        engine.away = True
        hub.node.lost(None)
        await until(lambda: len(engine.asked) >= 3)
        assert member.seqs() == []
        engine.away = False
        await until(lambda: member.seqs() == [1])


@in_a_loop
async def test_more_than_may_be_held_during_a_repair_is_read_from_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_HELD", 5)
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        gate = asyncio.Event()
        engine.answering = gate.wait
        hub.node.lost(None)
        await turn()
        for _ in range(20):
            await hub.publish("a", 1)
        gate.set()
        await until(lambda: len(member.seqs()) == 20)
        assert member.told == [("joined", None), *(("pub", "a", seq) for seq in range(1, 21))]


@in_a_loop
async def test_a_store_that_has_forgotten_is_a_gap_for_everybody() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        await hub.publish("a", 1)
        engine.forget()
        await hub.publish("a", 2)
        await turn()
        assert [each[0] for each in member.told] == ["joined", "pub", "gap", "pub"]
        assert member.publications[-1].epoch != member.publications[0].epoch


@in_a_loop
async def test_what_is_held_of_an_epoch_that_is_over_does_not_keep_a_repair_busy() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        for _ in range(3):
            await hub.publish("a", 1)
        engine.on_way.popleft()
        engine.arrive()  # a hole: two are held
        engine.forget()
        engine.lagging = False
        await turn()
        await hub.publish("a", 2)
        await until(lambda: member.publications and member.publications[-1].data == b"2")
        asked = len(engine.asked)
        for _ in range(20):
            await turn()
        assert len(engine.asked) == asked < 8
        assert [each[0] for each in member.told][:2] == ["joined", "gap"]


@in_a_loop
async def test_the_state_comes_before_what_follows_a_gap() -> None:
    engine = Engine()
    async with started(Channel("{name}"), engine=engine) as hub:
        member = await joined(hub, "a")
        made = asyncio.Event()

        @hub.snapshot("{name}")
        async def state(name: str) -> str:
            await made.wait()
            return f"state of {name}"

        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        engine.lagging = False
        await hub.publish("a", 2)
        await turn()
        await hub.publish("a", 3)
        await turn()
        assert member.told == [("joined", None)]
        made.set()
        await turn()
        assert member.told[1:] == [("state", "a", b"state of a"), ("pub", "a", 3)]


@in_a_loop
async def test_what_comes_of_other_channels_during_a_repair_comes_in_order() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a", "b")
        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        await hub.publish("a", 2)
        await hub.publish("b", 3)
        await hub.publish("a", 4)
        engine.arrive()
        await turn()
        assert member.seqs() == [1, 2, 3, 4]


@in_a_loop
async def test_a_loss_while_a_channel_is_subscribed_is_repaired_afterwards() -> None:
    engine = Engine()

    async def meanwhile() -> None:
        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        engine.lagging = False
        hub.node.lost(None)

    engine.subscribing = meanwhile
    async with started(engine=engine) as hub:
        member = await joined(hub, "a", since=await engine.position())
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_an_engine_that_breaks_its_promise_stops_no_channel_for_ever() -> None:
    failures = []
    engine = Engine()

    async def broken() -> None:
        raise LookupError("a bug")

    async with started(engine=engine) as hub:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
        member = await joined(hub, "a")
        engine.reading = broken
        hub.node.lost(None)
        await turn()
        assert isinstance(failures[0], LookupError)
        await hub.publish("a", 1)
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_a_channel_is_subscribed_once_for_all_who_come_together() -> None:
    engine = Engine()
    gate = asyncio.Event()
    calls = []

    async def slowly() -> None:
        calls.append(1)
        await gate.wait()

    engine.subscribing = slowly
    async with started(engine=engine) as hub:
        members = []
        for _ in range(3):
            member = Recording(hub)
            hub.reception.admit(member)
            members.append(asyncio.ensure_future(member.join("a")))
        await turn()
        gate.set()
        await asyncio.gather(*members)
        assert len(calls) == 1
        (topic,) = hub.node.topics.all()
        assert topic.users == topic.size == 3


@in_a_loop
async def test_who_waits_for_a_subscription_does_not_lose_it_with_the_first_who_asked() -> None:
    engine = Engine()
    gate = asyncio.Event()
    engine.subscribing = gate.wait
    async with started(engine=engine) as hub:
        members = [Recording(hub) for _ in range(3)]
        for each in members:
            hub.reception.admit(each)
        joins = [asyncio.ensure_future(each.join("a")) for each in members]
        await turn()
        joins[0].cancel()
        await turn()
        gate.set()
        await asyncio.wait(joins)
        assert [each.cancelled() for each in joins] == [True, False, False]
        assert hub.node.topics.all()[0].users == 2


@in_a_loop
async def test_all_who_wait_for_a_subscription_hear_that_it_failed() -> None:
    engine = Engine()
    gate = asyncio.Event()

    async def failing() -> None:
        await gate.wait()
        raise EngineUnavailable("gone")

    engine.subscribing = failing
    async with started(engine=engine) as hub:
        members = [Recording(hub) for _ in range(3)]
        for each in members:
            hub.reception.admit(each)
        joins = [asyncio.ensure_future(each.join("a")) for each in members]
        await turn()
        gate.set()
        await asyncio.wait(joins)
        assert all(isinstance(each.exception(), EngineUnavailable) for each in joins)
        assert not hub.node.topics.all()


@in_a_loop
async def test_what_comes_before_a_subscription_is_confirmed_is_not_lost() -> None:
    engine = Engine()

    async def meanwhile() -> None:
        await hub.publish("a", "early")

    engine.subscribing = meanwhile
    async with started(engine=engine) as hub:
        member = await joined(hub, "a", since=await engine.position())
        await turn()
        assert member.told == [("joined", True), ("pub", "a", 1)]


@in_a_loop
async def test_a_channel_that_nobody_is_in_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.01)
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        hub.node.leave(member, "a")
        assert engine.subscribed == {"a"}
        await until(lambda: not engine.subscribed)
        assert not hub.node.topics.all()


@in_a_loop
async def test_a_channel_is_kept_for_those_who_come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.01)
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        hub.node.leave(member, "a")
        await member.join("a")
        await asyncio.sleep(0.03)
        await hub.publish("a", 1)
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_who_comes_while_a_channel_is_given_up_is_subscribed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.0)
    engine = Engine()
    gate = asyncio.Event()
    give_up = engine.unsubscribe

    async def slowly(channel: str) -> None:
        await gate.wait()
        await give_up(channel)

    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        monkeypatch.setattr(engine, "unsubscribe", slowly)
        hub.node.leave(member, "a")
        await until(lambda: not hub.node.topics.all())
        joining = asyncio.ensure_future(member.join("a"))
        await turn()
        assert not joining.done()
        gate.set()
        await joining
        await hub.publish("a", 1)
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_a_hub_that_ends_leaves_no_timers_and_no_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_AGAIN", 0.0)
    engine = Engine()
    async with started(engine=engine) as hub:
        node = hub.node
        await joined(hub, "a")
        engine.away = True
        node.lost(None)
        await turn()
    engine.away = False
    asked = len(engine.asked)
    await asyncio.sleep(0.02)
    assert len(engine.asked) <= asked + 1
    assert not node.topics.all()
    gone(hub_of(hub, node))


def hub_of(hub: object, node: object) -> object:
    """A hub that has ended, with the node it had, to look at what is left."""

    class Ended:
        counts = hub.counts  # type: ignore[attr-defined]

    ended = Ended()
    ended.node = node  # type: ignore[attr-defined]
    return ended


@in_a_loop
async def test_a_publication_that_is_awaited_is_told_when_it_has_come_by_a_repair() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        publishing = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        engine.lose()
        hub.node.lost(None)
        assert (await publishing).written is True
        assert member.seqs() == [1]
        assert not hub.node.topics._reaching


@in_a_loop
async def test_a_publication_that_does_not_come_in_time_is_not_written() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        await joined(hub, "a")
        engine.lagging = True
        sent = await hub.publish("a", 1, written=0.01)
        assert (sent.written, sent.receivers) == (False, 1)
        assert not hub.node.topics._reaching


@in_a_loop
async def test_the_place_of_a_node_is_that_of_all_its_channels() -> None:
    async with started() as hub:
        await joined(hub, "a")
        await joined(hub, "b")
        await hub.publish("a", 1)
        last = (await hub.publish("b", 1)).cursor
        topic = hub.node.topics.get("a")
        assert topic is not None
        assert hub.node.topics.covered(topic) == last == Cursor(last.epoch, 2)
