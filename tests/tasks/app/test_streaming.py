"""A task that is watched: events and messages, resumed after a cut, told what is missing, sent home at a drain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sojourn.errors import JournalUnavailable, TaskNotFound
from sojourn.tasks.following import Gap, Told, follow
from sojourn.tasks.record import Event, Task
from sojourn.tasks.streaming import Stream
from tests.hub.stand_ins import in_a_loop, until
from tests.tasks.app.scene import SERVERS, Scene, events, played, words

STREAM = {"accept": "text/event-stream"}


async def talking(scene: Scene, *said: str) -> str:
    """The location of a task that has said something, and waits at the gate."""
    started = await scene.tasks.start("talk", list(said))
    await scene.spoken(started.id, len(said))
    return started.location


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_stream_tells_states_progress_and_the_end(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        location = await talking(scene, "a", "b")
        async with client.stream("GET", location, headers=STREAM) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            asyncio.get_running_loop().call_later(0.1, scene.gate.set)
            found = await events(answer)
        assert [each["event"] for each in found] == ["state", "progress", "progress", "progress", "end"]
        assert words(found) == ["a", "b", "done"]
        assert [each.get("id") for each in found] == [None, "1", "2", "3", "3.1"]
        assert json.loads(found[0]["data"])["state"] == "running"
        end = json.loads(found[-1]["data"])
        assert (end["state"], end["result"], end["location"]) == ("completed", 2, location)


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_after_a_cut_it_goes_on_where_it_was(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        location = await talking(scene, "a", "b", "c")
        async with client.stream("GET", location, headers=STREAM) as answer:
            first = await events(answer, most=3)  # and it is cut
        assert words(first) == ["a", "b"]
        scene.gate.set()
        last_id = first[-1]["id"]
        async with client.stream("GET", location, headers=STREAM | {"last-event-id": last_id}) as answer:
            rest = await events(answer)
        assert words(rest) == ["c", "done"]
        async with client.stream("GET", f"{location}?after=3", headers=STREAM) as answer:
            assert words(await events(answer)) == ["done"]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_browser_that_has_seen_the_end_is_told_to_stay_away(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        done = await client.post("/_tasks/area?wait=5", json={"width": 1})
        location = done.json()["location"]
        found = await events(await client.get(location, headers=STREAM))
        assert [each["event"] for each in found] == ["end"]
        again = await client.get(location, headers=STREAM | {"last-event-id": found[-1]["id"]})
        assert (again.status_code, again.content) == (204, b""), "an EventSource does not come back after that"
        assert (await client.get(location, headers=STREAM | {"last-event-id": "?"})).status_code == 400


@in_a_loop
async def test_an_attempt_that_failed_is_told_as_a_state() -> None:
    async with played() as scene, scene.client() as client:
        started = await scene.tasks.start("moody", delay=0.2)
        found = await events(await client.get(started.location, headers=STREAM))
        told = [json.loads(each["data"]) for each in found]
        assert found[-1]["event"] == "end"
        assert (told[-1]["state"], told[-1]["failures"], told[-1]["result"]) == ("completed", 1, 2)
        assert told[0]["state"] == "pending"


class Fake:
    """A service that tells what it is given."""

    def __init__(self, *told: Event | Task | Exception) -> None:
        self.told = told
        self.asked: list[int] = []
        self.closed = False

    async def watch(self, task_id: str, after: int = 0) -> AsyncIterator[Event | Task]:
        self.asked.append(after)
        try:
            for each in self.told:
                if isinstance(each, Exception):
                    raise each
                yield each
        finally:
            self.closed = True


def task(**fields: Any) -> Task:
    return Task(**({"id": "t", "kind": "k", "state": "running", "epoch": 1} | fields))


def event(seq: int) -> Event:
    return Event(seq, b"{}")


END = task(state="completed", seq=9)
FOLLOWED: list[tuple[str, int, int, list[Any], list[Any]]] = [
    ("all of it", 0, 2, [event(1), event(2), END], [task(seq=2), event(1), event(2), END]),
    ("what is gone", 0, 9, [event(7), event(8), END], [task(seq=9), Gap(0, 7), event(7), event(8), END]),
    ("a hole", 1, 9, [event(2), event(5), END], [task(seq=9), event(2), Gap(2, 5), event(5), END]),
    ("a place of the future", 20, 9, [event(10), END], [Gap(20, 10), task(seq=9), event(10), END]),
    ("what comes twice", 2, 9, [event(2), event(3), END], [task(seq=9), event(3), END]),
    ("the same state", 0, 0, [task(), task(), task(node="b"), END], [task(), END]),
    ("other states", 0, 0, [task(), task(epoch=2), END], [task(), task(epoch=2), END]),
    ("nothing after the end", 0, 0, [END, event(10)], [task(), END]),
    ("a record that is gone", 0, 0, [task()], [task()]),
]


@pytest.mark.parametrize(
    ("after", "seq", "said", "told"), [row[1:] for row in FOLLOWED], ids=[row[0] for row in FOLLOWED]
)
@in_a_loop
async def test_who_follows_is_told_in_order_and_of_what_is_missing(
    after: int, seq: int, said: list[Any], told: list[Told]
) -> None:
    fake = Fake(*said)
    async with aclosing(follow(fake, task(seq=seq), after)) as following:  # type: ignore[arg-type]
        assert [each async for each in following] == told
    assert fake.asked == [min(after, seq)]
    assert fake.closed


@pytest.mark.parametrize(
    ("error", "hint"),
    [(JournalUnavailable("secret", 40.0), "retry: 4"), (TaskNotFound("t"), ": the record of the task is gone")],
)
@in_a_loop
async def test_a_stream_that_can_not_go_on_ends_with_a_hint(error: Exception, hint: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    stream = Stream(Fake(event(1), error), task(seq=1), "/t", 0, 15.0)  # type: ignore[arg-type]
    await stream.events({"type": "http", "method": "GET"}, receive, send)
    text = b"".join(each.get("body", b"") for each in sent).decode()
    assert hint in text.split("event: progress")[1]
    assert "secret" not in text
    assert sent[-1] == {"type": "http.response.body", "body": b""}


async def said(ws: Any) -> list[dict[str, Any]]:
    """All messages of a WebSocket, up to its end."""
    return [json.loads(message) async for message in ws]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_websocket_tells_the_same_and_is_closed_at_the_end(server: str) -> None:
    async with played(server) as scene:
        location = await talking(scene, "a", "b")
        async with scene.ws(f"{location}?after=1") as ws:
            await ws.send("anything")  # is not heeded
            scene.gate.set()
            found = await said(ws)
            assert (ws.close_code, ws.close_reason) == (1000, "")
        assert [each["type"] for each in found] == ["state", "progress", "progress", "end"]
        assert [(each["seq"], each["data"]["word"]) for each in found[1:3]] == [(2, "b"), (3, "done")]
        assert found[-1]["task"]["result"] == 2


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_websocket_that_is_refused_says_why(server: str) -> None:
    async with played(server) as scene, scene.client("ada") as ada:
        hers = (await ada.post("/_tasks/area?wait=5", json={"width": 1})).json()["location"]
        for path, status in ((hers, 404), ("/_tasks/nothing", 404), (f"{hers}?after=1", 404)):
            with pytest.raises(InvalidStatus) as caught:
                async with scene.ws(path):
                    pass
            assert caught.value.response.status_code == status
            assert json.loads(caught.value.response.body)["reason"] == "task_not_found"
        with pytest.raises(InvalidStatus) as caught:
            async with scene.ws(f"{hers}?after=x", "ada"):
                pass
        assert caught.value.response.status_code == 400
        async with scene.ws(hers, "ada") as ws:
            assert [each["type"] for each in await said(ws)] == ["end"]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_websocket_whose_client_leaves_is_forgotten(server: str) -> None:
    async with played(server) as scene:
        location = await talking(scene, "a")
        node = await scene.tasks.begin()
        async with scene.ws(location) as ws:
            await ws.recv()
            await until(lambda: node.watchers._waiting)
        await until(lambda: not node.watchers._waiting)


@in_a_loop
async def test_at_a_drain_watchers_are_sent_to_another_server() -> None:
    async with played() as scene, scene.client() as client:
        location = await talking(scene, "a")
        async with client.stream("GET", location, headers=STREAM) as answer, scene.ws(location) as ws:
            assert json.loads(await ws.recv())["type"] == "state"
            lines = answer.aiter_lines()
            async for line in lines:
                if line.startswith("id: 1"):
                    break
            waiting = asyncio.ensure_future(_get(scene, f"{location}?wait=50"))
            node = await scene.tasks.begin()
            await until(lambda: sum(map(len, node.watchers._waiting.values())) == 3)  # a new one would not be let in
            scene.server.drain(0.0)
            rest = [line async for line in lines]
            with pytest.raises(ConnectionClosed):
                await said(ws)
            assert ws.close_code == 1012
            assert any(line.startswith("retry: ") for line in rest)
            assert (await waiting).json()["state"] == "running", "a long poll is answered with what there is"
            scene.gate.set()  # the drain lets what runs finish


async def _get(scene: Scene, path: str) -> httpx.Response:
    async with scene.client() as client:
        return await client.get(path)
