"""The same endpoint under Sojourn and under uvicorn, in every form in which a client may ask for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from websockets.asyncio.client import connect

from sojourn.clock import SystemClock
from sojourn.config import Config, Drain, Timeouts
from sojourn.errors import ClientDisconnected
from sojourn.hub.connected import Connected
from sojourn.hub.hub import Hub
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.rules import Channel, History, Presence
from tests.asgi.ws_harness import serving
from tests.hub.stand_ins import gone, in_a_loop, until

SERVERS = ("sojourn", "uvicorn")
V1: Any = {"subprotocols": ["sojourn.v1"]}
RULES = (
    Channel("room:{name}", History(size=50), public=True, publish=True, presence=Presence(batch=0.01)),
    Channel("none:{name}", public=True),
    Channel("closed:{name}"),
)


class Place:
    """A hub that is served.

    Attributes:
        hub: The hub.
        base: Host and port.
        received: What members have said to the application.
    """

    def __init__(self, hub: Hub, port: int, received: list[Any]) -> None:
        self.hub = hub
        self.base = f"127.0.0.1:{port}"
        self.received = received

    def ws(self, query: str = "", path: str = "/hub/", **options: Any) -> Any:
        """A WebSocket."""
        return connect(f"ws://{self.base}{path}{query}", compression=None, **options)

    def http(self) -> httpx.AsyncClient:
        """A client with a connection for each request, as the server's harness wants it."""
        return httpx.AsyncClient(base_url=f"http://{self.base}", timeout=5, headers={"connection": "close"})

    async def members(self, count: int) -> None:
        """Wait until there are so many."""
        await until(lambda: len(self.hub.node.members) == count)


def _application(hub: Hub, received: list[Any]) -> Any:
    async def handler(websocket: Any) -> None:
        async with hub.connect(websocket) as connected:
            await _serve(connected, received)

    app = FastAPI()

    @app.websocket("/fastapi/{name}")
    async def room(websocket: WebSocket, name: str) -> None:
        async with hub.connect(websocket) as connected:
            await connected.join(f"room:{name}")
            await _serve(connected, received)

    return Starlette(routes=[WebSocketRoute("/starlette", handler), Mount("/hub", hub.app()), Mount("/", app)])


async def _serve(connected: Connected, received: list[Any]) -> None:
    async for message in connected:
        received.append(message.data)
        if message.data == "join":
            await connected.join("room:a")
        elif message.data == "whisper":
            assert await connected.send({"only": connected.id}, written=5)
        elif message.data == "close":
            await connected.close(4503, "enough")


@asynccontextmanager
async def placed(server: str, hub: Hub | None = None) -> AsyncIterator[Place]:
    hub = hub or Hub(channels=RULES)
    received: list[Any] = []
    app = _application(hub, received)
    async with hub:
        if server == "sojourn":
            config = Config(drain=Drain(delay=0, close_rate=None), timeouts=Timeouts(disconnect_grace=0.1))
            async with serving(app, config, clock=SystemClock()) as served:
                yield Place(hub, served.address[1], received)
                await until(lambda: not hub.node.members)
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                settings = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
                running = uvicorn.Server(settings)
                task = asyncio.ensure_future(running._serve([listener]))
                await until(lambda: running.started)
                try:
                    yield Place(hub, listener.getsockname()[1], received)
                    await until(lambda: not hub.node.members)
                finally:
                    running.should_exit = True
                    await task
        gone(hub)


async def said(ws: Any, count: int = 1) -> list[Any]:
    """So many objects of ``sojourn.v1``, without those that are pings."""
    found: list[Any] = []
    while len(found) < count:
        found.extend(each for line in (await ws.recv()).split("\n") if (each := json.loads(line)))
    assert len(found) == count, found
    return found


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_plain_payloads_come_as_they_were_published(server: str) -> None:
    async with placed(server) as place, place.ws("?ch=room:a&ch=none:b") as ws:
        await place.members(1)
        await until(lambda: len(place.hub.node.topics.all()) == 2)
        await asyncio.sleep(0.01)
        for data in ("text", b"bytes", {"json": 1}, [1]):
            await place.hub.publish("room:a", data)
        await place.hub.publish("none:b", "other")
        got = [await ws.recv() for _ in range(5)]
        assert got[:2] == ["text", b"bytes"]
        assert [json.loads(each) for each in got[2:4]] == [{"json": 1}, [1]]
        assert got[4] == "other"


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_stamped_payloads_say_where_they_are(server: str) -> None:
    async with placed(server) as place:
        cursors = [(await place.hub.publish("room:a", {"n": number})).cursor for number in range(3)]
        async with place.ws(f"?ch=room:a&since={cursors[0]}") as ws:
            assert json.loads(await ws.recv()) == {"_id": str(cursors[0])}  # its own place, until it has what follows
            assert json.loads(await ws.recv()) == {"_id": str(cursors[1]), "n": 1}
            assert json.loads(await ws.recv()) == {"_id": str(cursors[2]), "n": 2}
        async with place.ws("?ch=room:a&since=") as ws:
            assert json.loads(await ws.recv()) == {"_id": str(cursors[2])}
        async with place.ws("?ch=room:a&since=gone.7") as ws:
            assert list(json.loads(await ws.recv())) == ["_id"]
            assert json.loads(await ws.recv()) == {"_gap": "room:a"}
            assert json.loads(await ws.recv())["n"] == 0


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_plain_clients_are_told_of_a_gap_by_the_end_of_the_connection(server: str) -> None:
    async with placed(server) as place, place.ws("?ch=none:b") as ws:
        await place.members(1)
        await until(lambda: len(place.hub.node.topics.all()) == 1)
        place.hub.node.lost(None)  # nothing was published: nothing is missing
        await place.hub.publish("none:b", "first")
        assert await ws.recv() == "first"
        topic = place.hub.node.topics.get("none:b")
        topic.seq = 0  # as if what came had been another one
        place.hub.node.lost(None)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd.code == 4011


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_v1_says_hello_joins_publishes_resumes_and_leaves(server: str) -> None:
    async with placed(server) as place:
        hub = place.hub
        async with place.ws(**V1) as ws:
            (hello,) = await said(ws)
            assert list(hello) == ["hello"]
            join = '{"id":1,"join":{"ch":"room:a","info":{"name":"Ada"}}}'
            await ws.send(join + '\n{"id":2,"pub":{"ch":"room:a","d":"hi"}}')
            answers = await said(ws, 2)
            while len(answers) < 4:
                answers += await said(ws)
            kinds = {next(iter(each)) if "id" not in each else each["id"]: each for each in answers}
            assert kinds[1]["ok"].keys() == {"pos"}
            assert kinds[2]["ok"]["repeated"] is False
            assert kinds["ch"]["d"] == "hi"
            assert kinds["pres"]["pres"]["came"][0]["info"] == {"name": "Ada"}
            await ws.send('{"id":3,"who":{"ch":"room:a"}}')
            assert (await said(ws))[0]["ok"]["members"][0]["info"] == {"name": "Ada"}
            await ws.send('{"id":4,"hist":{"ch":"room:a"}}')
            assert [each["d"] for each in (await said(ws))[0]["ok"]["pubs"]] == ["hi"]
            await ws.send('{"id":5,"leave":{"ch":"room:a"}}')
            assert await said(ws) == [{"id": 5, "ok": {}}]
            position = kinds[2]["ok"]["pos"]
        for number in range(3):
            await hub.publish("room:a", number)
        async with place.ws(**V1) as ws:
            await said(ws)
            await ws.send(json.dumps({"id": 1, "join": {"ch": "room:a", "since": position}}))
            first, *missed = await said(ws, 4)
            assert first == {"id": 1, "ok": {"pos": position, "recovered": True}}
            assert [each["d"] for each in missed] == [0, 1, 2]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_v1_refuses_in_words_and_goes_on(server: str) -> None:
    async with placed(server) as place, place.ws(**V1) as ws:
        await said(ws)
        for command, code in (
            ('{"id":1,"join":{"ch":"closed:x"}}', "forbidden"),
            ('{"id":2,"join":{"ch":"nowhere"}}', "forbidden"),
            ('{"id":3,"pub":{"ch":"none:x","d":1}}', "forbidden"),
            ('{"id":4,"wrong":{}}', "bad_request"),
            ("no json", "bad_request"),
            ('{"id":5,"refresh":{"token":"x"}}', "bad_request"),
        ):
            await ws.send(command)
            (answer,) = await said(ws)
            assert answer["error"]["code"] == code, command
        await ws.send('{"id":9,"msg":"hello"}')
        assert await said(ws) == [{"id": 9, "ok": {}}]


@pytest.mark.parametrize("path", ["/starlette", "/fastapi/a"])
@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_handlers_of_frameworks_talk_with_members(server: str, path: str) -> None:
    async with placed(server) as place, place.ws(path=path) as ws:
        await place.members(1)
        if path == "/starlette":
            await ws.send("join")
        await until(lambda: place.hub.node.topics.all() and place.hub.node.topics.all()[0].size)
        assert (await place.hub.publish("room:a", "all", written=5)).written is True
        assert await ws.recv() == "all"
        await ws.send("whisper")
        assert list(json.loads(await ws.recv())) == ["only"]
        await ws.send("close")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await ws.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4503, "enough")


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_event_streams_resume_from_the_last_event(server: str) -> None:
    async with placed(server) as place, place.http() as client:
        cursors = [(await place.hub.publish("room:a", {"n": number})).cursor for number in range(3)]
        headers = {"accept": "text/event-stream", "last-event-id": str(cursors[0])}
        async with client.stream("GET", "/hub/?ch=room:a", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = _events(answer)
            assert (await anext(events))["id"] == str(cursors[0])
            assert [await anext(events), await anext(events)] == [
                {"id": str(cursors[1]), "data": '{"n":1}'},
                {"id": str(cursors[2]), "data": '{"n":2}'},
            ]
            live = await place.hub.publish("room:a", "two\nlines")
            assert await anext(events) == {"id": str(live.cursor), "data": "two\nlines"}
        headers["last-event-id"] = "x.1"
        async with client.stream("GET", "/hub/?ch=room:a&v=1", headers=headers) as got:
            events = _events(got)
            assert list(json.loads((await anext(events))["data"])) == ["hello"]
            assert json.loads((await anext(events))["data"])["gap"]["ch"] == "room:a"


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_stream_that_is_ended_says_good_bye_and_ends(server: str) -> None:
    async with placed(server) as place, place.http() as client:
        headers = {"accept": "text/event-stream"}
        async with client.stream("GET", "/hub/?ch=room:a", headers=headers) as answer:
            events = _events(answer)
            await anext(events)
            (member,) = place.hub.node.members.values()
            await place.hub.publish("room:a", "last")
            assert (await anext(events))["data"] == "last"
            await place.hub.disconnect(member=member.id, code=1012, reason="bye bye")
            last = await anext(events)
            assert (last["event"], last["data"]) == ("bye", "bye bye")
            assert 500 <= int(last["retry"]) <= 8000
            assert [event async for event in events] == []


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_long_polls_answer_as_soon_as_there_is_something(server: str) -> None:
    async with placed(server) as place, place.http() as client:
        first = (await client.get("/hub/?ch=room:a&wait=5")).json()
        assert first["pubs"] == []
        polling = asyncio.ensure_future(client.get(f"/hub/?ch=room:a&wait=5&since={first['pos']}"))
        await place.members(1)
        await asyncio.sleep(0.01)
        sent = await place.hub.publish("room:a", {"n": 1})
        got = (await polling).json()
        assert [each["d"] for each in got["pubs"]] == [{"n": 1}]
        assert got["pos"] == str(sent.cursor)
        empty = (await client.get(f"/hub/?ch=room:a&wait=0.01&since={got['pos']}")).json()
        assert empty["pubs"] == []
        assert (await client.get("/hub/?ch=room:a&wait=5&since=x.9")).json()["gap"] == ["room:a"]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_commands_of_single_requests_are_carried_out(server: str) -> None:
    async with placed(server) as place, place.http() as client:
        body = '{"id":1,"pub":{"ch":"room:a","d":1,"uid":"x"}}\n{"id":2,"pub":{"ch":"room:a","d":1,"uid":"x"}}\n'
        answers = [json.loads(line) for line in (await client.post("/hub/", content=body)).text.splitlines()]
        assert [each["ok"]["repeated"] for each in answers] == [False, True]
        assert answers[0]["ok"]["pos"] == answers[1]["ok"]["pos"]
        refused = await client.post("/hub/", content='{"id":1,"join":{"ch":"room:a"}}')
        assert refused.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_requests_that_can_not_be_served_are_told_why(server: str) -> None:
    async with placed(server) as place, place.http() as client:
        for query, options, status in (
            ("?ch=room:a", {}, 406),
            ("?ch=closed:a&wait=1", {}, 403),
            ("?ch=nowhere&wait=1", {}, 403),
            ("?ch=room:a&wait=soon", {}, 400),
            ("?" + "&".join(f"ch=room:{number}" for number in range(200)) + "&wait=1", {}, 400),
        ):
            answer = await client.get(f"/hub/{query}", **options)
            assert answer.status_code == status, query
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.put("/hub/")).status_code == 405
        assert (await client.post("/hub/", content=b"x" * 70_000)).status_code == 413


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_an_authenticator_decides_who_comes_in(server: str) -> None:
    hub = Hub(channels=RULES)

    @hub.authenticate
    async def who(caller: Caller) -> Identity | None:
        return Identity(caller.token) if caller.token.startswith("a") else None

    async with placed(server, hub) as place, place.http() as client:
        async with place.ws("?token=ada", **V1) as ws:
            assert (await said(ws))[0]["hello"]["user"] == "ada"
        async with place.ws(**V1) as ws:
            await ws.send('{"id":7,"auth":{"token":"alan"}}')
            answers = await said(ws)
            answers += await said(ws) if len(answers) < 2 else []
            assert answers[0] == {"id": 7, "ok": {}}
            assert answers[1]["hello"]["user"] == "alan"
        async with place.ws(**V1) as ws:
            await ws.send('{"id":7,"auth":{"token":"eve"}}')
            assert (await said(ws))[0]["error"]["code"] == "unauthenticated"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd.code == 4501
        with pytest.raises(websockets.InvalidStatus) as refused:
            await place.ws("?token=eve")
        assert refused.value.response.status_code == 401
        assert (await client.get("/hub/?wait=1&token=eve")).status_code == 401
        assert (await client.get("/hub/?wait=1", headers={"authorization": "Bearer alan"})).status_code == 200


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_client_that_vanishes_leaves_nothing(server: str) -> None:
    async with placed(server) as place:
        sockets = [await place.ws(query, **options) for query, options in (("?ch=room:a", {}), ("", V1), ("", V1))]
        await place.members(3)
        for ws in sockets:
            ws.transport.abort()
        await place.members(0)


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_hub_that_ends_sends_its_members_away_to_come_back(server: str) -> None:
    async with placed(server) as place, place.ws(**V1) as ws:
        await said(ws)
        node = place.hub.node
        node.end(list(node.members.values()), 1012, "the hub ends")
        bye = (await said(ws))[0]["bye"]
        assert (bye["code"], bye["retry"]) == (1012, [500, 8000])
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd.code == 1012


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Events with their fields, as WHATWG HTML section 9.2.6 reads them; comments are nothing."""
    event: dict[str, str] = {}
    with suppress(ClientDisconnected):
        async for line in answer.aiter_lines():
            if not line:
                if event:
                    yield event
                event = {}
                continue
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                event[name] = f"{event[name]}\n{value}" if name in event else value
