"""A real server on a real socket, in a thread of its own, and a client that sends what it is told to.

``serving`` holds what must be true of every test, whatever it does: no error that nobody handles, every request and
every connection ended once, no connection without a deadline, none that is idle with somebody else's deadline or with
its reading paused, no task left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, get_args

import pytest
import uvloop

from sojourn.asgi.http import HttpHandler
from sojourn.bus import Bus
from sojourn.config import Admission, App, Bind, Config, Drain, Limits, Log, Route, Timeouts
from sojourn.ending import Phase
from sojourn.events import ConnectionEnded, ConnectionOpened, Event, RequestEnded
from sojourn.net.connection import Connection
from sojourn.server.server import Server

__all__ = ["Answer", "Served", "Wire", "body_app", "get", "on_both_loops", "serving", "settings", "text_app"]

E = TypeVar("E")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])

#: A test that waits longer hangs.
PATIENCE = 15.0
#: Slots that a connection may have armed while nothing is in hand.
_OF_IDLE = {"keep_alive", "lifetime", "long", "write"}


def settings(
    *,
    timeouts: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    routes: tuple[Route, ...] = (),
    app: dict[str, Any] | None = None,
    log: dict[str, Any] | None = None,
    drain: dict[str, Any] | None = None,
    admission: dict[str, Any] | None = None,
) -> Config:
    """A configuration for a test: any port, short ends."""
    return Config(
        app=App(**{"lifespan": "off", **(app or {})}),
        bind=Bind(port=0),
        timeouts=Timeouts(**{"disconnect_grace": 0.3, "linger": 0.5, **(timeouts or {})}),
        limits=Limits(**(limits or {})),
        drain=Drain(
            **{
                "delay": 0.0,
                "close_rate": None,
                "requests": 0.3,
                "streams": 0.2,
                "sockets": 0.3,
                "total": 1.0,
                **(drain or {}),
            }
        ),
        log=Log(**(log or {})),
        admission=Admission(**(admission or {})),
        routes=routes,
    )


class Answer(NamedTuple):
    """One response as it was on the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]

    def __getitem__(self, name: str) -> str:  # type: ignore[override]
        """The value of a header that must be there once."""
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for each, value in self.headers if each.lower() == name]


class Cut(Exception):
    """The connection ended inside an answer."""

    def __init__(self, received: bytes, how: str) -> None:
        super().__init__(f"{how} after {received!r}")
        self.received = received
        self.how = how


class Wire:
    """A client socket, read as strictly as it can be: two framings in one answer fail the test."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def send(self, data: bytes) -> Wire:
        """Send bytes."""
        self.sock.sendall(data)
        return self

    def half_close(self) -> Wire:
        """Send FIN and read on."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        """Leave, as a client that is done does."""
        self.sock.close()

    def reset(self) -> None:
        """Leave with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> None:
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionError:
            raise Cut(bytes(self.buffer), "rst") from None
        if not data:
            raise Cut(bytes(self.buffer), "fin")
        self.buffer += data

    def until(self, mark: bytes) -> bytes:
        """Read up to a mark, and take it out."""
        while (at := self.buffer.find(mark)) < 0:
            self._more()
        part = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return part

    def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self.buffer) < size:
            self._more()
        part = bytes(self.buffer[:size])
        del self.buffer[:size]
        return part

    def head(self) -> Answer:
        """Read the head of an answer."""
        line, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value) for name, _, value in (each.partition(": ") for each in lines)]
        return Answer(int(status), headers, b"", [])

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer, final or interim.

        Raises:
            Cut: The connection ended before it was complete.
        """
        answer = self.head()
        lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
        assert len(lengths) + len(codings) <= 1, "more than one framing"
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if lengths:
            return answer._replace(body=self.exactly(int(lengths[0])))
        if codings:
            assert codings == ["chunked"]
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            trailers = []
            while line := self.until(b"\r\n").decode("latin-1"):
                name, _, value = line.partition(": ")
                trailers.append((name, value))
            return answer._replace(body=body, trailers=trailers)
        assert answer["connection"] == "close"
        return answer._replace(body=self.rest())

    def rest(self) -> bytes:
        """Everything up to FIN.

        Raises:
            Cut: It was RST.
        """
        try:
            while True:
                self._more()
        except Cut as cut:
            if cut.how == "rst":
                raise
        rest = bytes(self.buffer)
        self.buffer.clear()
        return rest

    def closed(self) -> bool:
        """Whether the server closes now, and sends nothing before."""
        return self.rest() == b""

    def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for a while."""
        self.sock.settimeout(seconds)
        try:
            self.buffer += self.sock.recv(65536)
        except TimeoutError:
            return not self.buffer
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()


def get(path: str = "/", *headers: str, method: str = "GET", version: str = "1.1", body: bytes | None = None) -> bytes:
    """A request."""
    lines = [f"{method} {path} HTTP/{version}", "host: a.example", *headers]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Served:
    """A server that runs."""

    def __init__(self, app: Any, config: Config, loop: str) -> None:
        self.config = config
        self.bus = Bus()
        self.server = Server(app, config, bus=self.bus)
        #: Everything that was observed, in order.
        self.events: list[Any] = []
        #: What the loop's exception handler was told, what asyncio logged, and which invariant did not hold.
        self.complaints: list[str] = []
        self.loop = LOOPS[loop]()
        self.port = 0
        self._clients: list[Wire] = []
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        for kind in get_args(Event):
            self.bus.observe(kind, self.events.append)

    # In the server's thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self.loop.set_exception_handler(self._complain)
        await self.server.start()
        self.port = int(self.server.addresses[0].rpartition(":")[2])
        ticker = self.server.runtime.ticker
        turn = ticker._turn
        assert turn is not None

        def checked(now: float) -> None:
            turn(now)
            self._check()

        ticker._turn = checked
        self._ready.set()
        await self._stop.wait()
        self._check()
        self.server.stop()
        await self.server.wait_stopped()
        gc.collect()
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            self.complaints.append(f"tasks left: {left}")

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r} {context}")

    def _check(self) -> None:
        """What is true of every connection between two events of the loop."""
        for connection in self.server.runtime.registry:
            armed = set(connection.due.armed())
            where = f"connection {connection.id} in {connection.phase} with {sorted(armed)}"
            if not armed - {"long", "lifetime"}:
                self.complaints.append(f"{where}: waits without a deadline")
            handler = connection.handler
            if connection.phase is Phase.IDLE and connection.ending is None and isinstance(handler, HttpHandler):
                if armed - _OF_IDLE:
                    self.complaints.append(f"{where}: is idle")
                if connection.reading_paused:
                    self.complaints.append(f"{where}: is idle and does not read")

    # In the test's thread

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Stop the server and check what must be true at the end."""
        self.close_clients()
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not stop"
        if self._failed is not None:
            raise self._failed
        assert self.complaints == []
        assert self.bus.failures == 0, self.bus.last_failure
        registry = self.server.runtime.registry
        assert len(registry) == 0
        assert registry.accepted == registry.ended
        ended = self.of(ConnectionEnded)
        assert sorted(each.connection for each in ended) == sorted(
            each.connection for each in self.of(ConnectionOpened)
        )
        assert len({each.connection for each in ended}) == registry.ended
        assert len(self.of(RequestEnded)) == sum(each.requests for each in ended), "requests ended, requests begun"
        assert len(self.server.runtime.wheel) == 0
        slots = self.server.site.slots
        assert slots is None or (slots.running, slots.waiting) == (0, 0)
        admission = self.server.site.admission
        assert admission is None or (admission.slots.running, admission.slots.waiting) == (0, 0)

    def connect(self, **options: Any) -> Wire:
        """A new client; closed at the end, if not before."""
        client = Wire(self.port, **options)
        self._clients.append(client)
        return client

    def of(self, kind: type[E]) -> list[E]:
        """The events of a kind so far."""
        return [event for event in self.events if type(event) is kind]

    def wait(self, kind: type[E], count: int = 1) -> list[E]:
        """Wait for so many events of a kind."""
        self.until(lambda: len(self.of(kind)) >= count, f"{count} {kind.__name__}")
        return self.of(kind)

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait until something is true."""
        limit = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < limit, f"waited in vain for {what or condition}; {self.events}"
            time.sleep(0.005)
        return value

    def call(self, function: Callable[[], E]) -> E:
        """Call a function in the server's thread."""

        async def caller() -> E:
            return function()

        return asyncio.run_coroutine_threadsafe(caller(), self.loop).result(PATIENCE)

    def close_clients(self) -> None:
        """Close what clients have left open."""
        for client in self._clients:
            client.close()

    def connections(self) -> list[Connection]:
        """The open connections."""
        return self.call(lambda: list(self.server.runtime.registry))

    def ended(self, count: int = 1) -> ConnectionEnded:
        """The ending of the connection that ended last, once so many have."""
        return self.wait(ConnectionEnded, count)[-1]


class _Complaints(logging.Handler):
    """Collects what asyncio logs."""

    def __init__(self, served: Served) -> None:
        super().__init__(logging.WARNING)
        self._served = served

    def emit(self, record: logging.LogRecord) -> None:
        self._served.complaints.append(record.getMessage())


@contextmanager
def serving(app: Any, config: Config | None = None, loop: str = "uvloop") -> Iterator[Served]:
    """Serve an application for the length of a block, and check that everything ended as it should.

    Args:
        app: The ASGI application.
        config: Settings; those of :func:`settings` by default.
        loop: ``asyncio`` or ``uvloop``.
    """
    served = Served(app, config or settings(), loop)
    handler = _Complaints(served)
    logging.getLogger("asyncio").addHandler(handler)
    try:
        served.start()
        try:
            yield served
        except BaseException:
            served.close_clients()
            served.loop.call_soon_threadsafe(served._stop.set)
            served._thread.join(PATIENCE)
            raise
        served.stop()
    finally:
        logging.getLogger("asyncio").removeHandler(handler)


def text_app(text: bytes = b"hello", status: int = 200) -> Any:
    """An application that answers every request with the same text and does not read its body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


async def read_body(receive: Any) -> bytes:
    """Read a request body to its end."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send: Any, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def body_app() -> Any:
    """An application that answers with path and body of the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        await answer(send, scope["path"].encode() + b" " + body)

    return app
