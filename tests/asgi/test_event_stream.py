"""Streams of server-sent events: heartbeats, goodbyes, and a source that is always closed."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

import sojourn
from sojourn import ServerSentEvent
from sojourn.config import App, Config, Drain, Timeouts
from sojourn.events import ApplicationFailed, ConnectionEnded, RequestEnded, TaskSurvived
from sojourn.testing import Ended, MemoryClient, MemoryServer, Outcome
from sojourn.wire.sse import EventParser

Make = Callable[["Scene"], Any]
GOODBYE = re.compile(rb": the server ends this stream\nretry: (\d+)\n\n")


class Scene:
    """A source of events that a test feeds, behind an application that streams it."""

    def __init__(self, make: Make | None = None, config: Config | None = None, **options: Any) -> None:
        self.options = options
        self.feed: asyncio.Queue[Any] = asyncio.Queue()
        self.log: list[str] = []
        self.server = MemoryServer((make or plain)(self), config or Config(drain=Drain(delay=0)))

    async def source(self) -> AsyncGenerator[Any, None]:
        self.log.append("begins")
        try:
            while (item := await self.feed.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.log.append("closes")
            await asyncio.sleep(0)
            self.log.append("closed")

    def stream(self) -> AsyncGenerator[bytes, None]:
        return sojourn.event_stream(self.source(), **self.options)

    def put(self, *items: Any) -> None:
        for item in items:
            self.feed.put_nowait(item)

    async def connect(self) -> MemoryClient:
        client = self.server.connect()
        client.get("/")
        await self.server.settle()
        return client

    async def drain(self, seconds: float = 0.3) -> None:
        self.server.drain()
        await self.server.advance(seconds)


def plain(scene: Scene) -> Any:
    """Without a framework."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await start(send)
        async for piece in scene.stream():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def start(send: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def starlette(scene: Scene) -> Any:
    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(scene.stream(), media_type="text/event-stream")

    return Starlette(routes=[Route("/", endpoint)])


def config(spec: Any = "2.5", **timeouts: float) -> Config:
    return Config(app=App(spec=spec), drain=Drain(delay=0), timeouts=Timeouts(**timeouts))


def body(client: MemoryClient) -> bytes:
    """What has arrived of the answer that is not complete."""
    return client.response().body


# -- what is sent


def test_the_head_of_the_answer_comes_before_the_first_event() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            client = await scene.connect()
            assert client.response().status == 200
            assert body(client) == b":\n\n"

    asyncio.run(main())


def test_events_text_bytes_and_json_are_sent_as_they_come() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            client = await scene.connect()
            scene.put(ServerSentEvent("a", event="b", id="1"), "two\nlines", b"bytes", {"json": 1}, None)
            await scene.server.settle()
            answer = client.response()
            assert answer.outcome is Outcome.COMPLETE
            assert answer.body == (
                b':\n\nevent: b\nid: 1\ndata: a\n\ndata: two\ndata: lines\n\ndata: bytes\n\ndata: {"json":1}\n\n'
            )
            assert scene.log == ["begins", "closes", "closed"]

    asyncio.run(main())


def test_the_source_is_not_ahead_of_its_client() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            client = await scene.connect()
            client.peer.stop_taking()
            scene.put(*["x" * 40_000] * 6)
            await scene.server.settle()
            assert scene.feed.qsize() >= 3
            client.peer.take_all()
            await scene.server.settle()
            assert scene.feed.qsize() == 0
            assert len(EventParser().feed(body(client))) == 6

    asyncio.run(main())


@pytest.mark.parametrize("heartbeat", [2.0, None])
def test_a_quiet_source_has_a_heartbeat(heartbeat: float | None) -> None:
    async def main() -> None:
        scene = Scene(heartbeat=heartbeat)
        async with scene.server:
            client = await scene.connect()
            await scene.server.advance(1.5)
            scene.put("x")
            await scene.server.advance(1.5)
            assert body(client) == b":\n\ndata: x\n\n"
            await scene.server.advance(4.5)
            assert body(client) == b":\n\ndata: x\n\n" + (b":\n\n" * 2 if heartbeat else b"")
            scene.put("y")
            await scene.server.settle()
            assert body(client).endswith(b"data: y\n\n")

    asyncio.run(main())


# -- the end


@pytest.mark.parametrize("make", [plain, starlette])
@pytest.mark.parametrize("spec", ["2.3", "2.5"])
def test_a_drain_sends_a_time_to_come_back_and_ends_the_stream_whole(make: Make, spec: str) -> None:
    async def main() -> None:
        scene = Scene(make, config(spec), goodbye=ServerSentEvent("", event="bye"))
        async with scene.server:
            client = await scene.connect()
            scene.put("x")
            await scene.server.settle()
            await scene.drain()
            answer = client.response()
            assert answer.outcome is Outcome.COMPLETE
            assert re.fullmatch(rb":\n\ndata: x\n\nevent: bye\ndata: \n\n" + GOODBYE.pattern, answer.body)
            assert scene.log == ["begins", "closes", "closed"]
            assert scene.server.seen(RequestEnded)[0].status == 200
            assert scene.server.seen(ApplicationFailed) == []

    asyncio.run(main())


def test_clients_are_sent_away_for_different_times() -> None:
    async def main() -> None:
        scene = Scene(retry=(2.0, 4.0))
        async with scene.server:
            clients = [await scene.connect() for _ in range(40)]
            await scene.drain()
            waits = [int(GOODBYE.search(body(client))[1]) for client in clients]  # type: ignore[index]
            assert all(2000 <= wait <= 4000 for wait in waits)
            assert max(waits) - min(waits) > 500

    asyncio.run(main())


def test_without_a_range_the_goodbye_has_no_retry() -> None:
    async def main() -> None:
        scene = Scene(retry=None)
        async with scene.server:
            client = await scene.connect()
            await scene.drain()
            assert body(client) == b":\n\n: the server ends this stream\n\n"

    asyncio.run(main())


def test_the_notice_of_a_drain_ends_no_stream() -> None:
    async def main() -> None:
        scene = Scene(config=Config(drain=Drain(delay=5)))
        async with scene.server:
            client = await scene.connect()
            await scene.drain(2)
            scene.put("still here")
            await scene.server.settle()
            assert body(client) == b":\n\ndata: still here\n\n"

    asyncio.run(main())


def test_a_stream_that_begins_in_a_drain_ends_at_once() -> None:
    async def main() -> None:
        go = asyncio.Event()

        def late(scene: Scene) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    await go.wait()
                await plain(scene)(scope, receive, send)

            return app

        scene = Scene(late)
        async with scene.server:
            client = await scene.connect()
            await scene.drain()
            go.set()
            await scene.server.settle()
            answer = client.response()
            assert answer.outcome is Outcome.COMPLETE
            assert GOODBYE.search(answer.body)
            assert scene.log == []  # it never began

    asyncio.run(main())


def test_a_client_that_is_behind_gets_its_event_and_then_the_goodbye() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            client = await scene.connect()
            client.peer.stop_taking()
            scene.put("x" * 200_000, "not any more")
            await scene.server.settle()
            await scene.drain(0.2)
            client.peer.take_all()
            await scene.server.settle()
            answer = client.response()
            assert answer.outcome is Outcome.COMPLETE
            (event,) = EventParser().feed(answer.body)
            assert len(event.data) == 200_000
            assert GOODBYE.search(answer.body)

    asyncio.run(main())


def test_a_connection_that_has_its_age_says_goodbye_too() -> None:
    async def main() -> None:
        scene = Scene(config=config(lifetime=20.0))
        async with scene.server:
            client = await scene.connect()
            await scene.server.advance(25)
            answer = client.response()
            assert answer.outcome is Outcome.COMPLETE
            assert GOODBYE.search(answer.body)
            assert scene.server.seen(ConnectionEnded)[0].ending.reason == "max_connection_duration"

    asyncio.run(main())


# -- the source


@pytest.mark.parametrize("make", [plain, starlette])
def test_the_source_is_closed_when_the_client_leaves(make: Make) -> None:
    async def main() -> None:
        scene = Scene(make)
        async with scene.server:
            client = await scene.connect()
            client.peer.close()
            scene.put("noticed")
            await scene.server.advance(4)
            gc.collect()
            await scene.server.settle()
            assert scene.log == ["begins", "closes", "closed"]
            assert scene.server.work.running == {}

    asyncio.run(main())


def test_a_stream_whose_client_left_is_freed_without_the_collector() -> None:
    alive: list[weakref.ref[Any]] = []

    def remembered(scene: Scene) -> Any:
        app = plain(scene)

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                alive.append(weakref.ref(scope["extensions"]["sojourn"]))
            await app(scope, receive, send)

        return noting

    async def main() -> None:
        scene = Scene(remembered)
        async with scene.server:
            gc.disable()
            try:
                client = await scene.connect()
                client.peer.close()
                del client
                await scene.server.advance(4)
                assert scene.log == ["begins", "closes", "closed"]
                assert [each() for each in alive] == [None]
            finally:
                gc.enable()

    asyncio.run(main())


def test_the_source_is_closed_when_nobody_closes_the_stream() -> None:
    """A framework keeps the generator, and its request ends."""

    async def main() -> None:
        kept: list[Any] = []

        def careless(scene: Scene) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "lifespan":
                    raise NotImplementedError
                await start(send)
                kept.append(scene.stream())
                for _ in range(2):
                    await send({"type": "http.response.body", "body": await anext(kept[0]), "more_body": True})
                await send({"type": "http.response.body"})

            return app

        scene = Scene(careless)
        async with scene.server:
            client = await scene.connect()
            scene.put("x", "y")
            await scene.server.settle()
            assert client.response().body == b":\n\ndata: x\n\n"
            assert scene.log == ["begins", "closes", "closed"]
            assert scene.server.work.running == {}
            await kept[0].aclose()

    asyncio.run(main())


def test_what_the_source_raises_fails_the_request() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            client = await scene.connect()
            scene.put("x", LookupError("no more"))
            await scene.server.settle()
            assert client.peer.ended is Ended.RESET
            (failed,) = scene.server.seen(ApplicationFailed)
            assert str(failed.error) == "no more"
            assert scene.log == ["begins", "closes", "closed"]

    asyncio.run(main())


def test_an_event_that_cannot_be_encoded_fails_the_request_and_closes_the_source() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.server:
            await scene.connect()
            scene.put(ServerSentEvent("x", id="a\nb"))
            await scene.server.settle()
            (failed,) = scene.server.seen(ApplicationFailed)
            assert "one line" in str(failed.error)
            assert scene.log == ["begins", "closes", "closed"]

    asyncio.run(main())


def test_a_source_that_swallows_its_cancellation_is_named() -> None:
    async def main() -> None:
        async def stubborn() -> AsyncIterator[str]:
            yield "x"
            for _ in range(10):
                try:
                    await go.wait()
                    return
                except asyncio.CancelledError:
                    pass  # what the test is about

        go = asyncio.Event()
        scene = Scene()
        scene.stream = lambda: sojourn.event_stream(stubborn())  # type: ignore[method-assign]
        async with scene.server:
            client = await scene.connect()
            client.peer.close()
            await scene.server.advance(10)
            go.set()
            survived = [event for event in scene.server.seen(TaskSurvived) if not event.ended]
            assert [event.name for event in survived] == ["event source"]
            assert "stubborn" in survived[0].stack
            await scene.server.settle()
            assert scene.server.work.running == {}

    asyncio.run(main())


def test_timeouts_and_task_groups_of_the_source_work_across_heartbeats() -> None:
    async def main() -> None:
        never = asyncio.Event()
        ended: list[str] = []

        async def source() -> AsyncIterator[str]:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
                request = sojourn.current_request()
                assert request is not None
                for number in range(3):
                    try:
                        async with asyncio.timeout(0.02):
                            await never.wait()
                    except TimeoutError:
                        yield f"{number} on {request.connection_id}"
            ended.append("whole")

        scene = Scene()
        scene.stream = lambda: sojourn.event_stream(source(), heartbeat=0.1)  # type: ignore[method-assign]
        async with scene.server:
            client = await scene.connect()
            while not (answer := client.response()).complete:
                await asyncio.sleep(0.005)
                await scene.server.advance(0.2)
            assert [event.data for event in EventParser().feed(answer.body)] == ["0 on 1", "1 on 1", "2 on 1"]
            assert ended == ["whole"]

    asyncio.run(main())


# -- elsewhere


def test_under_another_server_heartbeats_and_closing_are_the_same() -> None:
    async def main() -> None:
        scene = Scene(heartbeat=0.02)
        stream = scene.stream()
        assert [await anext(stream) for _ in range(3)] == [b":\n\n"] * 3
        scene.put("x")
        assert await anext(stream) == b"data: x\n\n"
        assert await anext(stream) == b":\n\n"
        await stream.aclose()
        assert scene.log == ["begins", "closes", "closed"]

    asyncio.run(main())


def test_under_another_server_a_cancelled_reader_closes_the_source() -> None:
    async def main() -> None:
        scene = Scene()

        async def read() -> None:
            async for _ in scene.stream():
                pass

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        assert scene.log == ["begins"]
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert scene.log == ["begins", "closes", "closed"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_source_that_fails_in_its_clean_up_is_heard() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[str]:
            try:
                yield "x"
            finally:
                raise LookupError("in clean-up")

        stream = sojourn.event_stream(source())
        assert [await anext(stream), await anext(stream)] == [b":\n\n", b"data: x\n\n"]
        with pytest.raises(LookupError, match="in clean-up"):
            await stream.aclose()

    asyncio.run(main())


def test_an_iterable_that_is_no_generator_is_closed_even_if_it_never_began() -> None:
    class Source:
        closed = 0

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> str:
            return "x"

        async def aclose(self) -> None:
            self.closed += 1

    async def main() -> None:
        for pieces in (1, 2):
            stream = sojourn.event_stream(source := Source())
            for _ in range(pieces):
                await anext(stream)
            await stream.aclose()
            assert source.closed == 1

    asyncio.run(main())


async def never() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        (["a list"], {}, TypeError),
        (never, {}, TypeError),
        (never(), {"heartbeat": 0}, ValueError),
        (never(), {"retry": (2.0, 1.0)}, ValueError),
        (never(), {"retry": (-1.0, 1.0)}, ValueError),
    ],
)
def test_nonsense_is_refused_where_it_is_said(source: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        sojourn.event_stream(source, **options)
