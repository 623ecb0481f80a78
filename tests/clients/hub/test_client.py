"""The client over real sockets: what it hands over, how it comes back, what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvloop
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from sojourn.clients.hub.client import HubClient
from sojourn.clients.hub.events import Count, Ended, Gap, HubState, Member, Message, Rejoined
from sojourn.clients.hub.link import Loss
from sojourn.clients.hub.rules import ClientRules
from sojourn.errors import ConfigError, DeadlineExceeded, HubGone, HubRefused
from sojourn.scopes.deadline import deadline
from sojourn.testing.faults import FaultProxy
from tests.clients.hub.model import ModelHub
from tests.clients.hub.stand_in import QUICK, StandIn, client_of, standing, until
from tests.clients.scene import took

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Run a test on either loop; it leaves no task behind, and one that hangs fails."""

    async def bounded(main: Awaitable[Any]) -> None:
        async with asyncio.timeout(20):
            await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield lambda main: runner.run(bounded(main))


def changed(**rules: Any) -> ClientRules:
    return msgspec.structs.replace(QUICK, **rules)


async def take(events: Any, count: int) -> list[Any]:
    """The next ones, within a few seconds."""
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


def test_everything_that_a_channel_offers(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            room = await client.join("chat:1", info={"name": "ada"})
            assert await client.join("chat:1") is room
            assert (client.state, client.user, client.ended) == (HubState.OPEN, "ada", None)
            first = await room.publish({"text": "hello"}, key="k")
            assert (first.position, first.repeated) == ("e0.1", False)
            assert (await room.publish("again", uid="mine")).position == "e0.2"
            assert (await room.publish("again", uid="mine")).repeated
            await room.publish(b"\x00")
            assert await take(room, 3) == [
                Message("chat:1", {"text": "hello"}, "e0.1", "k"),
                Message("chat:1", "again", "e0.2"),
                Message("chat:1", b"\x00", "e0.3"),
            ]
            assert room.position == "e0.3"
            assert (await room.presence()).members == [Member("m0", "ada")]
            assert await room.count() == Count(1, 1)
            page = await room.history("e0.1", 1)
            assert page.messages == [Message("chat:1", "again", "e0.2")]
            assert (page.position, page.gap, page.more) == ("e0.3", False, True)
            await client.send({"to": "the application"})
            assert server.hub.said == [{"to": "the application"}]
            server.hub.sessions[0].say({"msg": "to you"})
            assert await take(client.messages, 1) == [Message("", "to you")]
            await room.leave()
            assert [event async for event in room] == []
            await until(lambda: server.hub.sessions[0].channels == {})
        assert client.state is HubState.STOPPED
        assert server.closes == [1000]

    run(main())


def test_nothing_is_lost_or_doubled_across_cuts(run: Any) -> None:
    async def main() -> None:
        async with (
            standing(StandIn(ModelHub(size=1000))) as server,
            FaultProxy(("127.0.0.1", server.port)) as proxy,
            client_of(server, proxy.address[1]) as client,
        ):
            room = await client.join("a")
            for number in range(60):
                server.hub.publish("a", number)
                if number % 10 == 5:
                    proxy.cut()
                    answers = asyncio.gather(*(room.publish(f"{number}.{each}") for each in range(3)))
                    await answers
            found: list[Any] = []
            async with asyncio.timeout(5):
                async for event in room:
                    assert isinstance(event, Message | Rejoined)
                    if isinstance(event, Message):
                        found.append(event.data)
                    if event.position == server.hub.position and not isinstance(event, Rejoined):
                        break
            assert [data for data in found if isinstance(data, int)] == list(range(60))
            assert len(found) == len(set(found)) == 78
            assert proxy.accepted == 7

    run(main())


def test_a_new_token_is_asked_for_before_each_connection_and_when_one_ends(run: Any) -> None:
    async def main() -> None:
        tokens = iter(["t-1", "t-2", "t-3"])

        async def token() -> str:
            return next(tokens)

        async with standing() as server, client_of(server, token=token) as client:
            room = await client.join("a")
            await server.close(4401)
            assert await take(room, 1) == [Rejoined("a", "e0.0")]
            assert server.tokens == ["Bearer t-1", "Bearer t-2"]
            server.hub.sessions[0].say({"expiring": {"in": 60}})
            await until(lambda: {"refresh": {"token": "t-3"}} in server.hub.sessions[0].heard)

    run(main())


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_come_gives_up_and_everybody_is_told(status: int, run: Any) -> None:
    async def main() -> None:
        told: list[Any] = []
        async with standing() as server:
            server.statuses = [503, status]
            async with client_of(server, token="no", on_give_up=told.append) as client:
                joining = [asyncio.ensure_future(client.join(name)) for name in ("a", "b")]
                for done in joining:
                    with pytest.raises(HubGone, match=f"HTTP {status}"):
                        await done
                assert told == [Ended(f"HTTP {status}", status)]
                assert client.state is HubState.GIVEN_UP
                with pytest.raises(HubGone):
                    await client.send("x")
                with pytest.raises(HubGone):
                    await client.join("c")
                with pytest.raises(HubGone):
                    await anext(client.messages)

    run(main())


def test_a_code_that_says_stay_away_ends_the_iteration(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            room = await client.join("a")
            server.hub.publish("a", 1)
            await until(lambda: room._inbox)
            await server.close(4503)
            assert await take(room, 1) == [Message("a", 1, "e0.1")]
            with pytest.raises(HubGone, match="because"):
                await anext(room)

    run(main())


def test_a_server_of_another_protocol_is_the_end(run: Any) -> None:
    async def main() -> None:
        async with standing(StandIn(protocol=None)) as server, client_of(server) as client:
            with pytest.raises(HubGone):
                await client.join("a")
            assert client.state is HubState.GIVEN_UP

    run(main())


def test_a_join_that_is_refused_says_why(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            server.hub.refusals["join"] = [("forbidden", False)]
            with pytest.raises(HubRefused, match="forbidden"):
                await client.join("a")
            assert client._rooms == {}
            assert (await client.join("a")).name == "a"  # it may be another matter now
            with pytest.raises(ValueError, match="no cursor"):
                await client.join("b", since="yesterday")
            with pytest.raises(ValueError, match="no name"):
                await client.join("two words")
            with pytest.raises(ValueError, match="JSON"):
                await client.join("b", info=object())

    run(main())


def test_waits_end_at_the_ambient_deadline_and_leave_nothing(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            room = await client.join("a")
            server.hub.mute |= {"pub", "join"}
            for call in (lambda: room.publish(1), lambda: client.join("b")):
                with took(0.04, 3.0), pytest.raises(DeadlineExceeded, match="'asked'"):
                    async with deadline(0.05, "asked"):
                        await call()
            assert (client._answers, list(client._rooms)) == ({}, ["a"])
            await until(lambda: list(server.hub.sessions[0].channels) == ["a"])

    run(main())


def test_waits_end_without_an_ambient_deadline_too(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server, rules=changed(reply=0.05)) as client:
            await until(lambda: client.state is HubState.OPEN)
            server.greets = False
            await server.close(1012)
            await until(lambda: client.ended is not None)
            with took(0.04, 3.0), pytest.raises(DeadlineExceeded, match="'hub'") as raised:
                await client.send(1)
            assert raised.value.__notes__ == ["the hub is not connected (connecting): because (1012)"]
            with took(0.04, 3.0), pytest.raises(DeadlineExceeded, match="'hub'"):
                await client.join("b")
            assert (client._answers, client._rooms, client._machine.asking) == ({}, {}, False)

    run(main())


@pytest.mark.parametrize("what", ["connecting", "greeting", "open"])
def test_a_server_that_vanishes_is_left_and_found_again(what: str, run: Any) -> None:
    async def main() -> None:
        stand_in = StandIn()
        stand_in.hub.hello |= {"ping": 0.05, "pong": 0.05}
        async with standing(stand_in) as server, FaultProxy(("127.0.0.1", server.port)) as proxy:
            rules = changed(connect=0.1, hello=0.1)
            server.greets = what != "greeting"
            lost = proxy.timeout() if what == "connecting" else None
            async with client_of(server, proxy.address[1], rules=rules) as client:
                if what == "open":
                    await client.join("a")
                    lost = proxy.timeout()
                await until(lambda: client.ended is not None)
                assert client.ended is not None
                assert client.ended.code == 0
                server.greets = True
                stand_in.hub.hello |= {"ping": 25, "pong": 8}
                if lost is not None:
                    lost.remove()
                await client.join("b")

    run(main())


def test_closing_is_bounded_whatever_the_server_does(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, FaultProxy(("127.0.0.1", server.port)) as proxy:
            client = client_of(server, proxy.address[1], rules=changed(close=0.1))
            async with client:
                room = await client.join("a")
                proxy.timeout()
                waiting = asyncio.ensure_future(room.publish(1))
                reading = asyncio.ensure_future(anext(room))
                await asyncio.sleep(0)
                with took(0.05, 3.0):
                    await client.aclose()
                with pytest.raises(HubGone):
                    await waiting
                with pytest.raises(StopAsyncIteration):
                    await reading
                await client.aclose()
            assert client._timer is None

    run(main())


def test_cancelled_at_any_turn_nothing_is_left(run: Any) -> None:
    async def main() -> None:
        async with standing() as server:

            async def use() -> None:
                async with client_of(server) as client:
                    room = await client.join("a")
                    await room.publish(1)
                    await anext(room)

            for turns in range(60):
                task = asyncio.ensure_future(use())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await until(lambda: not server.sockets)
            assert server.hub.sessions == []

    run(main())


def test_calls_cancelled_at_any_turn_leave_a_client_that_works(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            kept = await client.join("kept")

            async def use() -> None:
                room = await client.join("a")
                await room.publish("cancelled")
                await room.leave()

            for turns in range(30):
                task = asyncio.ensure_future(use())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                room = client._rooms.get("a")
                if room is not None:
                    await room.leave()
            assert (await kept.count()).members == 1
            assert (client._answers, list(client._rooms), client._machine.asking) == ({}, ["kept"], False)
            waiting = asyncio.ensure_future(anext(kept))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            server.hub.publish("kept", 1)
            assert [event.data for event in await take(kept, 1)] == [1]

    run(main())


def test_when_the_application_is_slow_nothing_is_read_and_nothing_lost(run: Any) -> None:
    async def main() -> None:
        total, stand_in = 60, StandIn()
        async with standing(stand_in) as server, client_of(server, rules=changed(buffer=20)) as client:
            room = await client.join("a")
            server.hub.publish("a", 0)
            assert (await take(room, 1))[0].data == 0  # somebody reads
            for number in range(1, total):
                server.hub.publish("a", number)
            await until(lambda: client._gate is not None)
            assert 20 < len(room._inbox) < 40
            published = await room.publish("an answer behind it")  # is read for as far as there is room
            assert published.position
            found = [event.data for event in await take(room, total)]
            assert found == [*range(1, total), "an answer behind it"]

    run(main())


def test_an_answer_that_is_too_far_behind_is_given_up_and_the_rest_is_whole(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server, rules=changed(buffer=5, reply=0.1)) as client:
            room = await client.join("a")
            server.hub.publish("a", 0)
            await take(room, 1)
            for number in range(1, 2000):
                server.hub.publish("a", number)
            with pytest.raises(DeadlineExceeded):
                await room.publish("unread")
            assert len(room._inbox) < 5 * 4 + 20
            assert [event.data for event in await take(room, 2000)] == [*range(1, 2000), "unread"]

    run(main())


def test_a_channel_that_nobody_reads_holds_nobody_up_and_begins_with_a_gap(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server, rules=changed(buffer=10)) as client:
            unread, read = await client.join("unread"), await client.join("read")
            for number in range(100):
                server.hub.publish("unread", number)
                server.hub.sessions[0].say({"msg": number})
            server.hub.publish("read", "through")
            assert (await take(read, 1))[0].data == "through"
            assert await take(unread, 2) == [Gap("unread", "e0.90"), Message("unread", 90, "e0.91")]
            assert await take(client.messages, 2) == [Gap("", ""), Message("", 90)]

    run(main())


def test_one_task_at_a_time_reads_a_channel(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server) as client:
            room = await client.join("a")
            reading = asyncio.ensure_future(anext(room))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(room)
            server.hub.publish("a", 1)
            assert (await reading).position == "e0.1"

    run(main())


def test_states_are_told_and_a_callback_that_fails_stops_nothing(run: Any) -> None:
    async def main() -> None:
        states: list[HubState] = []
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

        def on_state(state: HubState) -> None:
            states.append(state)
            raise LookupError(state)

        async with standing() as server, client_of(server, on_state=on_state) as client:
            await client.join("a")
            await server.close(1012)
            await client.join("b")
        new, opened, waiting = HubState.CONNECTING, HubState.OPEN, HubState.WAITING
        assert states == [new, opened, waiting, new, opened, HubState.STOPPED]
        assert len(failures) == 6

    run(main())


def test_a_token_that_can_not_be_had_is_tried_again(run: Any) -> None:
    async def main() -> None:
        tries = []

        async def token() -> str:
            tries.append(1)
            if len(tries) < 3:
                raise KeyError("no service")
            return "t"

        async with standing() as server, client_of(server, token=token) as client:
            await client.join("a")
            assert len(tries) == 3
            assert server.tokens == ["Bearer t"]

    run(main())


def test_a_frame_that_is_too_large_is_the_end(run: Any) -> None:
    async def main() -> None:
        async with standing() as server, client_of(server, rules=changed(frame=1000)) as client:
            room = await client.join("a")
            server.hub.publish("a", "x" * 2000)
            with pytest.raises(HubGone, match="1009"):
                await take(room, 1)

    run(main())


def test_what_is_around_the_client_does_not_bound_it(run: Any) -> None:
    async def main() -> None:
        async with standing() as server:
            client = client_of(server)
            async with deadline(0.05, "start"):
                await client.__aenter__()
            try:
                await asyncio.sleep(0.08)
                await client.join("a")
                await server.close(1012)
                await client.join("b")
            finally:
                await client.aclose()

    run(main())


def test_a_client_is_entered_once_and_before_it_is_used(run: Any) -> None:
    async def main() -> None:
        async with standing() as server:
            client = client_of(server)
            for call in (lambda: client.join("a"), lambda: client.send(1)):
                with pytest.raises(RuntimeError, match="async with"):
                    await call()
            async with client:
                with pytest.raises(RuntimeError, match="once"):
                    await client.__aenter__()

    run(main())


def test_options_reach_the_library_beside_what_the_client_needs(run: Any) -> None:
    async def main() -> None:
        async with standing() as server:
            options = {"additional_headers": {"X-Region": "eu"}, "compression": None, "origin": "https://a.example"}
            async with client_of(server, token="t", options=options) as client:
                await client.join("a")
                (socket,) = server.sockets
                assert socket.request is not None
                headers = socket.request.headers
                found = [
                    headers.get(name) for name in ("X-Region", "Origin", "Authorization", "Sec-WebSocket-Extensions")
                ]
                assert found == ["eu", "https://a.example", "Bearer t", None]

    run(main())


@pytest.mark.parametrize(
    ("received", "sent", "first", "expected"),
    [
        (Close(4503, "out"), Close(4503, ""), True, (4503, "out")),
        (Close(1012, ""), None, None, (1012, "closed")),
        (Close(1000, ""), Close(1009, "too big"), False, (1009, "too big")),
        (None, Close(1009, "too big"), None, (1009, "too big")),
        (None, None, None, (1006, "the connection broke")),
    ],
)
def test_who_closes_first_says_why(received: Any, sent: Any, first: Any, expected: tuple[int, str]) -> None:
    loss = Loss.of(ConnectionClosedError(received, sent, first))
    assert (loss.code, loss.reason) == expected


@pytest.mark.parametrize("url", ["", "example.org/hub", "ftp://example.org", "ws://"])
def test_an_address_that_is_none_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a hub"):
        HubClient(url)


@pytest.mark.parametrize("rules", [{"reply": 0}, {"give_up_after": -1}, {"first": 30.0}, {"in_flight": 0}])
def test_rules_that_make_no_sense_are_errors_at_once(rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ClientRules"):
        ClientRules(**rules)
