"""The drain as an application and its clients see it: notice, participants, spread closes, report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sojourn import current_server, draining
from sojourn.asgi.server_control import ServerControl
from sojourn.config import Config, Drain, WebSocket
from sojourn.events import ConnectionEnded, DrainCounted, DrainParticipantEnded, TaskSurvived
from sojourn.server.report import Report, Tally
from sojourn.testing import Ended, MemoryClient, MemoryServer

QUICK = Drain(delay=0, close_rate=None)


class App:
    """Answers, streams, holds WebSockets; its startup may do something with the server it runs on."""

    def __init__(self, startup: Callable[[ServerControl], None] = lambda control: None, notice: bool = False) -> None:
        self.startup = startup
        self.notice = notice
        self.log: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
        else:
            if scope["path"] == "/slow":
                await self.go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"draining" if draining() else b"serving"})

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        assert "lifespan.shutdown.notice" in scope["extensions"]
        await receive()
        self.startup(current_server())
        await send({"type": "lifespan.startup.complete", "shutdown_notice": self.notice})
        while True:
            message = await receive()
            self.log.append(message["type"])
            if message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return


def upgrade() -> bytes:
    return (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )


async def sockets(server: MemoryServer, count: int) -> list[MemoryClient]:
    clients = [server.connect() for _ in range(count)]
    for client in clients:
        client.send(upgrade())
    await server.settle()
    for client in clients:
        client.peer.received.clear()
    return clients


def finishing(server: MemoryServer) -> asyncio.Task[Report]:
    server.drain()
    return server.work.run(server.shutdown.finished(), "finishing")


async def closed(server: MemoryServer, clients: list[MemoryClient]) -> None:
    """Answer the close frames that came, and close what the server closed."""
    for client in clients:
        if client.peer.received.startswith(b"\x88") and not client.peer.closed:
            client.send(b"\x88\x80\0\0\0\0")
            client.peer.received.clear()
    await server.settle()
    for client in clients:
        if client.peer.ended is not Ended.OPEN:
            client.peer.close()
    await server.settle()


# -- notice


def test_during_the_notice_serving_goes_on_and_keeps_connections_alive() -> None:
    async def main() -> None:
        app = App(notice=True)
        async with MemoryServer(app, Config(drain=Drain(delay=5))) as server:
            client = server.connect()
            server.drain()
            await server.settle()
            assert app.log == ["lifespan.shutdown.notice"]
            for path in ("/", "/"):
                client.get(path)
                await server.settle()
                answer = client.response()
                assert (answer.status, answer.body, answer.header("connection")) == (200, b"draining", None)
            late = server.connect()
            await server.advance(4.8)
            late.send(upgrade())
            await server.settle()
            assert late.peer.received.startswith(b"HTTP/1.1 101")

    asyncio.run(main())


def test_only_an_application_that_asks_gets_the_shutdown_notice() -> None:
    async def main() -> None:
        app = App()
        async with MemoryServer(app, Config(drain=QUICK)) as server:
            server.drain()
            await server.settle()
            assert app.log == []
        assert app.log == ["lifespan.shutdown"]

    asyncio.run(main())


def test_outside_a_server_nothing_drains() -> None:
    assert draining() is False
    with pytest.raises(LookupError, match="not run by a Sojourn server"):
        current_server()


# -- WebSockets


def test_websockets_are_closed_one_by_one_evenly_over_their_window() -> None:
    async def main() -> None:
        config = Config(drain=Drain(delay=0, close_rate=10), websocket=WebSocket(ping_interval=None))
        async with MemoryServer(App(), config) as server:
            clients = await sockets(server, 200)
            report = finishing(server)
            told: list[int] = []
            for _ in range(10):
                await server.advance(2.0)
                told.append(sum(client.peer.received.startswith(b"\x88") for client in clients))
                await closed(server, clients)
            assert sum(told) >= 195, told
            assert max(told) <= 40
            await server.advance(1.0)
            await closed(server, clients)
            result = await report
            assert result.kinds["sockets"] == Tally(open=200, told=200, finished=200, cut=0)
            assert (result.exit_code, result.unanswered) == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(("coming_back", "code"), [(True, 1012), (False, 1001)])
def test_the_close_code_says_whether_a_server_comes_back(coming_back: bool, code: int) -> None:
    async def main() -> None:
        drain = Drain(delay=0, close_rate=None, coming_back=coming_back)
        async with MemoryServer(App(), Config(drain=drain)) as server:
            (client,) = await sockets(server, 1)
            server.drain()
            await server.settle()
            assert int.from_bytes(client.peer.received[2:4]) == code

    asyncio.run(main())


def test_a_client_that_never_answers_its_close_frame_is_counted_as_that() -> None:
    async def main() -> None:
        async with MemoryServer(App(), Config(drain=QUICK)) as server:
            await sockets(server, 3)
            report = finishing(server)
            await server.advance(6.0)
            result = await report
            assert (result.finished, result.cut, result.unanswered, result.exit_code) == (3, 0, 3, 0)

    asyncio.run(main())


# -- participants


def test_participants_of_each_phase_are_called_when_it_begins_and_waited_for() -> None:
    async def main() -> None:
        app = App()
        gates = {phase: asyncio.Event() for phase in ("notice", "finish", "persist")}

        def startup(control: ServerControl) -> None:
            for name, gate in gates.items():
                control.on_drain(taking(name, gate), phase=name, timeout=50, name=name)  # type: ignore[arg-type]

        def taking(name: str, gate: asyncio.Event) -> Any:
            async def call() -> None:
                app.log.append(f"{name} begins")
                await gate.wait()

            return call

        app.startup = startup
        async with MemoryServer(app, Config(drain=QUICK)) as server:
            report = finishing(server)
            for name, gate in gates.items():
                await server.advance(1.0)
                assert app.log[-1] == f"{name} begins"
                assert not report.done()
                gate.set()
            await server.settle()
            result = await report
            assert [(end.name, end.phase, end.problem) for end in result.participants] == [
                (name, name, None) for name in gates
            ]
            assert result.exit_code == 0

    asyncio.run(main())


def test_work_that_is_not_saved_in_time_is_lost_and_said_to_be() -> None:
    async def main() -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        async def fails() -> None:
            raise OSError("no space left")

        def startup(control: ServerControl) -> None:
            control.on_drain(never, timeout=2, name="never")
            control.on_drain(fails, name="fails")

        async with MemoryServer(App(startup), Config(drain=QUICK)) as server:
            report = finishing(server)
            await server.advance(2.5)
            result = await report
            assert result.exit_code == 6
            assert [(end.name, end.problem) for end in server.seen(DrainParticipantEnded)] == [
                ("fails", "OSError: no space left"),
                ("never", "was cancelled after 2.1 s"),
            ] or [end.name for end in result.participants] == ["fails", "never"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "counts", "code"),
    [
        ({"finished": 2, "handed_over": 3, "lost": 0}, {"finished": 2, "handed_over": 3, "lost": 0}, 0),
        ({"lost": 1}, {"lost": 1}, 6),
        ({"word": "many", "some": 1}, {"some": 1}, 0),
        (None, {}, 0),
        ("nonsense", {}, 0),
    ],
)
def test_what_a_participant_says_that_it_did_is_reported(said: Any, counts: dict[str, int], code: int) -> None:
    async def main() -> None:
        async def save() -> Any:
            return said

        def startup(control: ServerControl) -> None:
            control.on_drain(save, name="tasks")

        async with MemoryServer(App(startup), Config(drain=QUICK)) as server:
            report = finishing(server)
            await server.advance(2.5)
            result = await report
            assert result.exit_code == code
            assert [end.counts for end in server.seen(DrainParticipantEnded)] == [counts]
            document = result.asdict()
            assert document["participants"][0]["counts"] == counts
            assert document["counts"] == ({"tasks": counts} if counts else {})
            assert json.loads(msgspec.json.encode(document)) == document

    asyncio.run(main())


def test_a_participant_that_resists_is_named_and_waited_for_no_longer() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def resists() -> None:
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    pass

        def startup(control: ServerControl) -> None:
            control.on_drain(resists, timeout=1, name="resists")

        async with MemoryServer(App(startup), Config(drain=QUICK)) as server:
            report = finishing(server)
            await server.advance(20)
            result = await report
            assert [end.problem for end in result.participants] == ["did not end when it was cancelled"]
            (survivor,) = [event for event in server.seen(TaskSurvived) if not event.ended]
            assert survivor.owner == "drain participant resists"
            go.set()
            await server.settle()

    asyncio.run(main())


def test_a_participation_can_be_taken_back_and_bad_ones_are_refused() -> None:
    async def main() -> None:
        calls: list[str] = []

        async def call() -> None:
            calls.append("called")

        def startup(control: ServerControl) -> None:
            control.on_drain(call)()
            with pytest.raises(ValueError, match="no phase"):
                control.on_drain(call, phase="later")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="above zero"):
                control.on_drain(call, timeout=0)

        async with MemoryServer(App(startup), Config(drain=QUICK)) as server:
            report = finishing(server)
            await server.settle()
            assert (await report).participants == ()
            with pytest.raises(ValueError, match="past the beginning"):
                server.site.control.on_drain(call, phase="finish")
        assert calls == []

    asyncio.run(main())


# -- countdown and report


def test_the_countdown_is_told_every_five_seconds_with_the_instance() -> None:
    async def main() -> None:
        config = Config(drain=Drain(delay=2, total=60))
        app = App()
        async with MemoryServer(app, config) as server:
            server.connect().get("/slow")
            await server.settle()
            server.drain()
            await server.advance(16)
            marks = server.seen(DrainCounted)
            assert [mark.phase for mark in marks] == ["finish"] * 3
            assert [round(mark.left) for mark in marks] == [57, 52, 47]
            assert [mark.requests for mark in marks] == [1, 1, 1]
            app.go.set()
            await server.settle()

    asyncio.run(main())


def test_the_report_adds_up_to_the_registry() -> None:
    async def main() -> None:
        app = App()
        async with MemoryServer(app, Config(drain=Drain(delay=0, close_rate=None, requests=3))) as server:
            clients = await sockets(server, 2)
            slow = [server.connect() for _ in range(3)]
            for client in slow:
                client.get("/slow")
            idle = server.connect()
            idle.get("/")
            await server.settle()
            before = len(server.runtime.registry)
            report = finishing(server)
            await server.advance(1.0)
            await closed(server, clients)
            await server.advance(6.0)
            await closed(server, [*slow, idle])
            await server.advance(3.0)
            result = await report
            assert sum(tally.open for tally in result.kinds.values()) == before == 6
            assert all(tally.open == tally.finished + tally.cut for tally in result.kinds.values())
            assert (result.kinds["requests"].cut, result.finished, result.exit_code) == (3, 3, 5)
            assert len(server.seen(ConnectionEnded)) == 6
            told = result.asdict()
            assert told["kinds"]["requests"] == {"open": 3, "told": 0, "finished": 0, "cut": 3}
            assert [cut["route"] for cut in told["cuts"]] == ["GET /slow"] * 3

    asyncio.run(main())
