"""What waits for members that are behind: each policy through a hub, bounds, numbers, and publishers that wait."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sojourn.errors import HubFull
from sojourn.hub import backlog as module
from sojourn.hub.hub import Hub
from sojourn.hub.pulled import PulledMember
from sojourn.hub.rules import Channel, History, HubLimits, Outbox
from sojourn.scopes.deadline import deadline
from tests.hub.stand_ins import in_a_loop, joined, pulled, started, turn, until

MUCH = 100_000
QUICK = 0.05


def rule(**outbox: Any) -> Channel:
    return Channel("{name}", outbox=Outbox(**outbox), public=True)


async def stalled(hub: Hub, *channels: str, user: str = "") -> PulledMember:
    """A member that takes nothing by itself."""
    member = pulled(hub, user)
    await hub.reception.let_in(member, dict.fromkeys(channels), lambda joined: None, None)
    return member


async def taken(member: PulledMember) -> list[Any]:
    """What waited, as the client would see it: payloads, and ``gap``."""
    said = [json.loads(each) for each in await member.next(MUCH)]
    return ["gap" if "gap" in each else each["d"] for each in said]


async def publish(hub: Hub, *payloads: Any, channel: str = "a", key: str = "") -> None:
    for payload in payloads:
        await hub.publish(channel, payload, key=key)
    await turn()


# The policies


@in_a_loop
async def test_disconnect_closes_with_4008_and_says_goodbye_and_nobody_else_notices() -> None:
    async with started(rule(max_messages=3)) as hub:
        slow, other = await stalled(hub, "a"), await joined(hub, "a")
        await publish(hub, *range(5))
        assert slow.over
        assert slow.ending == (4008, "too slow")
        said = [json.loads(each) for each in await slow.next(MUCH)]
        assert [list(each) for each in said] == [["bye"]]
        assert said[0]["bye"]["retry"] == [500, 8000]
        assert other.seqs() == [1, 2, 3, 4, 5]
        assert hub.counts.dropped == {"disconnect": 3, "drop_oldest": 0, "drop_newest": 0, "block": 0}
        assert hub.counts.closes == {4008: 1}
        assert hub.counts.buffered == 0


@in_a_loop
async def test_bytes_are_a_bound_of_their_own() -> None:
    async with started(rule(max_bytes=2000)) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *["x" * 700] * 2)
        assert not slow.over
        assert 1400 < hub.counts.buffered == slow.buffered < 2000
        await publish(hub, "x" * 700)
        assert slow.over


@in_a_loop
async def test_drop_oldest_keeps_the_last_behind_a_notice() -> None:
    async with started(rule(max_messages=3, on_full="drop_oldest")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *range(10))
        assert hub.counts.dropped["drop_oldest"] == 7
        assert await taken(slow) == ["gap", 7, 8, 9]
        await publish(hub, 10)
        assert await taken(slow) == [10]
        assert hub.counts.gaps == 1


@in_a_loop
async def test_drop_newest_keeps_the_first_before_a_notice() -> None:
    async with started(rule(max_messages=3, on_full="drop_newest")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *range(10))
        assert hub.counts.dropped["drop_newest"] == 7
        assert await taken(slow) == [0, 1, 2, "gap"]


@in_a_loop
async def test_latest_keeps_one_of_each_key_and_is_counted_while_the_member_is_behind() -> None:
    async with started(rule(on_full="latest")) as hub:
        slow = await stalled(hub, "a")
        for number in range(5):
            await publish(hub, f"x{number}", key="x")
            await publish(hub, f"y{number}", key="y")
        assert hub.counts.conflated == 8
        assert await taken(slow) == ["x4", "y4"]
        assert hub.counts.conflated == 8
        assert not any(hub.counts.dropped.values())


@in_a_loop
async def test_latest_takes_the_key_from_a_field() -> None:
    async with started(rule(on_full="latest", key="s")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *({"s": name, "p": price} for price in range(4) for name in "uv"))
        assert await taken(slow) == [{"s": "u", "p": 3}, {"s": "v", "p": 3}]


@in_a_loop
async def test_messages_to_one_have_bounds_of_their_own() -> None:
    async with started(rule(), outbox=Outbox(max_messages=2, on_full="drop_oldest")) as hub:
        slow = await stalled(hub, "a", user="ada")
        await publish(hub, *range(3))
        for number in range(4):
            await hub.send(number, user="ada")
        said = [json.loads(each) for each in await slow.next(MUCH)]
        assert [each["msg"] for each in said if "msg" in each] == [2, 3]
        assert [each["d"] for each in said if "d" in each] == [0, 1, 2]


@in_a_loop
async def test_what_waits_of_a_channel_is_forgotten_when_it_is_left() -> None:
    async with started() as hub:
        slow = await stalled(hub, "a", "b")
        await publish(hub, 1, 2)
        await publish(hub, 3, channel="b")
        hub.node.leave(slow, "a")
        assert await taken(slow) == [3]
        assert hub.counts.buffered == 0


@in_a_loop
async def test_control_frames_go_past_what_waits_and_have_a_bound() -> None:
    async with started() as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1)
        slow.control(b'{"d":"control"}')
        assert await taken(slow) == ["control", 1]
        for _ in range(257):
            slow.control(b"{}")
        assert slow.ending == (4008, "too slow")
        assert hub.counts.closes[4008] == 1


# Age, and numbers


@in_a_loop
async def test_what_has_waited_too_long_closes_the_member() -> None:
    async with started(rule(max_age=0.02)) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1)
        await asyncio.sleep(0.03)
        hub.node.backlog._look()
        assert slow.ending == (4008, "too slow")
        assert hub.counts.dropped["disconnect"] == 1


@in_a_loop
async def test_what_has_waited_too_long_is_dropped_with_a_notice_where_that_is_the_rule() -> None:
    async with started(rule(max_age=0.02, on_full="drop_oldest")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1, 2)
        await asyncio.sleep(0.03)
        hub.node.backlog._look()
        await publish(hub, 3)
        assert hub.counts.dropped["drop_oldest"] == 2
        assert await taken(slow) == ["gap", 3]


@in_a_loop
async def test_it_looks_by_itself_while_somebody_is_behind_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    async with started(rule(max_age=0.02)) as hub:
        slow = await stalled(hub, "a")
        assert hub.node.backlog._timer is None
        await publish(hub, 1)
        await until(lambda: slow.over)
        await until(lambda: hub.node.backlog._timer is None)


@in_a_loop
async def test_slow_is_above_the_high_mark_until_below_the_low_one() -> None:
    async with started(rule(max_messages=8, high=0.5, low=0.25)) as hub:
        slow = await stalled(hub, "a")
        look = hub.node.backlog._look
        await publish(hub, *range(4))
        look()
        assert hub.counts.slow == 0
        await publish(hub, 4)
        look()
        assert hub.counts.slow == 1
        assert len(slow.taken(1)) == 1
        assert len(slow.taken(1)) == 1
        assert hub.counts.slow == 1
        slow.taken(1)
        assert hub.counts.slow == 0
        await publish(hub, *range(3))
        look()
        assert hub.counts.slow == 1
        hub.node.gone(slow)
        assert hub.counts.slow == 0


@in_a_loop
async def test_buffered_is_the_sum_of_all_and_its_high_is_kept() -> None:
    async with started() as hub:
        members = [await stalled(hub, "a") for _ in range(3)]
        await publish(hub, *["x" * 100] * 4)
        stats = hub.counts
        high = stats.buffered
        assert high == sum(each.buffered for each in members) > 1200
        for member in members:
            await taken(member)
        assert (stats.buffered, stats.buffered_high) == (0, high)


# Publishers that wait


@in_a_loop
async def test_block_lets_publishers_wait_until_the_member_takes() -> None:
    async with started(rule(max_messages=2, on_full="block")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1, 2, 3)
        waiting = [asyncio.ensure_future(hub.publish("a", number)) for number in (4, 5)]
        await publish(hub, "elsewhere", channel="b")  # another channel waits for nobody
        assert not any(each.done() for each in waiting)
        assert hub.counts.published == 4
        assert await taken(slow) == [1, 2, 3]
        await asyncio.gather(*waiting)
        await turn()
        assert await taken(slow) == [4, 5]


@in_a_loop
async def test_block_closes_the_member_when_its_time_is_over_and_publishers_go_on() -> None:
    async with started(rule(max_messages=2, on_full="block", wait=QUICK)) as hub:
        slow, other = await stalled(hub, "a"), await joined(hub, "a")
        await publish(hub, 1, 2, 3)
        await asyncio.gather(*(hub.publish("a", number) for number in (4, 5)))
        await turn()
        assert slow.ending == (4008, "too slow")
        assert other.seqs() == [1, 2, 3, 4, 5]
        assert hub.counts.dropped["block"] == 3
        assert hub.counts.closes == {4008: 1}


@in_a_loop
async def test_block_is_over_when_the_member_leaves_or_leaves_the_channel() -> None:
    async with started(rule(max_messages=1, on_full="block")) as hub:
        for leave in (lambda member: hub.node.gone(member), lambda member: hub.node.leave(member, "a")):
            slow = await stalled(hub, "a")
            await publish(hub, 1, 2)
            waiting = asyncio.ensure_future(hub.publish("a", 3))
            await turn()
            assert not waiting.done()
            leave(slow)
            await waiting


@in_a_loop
async def test_a_publisher_with_less_time_than_members_have_is_told_that_the_hub_is_full() -> None:
    async with started(rule(max_messages=1, on_full="block", wait=5)) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1, 2)
        with pytest.raises(HubFull):
            async with deadline(QUICK, "test"):
                await hub.publish("a", 3)
        assert not slow.over
        assert hub.counts.published == 2


@in_a_loop
async def test_a_publisher_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    async with started(rule(max_messages=1, on_full="block")) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, 1, 2)
        waiting = asyncio.ensure_future(hub.publish("a", 3))
        await turn()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert hub.node.backlog._publishers == []
        assert await taken(slow) == [1, 2]


@in_a_loop
async def test_publishers_wait_for_room_and_go_on_well_below_the_limit() -> None:
    async with started(rule(), limits=HubLimits(buffered=1000)) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *["x" * 100] * 10)
        assert hub.counts.buffered > 1000
        waiting = asyncio.ensure_future(hub.publish("a", "next"))
        await turn()
        while hub.counts.buffered > 750:
            await turn()
            assert not waiting.done()
            slow.taken(1)
        await waiting


@in_a_loop
async def test_a_hub_without_room_says_so_when_the_time_is_over_and_publishes_nothing() -> None:
    async with started(Channel("{name}", History(size=100)), limits=HubLimits(buffered=1000)) as hub:
        slow = await stalled(hub, "a")
        await publish(hub, *["x" * 100] * 10)
        with pytest.raises(HubFull) as full:
            async with deadline(QUICK, "test"):
                await hub.publish("a", "next")
        assert (full.value.limit, full.value.buffered) == (1000, hub.counts.buffered)
        assert len(await taken(slow)) == 10
        assert (await hub.publish("a", "now")).cursor.seq == 11
