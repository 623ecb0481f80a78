"""Request bodies and backpressure: nothing lost, nothing unbounded, and an early answer that arrives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import httpx
import pytest

import sojourn
from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.http import HttpHandler
from sojourn.config import Route
from sojourn.errors import ProtocolError
from sojourn.events import ApplicationFailed, RequestEnded
from sojourn.testing import MemoryServer
from tests.asgi.harness import Served, answer, body_app, get, on_both_loops, read_body, serving, settings, text_app

CHUNKED = "transfer-encoding: chunked"


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# Reading


@on_both_loops
def test_a_body_arrives_in_order_and_its_end_is_told_once(loop: str) -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.clear()
        while not messages or messages[-1]["more_body"]:
            messages.append(await receive())
        await answer(send, b"".join(message["body"] for message in messages))

    with serving(app, loop=loop) as served, served.connect() as client:
        for framing, pieces in (
            ("content-length: 10", [b"he", b"llo", b"w", b"orld"]),
            (CHUNKED, [b"5\r\nhe", b"llo\r\n", b"5\r\nworl", b"d\r", b"\n0\r\n", b"\r\n"]),
        ):
            client.send(get("/", framing, method="POST"))
            for piece in pieces:
                time.sleep(0.01)
                client.send(piece)
            assert client.answer().body == b"helloworld"
            assert {message["type"] for message in messages} == {"http.request"}
            for message in messages:
                assert {key: type(value) for key, value in message.items()} == {
                    "type": str,
                    "body": bytes,
                    "more_body": bool,
                }
            assert [message["more_body"] for message in messages] == [True] * (len(messages) - 1) + [False]


@on_both_loops
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_large_body_goes_through_whole(framing: str, loop: str) -> None:
    data = bytes(range(256)) * 12_000  # 3 MB

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_body(receive))

    with serving(app, loop=loop) as served, served.connect() as client:
        for _ in range(2):
            if framing == "chunked":
                parts = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
                upload = get("/", CHUNKED, method="POST") + chunks(*parts)
            else:
                upload = get("/", method="POST", body=data)
            sender = threading.Thread(target=client.send, args=[upload])
            sender.start()
            assert client.answer().body == data
            sender.join()


@on_both_loops
def test_tasks_that_read_at_once_share_the_body_and_all_see_its_end(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen: list[Any] = []
        complete = asyncio.Event()

        async def reader() -> None:
            while True:
                message = await receive()
                seen.append(message)
                if not message.get("more_body", False):
                    complete.set()
                if message["type"] == "http.disconnect":
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(reader())
            await complete.wait()
            await answer(send, b"".join(message.get("body", b"") for message in seen))

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 6", method="POST"))
        for byte in (b"a", b"b", b"c", b"d", b"e", b"f"):
            client.send(byte)
            time.sleep(0.01)
        assert client.answer().body == b"abcdef"
        client.send(get())
        assert client.answer().body == b""


@on_both_loops
def test_a_cancelled_receive_loses_nothing_and_leaves_nothing(loop: str) -> None:
    waiters: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle: HttpCycle = scope["extensions"]["sojourn"]
        body, more = b"", True
        while more:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    message = await receive()
                    body += message["body"]
                    more = message["more_body"]
            waiters.append(len(cycle._waiters or ()))
        for _ in range(100):  # as is_disconnected() of a framework does
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            waiters.append(len(cycle._waiters or ()))
        await answer(send, body)

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 50", method="POST"))
        for _ in range(10):
            time.sleep(0.005)
            client.send(b"12345")
        assert client.answer().body == b"12345" * 10
        assert set(waiters) == {0}


# Limits


def limited(config: Any) -> Any:
    return settings(limits={"body": 10_000}, **config)


@on_both_loops
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_body_over_the_limit_is_refused_with_413(framing: str, loop: str) -> None:
    raised: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await read_body(receive)
        except ProtocolError as error:
            raised.append(error)
            raise
        await answer(send, b"%d" % len(body))

    def post(size: int) -> bytes:
        if framing == "chunked":
            return get("/", CHUNKED, method="POST") + chunks(b"x" * (size // 2), b"x" * (size - size // 2))
        return get("/", method="POST", body=b"x" * size)

    with serving(app, limited({}), loop) as served:
        with served.connect() as client:
            client.send(post(10_000))
            assert client.answer().body == b"10000"
            client.send(post(10_001) + get("/never"))
            got = client.answer()
            assert (got.status, got["connection"]) == (413, "close")
            assert client.closed()
        assert served.ended().ending.reason == "body_too_large"
        assert served.of(RequestEnded)[-1].status == 413
        assert len(raised) == 1
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_length_over_the_limit_is_refused_before_a_byte_of_it_has_come(loop: str) -> None:
    with serving(body_app(), limited({}), loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 18446744073709551615", method="POST"))
        assert client.answer().status == 413
        assert client.closed()


@on_both_loops
def test_an_endless_chunked_body_is_refused_while_it_comes(loop: str) -> None:
    with serving(body_app(), limited({}), loop) as served, served.connect() as client:
        client.send(get("/", CHUNKED, method="POST"))
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
                if client.buffer or not client.silent(0.001):
                    break
        assert client.answer().status == 413
        assert served.connections()[0].bytes_in < 300_000 if served.connections() else True


@on_both_loops
def test_an_application_that_does_not_read_is_not_asked_about_the_body(loop: str) -> None:
    with serving(text_app(), limited({}), loop) as served, served.connect() as client:
        client.send(get("/", method="POST", body=b"x" * 20_000) + get())
        assert [client.answer().status for _ in range(2)] == [200, 200]


@on_both_loops
def test_a_route_that_streams_is_exempt_by_configuration(loop: str) -> None:
    routes = (
        Route(path="/upload/*", methods=("PUT",), limits={"body": "none"}),
        Route(path="/small", limits={"body": 3}),
    )
    with serving(body_app(), limited({"routes": routes}), loop) as served:
        for method, path, size, status in (
            ("PUT", "/upload/a", 200_000, 200),
            ("POST", "/upload/a", 200_000, 413),
            ("PUT", "/uploads", 200_000, 413),
            ("PUT", "/small", 3, 200),
            ("PUT", "/small", 4, 413),
            ("PUT", "/", 10_000, 200),
        ):
            with served.connect() as client:
                client.send(get(path, method=method, body=b"x" * size))
                assert client.answer().status == status, (method, path)


@on_both_loops
def test_an_endpoint_that_streams_is_exempt_by_its_decorator(loop: str) -> None:
    @sojourn.limits(body=None)
    async def upload(receive: Any, send: Any) -> None:
        await answer(send, b"%d" % len(await read_body(receive)))

    @sojourn.limits(body=5)
    async def small(receive: Any, send: Any) -> None:
        await answer(send, b"%d" % len(await read_body(receive)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await {"/upload": upload, "/small": small}[scope["path"]](receive, send)

    with serving(app, limited({}), loop) as served, served.connect() as client:
        client.send(get("/upload", method="POST", body=b"x" * 50_000))
        assert client.answer().body == b"50000"
        client.send(get("/upload", CHUNKED, method="POST") + chunks(b"x" * 30_000, b"x" * 30_000))
        assert client.answer().body == b"60000"
        client.send(get("/small", method="POST", body=b"12345"))
        assert client.answer().body == b"5"
        client.send(get("/small", method="POST", body=b"123456"))
        assert client.answer().status == 413


# Backpressure


def one_connection(served: Served) -> Any:
    (connection,) = served.connections()
    return connection


@on_both_loops
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_reading_pauses_while_the_application_does_not_read(framing: str, loop: str) -> None:
    go = asyncio.Event()
    size = 30_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        total, largest = 0, 0
        while True:
            message = await receive()
            total += len(message["body"])
            largest = max(largest, len(message["body"]))
            if not message["more_body"]:
                break
            await asyncio.sleep(0)
        await answer(send, b"%d %d" % (total, largest))

    config = settings(limits={"body": None, "read_buffer": 100_000})
    with serving(app, config, loop) as served, served.connect() as client:
        if framing == "chunked":
            upload = get("/", CHUNKED, method="POST") + chunks(*[b"x" * 10_000] * (size // 10_000))
        else:
            upload = get("/", method="POST", body=b"x" * size)
        sender = threading.Thread(target=client.send, args=[upload])
        sender.start()
        served.until(lambda: one_connection(served).reading_paused)
        time.sleep(0.1)
        assert one_connection(served).bytes_in < 100_000 + 300_000
        served.call(go.set)
        total, largest = map(int, client.answer().body.split())
        sender.join()
        assert total == size
        assert largest < 100_000 + 600_000  # a read of uvloop's is 256 KB
        client.send(get("/", method="POST", body=b"x"))
        assert client.answer().body == b"1 1"


@pytest.mark.parametrize("piece", [1, 7])
def test_a_body_in_tiny_pieces_takes_no_more_memory_than_one_in_large(piece: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        async with MemoryServer(app, settings(limits={"read_buffer": 16_384})) as server:
            client = server.connect()
            client.send(get("/", "content-length: 100000", method="POST"))
            await server.settle()
            sent = 0
            while not client.connection.reading_paused:
                client.send(b"x" * piece)
                await server.settle()
                sent += 1
                assert sent < 1000

    asyncio.run(main())


@on_both_loops
@pytest.mark.parametrize("length", [True, False])
def test_send_waits_while_the_client_does_not_read(length: bool, loop: str) -> None:
    piece, count = 20_000, 700
    sent: list[int] = []
    peak: list[int] = [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % (piece * count))] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        control = scope["extensions"]["sojourn"]
        for number in range(count):
            await send({"type": "http.response.body", "body": b"x" * piece, "more_body": True})
            sent.append(number)
            peak[0] = max(peak[0], control.buffered)
        await send({"type": "http.response.body"})

    with serving(app, settings(limits={"write_buffer": 50_000}), loop) as served:
        with served.connect(receive_buffer=20_000) as client:
            client.send(get())
            served.until(lambda: sent)
            previous = -1
            while previous != len(sent):
                previous = len(sent)
                time.sleep(0.2)
            assert len(sent) < count - 100, "the kernel's buffers and ours can't hold that much"
            assert one_connection(served).blocked
            assert len(client.answer().body) == piece * count
            assert len(sent) == count
            assert peak[0] <= 50_000 + piece + 10
            client.close()
        served.ended()


@on_both_loops
def test_pipelined_requests_wait_in_the_kernel_and_not_in_memory(loop: str) -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    with serving(app, settings(limits={"read_buffer": 50_000}), loop) as served, served.connect() as client:
        count = 100_000
        sender = threading.Thread(target=client.send, args=[get() * count])
        sender.start()
        served.until(lambda: one_connection(served).reading_paused)
        time.sleep(0.1)
        connection = one_connection(served)
        handler = connection.handler
        assert isinstance(handler, HttpHandler)
        assert len(handler._reader.rest) < 50_000 + 300_000
        assert connection.bytes_in < 50_000 + 300_000
        served.call(go.set)
        for _ in range(3000):
            assert client.answer().status == 200
        client.reset()
        with contextlib.suppress(OSError):
            sender.join()
        served.ended()


# Early answers


@on_both_loops
@pytest.mark.parametrize("status", [200, 413])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_client_that_is_still_uploading_gets_the_early_answer_and_no_reset(
    framing: str, status: int, loop: str
) -> None:
    """It writes 50 MB without looking up, and only then reads."""
    app = text_app() if status == 200 else body_app()
    size = 50_000_000
    # Long enough for a client on a busy machine; a client that reads its answer and closes is not waited for.
    config = settings(timeouts={"linger": 10.0}, limits={"body": 1000})
    with serving(app, config, loop) as served, served.connect() as client:
        if framing == "chunked":
            client.send(get("/", CHUNKED, method="POST"))
            piece = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
        else:
            client.send(get("/", f"content-length: {size}", method="POST"))
            piece = b"x" * 100_000
        for _ in range(size // 100_000):
            client.send(piece)
        assert client.answer().status == status
        assert client.closed()
        assert served.connections()[0].bytes_in > 400_000
        client.close()
        assert served.ended().ending.reason == ("completed" if status == 200 else "body_too_large")


@on_both_loops
def test_a_client_that_uploads_for_ever_is_waited_for_no_longer_than_linger(loop: str) -> None:
    with serving(text_app(), settings(timeouts={"linger": 0.3}), loop) as served, served.connect() as client:
        client.send(get("/", CHUNKED, method="POST"))
        assert client.answer().status == 200
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 10:
                client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                time.sleep(0.01)
        assert time.monotonic() - began < 9
        assert served.ended().ending.reason == "completed"


@on_both_loops
def test_a_client_that_stops_uploading_after_an_early_answer_is_not_waited_for(loop: str) -> None:
    with serving(text_app(), settings(timeouts={"linger": 0.3}), loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 1000", method="POST") + b"x")
        got = client.answer()
        assert (got.status, got.all("connection")) == (200, [])
        assert client.closed()
        assert served.ended().ending.reason == "completed"


@on_both_loops
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_connection_survives_an_early_answer_when_the_rest_of_the_body_is_little(framing: str, loop: str) -> None:
    with serving(text_app(), loop=loop) as served, served.connect() as client:
        rest = b"x" * 100_000
        if framing == "chunked":
            request, rest = get("/", CHUNKED, method="POST"), chunks(rest[:50_000], rest[50_000:])
        else:
            request = get("/", "content-length: 100000", method="POST")
        # The next request comes in one piece with the rest of the body, behind it, and later.
        for follow in (lambda: client.send(rest + get("/2")), lambda: client.send(rest).send(get("/2"))):
            client.send(request)
            assert client.answer().body == b"hello"
            follow()
            assert client.answer().body == b"hello"
        client.send(get())
        assert client.answer().body == b"hello"


@on_both_loops
def test_the_end_of_a_body_that_is_thrown_away_may_be_cut_anywhere(loop: str) -> None:
    end = b"\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n" + get("/2") + get("/3")
    with serving(text_app(), loop=loop) as served, served.connect() as client:
        for cut in range(1, len(end), 3):
            client.send(get("/1", CHUNKED, method="POST") + b"5\r\nhello")
            assert client.answer().body == b"hello"
            client.send(end[:cut])
            time.sleep(0.002)
            client.send(end[cut:])
            assert [client.answer().body for _ in range(2)] == [b"hello"] * 2


@on_both_loops
def test_a_504_while_the_body_is_awaited_leaves_no_connection_without_a_deadline(loop: str) -> None:
    config = settings(timeouts={"response_start": 0.3, "linger": 0.5})
    with serving(body_app(), config, loop) as served:
        with served.connect() as client:
            client.send(get("/", "content-length: 5", method="POST") + b"he")
            assert client.answer().status == 504
            assert client.closed(), "the rest of the body never came"
        with served.connect() as client:
            client.send(get("/", "content-length: 5", method="POST") + b"he")
            assert client.answer().status == 504
            client.send(b"llo" + get("/2"))
            assert client.answer().body == b"/2 "


@on_both_loops
def test_a_reader_of_an_answered_request_does_not_touch_the_deadlines_of_the_next(loop: str) -> None:
    """The first application answers while another of its tasks waits for the body; the second waits for its own."""
    tasks: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/1":
            tasks.append(asyncio.ensure_future(receive()))
            await asyncio.sleep(0.05)
            await answer(send, b"early")
        else:
            await read_body(receive)

    config = settings(timeouts={"body_idle": 0.4, "response_start": 10})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get("/1", "content-length: 1", method="POST"))
        assert client.answer().body == b"early"
        client.send(b"x" + get("/2", "content-length: 5", method="POST"))
        assert client.answer().status == 408
        assert served.ended().ending.reason == "request_body_timeout"


def test_httpx_gets_the_early_answer_to_a_large_upload() -> None:
    config = settings(limits={"body": 1000}, timeouts={"linger": 10.0})
    with serving(body_app(), config) as served, httpx.Client(trust_env=False) as pool:
        got = pool.post(f"http://127.0.0.1:{served.port}/", content=(b"x" * 100_000 for _ in range(200)))
        assert got.status_code == 413


@on_both_loops
def test_early_hints_wait_for_a_client_that_does_not_read(loop: str) -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number in range(1000):
            await send({"type": "http.response.early_hint", "links": [b"<" + b"x" * 20_000 + b">"]})
            sent.append(number)
        await answer(send)

    with serving(app, settings(timeouts={"disconnect_grace": 0.1}), loop) as served:
        client = served.connect(receive_buffer=10_000).send(get())
        served.until(lambda: served.connections() and one_connection(served).blocked)
        time.sleep(0.1)
        assert len(sent) < 900
        assert served.call(lambda: next(iter(served.server.runtime.registry)).buffered) < 200_000
        client.reset()
        served.ended()
