"""Shutdown: everybody is told, everybody has a time, whoever exceeds it is cut and named. On a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sojourn.asgi.http import HttpHandler
from sojourn.config import Config, Drain, Limits, Timeouts
from sojourn.events import ConnectionEnded, DrainCut, DrainPhaseChanged, RequestEnded, TaskSurvived
from sojourn.server.report import Report
from sojourn.testing import Ended, MemoryClient, MemoryServer, Outcome

Send = Callable[[Any], Coroutine[Any, Any, None]]
DRAIN = Drain(delay=0, requests=30, streams=20, sockets=25, close_rate=None, total=60)


class Scene:
    """A server in memory, with endpoints to be in the middle of, and its shutdown."""

    def __init__(self, drain: Drain, **groups: Any) -> None:
        self.server = MemoryServer(self.app, Config(drain=drain, **groups))
        #: What the endpoints saw, in order.
        self.log: list[str] = []
        self.go = asyncio.Event()
        self._clients: list[MemoryClient] = []
        self._finishing: asyncio.Task[Report] | None = None

    async def app(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        try:
            await getattr(self, scope["path"].strip("/"))(receive, send)
        except asyncio.CancelledError as error:
            self.log.append(f"cancelled: {error}")
            raise

    async def answer(self, send: Send, body: bytes = b"done", more: bool = False, kind: bytes = b"text/plain") -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def quick(self, receive: Any, send: Send) -> None:
        await self.answer(send)

    async def slow(self, receive: Any, send: Send) -> None:
        await self.go.wait()
        await self.answer(send)

    async def download(self, receive: Any, send: Send) -> None:
        await self.answer(send, b"half", more=True)
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"half"})

    async def events(self, receive: Any, send: Send) -> None:
        await self.answer(send, b"data: 1\n\n", more=True, kind=b"text/event-stream")
        await asyncio.Event().wait()

    async def late_events(self, receive: Any, send: Send) -> None:
        await self.go.wait()
        await self.events(receive, send)

    async def polite_events(self, receive: Any, send: Send) -> None:
        await self.answer(send, b"data: 1\n\n", more=True, kind=b"text/event-stream")
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"data: bye\n\n", "more_body": True})

    async def background(self, receive: Any, send: Send) -> None:
        await self.answer(send)
        await self.go.wait()
        self.log.append("background done")

    async def resists(self, receive: Any, send: Send) -> None:
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.log.append("resisted")

    async def early(self, receive: Any, send: Send) -> None:
        await self.answer(send)

    async def websocket(self, receive: Any, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.log.append(str(await receive()))

    # The shutdown

    def stop(self) -> None:
        self.server.drain()
        self._finishing = self.server.work.run(self.server.shutdown.finished(), "finishing")

    @property
    def over(self) -> bool:
        assert self._finishing is not None
        return self._finishing.done()

    def connect(self) -> MemoryClient:
        self._clients.append(self.server.connect())
        return self._clients[-1]

    async def ended(self) -> Report:
        """The report, once clients have closed whose server has; it must be there without any more time."""
        for client in self._clients:
            if client.peer.ended is not Ended.OPEN:
                client.peer.close()
        await self.server.settle()
        assert self._finishing is not None
        return self._finishing.result()

    def ends(self) -> list[str]:
        """Why connections ended, in order."""
        return [event.ending.reason for event in self.server.seen(ConnectionEnded)]


@asynccontextmanager
async def scene(drain: Drain = DRAIN, **groups: Any) -> AsyncIterator[Scene]:
    made = Scene(drain, **groups)
    async with made.server:
        try:
            yield made
        finally:
            made.go.set()  # what resists would keep the loop from ending
        await made.server.settle()
    assert made.server.open == 0


def upgrade() -> bytes:
    return (
        b"GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )


CLOSE_1012 = b"\x88\x11\x03\xf4service restart"


# -- whoever has nothing in hand


def test_a_server_without_connections_is_over_at_once() -> None:
    async def main() -> None:
        async with scene() as s:
            s.stop()
            await s.server.settle()
            assert (await s.ended())[:2] == (0, 0)

    asyncio.run(main())


def test_an_idle_connection_ends_at_the_next_tick_and_a_request_that_is_quicker_is_answered() -> None:
    async def main() -> None:
        async with scene() as s:
            idle, quicker = s.connect(), s.connect()
            for client in (idle, quicker):
                client.get("/quick")
                await s.server.settle()
                assert client.response().header("connection") is None
            s.stop()
            quicker.get("/quick")
            await s.server.settle()
            assert quicker.response().header("connection") == "close"
            assert not s.over
            await s.server.advance(0.1)
            assert (await s.ended())[:2] == (2, 0)
            assert s.ends() == ["drain_goodbye", "drain_goodbye"]

    asyncio.run(main())


def test_a_new_connection_has_a_second_from_its_accept_for_its_first_request() -> None:
    async def main() -> None:
        async with scene() as s:
            silent = s.connect()
            await s.server.advance(0.6)
            asking = s.connect()
            s.stop()
            await s.server.advance(0.5)
            assert silent.peer.ended.value == "fin"
            asking.get("/quick")
            await s.server.settle()
            assert asking.response().complete
            assert (await s.ended())[:2] == (2, 0)

    asyncio.run(main())


def test_a_head_that_has_begun_may_become_complete() -> None:
    async def main() -> None:
        async with scene() as s:
            before, later = s.connect(), s.connect()
            before.send(b"GET /quick HTTP/1.1\r\nHo")
            await s.server.settle()
            s.stop()
            later.send(b"GET /quick HTTP/1.1\r\nHo")
            await s.server.advance(5)
            for client in (before, later):
                client.send(b"st: a\r\n\r\n")
                await s.server.settle()
                assert client.response().header("connection") == "close"
            assert (await s.ended())[:2] == (2, 0)

    asyncio.run(main())


def test_a_body_that_is_thrown_away_after_an_early_answer_holds_nothing_up() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
            await s.server.settle()
            assert client.response().complete
            s.stop()
            client.send(b"secret")
            await s.server.settle()
            assert (await s.ended())[:2] == (1, 0)

    asyncio.run(main())


# -- requests


def test_a_request_finishes_and_its_connection_closes() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/slow")
            await s.server.settle()
            s.stop()
            await s.server.advance(29)
            assert not s.over
            s.go.set()
            await s.server.settle()
            answer = client.response()
            assert (answer.status, answer.body, answer.header("connection")) == (200, b"done", "close")
            assert (await s.ended())[:2] == (1, 0)
            assert s.log == []

    asyncio.run(main())


def test_a_request_over_its_time_gets_a_503_and_is_cancelled_and_named() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/slow")
            await s.server.settle()
            s.stop()
            await s.server.advance(30.1)
            answer = client.response()
            assert (answer.status, answer.header("connection"), answer.header("retry-after")) == (503, "close", "1")
            assert b"drain_forced" in answer.body
            assert s.log == ["cancelled: drain_forced"]
            (cut,) = (await s.ended()).cuts
            assert ((await s.ended()).finished, (await s.ended()).cut, (await s.ended()).exit_code) == (0, 1, 5)
            assert s.server.seen(DrainCut) == [cut]
            assert (cut.what, cut.connection, cut.peer, cut.route, cut.phase) == (
                "request",
                1,
                "192.0.2.1:1024",
                "GET /slow",
                "H",
            )
            assert 30 <= cut.age < 30.5
            assert "await self.go.wait()" in cut.stack
            assert s.ends() == ["drain_forced"]

    asyncio.run(main())


def test_a_download_has_the_time_of_a_request_and_never_looks_complete_when_it_is_cut() -> None:
    async def main() -> None:
        async with scene() as s:
            cut, done = s.connect(), s.connect()
            cut.get("/download")
            await s.server.settle()
            s.stop()
            await s.server.advance(21)  # drain.streams is over: that is for event streams
            assert cut.response().outcome is Outcome.UNFINISHED
            await s.server.advance(10)
            assert cut.response().outcome is Outcome.RESET
            assert (await s.ended()).cuts[0].what == "request"
            del done
        async with scene() as s:
            done = s.connect()
            done.get("/download")
            await s.server.settle()
            s.stop()
            await s.server.advance(25)
            s.go.set()
            await s.server.settle()
            assert done.response().body == b"halfhalf"
            assert (await s.ended())[:2] == (1, 0)

    asyncio.run(main())


def test_a_request_that_waits_for_a_slot_is_served_or_refused_like_any_other() -> None:
    async def main() -> None:
        async with scene(limits=Limits(requests=1, queue_wait=100)) as s:
            first, second, third = (s.connect() for _ in range(3))
            first.get("/slow")
            await s.server.settle()
            second.get("/quick")
            await s.server.settle()
            s.stop()
            await s.server.advance(30.1)
            assert (first.response().status, second.response().status) == (503, 503)
            await s.server.advance(1.1)
            assert (await s.ended()).cut == 2
            del third

    asyncio.run(main())


def test_a_request_that_resists_is_waited_for_until_it_is_named() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/resists")
            await s.server.settle()
            s.stop()
            await s.server.advance(33.5)
            assert client.response().status == 503
            (survived,) = s.server.seen(TaskSurvived)
            assert survived.owner == "connection 1 GET /resists"
            assert not s.over
            await s.server.advance(2)
            assert (await s.ended()).cut == 1
            assert len(s.log) > 2

    asyncio.run(main())


# -- what requests leave behind


def test_background_work_is_waited_for() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/background")
            await s.server.settle()
            assert client.response().complete
            s.stop()
            await s.server.advance(20)
            assert s.server.open == 0
            assert not s.over
            s.go.set()
            await s.server.settle()
            assert (await s.ended())[:2] == (1, 0)
            assert s.log == ["background done"]

    asyncio.run(main())


def test_background_work_over_its_time_is_cancelled_and_named() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/background")
            await s.server.settle()
            s.stop()
            await s.server.advance(30.1)
            assert s.log == ["cancelled: drain_forced"]
            (cut,) = (await s.ended()).cuts
            assert (cut.what, cut.route, (await s.ended()).finished, (await s.ended()).exit_code) == (
                "task",
                "connection 1 GET /background",
                1,
                5,
            )
            assert "await self.go.wait()" in cut.stack

    asyncio.run(main())


def test_a_task_whose_client_has_left_is_waited_for() -> None:
    async def main() -> None:
        async with scene() as s:
            for leave in ("close", "reset"):
                client = s.connect()
                client.get("/slow")
                await s.server.settle()
                getattr(client.peer, leave)()
            await s.server.settle()
            s.stop()
            await s.server.settle()
            assert not s.over
            await s.server.advance(7)  # half-closed or gone, and then disconnect_grace
            assert (await s.ended()).cut == 0
            assert len(s.log) == 2

    asyncio.run(main())


def test_a_task_that_never_ends_is_given_up() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/resists")
            await s.server.settle()
            client.peer.reset()
            await s.server.advance(10)
            assert s.server.open == 0
            s.stop()
            await s.server.advance(29)
            assert not s.over
            await s.server.advance(6)
            assert (await s.ended()).cuts[0].what == "task"

    asyncio.run(main())


# -- event streams


def test_an_event_stream_ends_as_a_complete_answer() -> None:
    async def main() -> None:
        async with scene(timeouts=Timeouts(disconnect_grace=3)) as s:
            client = s.connect()
            client.get("/events")
            await s.server.settle()
            s.stop()
            await s.server.advance(2.5)
            assert client.response().outcome is Outcome.UNFINISHED
            await s.server.advance(0.6)
            answer = client.response()
            assert (answer.outcome, answer.body) == (Outcome.COMPLETE, b"data: 1\n\n")
            assert s.log == ["cancelled: drain_goodbye"]
            assert (await s.ended())[:2] == (1, 0)
            assert s.server.seen(RequestEnded)[0].ending.reason == "drain_goodbye"

    asyncio.run(main())


def test_an_event_stream_that_listens_says_its_own_goodbye() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/polite_events")
            await s.server.settle()
            s.stop()
            await s.server.settle()
            answer = client.response()
            assert (answer.outcome, answer.body) == (Outcome.COMPLETE, b"data: 1\n\ndata: bye\n\n")
            assert (await s.ended())[:2] == (1, 0)

    asyncio.run(main())


def test_an_event_stream_that_begins_later_ends_as_well() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.get("/late_events")
            await s.server.settle()
            s.stop()
            await s.server.advance(1)
            s.go.set()
            await s.server.advance(3.1)
            assert client.response().outcome is Outcome.COMPLETE
            assert (await s.ended())[:2] == (1, 0)

    asyncio.run(main())


def test_an_event_stream_to_an_old_client_ends_with_its_connection() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.send(b"GET /events HTTP/1.0\r\nHost: a\r\n\r\n")
            await s.server.settle()
            s.stop()
            await s.server.advance(3.1)
            answer = client.response()
            assert (answer.outcome, answer.body) == (Outcome.COMPLETE, b"data: 1\n\n")
            assert client.peer.ended.value == "fin"

    asyncio.run(main())


def test_no_event_stream_is_cut_however_short_the_time_is() -> None:
    async def main() -> None:
        for drain in (Drain(delay=0, streams=0.5), Drain(delay=0, total=1.0)):
            async with scene(drain) as s:
                client = s.connect()
                client.get("/events")
                await s.server.settle()
                s.stop()
                await s.server.advance(0.6)
                assert client.response().outcome is Outcome.COMPLETE
                assert (await s.ended())[:2] == (1, 0)

    asyncio.run(main())


# -- WebSockets


def test_a_websocket_is_closed_with_1012_and_its_application_is_told() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            client.send(upgrade())
            await s.server.settle()
            client.peer.received.clear()
            s.stop()
            await s.server.settle()
            assert client.received == CLOSE_1012
            client.send(b"\x88\x82\0\0\0\0\x03\xf4")
            await s.server.settle()
            assert (await s.ended())[:2] == (1, 0)
            assert s.log == ["{'type': 'websocket.disconnect', 'code': 1012, 'reason': 'service restart'}"]
            assert s.ends() == ["drain_goodbye"]

    asyncio.run(main())


def test_a_websocket_whose_client_never_answers_is_not_waited_for_longer_than_its_time() -> None:
    async def main() -> None:
        for drain, ends, cut in (
            (DRAIN, "drain_goodbye", 0),
            (Drain(delay=0, close_rate=None, sockets=2), "drain_forced", 1),
        ):
            async with scene(drain) as s:
                s.connect().send(upgrade())
                await s.server.settle()
                s.stop()
                await s.server.advance(5.2)
                assert (await s.ended()).cut == cut
                assert s.ends() == [ends]

    asyncio.run(main())


def test_a_new_websocket_is_sent_away() -> None:
    async def main() -> None:
        async with scene() as s:
            client = s.connect()
            await s.server.settle()
            s.stop()
            client.send(upgrade())
            await s.server.settle()
            answer = client.response()
            assert (answer.status, answer.header("retry-after")) == (503, "1")

    asyncio.run(main())


# -- the whole


@pytest.mark.parametrize("total", [0.4, 3.0])
def test_all_together_it_takes_no_longer_than_the_total(total: float) -> None:
    async def main() -> None:
        async with scene(Drain(delay=0, close_rate=None, total=total)) as s:
            for path in ("/slow", "/download", "/events", "/background", "/polite_events"):
                s.connect().get(path)
            s.connect().send(upgrade())
            s.connect().send(b"GET /qui")
            unread = s.connect()
            unread.peer.stop_taking()
            unread.get("/download")
            s.connect()
            await s.server.settle()
            s.stop()
            await s.server.advance(total + 0.1)
            assert s.over
            assert s.server.open == 0
            assert (await s.ended()).finished + (await s.ended()).cut >= 8

    asyncio.run(main())


def test_a_second_call_gives_nobody_more_time_and_a_third_closes_what_is_left() -> None:
    async def main() -> None:
        async with scene() as s:
            slow, download, events, unread = (s.connect() for _ in range(4))
            slow.get("/slow")
            download.get("/download")
            events.get("/events")
            unread.get("/slow")
            await s.server.settle()
            unread.peer.stop_taking()
            s.stop()
            await s.server.advance(1)
            s.server.shutdown.hurry()
            await s.server.settle()
            assert slow.response().status == 503
            assert download.response().outcome is Outcome.RESET
            assert events.response().outcome is Outcome.COMPLETE
            assert s.log.count("cancelled: drain_forced") == 3
            assert not s.over
            s.server.shutdown.hurry()
            await s.server.settle()
            assert unread.response().outcome is Outcome.RESET
            assert (await s.ended()).cut == 3

    asyncio.run(main())


def test_after_a_second_call_the_rest_is_closed_soon() -> None:
    async def main() -> None:
        async with scene() as s:
            unread = s.connect()
            unread.get("/slow")
            await s.server.settle()
            unread.peer.stop_taking()
            s.stop()
            s.server.shutdown.hurry()
            await s.server.advance(1.2)
            assert s.over

    asyncio.run(main())


def test_hurrying_works_on_background_tasks_as_well() -> None:
    async def main() -> None:
        async with scene() as s:
            s.connect().get("/background")
            await s.server.settle()
            s.stop()
            await s.server.advance(1)
            assert s.server.open == 0
            s.server.shutdown.hurry()
            await s.server.settle()
            assert (await s.ended()).cuts[0].what == "task"

    asyncio.run(main())


def test_hurrying_before_the_beginning_does_nothing() -> None:
    async def main() -> None:
        async with scene() as s:
            s.server.shutdown.hurry()
            s.stop()
            s.server.shutdown.begin()
            await s.server.settle()
            assert (await s.ended())[:2] == (0, 0)

    asyncio.run(main())


def test_a_bug_met_on_the_way_ends_its_connection_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = HttpHandler.begin_drain

    def fails(handler: HttpHandler) -> None:
        if handler.connection.id == 1:
            raise LookupError("a bug")
        tell(handler)

    async def main() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with scene() as s:
            for _ in range(3):
                s.connect().get("/slow")
            await s.server.settle()
            s.stop()
            s.go.set()
            await s.server.settle()
            assert (await s.ended()).finished == 3
            assert sorted(s.ends()) == ["drain_goodbye", "drain_goodbye", "internal_error"]
            assert [type(error) for error in told] == [LookupError]

    monkeypatch.setattr(HttpHandler, "begin_drain", fails)
    asyncio.run(main())


def test_the_phases_are_told_with_their_counts() -> None:
    async def main() -> None:
        async with scene() as s:
            for path in ("/slow", "/download", "/events"):
                s.connect().get(path)
            s.connect().send(upgrade())
            s.connect()
            await s.server.settle()
            s.stop()
            await s.server.advance(31)
            await s.server.advance(2)
            left = pytest.approx(29.0, abs=2.0)
            assert s.server.seen(DrainPhaseChanged) == [
                DrainPhaseChanged("notice", "", 60.0, requests=2, streams=1, sockets=1, idle=1),
                DrainPhaseChanged("finish", "", 60.0, requests=2, streams=1, sockets=1, idle=1),
                DrainPhaseChanged("cut requests", "", left, requests=2, streams=0, sockets=0, idle=0),
                DrainPhaseChanged("persist", "", left, requests=0, streams=0, sockets=0, idle=0),
            ]

    asyncio.run(main())


def test_fifty_cuts_are_told_and_all_are_in_the_report() -> None:
    async def main() -> None:
        async with scene() as s:
            for _ in range(60):
                s.connect().get("/slow")
            await s.server.settle()
            s.stop()
            await s.server.advance(31.5)
            assert ((await s.ended()).cut, len((await s.ended()).cuts), len(s.server.seen(DrainCut))) == (60, 60, 50)

    asyncio.run(main())


def test_the_exit_code_says_how_it_went() -> None:
    assert Report(3, 0, ()).exit_code == 0
    assert Report(3, 1, ()).exit_code == 5
    assert Report(3, 0, (), "the application failed to stop").exit_code == 1
    assert Report(3, 1, (), "the application failed to stop").exit_code == 5
