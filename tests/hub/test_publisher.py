"""Publishing: what the answer says, what is awaited, and what a repetition is."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import AccessDenied
from sojourn.hub.rules import Channel, Outbox
from tests.hub.stand_ins import Engine, gone, in_a_loop, joined, pulled, started, turn, until

MUCH = 100_000


@in_a_loop
async def test_the_answer_names_the_place_and_how_many_get_it_here() -> None:
    async with started() as hub:
        await joined(hub, "a")
        await joined(hub, "a", "b")
        sent = await hub.publish("a", 1)
        assert (sent.cursor.seq, sent.receivers, sent.repeated, sent.written, sent.stored) == (1, 2, False, None, True)
        assert (await hub.publish("b", 1)).receivers == 1
        assert (await hub.publish("c", 1)).receivers == 0
        assert hub.counts.published == 3


@in_a_loop
async def test_a_repeated_id_is_not_published_again() -> None:
    async with started() as hub:
        member = await joined(hub, "a")
        first = await hub.publish("a", 1, id="x")
        again = await hub.publish("a", 1, id="x")
        assert (first.repeated, again.repeated) == (False, True)
        assert again.cursor == first.cursor
        assert (await hub.publish("a", 1, id="x", written=1)).written
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_a_channel_that_there_is_not_and_a_payload_that_can_not_be_are_refused() -> None:
    async with started(Channel("chat:{room}")) as hub:
        with pytest.raises(AccessDenied):
            await hub.publish("price:1", 1)
        for payload in (object(), "\ud800", {1j: 2}):
            with pytest.raises(ValueError, match=r"JSON|Unicode|utf"):
                await hub.publish("chat:1", payload)
        with pytest.raises(ValueError, match="user or a member"):
            await hub.send(1)
        assert (await hub.publish("chat:1", 1)).cursor.seq == 1


@in_a_loop
async def test_written_waits_until_all_members_here_have_it() -> None:
    async with started() as hub:
        slow, other = pulled(hub), pulled(hub)
        for member in (slow, other):
            await hub.reception.let_in(member, {"a": None}, lambda joined: None, None)
        sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        assert len(await other.next(MUCH)) == 1
        await turn()
        assert not sending.done()
        assert len(await slow.next(MUCH)) == 1
        assert (await sending).written is True


@in_a_loop
async def test_written_is_about_this_message_and_not_about_those_behind_it() -> None:
    async with started() as hub:
        slow, other = pulled(hub), pulled(hub)
        for member in (slow, other):
            await hub.reception.let_in(member, {"a": None}, lambda joined: None, None)
        sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        await hub.publish("a", 2)
        await turn()
        slow.taken(1)
        other.taken(1)
        assert (await sending).written is True


@in_a_loop
async def test_written_is_false_when_somebody_has_not_taken_it_in_time_or_has_left() -> None:
    async with started() as hub:
        slow = pulled(hub)
        await hub.reception.let_in(slow, {"a": None}, lambda joined: None, None)
        assert (await hub.publish("a", 1, written=0.02)).written is False
        sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        hub.node.gone(slow)
        assert (await sending).written is False
        assert (await hub.publish("a", 1, written=0.02)).written is True  # nobody is there who has not


@in_a_loop
async def test_written_waits_for_what_is_on_its_way_from_the_engine() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        member = await joined(hub, "a")
        engine.lagging = True
        sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        assert not sending.done()
        engine.arrive()
        assert (await sending).written is True
        assert member.seqs() == [1]  # the turn was not waited for
        assert (await hub.publish("a", 1, written=0.02)).written is False
        assert hub.node.topics._reaching == []


@in_a_loop
async def test_what_is_dropped_by_the_rule_of_the_channel_is_not_waited_for() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=1, on_full="drop_oldest"), public=True)) as hub:
        slow = pulled(hub)
        await hub.reception.let_in(slow, {"a": None}, lambda joined: None, None)
        sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
        await turn()
        await hub.publish("a", 2)
        await turn()
        assert len(await slow.next(MUCH)) == 2
        await until(sending.done)
        assert sending.result().written is True


@in_a_loop
async def test_send_counts_those_who_had_it_in_time_though_others_had_not() -> None:
    async with started() as hub:
        members = [pulled(hub, "ada") for _ in range(3)]
        assert await hub.send(1, user="ada") == 3
        for member in members:
            await member.next(MUCH)
        sending = asyncio.ensure_future(hub.send(2, user="ada", written=0.03))
        await turn()
        for member in members[1:]:
            await member.next(MUCH)
        assert await sending == 2
        assert await hub.send(3, user="nobody") == 0
        assert await hub.send(3, member=members[0].id) == 1


@in_a_loop
async def test_cancelled_at_any_await_it_leaves_nothing_behind() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        for lagging in (False, True):
            slow = pulled(hub)
            await hub.reception.let_in(slow, {"a": None}, lambda joined: None, None)
            engine.lagging = lagging
            for steps in range(6):
                sending = asyncio.ensure_future(hub.publish("a", 1, written=5))
                for _ in range(steps):
                    await asyncio.sleep(0)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
            engine.arrive()
            await turn()
            assert hub.node.topics._reaching == []
            hub.node.gone(slow)
        gone(hub)


@in_a_loop
async def test_who_does_not_wait_is_told_later_whether_all_had_it_in_time() -> None:
    async with started() as hub:
        member = pulled(hub)
        await hub.reception.let_in(member, {"a": None}, lambda joined: None, None)
        told: list[bool] = []
        assert (await hub.publish("a", 1, confirm=told.append)).written is None
        assert await hub.send(2, member=member.id, confirm=told.append) == 1
        await turn()
        assert told == []
        assert len(await member.next(MUCH)) == 2
        await until(lambda: told == [True, True])
        await hub.publish("a", 3, written=0.02, confirm=told.append)
        await until(lambda: told == [True, True, False])
        await hub.publish("nobody", 4, confirm=told.append)
        await until(lambda: told[-1] is True)
