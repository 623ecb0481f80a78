"""Events, outputs and readers that the tests of observe share."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sojourn.ending import Ending, How, Phase
from sojourn.events import ConnectionEnded, ConnectionGrewOld, RequestEnded, WebSocketOpened

COMPLETED = Ending("completed", Phase.RESPONSE)
LEFT = Ending("client_closed_mid_response", Phase.RESPONSE, How.RST)
SILENT = Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT)
WHEN = 1_700_000_000.1234  # 2023-11-14T22:13:20.123Z

REQUEST = RequestEnded(
    connection=12,
    client=("203.0.113.9", 51234),
    method="GET",
    target=b"/items/42?expand=owner",
    version="1.1",
    status=200,
    ending=COMPLETED,
    duration=0.0123456789,
    bytes_in=0,
    bytes_out=532,
    headers=[(b"user-agent", b"curl/8.5"), (b"referer", b"https://example.org/")],
)
CONNECTION = ConnectionEnded(
    connection=12,
    peer="[2001:db8::1]:51234",
    protocol="http",
    path="/items",
    ending=COMPLETED,
    duration=75.5,
    bytes_in=100,
    bytes_out=2000,
    unsent=0,
    requests=3,
    ws_sent=None,
    ws_received=None,
    long=False,
)
SCANNER = CONNECTION._replace(protocol="", path="", ending=SILENT, requests=0)
OPENED = WebSocketOpened(connection=7, peer="203.0.113.9:51234", target=b"/chat?room=1", subprotocol="v2.chat")
OLD = ConnectionGrewOld(
    connection=7, peer="203.0.113.9:51234", protocol="http", path="/events", age=60.01, bytes_in=90, bytes_out=1234
)


class Memory:
    """A destination that keeps what is written, and waits while its reader is stuck."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.dropped = 0
        self.told = 0
        self.writes: list[bytes] = []
        self.writing = threading.Event()
        self.reader = threading.Event()
        if not stuck:
            self.reader.set()

    def render(self, when: float, payload: Any) -> bytes:
        return f"{payload}\n".encode()

    def gap(self, when: float, dropped: int) -> bytes:
        missing, self.told = dropped - self.told, dropped
        return f"{missing} dropped\n".encode() if missing else b""

    def write(self, data: bytes) -> None:
        self.writing.set()
        self.reader.wait(30)
        self.writes.append(data)

    @property
    def lines(self) -> list[str]:
        return b"".join(self.writes).decode().splitlines()


@contextmanager
def pipe(flags: int = 0) -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end; what is still open is closed."""
    ends = os.pipe2(flags | os.O_CLOEXEC)
    try:
        yield ends
    finally:
        for end in ends:
            try:
                os.close(end)
            except OSError:
                pass  # the test closed it


def fill(fd: int) -> None:
    """Write to a pipe that nobody reads until it takes no byte more."""
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(fd, True)


def release(reader: int) -> None:
    """Close a reading end, and wait for writers left behind: they must not meet a descriptor that is used again."""
    os.close(reader)
    for thread in threading.enumerate():
        if thread.name == "sojourn-log":
            thread.join(10)


def drain(fd: int) -> bytes:
    """What a pipe holds now."""
    os.set_blocking(fd, False)
    parts = []
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except BlockingIOError:
        pass  # empty
    return b"".join(parts)
