"""What one turn of the loop publishes goes out in one write to each, in order."""

from __future__ import annotations

from sojourn.hub import turn as module
from sojourn.hub.rules import Channel, History
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, in_a_loop, joined, pulled, started, turn


@in_a_loop
async def test_one_write_for_each_member_and_turn() -> None:
    async with started() as hub:
        members = [await joined(hub, "a") for _ in range(3)]
        for _ in range(5):
            await hub.publish("a", 1)
        assert [each.writes for each in members] == [[], [], []]
        await turn()
        assert [each.writes for each in members] == [[5], [5], [5]]


@in_a_loop
async def test_a_turn_is_in_order_over_all_channels_and_each_gets_its_own() -> None:
    async with started() as hub:
        one, two, both = await joined(hub, "a"), await joined(hub, "b"), await joined(hub, "a", "b")
        for name in "abbaab":
            await hub.publish(name, 1)
        await turn()
        assert (one.seqs(), two.seqs(), both.seqs()) == ([1, 4, 5], [2, 3, 6], [1, 2, 3, 4, 5, 6])
        assert both.writes == [6]


@in_a_loop
async def test_who_joins_in_the_middle_of_a_turn_gets_what_comes_then() -> None:
    async with started() as hub:
        first = await joined(hub, "a")
        await hub.publish("a", 1)
        second = await joined(hub, "a")
        await hub.publish("a", 2)
        await turn()
        assert (first.seqs(), second.seqs()) == ([1, 2], [2])


@in_a_loop
async def test_who_leaves_in_the_middle_of_a_turn_has_what_came_before() -> None:
    async with started() as hub:
        member = await joined(hub, "a")
        await hub.publish("a", 1)
        hub.node.leave(member, "a")
        await hub.publish("a", 2)
        await turn()
        assert member.seqs() == [1]


@in_a_loop
async def test_who_is_ended_has_what_was_published_before_and_nothing_after() -> None:
    async with started() as hub:
        member = await joined(hub, "a", user="ada")
        await hub.publish("a", "good bye")
        await hub.disconnect(user="ada")
        await hub.publish("a", "too late")
        await turn()
        assert member.seqs() == [1]
        assert member.closed == (4503, "disconnected")


@in_a_loop
async def test_nothing_is_written_to_a_member_that_has_ended_by_itself() -> None:
    async with started() as hub:
        member, other = await joined(hub, "a"), await joined(hub, "a")
        await hub.publish("a", 1)
        hub.node.gone(member)
        await turn()
        assert (member.writes, other.writes) == ([], [1])


@in_a_loop
async def test_a_turn_with_very_much_in_it_is_written_in_pieces_and_in_order() -> None:
    async with started(Channel("{name}", History(size=0))) as hub:
        member = await joined(hub, "a", "b")
        for number in range(600):
            await hub.publish("ab"[number % 2], number)
        assert member.writes == [256, 256]
        await turn()
        assert member.seqs() == list(range(1, 601))
        await hub.publish("a", "x" * module._MOST_BYTES)
        assert member.seqs()[-1] == 601


@in_a_loop
async def test_words_to_one_member_come_behind_what_was_published_before() -> None:
    async with started() as hub:
        member = await joined(hub, "a", user="ada")
        await hub.publish("a", 1)
        assert await hub.send("psst", user="ada") == 1
        await hub.publish("a", 2)
        await turn()
        assert member.seqs() == [1, 0, 2]


@in_a_loop
async def test_a_member_with_more_than_its_node_comes_in_with_the_first_that_is_new_to_it() -> None:
    engine = Engine()
    async with started(engine=engine) as hub:
        other = await joined(hub, "a")
        engine.lagging = True
        for _ in range(4):
            await hub.publish("a", 1)
        late = await joined(hub, "a", since=Cursor((await engine.position()).epoch, 3))
        topic = hub.node.topics.get("a")
        assert topic is not None
        assert topic.size == 2
        assert late.told[0] == ("joined", True)
        engine.arrive()
        await turn()
        assert other.seqs() == [1, 2, 3, 4]
        assert late.seqs() == [4]
        hub.node.gone(late)
        assert topic.size == 1


@in_a_loop
async def test_several_forms_get_the_same_publications() -> None:
    async with started() as hub:
        recording, waiting = await joined(hub, "a"), pulled(hub)
        await hub.reception.let_in(waiting, {"a": None}, lambda joined: None, None)
        for _ in range(2):
            await hub.publish("a", 1)
        assert len(await waiting.next(10_000)) == 2
        assert recording.seqs() == [1, 2]
