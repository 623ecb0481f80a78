"""Any client against any application, for any time: what must hold of connections at every moment.

Clients send parts of requests, stall, half-close and reset; applications answer, stream, crash and resist; time goes
on, the loop stalls, a drain begins. All on a ManualClock and in memory.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sojourn.clock import NEVER
from sojourn.config import Config, Drain, Limits, Timeouts, WebSocket
from sojourn.events import ConnectionEnded, ConnectionOpened, RequestEnded
from sojourn.testing import MemoryClient, MemoryServer, RawWebSocket
from tests.net.machine_apps import HTTP_PATHS, SOCKET_PATHS, Apps

CONFIG = Config(
    timeouts=Timeouts(
        tls=2.0,
        header=2.0,
        body_idle=2.0,
        body=8.0,
        response_start=3.0,
        handler=12.0,
        stream_idle=4.0,
        write_idle=3.0,
        keep_alive=4.0,
        lifetime=25.0,
        disconnect_grace=1.0,
    ),
    limits=Limits(requests=4, queue=2, body=200_000, rate_grace=1.0, requests_per_connection=6, read_buffer=20_000),
    websocket=WebSocket(
        open=2.0, ping_interval=3.0, ping_timeout=2.0, idle=9.0, write=2.0, close=1.0, queue=8, message=100_000
    ),
    drain=Drain(delay=0, requests=3.0, streams=2.0, sockets=3.0, total=5.0),
)
#: After drain.total: the close of an aborted socket, and a tick or two.
CLOSING = 2.0
MOST_CLIENTS = 8
#: The largest answer of the applications, the watermark, and the queue of a WebSocket.
MOST_BUFFERED = 300_000 + 64 * 1024 + 8 * 50_000
HEAD = b"POST %b HTTP/1.1\r\nhost: test\r\n"
BODIES = {
    "none": b"GET %b HTTP/1.1\r\nhost: test\r\n\r\n",
    "old": b"GET %b HTTP/1.0\r\n\r\n",
    "close": b"GET %b HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
    "head": b"HEAD %b HTTP/1.1\r\nhost: test\r\n\r\n",
    "whole": HEAD + b"content-length: 5\r\n\r\nhello",
    "part": HEAD + b"content-length: 10\r\n\r\nhello",
    "large": HEAD + b"content-length: 150000\r\n\r\n" + b"x" * 150_000,
    "too large": HEAD + b"content-length: 300000\r\n\r\n",
    "chunks": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "open chunks": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "expect": HEAD + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",
}
PIECES = {
    "begin": b"GET /fa",
    "middle": b"hello",
    "end": b"st HTTP/1.1\r\nhost: test\r\n\r\n",
    "empty line": b"\r\n",
    "chunk": b"5\r\nhello\r\n",
    "last chunk": b"0\r\n\r\n",
    "tls": b"\x16\x03\x01\x00",
    "version": b"GET / HTTP/9\r\n\r\n",
    "much": b"x" * 30_000,
}
FRAMES = {
    "text": RawWebSocket.encode(1, b"hello"),
    "first": RawWebSocket.encode(1, b"he", fin=False),
    "last": RawWebSocket.encode(0, b"llo"),
    "large": RawWebSocket.encode(2, b"x" * 50_000),
    "ping": RawWebSocket.encode(9, b"ping"),
    "pong": RawWebSocket.encode(10, b"pong"),
    "close": RawWebSocket.encode(8, b"\x03\xe8"),
    "going away": RawWebSocket.encode(8, b"\x03\xe9bye"),
    "reserved": RawWebSocket.encode(3, b"?"),
    "not utf-8": RawWebSocket.encode(1, b"\xff"),
    "no mask": RawWebSocket.encode(1, b"no mask", mask=None),
    "part": RawWebSocket.encode(1, b"hello")[:4],
}
UPGRADE = (
    b"GET %b HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
numbers = st.integers(0, MOST_CLIENTS - 1)


class ConnectionMachine(RuleBasedStateMachine):
    """Clients, applications and time, in any order."""

    @initialize(secure=st.booleans())
    def begin(self, secure: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.reported: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.reported.append(context))
        self.apps = Apps()
        self.server = self.apps.server = MemoryServer(self.apps, CONFIG)
        self.do(self.server.start())
        self.secure = secure
        self.clients: list[MemoryClient] = []
        self.drained = False

    def do(self, step: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(step)

    def client(self, number: int) -> MemoryClient | None:
        """A client that has not closed its end."""
        if not self.clients:
            return None
        client = self.clients[number % len(self.clients)]
        return None if client.peer.closed else client

    def send(self, number: int, data: bytes) -> None:
        client = self.client(number)
        if client is not None and client.connection.transport is not None:
            client.send(data)

    # What clients do

    @rule(handshake=st.booleans())
    def connect(self, handshake: bool) -> None:
        if self.drained:
            return
        self.clients = [client for client in self.clients if client.connection.transport is not None][
            -MOST_CLIENTS + 1 :
        ]
        self.clients.append(self.server.connect(secure=self.secure, handshake=handshake))

    @rule(number=numbers)
    def finish_handshake(self, number: int) -> None:
        client = self.client(number)
        if client is not None and client.connection.transport is None and client.connection.abandon is not None:
            client.finish_handshake()

    @rule(number=numbers, path=st.sampled_from(HTTP_PATHS), kind=st.sampled_from(sorted(BODIES)))
    def request(self, number: int, path: str, kind: str) -> None:
        self.send(number, BODIES[kind] % path.encode())

    @rule(number=numbers, paths=st.lists(st.sampled_from(HTTP_PATHS), min_size=2, max_size=4))
    def pipeline(self, number: int, paths: list[str]) -> None:
        self.send(number, b"".join(BODIES["none"] % path.encode() for path in paths))

    @rule(number=numbers, path=st.sampled_from(SOCKET_PATHS), early=st.sampled_from(["", "text", "close", "part"]))
    def upgrade(self, number: int, path: str, early: str) -> None:
        self.send(number, UPGRADE % path.encode() + FRAMES.get(early, b""))

    @rule(number=numbers, piece=st.sampled_from(sorted(PIECES)))
    def piece(self, number: int, piece: str) -> None:
        self.send(number, PIECES[piece])

    @rule(
        number=numbers, frames=st.lists(st.sampled_from(sorted(FRAMES)), min_size=1, max_size=12), joined=st.booleans()
    )
    def frames(self, number: int, frames: list[str], joined: bool) -> None:
        encoded = [FRAMES[frame] for frame in frames]
        for data in [b"".join(encoded)] if joined else encoded:
            self.send(number, data)

    @rule(number=numbers, what=st.sampled_from(["send_eof", "close", "reset", "stop_taking", "take_all"]))
    def peer(self, number: int, what: str) -> None:
        client = self.client(number)
        if client is not None and client.connection.transport is not None:
            getattr(client.peer, what)()

    @rule(number=numbers, size=st.sampled_from([10, 5_000, 100_000]))
    def take(self, number: int, size: int) -> None:
        client = self.client(number)
        if client is not None and client.connection.transport is not None:
            client.peer.take(size)

    # What time does

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.1, 2.1, 3.2, 5.0]))
    def advance(self, seconds: float) -> None:
        self.do(self.server.advance(seconds))

    @rule(seconds=st.sampled_from([0.3, 3.0, 10.0]))
    def stall(self, seconds: float) -> None:
        before = len(self.server.runtime.registry)
        self.server.clock.advance(seconds)
        self.server.runtime.ticker.tick()
        self.server.runtime.turn(self.server.runtime.ticker.now)
        # A drain gives idle connections no time at all, so that there is none to extend.
        assert self.drained or len(self.server.runtime.registry) == before, "a stall ended somebody"

    @precondition(lambda self: not self.drained)
    @rule()
    def drain(self) -> None:
        self.drained = True
        self.server.drain()

    @precondition(lambda self: self.drained)
    @rule()
    def hurry(self) -> None:
        self.server.shutdown.hurry()

    # What must hold

    @invariant()
    def nothing_unexpected_is_reported(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.server.settle())
            assert self.reported == []

    @invariant()
    def every_open_connection_has_a_deadline_and_a_place_in_the_wheel(self) -> None:
        if not hasattr(self, "loop"):
            return
        runtime = self.server.runtime
        for connection in runtime.registry:
            armed = connection.due.armed()
            armed.pop("long", None)
            handler = type(connection.handler).__name__
            assert armed, f"{handler} in {connection.phase.name} waits without deadline: {connection.ending}"
            assert connection.looked_at < NEVER
            assert not connection.blocked or {"write", "close"} & armed.keys(), "nobody watches a peer that is behind"
            assert connection.buffered < MOST_BUFFERED, "answers pile up for a client that does not take them"
            moment, slot = connection.due.earliest()
            assert moment > runtime.ticker.now - 0.45, f"{slot} is overdue"
        assert len(runtime.wheel) == len(runtime.registry)

    @invariant()
    def accepted_is_open_plus_ended_and_each_ended_once(self) -> None:
        if not hasattr(self, "loop"):
            return
        registry = self.server.runtime.registry
        assert registry.accepted == len(registry) + registry.ended
        opened = [event.connection for event in self.server.seen(ConnectionOpened)]
        ended = [event.connection for event in self.server.seen(ConnectionEnded)]
        assert len(set(opened)) == len(opened) == registry.accepted
        assert len(set(ended)) == len(ended) == registry.ended
        assert set(ended) | {connection.id for connection in registry} == set(opened)

    @invariant()
    def a_request_ends_at_most_once_and_not_after_its_connection(self) -> None:
        if not hasattr(self, "loop"):
            return
        requests: Counter[int] = Counter()
        over: dict[int, int] = {}
        for event in self.server.events:
            if isinstance(event, RequestEnded):
                requests[event.connection] += 1
                assert event.connection not in over, "a request ended after its connection"
            elif isinstance(event, ConnectionEnded):
                over[event.connection] = event.requests
        for connection in self.server.runtime.registry:
            over[connection.id] = connection.requests
        for number, count in requests.items():
            assert count <= over[number], f"connection {number} had {over[number]} requests, {count} ended"

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.server.drain()
            self.do(self.server.advance(CONFIG.drain.total + CLOSING))
            assert list(self.server.runtime.registry) == [], "open after the total time of the drain"
            self.accepted_is_open_plus_ended_and_each_ended_once()
            self.a_request_ends_at_most_once_and_not_after_its_connection()
            self.apps.over.set()
            self.do(self.server.advance(CONFIG.timeouts.disconnect_grace + 4.5))
            self.do(self.server.stop())
            assert self.server.work.running == {}
            assert asyncio.all_tasks(self.loop) == set()
            self.clients.clear()
            gc.collect()
            assert self.reported == []
        finally:
            self.loop.close()


TestConnections = ConnectionMachine.TestCase
TestConnections.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
