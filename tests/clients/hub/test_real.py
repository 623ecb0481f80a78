"""The client and the hub itself, on Sojourn's own server, with cuts between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

import sojourn
from sojourn.clients.hub.client import HubClient
from sojourn.clients.hub.events import Gap, HubState, Joined, Left, Message, Rejoined, Snapshot
from sojourn.config import Bind, Config, Drain
from sojourn.errors import HubGone, HubRefused
from sojourn.server.server import Server
from sojourn.testing.faults import FaultProxy
from tests.clients.hub.stand_in import QUICK, until
from tests.clients.scene import run


def make(size: int = 1000, **more: Any) -> sojourn.Hub:
    rule = sojourn.Channel(
        "chat:{room}",
        history=sojourn.History(size=size),
        presence=sojourn.Presence(batch=0.01),
        public=True,
        publish=True,
    )
    limits = sojourn.HubLimits(inbound_rate=100_000.0, inbound_burst=100_000, connect_rate=None)
    return sojourn.Hub(channels=[rule], limits=limits, drain=sojourn.HubDrain(retry=(0, 20)), **more)


@asynccontextmanager
async def serving(hub: sojourn.Hub) -> AsyncIterator[tuple[str, int]]:
    """Serve a hub in this loop. Yields its address."""
    settings = Config(bind=Bind(port=0), drain=Drain(delay=0.0, sockets=0.1, total=2.0))
    async with Server(hub.app(), settings) as server:
        host, _, port = server.addresses[0].removeprefix("http://").partition(":")
        yield host, int(port)


def client_at(address: tuple[str, int], **more: Any) -> HubClient:
    return HubClient(f"http://{address[0]}:{address[1]}/hub", rules=more.pop("rules", QUICK), **more)


async def take(events: Any, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


def test_two_clients_talk() -> None:
    async def main() -> None:
        hub = make()
        async with serving(hub) as address, client_at(address) as ada, client_at(address) as bob:
            ada_room = await ada.join("chat:1", info={"name": "ada"})
            bob_room = await bob.join("chat:1", info={"name": "bob"})
            published = await ada_room.publish({"text": "hello"})
            found: list[Any] = []
            while not any(isinstance(event, Message) for event in found):
                found += await take(bob_room, 1)
            assert found[-1] == Message("chat:1", {"text": "hello"}, published.position)
            async with asyncio.timeout(5):
                while len((await bob_room.presence()).members) < 2:  # noqa: ASYNC110 - joins are gathered for a moment
                    await asyncio.sleep(0.01)
            members = await bob_room.presence()
            assert sorted(member.info["name"] for member in members.members) == ["ada", "bob"]
            assert (await bob_room.count()).members == 2
            page = await bob_room.history()
            assert [message.data for message in page.messages] == [{"text": "hello"}]
            again = await ada_room.publish(b"\x00\x01", uid="mine")
            assert (await ada_room.publish(b"\x00\x01", uid="mine")).position == again.position
            await ada_room.leave()
            while not isinstance(found[-1], Left):
                found += await take(bob_room, 1)
            assert Message("chat:1", b"\x00\x01", again.position) in found
            assert any(isinstance(event, Joined) for event in found)

    run(main())


def test_who_is_not_let_in_is_told() -> None:
    async def main() -> None:
        hub = make()

        @hub.authenticate
        async def who(caller: Any) -> sojourn.Identity | None:
            return sojourn.Identity("ada") if caller.token == "t-ada" else None

        async with serving(hub) as address:
            async with client_at(address, token="t-eve") as eve:
                with pytest.raises(HubGone):
                    await eve.join("chat:1")
                assert eve.state is HubState.GIVEN_UP
            async with client_at(address, token="t-ada") as ada:
                await ada.join("chat:1")
                assert ada.user == "ada"
                with pytest.raises(HubRefused):
                    await ada.join("secret:1")

    run(main())


def test_across_random_cuts_each_publication_comes_once_and_in_order() -> None:
    async def main() -> None:
        hub, chance, total = make(), random.Random(7), 300
        async with serving(hub) as address, FaultProxy(address) as proxy, client_at(proxy.address) as client:
            room = await client.join("chat:1")

            async def publish() -> None:
                for number in range(total):
                    await hub.publish("chat:1", number)
                    if chance.random() < 0.05:
                        proxy.cut()
                    await asyncio.sleep(0.001)

            publishing = asyncio.ensure_future(publish())
            found: list[int] = []
            async with asyncio.timeout(10):
                async for event in room:
                    assert isinstance(event, Message | Rejoined | Joined | Left), event
                    if isinstance(event, Message):
                        found.append(event.data)
                        if event.data == total - 1:
                            break
            await publishing
            assert found == list(range(total))
            assert proxy.accepted > 5

    run(main())


def test_publications_of_the_client_are_there_once_across_cuts() -> None:
    async def main() -> None:
        hub = make()
        async with serving(hub) as address, FaultProxy(address) as proxy, client_at(proxy.address) as client:
            room = await client.join("chat:1")
            for number in range(50):
                asked = asyncio.ensure_future(room.publish(number))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                if number % 5 == 0:
                    proxy.cut()
                assert (await asked).position
            page = await room.history(limit=1000)
            assert [message.data for message in page.messages] == list(range(50))

    run(main())


@pytest.mark.parametrize("snapshot", [False, True])
def test_what_the_hub_has_not_kept_is_told(snapshot: bool) -> None:
    async def main() -> None:
        hub = make(size=3)
        if snapshot:

            @hub.snapshot("chat:{room}")
            async def state(room: str) -> Any:
                return {"room": room}

        async with serving(hub) as address, FaultProxy(address) as proxy, client_at(proxy.address) as client:
            room = await client.join("chat:1")
            await hub.publish("chat:1", "first")
            found = await take(room, 1)
            while not isinstance(found[-1], Message):
                found = await take(room, 1)
            down = proxy.timeout()
            proxy.cut()
            for number in range(10):
                await hub.publish("chat:1", number)
            down.remove()
            proxy.cut()
            found = []
            async with asyncio.timeout(5):
                async for event in room:
                    if not isinstance(event, Joined | Left):
                        found.append(event)
                    if isinstance(event, Snapshot) or (isinstance(event, Message) and event.data == 9):
                        break
            assert isinstance(found[0], Rejoined)
            if snapshot:
                assert [(type(event), event.data) for event in found[1:]] == [(Snapshot, {"room": "1"})]
            else:
                assert [type(event) for event in found[1:]] == [Gap, Message, Message, Message]
                assert [event.data for event in found[2:]] == [7, 8, 9]
            assert (await room.publish("goes on")).position

    run(main())


def test_a_server_that_drains_is_left_and_the_next_one_is_found() -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", 1)) as proxy, client_at(proxy.address) as client:
            for _ in range(2):
                async with serving(make()) as address:
                    proxy.upstream = address
                    room = await client.join("chat:1")
                    await room.publish("here")
                await until(lambda: client.state is not HubState.OPEN)
            events = [event for event in [await anext(room) for _ in range(4)] if not isinstance(event, Joined | Left)]
            assert any(isinstance(event, Message) for event in events)

    run(main())


def test_a_member_that_the_application_ends_does_not_come_back() -> None:
    async def main() -> None:
        hub = make()

        @hub.authenticate
        async def who(caller: Any) -> sojourn.Identity:
            return sojourn.Identity("ada")

        async with serving(hub) as address, client_at(address, rules=msgspec.structs.replace(QUICK)) as client:
            room = await client.join("chat:1")
            await hub.disconnect(user="ada", code=4503)
            with pytest.raises(HubGone):
                async for _ in room:
                    pass
            assert client.state is HubState.GIVEN_UP

    run(main())
