"""Whatever client, application and clock do to WebSockets, in any order: the books are right and no wait is endless."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn.clock import NEVER
from sojourn.config import Config, Timeouts, WebSocket
from sojourn.ending import REASONS
from sojourn.events import ConnectionEnded, ConnectionOpened, RequestEnded
from sojourn.net.ticker import TICK
from tests.asgi.ws_harness import BOUND, LOOPS, PING, PONG, TEXT, Client, Served, serving
from tests.wire.websocket_client import client_frame

CONFIG = Config(
    websocket=WebSocket(idle=30.0, queue=4, queue_bytes=2000),
    timeouts=Timeouts(lifetime=60.0),
)
APP_STEPS = ("accept", "deny", "send", "large", "receive", "close", "crash", "return", "cancel")
CLIENT_STEPS = ("text", "flood", "ping", "pong", "half", "close", "violate", "eof", "reset", "leave", "read")
CLOCK_STEPS = (0.2, 3.0, 11.0)

steps = st.lists(
    st.one_of(
        st.just(("connect", 0)),
        st.tuples(st.sampled_from(APP_STEPS).map("app {}".format), st.integers(0, 3)),
        st.tuples(st.sampled_from(CLIENT_STEPS).map("client {}".format), st.integers(0, 3)),
        st.tuples(st.just("clock"), st.sampled_from(CLOCK_STEPS)),
    ),
    max_size=25,
)


class Puppet:
    """An application that does what it is told, one instance for each WebSocket."""

    def __init__(self) -> None:
        self.strings: list[asyncio.Queue[str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        string: asyncio.Queue[str] = asyncio.Queue()
        self.strings.append(string)
        while True:
            match await string.get():
                case "accept":
                    await send({"type": "websocket.accept"})
                case "deny":
                    await send({"type": "websocket.http.response.start", "status": 401})
                    await send({"type": "websocket.http.response.body", "body": b"no"})
                case "send":
                    await send({"type": "websocket.send", "text": "hello"})
                case "large":
                    await send({"type": "websocket.send", "bytes": bytes(300_000)})
                case "receive":
                    await receive()
                case "close":
                    await send({"type": "websocket.close"})
                case "crash":
                    raise KeyError("crash")
                case "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                case "return":
                    return


async def act(client: Client, step: str) -> None:
    if client.writer.is_closing() or (client.half_closed and step not in ("reset", "leave", "read")):
        return
    match step:
        case "text":
            client.send("x" * 100)
        case "flood":
            client.write(client_frame(TEXT, b"x" * 50) * 20)
        case "ping":
            client.write(client_frame(PING, b"?"))
        case "pong":
            client.write(client_frame(PONG, b""))
        case "half":
            client.write(client_frame(TEXT, b"half")[:7])
        case "close":
            client.close_frame()
        case "violate":
            client.write(b"\xff\xff\xff\xff")
        case "eof":
            try:
                client.eof()
            except OSError:  # reset by the server in this moment
                client.leave()
        case "reset":
            client.reset()
        case "leave":
            client.leave()
        case "read":
            try:
                async with asyncio.timeout(0.001):
                    await client.reader.read(100_000)
            except (TimeoutError, ConnectionError):
                return


def check(served: Served) -> None:
    registry = served.server.runtime.registry
    assert registry.accepted == len(registry) + registry.ended
    assert registry.accepted == len(served.seen(ConnectionOpened))
    assert registry.ended == len(served.seen(ConnectionEnded))
    for connection in registry:
        moment, slot = connection.due.earliest()
        assert moment < NEVER, "a connection without a deadline"
        assert connection.looked_at <= moment + TICK + 1e-6, (slot, "would be found too late")


async def play(script: list[tuple[str, Any]]) -> None:
    app = Puppet()
    async with asyncio.timeout(BOUND), serving(app, CONFIG, send_buffer=8192) as served:
        for step, argument in script:
            if step == "connect":
                client = await served.dial(8192)
                client.write(
                    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
            elif step == "clock":
                await served.pass_time(argument)
            elif step.startswith("app") and argument < len(app.strings):
                app.strings[argument].put_nowait(step[4:])
            elif step.startswith("client") and argument < len(served.clients):
                await act(served.clients[argument], step[7:])
            for _ in range(4):
                await asyncio.sleep(0)
            check(served)
        opened = Counter(event.connection for event in served.seen(ConnectionOpened))
        await served.pass_time(100)  # longer than the lifetime of all, with nobody doing anything any more
        check(served)
        assert not len(served.server.runtime.registry), "something waits without end"
        ended = Counter(event.connection for event in served.seen(ConnectionEnded))
        assert ended == opened
        assert all(event.ending.reason in REASONS for event in served.seen(ConnectionEnded))
        assert all(event.status >= 101 for event in served.seen(RequestEnded))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=steps, loop=st.sampled_from(sorted(LOOPS)))
def test_every_websocket_ends_once_and_no_wait_is_endless(script: list[tuple[str, Any]], loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play([("connect", 0), *script]))
