"""Members that no server of ours pings: a comment keeps a stream open, a WebSocket answers, or is suspect, or dead."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sojourn.hub.forms import EVENTS, PLAIN_MESSAGES, V1_MESSAGES, Form
from sojourn.hub.hub import Hub
from sojourn.hub.identity import ANONYMOUS
from sojourn.hub.pulled import PulledMember
from sojourn.hub.rules import HubPing
from sojourn.hub.stats import Transport
from sojourn.hub.stream import DirectStream
from tests.hub.memory_clients import serving
from tests.hub.stand_ins import in_a_loop, started, turn, until

MUCH = 100_000
PING = HubPing(every=10, pong_within=4, misses=2)


class Time:
    """The time of a hub, moved by hand: it looks at its members as often as it does by itself."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.now = hub.node.now()
        hub.node.now = lambda: self.now
        hub.reception.quiet.stop()

    def look(self) -> None:
        self.hub.reception.quiet._look()
        self.hub.reception.quiet.stop()  # only by hand

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1
            self.look()

    def stands_still(self, seconds: float) -> None:
        self.now += seconds
        self.look()


def member_of(hub: Hub, form: Form = V1_MESSAGES, transport: Transport = "websocket") -> PulledMember:
    member = PulledMember(hub.node, ANONYMOUS, form, transport)
    hub.reception.admit(member)
    return member


async def said(member: PulledMember) -> list[bytes]:
    return await member.next(MUCH) if member.ready else []


@in_a_loop
async def test_a_websocket_is_pinged_after_its_silence_and_an_answer_is_life() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub)
        time.passes(9)
        assert await said(member) == []
        time.passes(1)
        assert await said(member) == [b"{}"]
        time.passes(3)
        hub.reception.alive(member)
        assert hub.counts.round_trip_sum == 3
        time.passes(9)
        assert await said(member) == []
        time.passes(1)
        assert await said(member) == [b"{}"]
        assert not member.suspect


@in_a_loop
async def test_a_missed_ping_makes_it_suspect_and_any_word_of_it_normal() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub)
        time.passes(14)
        assert member.suspect
        assert hub.counts.suspect == 1
        assert await said(member) == [b"{}", b"{}"]
        hub.reception.alive(member)
        assert not member.suspect
        assert hub.counts.suspect == 0
        time.passes(9)
        assert not member.over


@in_a_loop
async def test_who_misses_too_many_is_dead_with_4012() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub)
        time.passes(17)
        assert not member.over
        time.passes(1)
        assert member.ending == (4012, "no sign of life")
        assert json.loads((await said(member))[-1])["bye"]["code"] == 4012
        assert hub.counts.closes == {4012: 1}
        time.passes(1)
        assert hub.reception.quiet._pinged == {}


@in_a_loop
async def test_who_has_left_is_forgotten() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub)
        time.passes(14)
        hub.node.gone(member)
        time.passes(10)
        assert hub.reception.quiet._pinged == {}
        assert hub.counts.suspect == 0


@in_a_loop
async def test_a_form_without_a_word_for_it_is_left_alone() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub, PLAIN_MESSAGES)
        time.passes(100)
        assert not member.over
        assert not member.suspect
        assert await said(member) == []


@in_a_loop
async def test_a_poll_is_not_pinged() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub, transport="poll")
        time.passes(100)
        assert not member.over
        assert await said(member) == []


@in_a_loop
async def test_an_event_stream_gets_a_comment_when_nothing_was_said_for_a_while() -> None:
    async with started(ping=PING) as hub:
        time, member = Time(hub), member_of(hub, EVENTS, "sse")
        time.passes(9)
        assert await said(member) == []
        time.passes(1)
        assert await said(member) == [b":\n\n"]
        time.passes(5)
        await hub.send("psst", member=member.id)
        assert len(await said(member)) == 1
        time.passes(9)
        assert await said(member) == []
        time.passes(1)
        assert await said(member) == [b":\n\n"]
        time.passes(60)
        assert not member.over  # it can't answer


@in_a_loop
async def test_nobody_is_judged_by_a_time_in_which_the_hub_stood_still() -> None:
    async with started(ping=PING) as hub:
        time = Time(hub)
        members = [member_of(hub) for _ in range(3)]
        time.passes(11)
        time.stands_still(60)
        assert not any(each.over or each.suspect for each in members)
        hub.reception.alive(members[0])  # what came meanwhile is read after the stall
        time.passes(1)
        assert [each.suspect for each in members] == [False, True, True]
        assert not any(each.over for each in members)
        time.passes(4)
        assert [each.over for each in members] == [False, True, True]


@in_a_loop
async def test_it_looks_by_itself_and_no_more_when_it_is_stopped() -> None:
    async with started(ping=HubPing(every=0.02, pong_within=0.02, misses=1)) as hub:
        member = member_of(hub)
        await until(lambda: member.over)
        assert member.ending == (4012, "no sign of life")
        quiet = hub.reception.quiet
    assert quiet._timer is None


@in_a_loop
async def test_under_another_server_silence_ends_a_websocket_and_its_application() -> None:
    async with started(ping=HubPing(every=0.02, pong_within=0.02, misses=2)) as hub:
        sent: list[dict[str, Any]] = []
        never = asyncio.Event()
        came = [{"type": "websocket.connect"}]

        async def receive() -> dict[str, Any]:
            if not came:
                await never.wait()
            return came.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "subprotocols": ["sojourn.v1"]}
        await hub.app()({**scope, "client": ("192.0.2.1", 1)}, receive, send)
        lines = [line for each in sent if each.get("text") for line in each["text"].split("\n")]
        assert lines.count("{}") == 2
        assert list(json.loads(lines[-1])) == ["bye"]
        assert (sent[-1]["type"], sent[-1]["code"]) == ("websocket.close", 4012)


@in_a_loop
async def test_under_sojourn_its_server_pings_and_presence_shows_who_is_suspect() -> None:
    async with serving(ping=PING) as site:
        client = await site.client("/?ch=a", v1=True)
        client.read()
        member = client.member
        for _ in range(30):  # its beats have a jitter
            await site.server.advance(1)
            if member.suspect:
                break
        assert "{}" in client.read()
        assert site.hub.counts.suspect == 1
        client.answer()
        await site.settle()
        assert not member.suspect
        assert sum(site.hub.counts.round_trips) == 1
        await site.server.advance(40)
        assert member.over
        assert site.hub.counts.suspect == 0


@in_a_loop
async def test_a_direct_event_stream_gets_comments_after_silence_and_is_counted_in_its_connection() -> None:
    async with serving(ping=HubPing(every=0.03, pong_within=1)) as site:
        client = await site.stream("/?ch=a")
        (member,) = site.hub.node.members.values()
        assert isinstance(member, DirectStream)
        before, moment = len(client.received), member.last_message
        await site.server.advance(1.0)
        await until(lambda: member.last_message > moment)
        await until(lambda: len(client.received) > before)
        assert client.received[before:].startswith(b"3\r\n:\n\n\r\n")
        assert member.connection.last_write == member.last_message
        await turn()
