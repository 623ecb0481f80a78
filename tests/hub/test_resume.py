"""Who comes back gets what it missed: nothing lost, doubled or reordered; a gap exactly when something is missing."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import AccessDenied, ClientDisconnected, EngineUnavailable
from sojourn.hub.resume import UNKNOWN
from sojourn.hub.rules import Channel, History, Outbox
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, Recording, gone, in_a_loop, joined, pulled, started, turn


@in_a_loop
async def test_who_joins_afresh_gets_what_comes_from_now_on() -> None:
    async with started() as hub:
        await hub.publish("a", 1)
        member = await joined(hub, "a")
        await hub.publish("a", 2)
        await turn()
        assert member.told == [("joined", None), ("pub", "a", 2)]


@in_a_loop
async def test_who_comes_back_gets_all_that_came_meanwhile() -> None:
    async with started() as hub:
        sent = [await hub.publish("a", number) for number in range(5)]
        member = await joined(hub, "a", since=sent[1].cursor)
        await hub.publish("a", 5)
        await turn()
        assert member.told == [("joined", True), *(("pub", "a", seq) for seq in (3, 4, 5, 6))]


@in_a_loop
async def test_nothing_is_lost_doubled_or_reordered_when_publications_come_while_history_is_read() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("a", 1)
        before, after = asyncio.Event(), asyncio.Event()
        engine.reading, engine.answering = before.wait, after.wait
        member = Recording(hub)
        hub.reception.admit(member)
        joining = asyncio.ensure_future(member.join("a", since=start))
        for gate in (before, after, None):
            await turn()
            await hub.publish("a", "meanwhile")
            await hub.publish("a", "meanwhile")
            if gate is not None:
                gate.set()
        await joining
        await hub.publish("a", "then")
        await turn()
        assert member.seqs() == list(range(2, 10))
        assert member.told[0] == ("joined", True)


@in_a_loop
async def test_what_history_has_given_is_not_given_again_when_it_arrives_later() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        other = await joined(hub, "a")
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("a", 0)
        engine.lagging = True
        for number in range(3):
            await hub.publish("a", number)
        member = await joined(hub, "a", since=start)
        assert member.seqs() == [2, 3, 4, 5]
        engine.arrive(2)
        await turn()
        await hub.publish("a", 3)
        engine.arrive()
        await turn()
        assert member.seqs() == [2, 3, 4, 5, 6]
        assert other.seqs() == [1, 2, 3, 4, 5, 6]


@in_a_loop
async def test_who_is_ahead_of_this_node_gets_nothing_twice() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        await joined(hub, "a")
        engine.lagging = True
        for number in range(3):
            last = (await hub.publish("a", number)).cursor
        member = await joined(hub, "a", since=last)  # it has heard all of it from another node
        engine.arrive()
        await turn()
        assert member.told == [("joined", True)]
        await hub.publish("a", 3)
        engine.arrive()
        await turn()
        assert member.seqs() == [4]


@in_a_loop
async def test_a_gap_is_told_when_something_is_missing_and_only_then() -> None:
    async with started(Channel("{name}", History(size=3))) as hub:
        sent = [(await hub.publish("a", number)).cursor for number in range(6)]
        for since, recovered, numbers in ((sent[1], False, [4, 5, 6]), (sent[2], True, [4, 5, 6]), (sent[5], True, [])):
            member = await joined(hub, "a", since=since)
            assert member.told[0] == ("joined", recovered)
            assert member.seqs() == numbers
            assert [each for each in member.told if each[0] == "gap"] == ([] if recovered else [("gap", "a", 3)])


@pytest.mark.parametrize("since", [UNKNOWN, Cursor("other", 4), Cursor("other", 0)])
@in_a_loop
async def test_another_epoch_is_a_gap(since: Cursor) -> None:
    async with started() as hub:
        await hub.publish("a", 0)
        member = await joined(hub, "a", since=since)
        assert member.told == [("joined", False), ("gap", "a", 0), ("pub", "a", 1)]


@in_a_loop
async def test_a_channel_without_history_has_a_gap_when_something_was_missed() -> None:
    async with started(Channel("{name}")) as hub:
        first = (await hub.publish("a", 0)).cursor
        assert (await joined(hub, "a", since=first)).told == [("joined", True)]
        await hub.publish("a", 1)
        assert (await joined(hub, "a", since=first)).told == [("joined", False), ("gap", "a", 2)]


@in_a_loop
async def test_a_member_keeps_its_place_until_it_has_what_follows() -> None:
    async with started(Channel("{name}", History(size=2))) as hub:
        sent = [(await hub.publish("a", number)).cursor for number in range(4)]
        member = Recording(hub)
        hub.reception.admit(member)
        (outcome,) = await member.join("a", since=sent[2])
        assert (outcome.position, outcome.has) == (sent[2], sent[3])
        other = Recording(hub)
        hub.reception.admit(other)
        (outcome,) = await other.join("a", since=Cursor("other", 77))
        assert outcome.position == Cursor(sent[0].epoch, sent[1].seq)  # nothing behind it is missing that can be had


@in_a_loop
async def test_the_application_gives_the_state_in_place_of_a_gap() -> None:
    async with started(Channel("room:{name}", History(size=1))) as hub:
        first = (await hub.publish("room:a", 0)).cursor

        @hub.snapshot("room:{name}")
        async def state(name: str) -> dict[str, str]:
            await hub.publish("room:a", 3)
            return {"state of": name}

        for number in (1, 2):
            await hub.publish("room:a", number)
        member = await joined(hub, "room:a", since=first)
        await turn()
        assert member.told == [("joined", False), ("state", "room:a", b'{"state of":"a"}'), ("pub", "room:a", 4)]
        assert member.places == [Cursor(first.epoch, 3)]


@in_a_loop
async def test_a_snapshot_that_fails_is_a_gap_and_is_reported() -> None:
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    async with started(Channel("{name}")) as hub:
        first = (await hub.publish("a", 0)).cursor
        await hub.publish("a", 1)

        @hub.snapshot("{name}")
        async def state(name: str) -> None:
            raise LookupError(name)

        member = await joined(hub, "a", since=first)
        assert member.told == [("joined", False), ("gap", "a", 2)]
        assert isinstance(failures[0], LookupError)


@in_a_loop
async def test_channels_that_are_joined_together_come_in_one_order() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        for number in range(10):
            await hub.publish("ab"[number % 2], number)
        reads = 0

        async def meanwhile() -> None:
            nonlocal reads
            reads += 1
            for name in "aba":
                await hub.publish(name, "meanwhile")

        engine.answering = meanwhile
        member = await joined(hub, "a", "b", since=start)
        await turn()
        assert reads == 1
        assert member.seqs() == list(range(2, 15))
        assert member.told[0] == ("joined", True, True)


@in_a_loop
async def test_a_place_in_the_stream_tells_all_channels_also_when_only_one_of_them_was_missed() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        await joined(hub, "b")  # so that b is there already
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("b", 1)
        engine.lagging = True
        await hub.publish("b", 2)
        await hub.publish("a", 3)
        member = await joined(hub, "a", "b", since=start)
        # Whatever it was given last, nothing before it is still to come.
        assert member.seqs() == sorted(member.seqs())
        engine.arrive()
        await turn()
        assert member.seqs() == [2, 3, 4]


@in_a_loop
async def test_a_gap_in_one_channel_is_told_before_anything_else() -> None:
    async with started(Channel("short", History(size=1)), Channel("{name}", History(size=100))) as hub:
        start = (await hub.publish("long", 0)).cursor
        for name in ("long", "short", "long", "short", "short", "long"):
            await hub.publish(name, 1)
        member = await joined(hub, "short", "long", since=start)
        assert member.told[1:] == [
            ("gap", "short", 1),  # whoever is cut off before the next one must hear of it again
            ("pub", "long", 2),
            ("pub", "long", 4),
            ("pub", "short", 6),
            ("pub", "long", 7),
        ]


@in_a_loop
async def test_a_store_that_forgets_between_two_pages_is_read_again() -> None:
    engine = Engine()
    engine.most = 1
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("b", 1)
        await hub.publish("a", 2)
        answers = 0

        async def forget_after_the_first() -> None:
            nonlocal answers
            answers += 1
            if answers == 1:
                engine.forget()
                await hub.publish("b", 3)

        engine.answering = forget_after_the_first
        member = await joined(hub, "a", "b", since=start)
        assert member.told[0] == ("joined", False, False)
        assert {each[1] for each in member.told if each[0] == "gap"} == {"a", "b"}
        assert {each.epoch for each in member.places} == {engine._log.epoch}
        assert [(each.epoch, each.seq) for each in member.publications] == [(engine._log.epoch, 1)]


@in_a_loop
async def test_a_gap_that_comes_while_a_member_catches_up_is_told_to_it() -> None:
    engine = Engine()
    async with started(Channel("a"), Channel("b", History(size=10)), engine=engine) as hub:
        start = (await hub.publish("b", 0)).cursor
        other = await joined(hub, "a")
        second = asyncio.Event()

        async def between() -> None:
            if engine.asked == ["a", "b"]:
                await second.wait()

        engine.answering = between
        member = Recording(hub)
        hub.reception.admit(member)
        joining = asyncio.ensure_future(member.join("a", "b", since=start))
        await turn()
        engine.lagging = True
        await hub.publish("a", 1)
        engine.lose()
        await hub.publish("a", 2)
        engine.lagging = False
        engine.arrive()
        await turn()
        assert other.told[1:] == [("gap", "a", 0), ("pub", "a", 3)]
        second.set()
        await joining
        assert [each for each in member.told if each[0] != "joined"] == [("gap", "a", 0), ("pub", "a", 3)]


@in_a_loop
async def test_a_history_that_does_not_fit_into_a_page_is_read_to_its_end() -> None:
    async with started(Channel("{name}", History(size=2000))) as hub:
        start = (await hub.publish("a", 0)).cursor
        for number in range(1234):
            await hub.publish("a", number)
        member = await joined(hub, "a", since=start)
        assert member.seqs() == list(range(2, 1236))


@in_a_loop
async def test_what_was_missed_is_more_than_may_wait_and_comes_all_the_same() -> None:
    rule = Channel("{name}", History(size=500), Outbox(max_messages=10, max_bytes=2000))
    async with started(rule, outbox=Outbox(max_messages=5)) as hub:
        start = (await hub.publish("a", "x" * 100)).cursor
        for _ in range(300):
            await hub.publish("a", "x" * 100)
        member = pulled(hub)
        joining = asyncio.ensure_future(hub.reception.let_in(member, {"a": start}, lambda joined: None, None))
        got = 0
        while got < 300:
            got += len(await member.next(500))
        await joining
        assert got == 300
        assert not member.over


@in_a_loop
async def test_who_does_not_take_what_it_missed_is_closed() -> None:
    rule = Channel("{name}", History(size=500), Outbox(max_messages=10, max_age=0.05))
    async with started(rule) as hub:
        start = (await hub.publish("a", 0)).cursor
        for _ in range(30):
            await hub.publish("a", 1)
        member = pulled(hub)
        with pytest.raises(ClientDisconnected):
            await hub.reception.let_in(member, {"a": start}, lambda joined: None, None)
        assert member.ending == (4008, "too slow")
        gone(hub)


@in_a_loop
async def test_the_latest_values_are_given_first_and_never_with_a_gap() -> None:
    rule = Channel("{name}", History(size=10, mode="latest"), Outbox(on_full="latest"))
    async with started(rule) as hub:
        for number, key in enumerate("abcab"):
            last = (await hub.publish("prices", number, key=key)).cursor
        for since in (None, Cursor("other", 9), Cursor(last.epoch, 0)):
            member = await joined(hub, "prices", since=since)
            assert member.seqs() == [3, 4, 5]
            assert [each[0] for each in member.told] == ["joined", "pub", "pub", "pub"]


@in_a_loop
async def test_an_unknown_channel_is_refused_and_nothing_is_held() -> None:
    async with started(Channel("a"), Channel("b")) as hub:
        member = Recording(hub)
        hub.reception.admit(member)
        with pytest.raises(AccessDenied):
            await member.join("a", "nowhere")
        assert not member.topics
        gone_but_members(hub)


@in_a_loop
async def test_an_engine_that_is_away_refuses_and_nothing_is_held() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        engine.away = True
        member = Recording(hub)
        hub.reception.admit(member)
        with pytest.raises(EngineUnavailable):
            await member.join("a")
        engine.away = False
        await joined(hub, "a")
        await hub.publish("a", 1)
        engine.away = True
        with pytest.raises(EngineUnavailable):
            await member.join("a", since=start)
        assert not member.told
        assert not member.topics


@pytest.mark.parametrize("turns", range(12))
@in_a_loop
async def test_a_join_that_is_cancelled_at_any_point_leaves_nothing(turns: int) -> None:
    engine = Engine()

    async def pause() -> None:
        await asyncio.sleep(0)

    engine.subscribing = engine.reading = engine.answering = pause
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("b", 1)
        member = Recording(hub)
        hub.reception.admit(member)
        joining = asyncio.ensure_future(member.join("a", "b", since=start))
        for _ in range(turns):
            await asyncio.sleep(0)
        joining.cancel()
        await asyncio.wait([joining])
        if joining.cancelled():
            assert not member.topics
            gone_but_members(hub)
        else:
            assert set(member.topics) == {"a", "b"}


@in_a_loop
async def test_a_member_that_ends_while_it_joins_is_in_no_channel() -> None:
    engine = Engine()
    gate = asyncio.Event()
    engine.answering = gate.wait
    async with started(engine=engine) as hub:
        start = (await hub.publish("a", 0)).cursor
        await hub.publish("a", 1)
        member = Recording(hub)
        hub.reception.admit(member)
        joining = asyncio.ensure_future(member.join("a", since=start))
        await turn()
        member.end(4503, "out")
        gate.set()
        with pytest.raises(ClientDisconnected):
            await joining
        gone(hub)


@in_a_loop
async def test_nothing_is_kept_for_a_member_once_it_is_there() -> None:
    async with started() as hub:
        await joined(hub, "a")
        for number in range(10):
            await hub.publish("a", number)
            await turn()
        (topic,) = hub.node.topics.all()
        assert not topic.catching


def gone_but_members(hub: object) -> None:
    """Channels hold nothing, though the members are still there."""
    for topic in hub.node.topics.all():  # type: ignore[attr-defined]
        assert not topic.users
        assert not topic.catching
        assert not topic.late
