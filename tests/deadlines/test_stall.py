"""The server's own stall extends every deadline: nobody is ended because we did not look."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sojourn.config import Timeouts
from sojourn.events import ConnectionEnded, DeadlineMissed, LoopStalled
from sojourn.testing import RawHttp, RawWebSocket
from sojourn.typing import Receive, Scope, Send
from tests.deadlines.serving import Serving, on_asyncio, on_uvloop, read_all, serving

#: Every deadline is this long, and the stall longer.
SHORT = 2.0
STALL = 3.0
TIMEOUTS = Timeouts(
    header=SHORT,
    body_idle=SHORT,
    keep_alive=SHORT,
    response_start=SHORT,
    stream_idle=SHORT,
    write_idle=SHORT,
    disconnect_grace=0.1,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the loop on /block, streams without end on /stream, reads bodies elsewhere."""
    assert scope["type"] == "http"
    if scope["path"].startswith("/block"):
        time.sleep(STALL if scope["path"] == "/block" else 1.2)  # noqa: ASYNC251 - the fault that is injected
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(60)
    await read_all(scope, receive, send)


async def twenty_clients(s: Serving) -> list[RawHttp]:
    """Clients in every kind of wait: before and in a head, in a body, idle, in a stream."""
    clients = [await s.client() for _ in range(20)]
    for index, client in enumerate(clients):
        match index % 5:
            case 0:
                await client.send(b"GET / HTTP/1.1\r\nhost: te")
            case 1:
                await client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n1")
            case 2:
                await client.get()
                assert (await client.response()).status == 200
            case 3:
                await client.get("/stream")
    await s.until(lambda: all(c.bytes_in for c in s.server.runtime.registry if (c.id - 1) % 5 != 4))
    return clients


async def go_on(clients: list[RawHttp]) -> None:
    """Everybody finishes what it had begun, and is served."""
    for index, client in enumerate(clients):
        match index % 5:
            case 0:
                await client.send(b"st\r\n\r\n")
            case 1:
                await client.send(b"2")
            case 2 | 4:
                await client.get()
    for index, client in enumerate(clients):
        if index % 5 != 3:
            assert (await client.response()).status == 200


async def blocked_loop() -> None:
    async with serving(app, timeouts=TIMEOUTS) as s:
        clients = await twenty_clients(s)
        async with await s.client() as blocker:
            await blocker.get("/block")
            assert (await blocker.response()).status == 200
        assert s.seen(DeadlineMissed) == []
        await go_on(clients)
        assert s.seen(DeadlineMissed) == []
        assert len(s.seen(ConnectionEnded)) <= 1  # the one that blocked us, and left
        await s.until(lambda: s.seen(LoopStalled))  # a thread has seen it, and tells the loop
        (stall,) = s.seen(LoopStalled)
        assert STALL - 0.3 <= stall.seconds < STALL + 3.0
        for client in clients:
            client.close()


@on_uvloop
async def test_a_handler_that_blocks_the_loop_for_three_seconds_ends_nobody() -> None:
    await blocked_loop()


@on_asyncio
async def test_a_handler_that_blocks_the_loop_for_three_seconds_ends_nobody_on_asyncio() -> None:
    await blocked_loop()


@on_uvloop
async def test_after_a_stall_deadlines_are_as_long_as_before() -> None:
    timeouts = Timeouts(header=0.9, disconnect_grace=0.1)
    async with serving(app, timeouts=timeouts) as s, await s.client() as silent, await s.client() as blocker:
        await asyncio.sleep(0.2)
        await blocker.get("/block-shortly")
        assert (await blocker.response()).status == 200
        began = time.monotonic()
        await silent.until_closed()
        assert 0.4 <= time.monotonic() - began < 4.0


SERVER = """
    import asyncio, sys
    import sojourn
    from sojourn.config import Bind, Log, Timeouts, WebSocket

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = sojourn.Config(
        bind=Bind(port=0),
        timeouts=Timeouts(header=2.8, body_idle=2.8, keep_alive=2.8),
        websocket=WebSocket(ping_interval=1.0, ping_timeout=2.8, ping_misses=1),
        log=Log(access="off", level="warning"),
    )
    sys.exit(sojourn.run(app=app, config=config, announce=lambda addresses: print(addresses, flush=True)))
"""


@pytest.fixture
def stoppable(tmp_path: Path):
    """A server in a process of its own, with deadlines of 2.8 s, and its address."""
    script = tmp_path / "served.py"
    script.write_text(textwrap.dedent(SERVER))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 20)[0], "the server did not start"
        yield process, process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            _, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, errors


def test_a_process_that_is_stopped_for_seconds_ends_nobody_when_it_goes_on(
    stoppable: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = stoppable

    async def test() -> None:
        heads, bodies, idle = [[await RawHttp.open(address, timeout=15.0) for _ in range(5)] for _ in range(3)]
        sockets = [await RawWebSocket.open(address, timeout=15.0) for _ in range(5)]
        for client in heads:
            await client.send(b"GET / HTTP/1.1\r\nho")
        for client in bodies:
            await client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n1")
        for client in idle:
            await client.get()
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"ok"), answer
        for websocket in sockets:
            assert (await websocket.upgrade()).status == 101
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(STALL + 0.5)
        process.send_signal(signal.SIGCONT)
        # Whoever was owed bytes sends them; the others are judged by the time the server was awake.
        for client in heads:
            await client.send(b"st: test\r\n\r\n")
        for client in bodies:
            await client.send(b"2")
        for client in idle:
            await client.get()
        for client in (*heads, *bodies, *idle):
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"ok"), answer
        for websocket in sockets:
            await websocket.send_frame(websocket.PING, b"alive?")
            while (frame := await websocket.frame()) is not None and frame.opcode == websocket.PING:
                await websocket.send_frame(websocket.PONG, frame.payload)
            assert frame is not None
            assert (frame.opcode, frame.payload) == (websocket.PONG, b"alive?")
        for client in (*heads, *bodies, *idle, *sockets):
            client.close()

    on_asyncio(test)()
