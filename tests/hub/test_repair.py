"""Repairs of a node's channels: what is told as a gap is missing for whoever is told of it, and nothing overtakes."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.hub import repair
from sojourn.hub.rules import Channel, History
from tests.hub.stand_ins import Engine, Recording, in_a_loop, joined, started, turn, until

NONE, KEPT = Channel("none"), Channel("{name}", History(size=100))


@in_a_loop
async def test_who_was_ahead_of_what_its_node_has_lost_is_told_of_no_gap() -> None:
    engine = Engine()
    async with started(NONE, KEPT, engine=engine) as hub:
        behind = await joined(hub, "none", "kept")
        engine.lagging = True
        last = (await hub.publish("none", 1)).cursor
        ahead = await joined(hub, "none", "kept", since=last)  # it has had it from another node
        await hub.publish("kept", 2)
        engine.lose()
        hub.node.lost(None)
        await turn()
        assert behind.told == [("joined", None, None), ("gap", "none", 0), ("pub", "kept", 2)]
        assert ahead.told == [("joined", True, True), ("pub", "kept", 2)]


@in_a_loop
async def test_what_came_live_of_a_channel_without_history_is_given_after_the_gap() -> None:
    engine = Engine()
    async with started(NONE, engine=engine) as hub:
        member = await joined(hub, "none")
        engine.lagging = True
        await hub.publish("none", 1)
        engine.lose()
        for number in (2, 3):
            await hub.publish("none", number)
        engine.arrive()
        await turn()
        assert member.told[1:] == [("gap", "none", 0), ("pub", "none", 2), ("pub", "none", 3)]


@in_a_loop
async def test_a_channel_that_is_opened_during_a_repair_is_not_overtaken_by_what_is_read() -> None:
    engine = Engine()
    gate = asyncio.Event()
    async with started(engine=engine) as hub:
        await joined(hub, "a")
        engine.lagging = True
        engine.reading = gate.wait
        hub.node.lost(None)
        await turn()
        member = await joined(hub, "a", "b")
        await hub.publish("b", 1)
        await hub.publish("a", 2)
        gate.set()
        await turn()
        engine.arrive()
        await turn()
        assert member.told == [("joined", None, None), ("pub", "b", 1), ("pub", "a", 2)]


@pytest.mark.parametrize("arrives", [True, False])
@in_a_loop
async def test_what_was_evicted_when_others_had_been_read_is_waited_for(arrives: bool) -> None:
    engine = Engine()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repair, "TOGETHER", 1)
        patched.setattr(repair, "_AGAIN", 5.0 if arrives else 0.02)
        async with started(NONE, KEPT, engine=engine) as hub:
            member = await joined(hub, "kept", "none")
            engine.lagging = True

            async def meanwhile() -> None:
                if engine.asked == ["kept"]:
                    await hub.publish("none", 1)

            engine.answering = meanwhile
            hub.node.lost(None)
            await turn()
            assert engine.asked == ["kept", "none"]
            assert member.told == [("joined", None, None)]
            if arrives:
                engine.arrive()
                await turn()
                assert member.told[1:] == [("pub", "none", 1)]
            else:
                engine.lose()
                await until(lambda: member.told[1:] == [("gap", "none", 0)])


@in_a_loop
async def test_more_is_lost_while_a_repair_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "TOGETHER", 1)
    engine = Engine()
    async with started(NONE, KEPT, engine=engine) as hub:
        member = Recording(hub)
        hub.reception.admit(member)
        await member.join("kept", "none")
        engine.lagging = True

        async def meanwhile() -> None:
            if engine.asked == ["kept"]:
                await hub.publish("none", 1)

        engine.answering = meanwhile
        hub.node.lost(None)
        await turn()
        engine.lose()
        hub.node.lost(None)
        await turn()
        assert engine.asked == ["kept", "none", "kept", "none"]
        assert member.told[1:] == [("gap", "none", 0)]
