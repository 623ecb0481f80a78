"""Members that are behind: what waits for them is bounded, each rule is kept, and nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import HubFull
from sojourn.hub import backlog as module
from sojourn.hub.hub import Hub
from sojourn.hub.publication import Publication
from sojourn.hub.pulled import PulledMember
from sojourn.hub.rules import Channel, HubLimits, Outbox
from sojourn.scopes.deadline import deadline
from tests.hub.stand_ins import Engine, in_a_loop, joined, pulled, started, turn, until


async def behind(hub: Hub, *channels: str, user: str = "") -> PulledMember:
    """A member in some channels that takes nothing."""
    member = pulled(hub, user)
    await hub.reception.let_in(member, dict.fromkeys(channels), lambda joined: None, None)
    return member


def waits(member: PulledMember) -> list[int | str]:
    """Numbers of what waits, and "gap" for a notice."""
    waiting = member.waiting
    if waiting is None:
        return []
    before, found = waiting.bytes, waiting.take(1 << 30)
    member.node.backlog.took(member, waiting, before)
    return [item.seq if isinstance(item, Publication) else "gap" for item in found]


@in_a_loop
async def test_who_is_too_slow_is_closed_to_come_back_and_resume() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=3))) as hub:
        slow, quick = await behind(hub, "a"), await joined(hub, "a")
        for _ in range(4):
            await hub.publish("a", 1)
            await turn()
        assert slow.over
        assert slow.ending == (4008, "too slow")
        assert b'"bye":{"code":4008' in (await slow.next(1000))[0]
        assert quick.seqs() == [1, 2, 3, 4]
        assert hub.counts.dropped["disconnect"] == 3
        assert hub.counts.buffered == 0


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (Outbox(max_messages=3, on_full="drop_oldest"), ["gap", 3, 4, 5]),
        (Outbox(max_messages=3, on_full="drop_newest"), [1, 2, 3, "gap"]),
        (Outbox(max_messages=3, on_full="latest"), [5]),
    ],
)
@in_a_loop
async def test_what_is_dropped_leaves_a_notice(rule: Outbox, left: list[int | str]) -> None:
    async with started(Channel("{name}", outbox=rule)) as hub:
        member = await behind(hub, "a")
        for _ in range(5):
            await hub.publish("a", {"n": 1})
            await turn()
        assert not member.over
        assert waits(member) == left


@in_a_loop
async def test_bytes_are_bounded_as_messages_are() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_bytes=1000, on_full="drop_oldest"))) as hub:
        member = await behind(hub, "a")
        for _ in range(20):
            await hub.publish("a", "x" * 100)
        await turn()
        assert member.buffered <= 1000
        assert hub.counts.buffered == member.buffered


@in_a_loop
async def test_what_waits_too_long_ends_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.005)
    async with started(Channel("{name}", outbox=Outbox(max_age=0.02))) as hub:
        member = await behind(hub, "a")
        await hub.publish("a", 1)
        await until(lambda: member.over)
        assert member.ending == (4008, "too slow")


@in_a_loop
async def test_publishers_wait_for_a_member_whose_rule_says_so() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="block"))) as hub:
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
            await turn()
        publishing = [asyncio.ensure_future(hub.publish("a", 2)) for _ in range(2)]
        await turn()
        assert not any(each.done() for each in publishing)
        assert len(await member.next(1 << 20)) == 3
        await asyncio.wait(publishing)
        assert not member.over


@in_a_loop
async def test_publishers_wait_no_longer_than_the_rule_says() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="block", wait=0.02))) as hub:
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
            await turn()
        await hub.publish("a", 2)
        assert member.ending == (4008, "too slow")


@in_a_loop
async def test_a_publisher_in_a_hurry_costs_no_member_its_connection() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="block", wait=5))) as hub:
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
            await turn()
        with pytest.raises(HubFull):
            async with deadline(0.02, "test"):
                await hub.publish("a", 2)
        assert not member.over


@pytest.mark.parametrize("turns", range(4))
@in_a_loop
async def test_a_publisher_that_is_cancelled_while_it_waits_leaves_nothing(turns: int) -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="block"))) as hub:
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
            await turn()
        publishing = asyncio.ensure_future(hub.publish("a", 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        assert publishing.cancelled()
        assert not hub.node.backlog._publishers
        hub.node.gone(member)


@in_a_loop
async def test_publishing_fails_when_too_much_waits_for_all_together() -> None:
    limits = HubLimits(buffered=1000)
    async with started(Channel("{name}"), limits=limits) as hub:
        members = [await behind(hub, "a") for _ in range(3)]
        await hub.publish("a", "x" * 500)
        await turn()
        with pytest.raises(HubFull):
            async with deadline(0.5, "test"):
                await hub.publish("a", "more")
        publishing = asyncio.ensure_future(hub.publish("a", "more"))
        await turn()
        assert not publishing.done()
        for each in members[:2]:
            await each.next(1 << 20)
        await publishing


@in_a_loop
async def test_words_of_the_hub_s_own_go_past_all_that_waits() -> None:
    async with started() as hub:
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
        await turn()
        member.control(b"first")
        assert (await member.next(1 << 20))[0] == b"first"


@in_a_loop
async def test_a_member_that_takes_none_of_the_hub_s_words_is_ended() -> None:
    async with started() as hub:
        member = await behind(hub, "a")
        for _ in range(300):
            member.control(b"{}")
        assert member.ending == (4008, "too slow")


@in_a_loop
async def test_a_channel_that_was_left_waits_for_nobody() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="block"))) as hub:
        member = await behind(hub, "a", "b")
        for name in "aaab":
            await hub.publish(name, 1)
            await turn()
        publishing = asyncio.ensure_future(hub.publish("a", 2))
        await turn()
        hub.node.leave(member, "a")
        await publishing
        assert hub.counts.buffered == member.buffered
        assert waits(member) == [4]


@in_a_loop
async def test_everything_is_counted_back_when_a_member_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.005)
    async with started(Channel("{name}", outbox=Outbox(max_messages=10))) as hub:
        member = await behind(hub, "a", "b")
        for name in "ababababab":
            await hub.publish(name, "x" * 50)
        await turn()
        await until(lambda: hub.counts.slow == 1)
        assert hub.counts.buffered > 500
        hub.node.gone(member)
        assert (hub.counts.slow, hub.counts.buffered) == (0, 0)


@in_a_loop
async def test_a_publication_can_be_awaited_until_everybody_has_it() -> None:
    async with started() as hub:
        await joined(hub, "a")
        member = await behind(hub, "a")
        for _ in range(3):
            await hub.publish("a", 1)
        publishing = asyncio.ensure_future(hub.publish("a", 2, written=5))
        await turn()
        await member.next(1)
        assert not publishing.done()
        await member.next(1 << 20)
        sent = await publishing
        assert (sent.written, sent.receivers) == (True, 2)
        assert (await hub.publish("a", 3, written=0.01)).written is False


@in_a_loop
async def test_what_is_dropped_is_not_awaited_and_does_not_count_for_what_waits() -> None:
    async with started(Channel("{name}", outbox=Outbox(max_messages=2, on_full="drop_newest"))) as hub:
        member = await behind(hub, "a")
        await hub.publish("a", 1)
        publishing = asyncio.ensure_future(hub.publish("a", 2, written=5))
        await turn()
        for _ in range(5):
            await hub.publish("a", 3)
            await turn()
        assert not publishing.done()
        await member.next(1 << 20)
        assert (await publishing).written is True


@in_a_loop
async def test_words_to_one_user_can_be_awaited() -> None:
    async with started(outbox=Outbox(max_messages=3)) as hub:
        members = [await behind(hub, "a", user="ada") for _ in range(2)]
        sending = asyncio.ensure_future(hub.send("hello", user="ada", written=0.05))
        await turn()
        await members[0].next(1 << 20)
        assert await sending == 1
        with pytest.raises(ValueError, match="user or a member"):
            await hub.send("hello")


@in_a_loop
async def test_one_stalled_member_among_many_costs_no_more_than_its_bound() -> None:
    engine = Engine()
    async with started(Channel("{name}", outbox=Outbox(max_bytes=10_000)), engine=engine) as hub:
        quick = [await joined(hub, "a") for _ in range(50)]
        stalled = await behind(hub, "a")
        for _ in range(30):
            await hub.publish("a", "x" * 1000)
            await turn()
            assert stalled.buffered <= 10_000
        assert stalled.over
        assert all(len(each.seqs()) == 30 for each in quick)
