"""Server and serve() inside a loop of one's own: start, stop, cancel, and contexts that nobody else sees."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
import websockets

import sojourn
from sojourn.bus import Bus
from sojourn.config import App, Bind, Config, Drain, Log, Timeouts, Tls
from sojourn.errors import BindError, ConfigError, StartupError
from sojourn.events import ServerStarted, ServerStopped
from sojourn.server.server import Server, serve
from tests.server.serving import Run, both_loops, hello, serving, until

QUIET = Config(bind=Bind(port=0), log=Log(access="off"), drain=Drain(delay=0))
NO_LIFESPAN = Config(drain=Drain(delay=0), bind=Bind(port=0), log=Log(access="off"), app=App(lifespan="off"))


async def begun(server: Server) -> None:
    """Wait until a request is in the application's hands."""
    await until(lambda: any(connection.requests for connection in server.runtime.registry))


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rpartition(":")[2]))


# -- start and stop


@both_loops
def test_a_server_says_where_it_listens_and_how_it_ended(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            assert served.server.addresses == (f"http://127.0.0.1:{served.port}",)
            assert not served.server.stopping
            assert (await served.get()).endswith(b"hello")
            served.server.stop()
            assert served.server.stopping
            with pytest.raises(ConnectionRefusedError):
                await served.connect()
            assert (await served.server.wait_stopped())[:2] == (0, 0)
        assert served.of(ServerStarted) == [ServerStarted(served.server.addresses)]
        assert served.of(ServerStopped)[0] == ServerStopped(0, 0)

    run(main())


@both_loops
def test_a_stop_that_comes_before_the_start_is_not_lost(run: Run) -> None:
    async def main() -> None:
        server = Server(hello, QUIET)
        server.stop()
        await server.start()
        assert server.stopping
        await server.wait_stopped()

    run(main())


def test_a_server_starts_once_and_is_waited_for_after_its_start() -> None:
    async def main() -> None:
        server = Server(hello, QUIET)
        with pytest.raises(RuntimeError, match="has not been started"):
            await server.wait_stopped()
        async with server:
            with pytest.raises(RuntimeError, match="starts once"):
                await server.start()

    asyncio.run(main())


async def broken(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def endless(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


@both_loops
@pytest.mark.parametrize(
    ("app", "changes", "error"),
    [
        (broken, {}, StartupError),
        (endless, {"timeouts": Timeouts(lifespan_startup=0.1)}, StartupError),
        (hello, {"app": App(lifespan="on")}, StartupError),
        (hello, {"tls": Tls(cert="/nowhere.pem")}, ConfigError),
        (hello, {"bind": "the same"}, BindError),
    ],
)
def test_a_failed_start_leaves_nothing_behind(
    run: Run, app: Any, changes: dict[str, Any], error: type[Exception]
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            if "bind" not in changes:
                sock.close()
            config = Config(**({"log": Log(access="off")} | changes | {"bind": Bind(port=port)}))
            with pytest.raises(error):
                await Server(app, config).start()
        socket.create_server(("127.0.0.1", port)).close()  # the port is free again
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# -- serve()


@both_loops
def test_serve_ends_with_stop_and_returns_the_report(run: Run) -> None:
    async def main() -> None:
        report = await serve(hello, QUIET, started=lambda server: asyncio.get_running_loop().call_soon(server.stop))  # type: ignore[arg-type, return-value]
        assert report[:2] == (0, 0)

    run(main())


@both_loops
def test_cancelling_serve_lets_requests_finish_first(run: Run) -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await hello(scope, receive, send)

    async def main() -> None:
        servers: list[Server] = []
        serving_task = asyncio.create_task(serve(app, NO_LIFESPAN, started=servers.append))
        await until(lambda: servers)
        reader, writer = await connect(servers[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun(servers[0])
        serving_task.cancel()
        await until(lambda: servers[0].stopping)
        await asyncio.sleep(0.05)
        assert not serving_task.done()
        go.set()
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        with pytest.raises(asyncio.CancelledError):
            await serving_task

    run(main())


@both_loops
def test_cancelling_serve_twice_hurries_it(run: Run) -> None:
    cancelled: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            cancelled.append(str(error))
            raise

    async def main() -> None:
        servers: list[Server] = []
        serving_task = asyncio.create_task(serve(app, NO_LIFESPAN, started=servers.append))
        await until(lambda: servers)
        reader, writer = await connect(servers[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun(servers[0])
        for _ in range(2):
            serving_task.cancel()
            await asyncio.sleep(0.02)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        writer.close()
        with pytest.raises(asyncio.CancelledError):
            await serving_task
        assert cancelled == ["drain_forced"]

    run(main())


@both_loops
def test_serve_that_cannot_start_says_so(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(StartupError, match="no database"):
            await serve(broken, QUIET)

    run(main())


def test_serve_tells_of_failures_through_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a bug of the application's")

    async def main() -> None:
        servers: list[Server] = []
        task = asyncio.create_task(serve(app, NO_LIFESPAN, started=servers.append))
        await until(lambda: servers)
        reader, writer = await connect(servers[0])
        writer.write(b"GET /broken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 500")
        writer.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.INFO, "sojourn"):
        asyncio.run(main())
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "GET /broken" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


# -- the shutdown, on real sockets


@both_loops
def test_who_waits_in_the_kernel_when_the_server_stops_is_served(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            with socket.create_connection(("127.0.0.1", served.port), timeout=5) as early:
                await until(lambda: served.connections)
                clients = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(40)]
                for client in (early, *clients):  # all this while the loop does not turn
                    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                served.server.stop()
                for client in (early, *clients):
                    answer = await asyncio.to_thread(lambda: b"".join(iter(lambda: client.recv(1000), b"")))  # noqa: B023
                    assert answer.endswith(b"hello")
                    assert b"connection: close" in answer
                    client.close()

    run(main())


@both_loops
def test_sockets_that_are_not_its_own_keep_who_waits_for_the_next_server(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            async with serving(sockets=[sock]) as served:
                with socket.create_connection(sock.getsockname(), timeout=5) as client:
                    served.server.stop()
                    await served.server.wait_stopped()
                    async with serving(sockets=[sock]):
                        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        answer = await asyncio.to_thread(client.recv, 1000)
                        assert answer.startswith(b"HTTP/1.1 200")

    run(main())


@both_loops
def test_the_application_stops_after_its_last_background_task(run: Run) -> None:
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                log.append(what)
                await send({"type": f"lifespan.{what}.complete"})
            return
        await hello(scope, receive, send)
        await asyncio.sleep(0.2)
        log.append("background")

    async def main() -> None:
        async with serving(app) as served:
            assert (await served.get()).endswith(b"hello")
            served.server.stop()
            await served.server.wait_stopped()
            assert log == ["startup", "background", "shutdown"]

    run(main())


@both_loops
def test_a_failed_shutdown_of_the_application_is_reported(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("the queue is not empty")

    async def main() -> None:
        server = Server(app, QUIET)
        await server.start()
        server.stop()
        report = await server.wait_stopped()
        assert report.problem is not None
        assert "RuntimeError: the queue is not empty" in report.problem
        assert report.exit_code == 1

    run(main())


@both_loops
def test_websockets_are_closed_with_1012(run: Run) -> None:
    codes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    async def main() -> None:
        async with serving(app) as served:
            async with websockets.connect(f"ws://127.0.0.1:{served.port}/", proxy=None) as websocket:
                served.server.stop()
                with pytest.raises(websockets.ConnectionClosedError):
                    await websocket.recv()
                assert (websocket.close_code, websocket.close_reason) == (1012, "service restart")
            await served.server.wait_stopped()
            assert codes == [1012]

    run(main())


# -- contexts

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="clean")


class Contexts:
    """Notes what a request finds in its context, and leaves something there."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        place = scope.get("path", scope["type"])
        self.found.append((place, VARIABLE.get()))
        VARIABLE.set(place)
        if scope["type"] == "lifespan":
            scope["state"]["from"] = "lifespan"
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        self.found.append((place, scope["state"]["from"]))
        scope["state"]["from"] = place
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                assert VARIABLE.get() == place
                await send({"type": "websocket.send", "text": message["text"]})
            return
        while (await receive())["more_body"]:
            assert VARIABLE.get() == place
            await asyncio.sleep(0.005)  # so that reading is paused, and resumed from here
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4):
            await send({"type": "http.response.body", "body": b"x" * 300_000, "more_body": True})
        await send({"type": "http.response.body"})
        VARIABLE.set(f"{place}, after its answer")


@both_loops
@pytest.mark.parametrize("size", [0, 10, 2_000_000])
def test_nothing_set_in_one_request_is_seen_in_another_of_the_same_connection(run: Run, size: int) -> None:
    async def main() -> None:
        VARIABLE.set("the starter's")
        app = Contexts()
        async with serving(app) as served:
            VARIABLE.set("set later")
            client = await served.connect()
            for number in range(3):
                client.send(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (number, size))
                client.send(b"x" * size)
                await client.head()
                assert await client.chunks() == 1_200_000
            client.send(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n" * 2)  # pipelined
            for _ in range(2):
                await client.head()
                assert await client.chunks() == 1_200_000
        assert len(app.found) == 11
        for place, found in app.found:
            assert found == ("lifespan" if found == "lifespan" else "the starter's"), place

    run(main())


@both_loops
def test_nothing_set_in_a_websocket_or_before_it_is_seen_by_others(run: Run) -> None:
    async def main() -> None:
        app = Contexts()
        async with serving(app) as served:
            client = await served.connect()
            client.send(b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            assert await client.chunks() == 1_200_000
            client.send(
                b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                b"\x81\x82\0\0\0\0hi"
            )
            assert (await client.head()).startswith(b"HTTP/1.1 101")
            assert await client.read(4) == b"\x81\x02hi"
            assert (await served.get("/after")).startswith(b"HTTP/1.1 200")
        assert {found for _, found in app.found} == {"clean", "lifespan"}
        assert len(app.found) == 7

    run(main())


# -- run(), as far as it needs no process of its own


def test_run_refuses_what_it_cannot_import() -> None:
    with pytest.raises(StartupError, match="there is no module nowhere_at_all"):
        sojourn.run("nowhere_at_all:app", QUIET)
    with pytest.raises(ConfigError, match="no application is named"):
        sojourn.run("", QUIET)


def test_a_bus_can_be_given() -> None:
    async def main() -> None:
        bus, seen = Bus(), []
        bus.observe(ServerStarted, seen.append)
        async with Server(hello, Config(bind=Bind(port=0), drain=Drain(total=1)), bus=bus) as server:
            assert server.bus is bus
        assert seen

    asyncio.run(main())


@both_loops
def test_an_endless_stream_whose_client_has_left_does_not_keep_the_loop(run: Run) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 500_000:  # it never waits by itself
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            sent += 1

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = 0
            while got < 5_000_000:  # as fast as it comes, so that the server need not wait either
                got += len(sock.recv(1 << 20))

    async def main() -> None:
        async with serving(app, NO_LIFESPAN) as served:
            await asyncio.to_thread(client, served.port)
            await until(lambda: served.server.runtime.registry.ended == 1)
        assert sent < 500_000

    run(main())
