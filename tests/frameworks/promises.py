"""What every framework's application must be able to do here; each of them serves the same pages."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from sojourn.config import Timeouts
from sojourn.events import ApplicationFailed, ConnectionEnded
from tests.frameworks.serving import Site, served

__all__ = ["BIG", "Log", "Promises", "WebSocketPromises", "eventually"]

#: Larger than every buffer on the way.
BIG = 3_000_000


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another thread is about to make true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Log(list[str]):
    """What an application noted, from whichever thread."""

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self)


class Promises:
    """Tests for an application with these pages.

    ``/hello?name=`` says hello · ``/echo`` returns a JSON body · ``/upload`` counts bytes · ``/stream`` sends BIG bytes
    in pieces · ``/file`` sends ``path`` · ``/events`` sends one event, then nothing · ``/fails`` raises LookupError.
    """

    #: Makes the application; called once per test.
    make: Callable[..., Any]
    #: Whether the framework hands exceptions on to the server, instead of answering and logging by itself.
    hands_on_errors = True

    @pytest.fixture
    def log(self) -> Log:
        return Log()

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "file.bin"
        path.write_bytes(bytes(range(256)) * 2000)
        return path

    @pytest.fixture(params=["uvloop", "asyncio"])
    def site(self, request: pytest.FixtureRequest, log: Log, path: Path) -> Any:
        with served(
            type(self).make(log, path), loop=request.param, timeouts=Timeouts(disconnect_grace=0.3, close=0.3)
        ) as site:
            yield site

    @pytest.fixture
    def client(self, site: Site) -> Any:
        with httpx.Client(base_url=site.url, trust_env=False, timeout=20) as client:
            yield client

    def test_get(self, client: httpx.Client) -> None:
        answer = client.get("/hello", params={"name": "wörld"})
        assert (answer.status_code, answer.text) == (200, "hello wörld")

    def test_a_page_that_is_not_there(self, client: httpx.Client) -> None:
        assert client.get("/nowhere").status_code == 404

    def test_post_and_keep_alive(self, client: httpx.Client, site: Site) -> None:
        for number in range(20):
            assert client.post("/echo", json={"number": number}).json() == {"number": number}
        assert site.served.server.runtime.registry.accepted == 1

    def test_a_large_upload(self, client: httpx.Client) -> None:
        answer = client.post("/upload", content=b"x" * BIG)
        assert answer.json() == {"size": BIG}

    def test_an_upload_of_unknown_length(self, client: httpx.Client) -> None:
        answer = client.post("/upload", content=(b"x" * 50_000 for _ in range(20)))
        assert answer.json() == {"size": 1_000_000}

    def test_a_streamed_answer(self, client: httpx.Client) -> None:
        with client.stream("GET", "/stream") as answer:
            assert sum(map(len, answer.iter_raw())) == BIG

    def test_a_stream_whose_client_leaves(self, client: httpx.Client, site: Site) -> None:
        with client.stream("GET", "/stream") as answer:
            next(answer.iter_raw())
        assert client.get("/hello?name=you").status_code == 200
        assert not site.served.of(ApplicationFailed)

    def test_a_file(self, client: httpx.Client, path: Path) -> None:
        answer = client.get("/file")
        assert answer.content == path.read_bytes()
        assert int(answer.headers["content-length"]) == path.stat().st_size

    def test_an_idle_event_stream_ends_soon_after_its_client_left(
        self, client: httpx.Client, site: Site, log: Log
    ) -> None:
        with client.stream("GET", "/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert next(answer.iter_raw()) == b"data: 1\n\n"
            began = time.monotonic()
        log.wait_for("events ended")
        assert time.monotonic() - began < 0.3 + 2
        assert not site.served.of(ApplicationFailed)

    def test_an_idle_event_stream_ends_whole_when_the_server_stops(self, client: httpx.Client, site: Site) -> None:
        with client.stream("GET", "/events") as answer:
            pieces = answer.iter_raw()
            next(pieces)
            site.loop.call_soon_threadsafe(site.served.server.stop)
            assert list(pieces) == []

    def test_an_error_is_a_500(self, client: httpx.Client, site: Site) -> None:
        assert client.get("/fails").status_code == 500
        if self.hands_on_errors:  # after its answer is out
            eventually(lambda: bool(site.served.of(ApplicationFailed)))
        assert client.get("/hello?name=you").status_code == 200
        failures = site.served.of(ApplicationFailed)
        assert [type(failure.error) for failure in failures] == [LookupError] * self.hands_on_errors


class WebSocketPromises(Promises):
    """And with a WebSocket: ``/ws`` echoes text, ``close`` makes it close with 4001, and ``/deny`` refuses."""

    def test_a_websocket(self, site: Site, log: Log) -> None:
        with websockets.sync.client.connect(f"{site.websocket}/ws", proxy=None) as websocket:
            websocket.send("text")
            assert websocket.recv(10) == "text"
            long = os.urandom(100_000).hex()
            websocket.send(long)
            assert websocket.recv(10) == long
        log.wait_for("websocket left 1000")

    def test_a_websocket_that_the_application_closes(self, site: Site) -> None:
        with websockets.sync.client.connect(f"{site.websocket}/ws", proxy=None) as websocket:
            websocket.send("close")
            with pytest.raises(ConnectionClosed):
                websocket.recv(10)
            assert websocket.protocol.close_code == 4001

    def test_a_websocket_that_is_refused(self, site: Site) -> None:
        with (
            pytest.raises(websockets.exceptions.InvalidStatus) as caught,
            websockets.sync.client.connect(f"{site.websocket}/deny", proxy=None),
        ):
            pass
        assert caught.value.response.status_code == 403

    def test_a_websocket_when_the_server_stops(self, site: Site, log: Log) -> None:
        with websockets.sync.client.connect(f"{site.websocket}/ws", proxy=None) as websocket:
            websocket.send("text")
            websocket.recv(10)
            site.loop.call_soon_threadsafe(site.served.server.stop)
            with pytest.raises(ConnectionClosed):
                websocket.recv(10)
            assert websocket.protocol.close_code == 1012
        log.wait_for("websocket left 1012")

    def test_many_websockets_at_once(self, site: Site) -> None:
        def talk() -> None:
            with websockets.sync.client.connect(f"{site.websocket}/ws", proxy=None) as websocket:
                for number in range(10):
                    websocket.send(str(number))
                    assert websocket.recv(10) == str(number)
            done.append(1)

        done: list[int] = []
        threads = [threading.Thread(target=talk) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(done) == 10
        eventually(lambda: len(site.served.of(ConnectionEnded)) == 10)
        assert all(ended.ending.reason == "ws_client_closed" for ended in site.served.of(ConnectionEnded))
