"""Who is in a channel is told in batches, kept fresh, shown on all nodes, and taken back when a node ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sojourn.hub.engine import Present
from sojourn.hub.rules import Channel, Presence
from tests.hub.nodes import two_nodes
from tests.hub.stand_ins import Engine, Recording, in_a_loop, joined, started, turn, until


class Noting(Engine):
    """An engine that writes down what it is told of members."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        self.calls.append(("enter", [each.member for each in members]))
        self._reachable()
        await super().enter(channel, members, ttl)

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        self.calls.append(("leave", list(members)))
        self._reachable()
        await super().leave(channel, members)

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        self.calls.append(("refresh", ttl))
        self._reachable()
        await super().refresh(present, ttl)


def rule(**presence: Any) -> Channel:
    return Channel("{name}", presence=Presence(**{"batch": 0.01, **presence}), public=True)


def changes(member: Recording) -> list[tuple[list[str], list[str]]]:
    """Who came and who left, as it was told."""
    said = [json.loads(each)["pres"] for each in member.controls if b'"pres"' in each]
    return [([each["member"] for each in one.get("came", ())], list(one.get("left", ()))) for one in said]


@in_a_loop
async def test_those_who_come_and_go_are_told_in_one_batch() -> None:
    engine = Noting()
    async with started(rule(), engine=engine) as hub:
        first = await joined(hub, "a")
        others = [await joined(hub, "a") for _ in range(3)]
        hub.node.gone(others[0])
        assert engine.calls == []
        assert hub.counts.present == 3
        await until(lambda: changes(first))
        await turn()
        stay = [first.id, others[1].id, others[2].id]
        assert changes(first) == [(stay, [others[0].id])]
        assert engine.calls == [("enter", stay), ("leave", [others[0].id])]
        assert [each.member for each in await hub.presence("a")] == stay
        assert await hub.presence_count("a") == (3, 0)


@in_a_loop
async def test_it_shows_who_somebody_is_and_what_it_says_about_itself() -> None:
    async with started(rule()) as hub:
        member = Recording(hub, "ada")
        hub.reception.admit(member)
        await hub.reception.let_in(member, {"a": None}, lambda joined: None, {"mood": "good"})
        await until(lambda: changes(member))
        assert list(await hub.presence("a")) == [Present(member.id, "ada", "normal", {"mood": "good"})]


@in_a_loop
async def test_a_suspect_is_shown_as_one_with_what_it_says_about_itself() -> None:
    async with started(rule()) as hub:
        member = Recording(hub, "ada")
        hub.reception.admit(member)
        await hub.reception.let_in(member, {"a": None}, lambda joined: None, {"mood": "good"})
        for suspect, state in ((True, "suspect"), (False, "normal")):
            hub.node.doubts(member, suspect)
            assert hub.counts.suspect == int(suspect)
            member.controls.clear()
            await until(lambda: changes(member))
            await turn()
            assert list(await hub.presence("a")) == [Present(member.id, "ada", state, {"mood": "good"})]
        hub.node.doubts(member, True)
        hub.node.gone(member)
        assert hub.counts.suspect == 0
        assert hub.counts.present == 0


@in_a_loop
async def test_channels_without_it_tell_nobody_and_those_without_events_only_who_asks() -> None:
    async with started(Channel("quiet:{x}", presence=Presence(batch=0, events=False)), Channel("{name}")) as hub:
        member = await joined(hub, "a", "quiet:1")
        await joined(hub, "a", "quiet:1")
        await turn()
        await turn()
        assert changes(member) == []
        assert await hub.presence_count("a") == (0, 0)
        assert (await hub.presence_count("quiet:1"))[0] == 2


@in_a_loop
async def test_all_are_refreshed_in_time_for_the_shortest_ttl_also_when_that_comes_later() -> None:
    engine = Noting()
    long, short = Channel("long", presence=Presence(ttl=60)), Channel("short", presence=Presence(ttl=1))
    async with started(long, short, engine=engine) as hub:
        await joined(hub, "long")
        await joined(hub, "short")
        await until(lambda: ("refresh", 1) in engine.calls)
        assert ("refresh", 60) in engine.calls
        assert await hub.presence_count("short") == (1, 0)


@in_a_loop
async def test_an_engine_that_comes_back_is_told_of_everybody_again() -> None:
    engine = Noting()
    async with started(rule(), engine=engine) as hub:
        members = [await joined(hub, "a") for _ in range(2)]
        engine.away = True
        await until(lambda: engine.calls)
        await turn()
        engine.away = False
        assert await hub.presence_count("a") == (0, 0)
        hub.node.away(None)
        await turn()
        assert [each.member for each in await hub.presence("a")] == [each.id for each in members]


@in_a_loop
async def test_a_hub_that_ends_takes_its_members_back_and_leaves_no_timer() -> None:
    engine = Noting()
    async with started(rule(batch=30), engine=engine) as hub:
        members = [await joined(hub, "a") for _ in range(2)]
        presences = hub.node.presences
        await presences.farewell()
        assert engine.calls == [("leave", [each.id for each in members])]
    assert presences._timer is None


@in_a_loop
async def test_an_engine_that_is_away_does_not_keep_a_hub_from_ending() -> None:
    engine = Noting()
    async with started(rule(), engine=engine) as hub:
        await joined(hub, "a")
        engine.away = True


@in_a_loop
async def test_members_of_other_nodes_are_told_and_shown() -> None:
    async with two_nodes(rule()) as (one, two):
        here, there = await joined(one, "a", user="ada"), await joined(two, "a", user="bob")
        await until(lambda: any(there.id in came for came, _ in changes(here)))
        await until(lambda: any(here.id in came for came, _ in changes(there)))
        assert {each.user for each in await one.presence("a")} == {"ada", "bob"}
        assert await two.presence_count("a") == (2, 2)
        two.node.doubts(there, True)
        await until(lambda: b"suspect" in here.controls[-1])
        two.node.gone(there)
        await until(lambda: any(there.id in left for _, left in changes(here)))
        assert [each.user for each in await two.presence("a")] == ["ada"]


@in_a_loop
async def test_a_node_that_ends_takes_its_members_with_it_at_once() -> None:
    async with two_nodes(rule()) as (one, two):
        here = await joined(one, "a")
        there = await joined(two, "a")
        await until(lambda: any(there.id in came for came, _ in changes(here)))
        await two.aclose()
        await until(lambda: any(there.id in left for _, left in changes(here)))
        assert there.closed == (1012, "the hub ends")
        assert await one.presence_count("a") == (1, 0)
