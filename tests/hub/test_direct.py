"""Members on connections of Sojourn's: written to straight, and behind without losing order, count or place."""

from __future__ import annotations

import asyncio

from sojourn.hub.direct import DirectMember
from sojourn.hub.engine import Present
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.rules import Channel, History, HubLimits, Outbox, Presence
from tests.hub.memory_clients import ROOM, serving
from tests.hub.stand_ins import in_a_loop, turn, until


def big(number: int) -> str:
    """A message of which few fit into a transport."""
    return f"{number}:" + "x" * 500


@in_a_loop
async def test_what_is_published_is_written_in_the_same_turn() -> None:
    async with serving() as site:
        client = await site.client("/?ch=a")
        await site.hub.publish("a", "hello")
        await turn()
        assert client.read() == ["hello"]


@in_a_loop
async def test_a_member_that_falls_behind_gets_everything_once_and_in_order_when_it_takes_again() -> None:
    async with serving() as site:
        slow, other = await site.client("/?ch=a"), await site.client("/?ch=a")
        slow.peer.stop_taking()
        for number in range(60):
            await site.hub.publish("a", big(number))
            await turn()
            if number == 40:
                assert slow.member.waiting is not None
                slow.peer.take(3 * ROOM)  # some of it, and then no more
                await site.settle()
        assert [each.partition(":")[0] for each in other.read()] == [str(number) for number in range(60)]
        slow.peer.take_all()
        await site.settle()
        assert [each.partition(":")[0] for each in slow.read()] == [str(number) for number in range(60)]
        member = slow.member
        assert isinstance(member, DirectMember)
        assert not member.behind
        assert member.waiting is None
        await site.hub.publish("a", "straight again")
        await turn()
        assert slow.read() == other.read() == ["straight again"]


@in_a_loop
async def test_a_transport_that_opens_and_shuts_at_any_byte_changes_nothing_of_the_order() -> None:
    async with serving(room=256) as site:
        client = await site.client("/?ch=a&ch=b")
        client.peer.stop_taking()
        for number in range(120):
            await site.hub.publish("ab"[number % 3 == 0], f"{number}:" + "y" * (number * 37 % 400))
            client.peer.take(number * 113 % 500)
            if number % 5:
                await turn()
        client.peer.take_all()
        await site.settle()
        assert [int(each.partition(":")[0]) for each in client.read()] == list(range(120))


@in_a_loop
async def test_counters_are_right_after_it_was_settled() -> None:
    async with serving() as site:
        clients = [await site.client("/?ch=a") for _ in range(3)]
        before = [each.connection.bytes_out for each in clients]
        await site.server.advance(3)
        for number in range(4):
            await site.hub.publish("a", big(number))
            await turn()
        moment = site.server.runtime.ticker.now
        await site.server.advance(2)
        await site.hub.send("alone", member=clients[0].member.id)
        lengths = [len(each.peer.received) for each in clients]
        for client, length, first in zip(clients, lengths, before, strict=True):
            member = client.member
            assert isinstance(member, DirectMember)
            alone = client is clients[0]
            assert member.last_message == (site.server.runtime.ticker.now if alone else moment)
            assert member.sent == (5 if alone else 4)
            assert client.connection.bytes_out - first == length
        assert site.hub.counts.deliveries == 13
        assert site.hub.counts.bytes_out == sum(lengths)


@in_a_loop
async def test_what_waited_and_what_did_not_are_counted_alike() -> None:
    async with serving() as site:
        client = await site.client("/?ch=a")
        before = client.connection.bytes_out
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        client.peer.take_all()
        await site.settle()
        member = client.member
        assert member.sent == site.hub.counts.deliveries == 30
        assert isinstance(member, DirectMember)
        member.settle()
        assert client.connection.bytes_out - before == len(client.peer.received) == site.hub.counts.bytes_out


@in_a_loop
async def test_control_frames_go_past_all_that_waits() -> None:
    async with serving() as site:
        client = await site.client("/?ch=a", v1=True)
        client.read()
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        waiting = client.member.waiting
        assert waiting is not None
        held = waiting.count
        client.say(id=7, leave={"ch": "other"})
        client.say(msg="for the application")
        await site.settle()
        assert waiting.count == held
        await site.hub.disconnect(member=client.member.id)
        client.peer.take_all()
        await site.settle()
        said = client.said()
        assert [each["p"] for each in said if "p" in each] == list(range(1, 31 - held))
        assert said[-1]["bye"]["code"] == 4503
        assert client.code == 4503


@in_a_loop
async def test_answers_wait_for_a_client_that_does_not_read_them() -> None:
    async with serving() as site:
        client = await site.client("/?ch=a", v1=True)
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        for number in range(50):
            client.say(id=number + 1, hist={"ch": "a"})
        await site.settle()
        assert client.connection.buffered < 3 * ROOM
        client.peer.take_all()
        await site.settle()
        assert [each["id"] for each in client.said() if "id" in each] == list(range(1, 51))


@in_a_loop
async def test_what_a_stalled_member_is_told_of_others_has_a_bound() -> None:
    async with serving(Channel("{name}", presence=Presence(batch=0), public=True)) as site:
        stalled = await site.client("/?ch=a", v1=True)
        await site.client("/?ch=a", v1=True)
        await site.settle()
        stalled.peer.stop_taking()
        member, topic = stalled.member, site.hub.node.topics.get("a")
        assert topic is not None
        for number in range(200):
            site.hub.node.presences.changed(topic, [Present(f"m{number}", "u", info="z" * 20_000)], [])
        assert member.over
        assert stalled.connection.buffered < 2.5 * 1024 * 1024
        assert site.hub.counts.closes[4008] == 1


@in_a_loop
async def test_a_stalled_member_costs_no_more_than_its_bound_and_is_closed_to_resume() -> None:
    rule = Channel("{name}", History(size=100), Outbox(max_bytes=20_000), public=True)
    async with serving(rule) as site:
        stalled, other = await site.client("/?ch=a", v1=True), await site.client("/?ch=a")
        stalled.read()
        stalled.peer.stop_taking()
        for number in range(100):
            await site.hub.publish("a", big(number))
            await turn()
            assert site.hub.counts.buffered <= 20_000
        assert len(other.read()) == 100
        stalled.peer.take_all()
        await site.settle()
        said = stalled.said()
        assert said[-1]["bye"]["code"] == stalled.code == 4008
        assert said[-1]["bye"]["retry"] is not None
        last = max(each["p"] for each in said if "p" in each)
        epoch = site.hub.node.topics.epoch
        again = await site.client(f"/?ch=a&since={epoch}.{last}", v1=True)
        assert [each["p"] for each in again.said() if "p" in each] == list(range(last + 1, 101))


@in_a_loop
async def test_who_ends_while_it_is_behind_leaves_nothing() -> None:
    async with serving() as site:
        clients = [await site.client("/?ch=a") for _ in range(4)]
        for client in clients:
            client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        assert len(site.hub.node.backlog.behind) == 4
        clients[0].peer.reset()
        clients[1].close()
        await site.hub.disconnect(member=clients[2].member.id)
        transport = clients[3].connection.transport
        assert transport is not None
        transport.abort()
        await site.settle()
        assert not site.hub.node.members
        await site.hub.publish("a", "to nobody")
        for client in clients[1:3]:
            client.peer.take_all()
        await site.settle()


@in_a_loop
async def test_an_event_stream_that_ends_lets_go_of_its_connection() -> None:
    async with serving() as site:
        client = await site.stream("/?ch=a")
        await site.hub.publish("a", "one")
        await site.settle()
        (member,) = site.hub.node.members.values()
        assert isinstance(member, DirectMember)
        assert client.connection.on_blocked == member._blocked
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        assert member.behind
        member.end(1012, "over")
        client.peer.take_all()
        await site.settle()
        assert not hasattr(client.connection, "on_blocked")
        body = client.response().body
        assert body.startswith(b":\n\n")
        assert client.response().complete or not client.received  # the answer has its end, and the connection lives on
        client.get("/?ch=a&wait=0")
        await site.settle()
        assert client.response().status == 200
        assert client.peer.ended.value == "open"


@in_a_loop
async def test_a_second_event_stream_on_the_same_connection_is_told_when_it_falls_behind() -> None:
    async with serving() as site:
        client = await site.stream("/?ch=a")
        (first,) = site.hub.node.members.values()
        first.end(1012, "over")
        await site.settle()
        client.peer.received.clear()
        client.get("/?ch=a", "accept: text/event-stream")
        await site.settle()
        (second,) = site.hub.node.members.values()
        assert isinstance(second, DirectMember)
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        assert second.behind
        client.peer.take_all()
        await site.settle()
        data = client.received
        places = [data.index(f"data: {number}:".encode()) for number in range(30)]
        assert places == sorted(places)


@in_a_loop
async def test_a_member_that_was_refused_leaves_no_trace_on_its_connection() -> None:
    async with serving(limits=HubLimits(total=1)) as site:
        await site.client("/?ch=a")
        client = await site.stream("/?ch=a")
        assert not hasattr(client.connection, "on_blocked")
        assert len(site.hub.node.members) == 1


@in_a_loop
async def test_written_is_true_as_soon_as_the_transport_has_it() -> None:
    async with serving() as site:
        client = await site.client("/?ch=a")
        assert (await site.hub.publish("a", "now", written=1)).written
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        assert (await site.hub.publish("a", "never", written=0.02)).written is False
        client.peer.take_all()
        await until(lambda: client.member.waiting is None)
        assert (await site.hub.publish("a", "again", written=1)).written


@in_a_loop
async def test_a_client_that_leaves_while_it_is_found_out_who_it_is_never_becomes_a_member() -> None:
    async with serving() as site:
        known = asyncio.Event()

        @site.hub.authenticate
        async def authenticate(caller: Caller) -> Identity:
            await known.wait()
            return Identity("ada")

        for leave in ("reset", "close"):
            known.clear()
            client = site.server.connect()
            client.get(
                "/?ch=a",
                "connection: Upgrade",
                "upgrade: websocket",
                "sec-websocket-key: c29qb3VybnNvam91cm4wMA==",
                "sec-websocket-version: 13",
            )
            await site.settle()
            getattr(client.peer, leave)()
            await site.settle()
            known.set()
            await site.settle()
            await site.server.advance(5)
            assert not site.hub.node.members
            assert site.server.open == 0


@in_a_loop
async def test_a_gap_that_is_told_is_no_message() -> None:
    async with serving(Channel("{name}", outbox=Outbox(max_messages=2, on_full="drop_oldest"), public=True)) as site:
        client = await site.client("/?ch=a", v1=True)
        client.read()
        client.peer.stop_taking()
        for number in range(30):
            await site.hub.publish("a", big(number))
            await turn()
        dropped = site.hub.counts.dropped["drop_oldest"]
        client.peer.take_all()
        await site.settle()
        said = client.said()
        assert ["gap" in each for each in said].count(True) == site.hub.counts.gaps == 1
        assert len([each for each in said if "p" in each]) == 30 - dropped == site.hub.counts.deliveries
