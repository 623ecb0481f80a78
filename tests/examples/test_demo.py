"""The demo, over real sockets, served by the command that ``make demo`` runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from examples.demo.app import Demo
from tests.examples.processes import ROOT, Served, served


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served("examples.demo.app:app", tmp_path_factory.mktemp("demo")) as server:
        yield server


def events(url: str, count: int) -> list[tuple[str, Any]]:
    """The first server-sent events of a stream, as name and data; then the client leaves."""
    found: list[tuple[str, Any]] = []
    with httpx.stream("GET", url, timeout=10) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                found.append((name, json.loads(value)))
                if len(found) == count:
                    break
    return found


@contextmanager
def member(demo: Served) -> Iterator[ClientConnection]:
    """A member of the demo's hub, greeted."""
    with connect(f"{demo.ws_url}/hub", subprotocols=[Subprotocol("sojourn.v1")]) as socket:
        assert "hello" in json.loads(socket.recv(timeout=10))
        yield socket


def peer(socket: ClientConnection) -> str:
    """How the server calls it."""
    host, port = socket.socket.getsockname()
    return f"{host}:{port}"


def read_all(socket: ClientConnection) -> None:
    """Read until the WebSocket closes."""
    while True:
        socket.recv(timeout=5)


def test_make_demo_serves_this_application() -> None:
    assert "sojourn serve examples.demo.app:app --app-dir ." in (ROOT / "Makefile").read_text()


def test_the_page_loads_nothing_from_elsewhere(demo: Served) -> None:
    page = httpx.get(demo.url)
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(set(loaded)) == ["hub.css", "icon.svg", "script.js", "style.css"]
    for name in loaded:
        file = httpx.get(f"{demo.url}/{name}")
        assert file.status_code == 200
        loaded += [each for each in re.findall(r'^import .*"(.+)";$', file.text, re.MULTILINE) if each not in loaded]
    assert {"./chat.js", "./prices.js", "./panel.js", "./export.js", "./hub/sojourn.js"} < set(loaded)
    assert httpx.head(demo.url).text == ""


def test_the_slow_endpoint_answers_within_its_deadline_and_refuses_what_is_no_number(demo: Served) -> None:
    assert httpx.get(f"{demo.url}/slow?seconds=0.05").json() == {"worked": 0.05, "deadline": 4.0}
    assert httpx.get(f"{demo.url}/slow?seconds=nan").status_code == 400


def test_an_upload_above_the_limit_of_other_routes_is_counted_and_the_limited_route_answers_413(demo: Served) -> None:
    body = bytes(20 * 1024 * 1024)
    counted = httpx.post(f"{demo.url}/upload", content=body).json()
    assert counted["bytes"] == len(body)
    assert counted["pieces"] > 1
    refused = httpx.post(f"{demo.url}/upload/limited", content=iter([body]), headers={"content-length": str(len(body))})
    assert refused.status_code == 413
    assert refused.json()["reason"] == "body_too_large"


def test_the_ticker_counts_seconds(demo: Served) -> None:
    (first_name, first), (second_name, second) = events(f"{demo.url}/ticks", 2)
    assert first_name == second_name == "tick"
    assert second["number"] - first["number"] in (1, 2)  # 2 when a busy machine came late


def test_the_table_shows_each_open_connection_with_its_next_deadline(demo: Served) -> None:
    with member(demo) as socket:
        [(name, state)] = events(f"{demo.url}/connections", 1)
        assert name == "connections"
        row = next(row for row in state["connections"] if row["peer"] == peer(socket))
        assert (row["protocol"], row["path"], row["phase"]) == ("websocket", "/hub", "websocket")
        assert row["deadline"]["slot"] == "ping"
        assert 0 < row["deadline"]["left"] <= 20
        assert row["bytes_in"] > 0
        assert row["bytes_out"] > 0
        assert all(row["deadline"] is not None for row in state["connections"])


def test_a_stream_that_moves_is_shown_with_its_whole_idle_time_left(demo: Served) -> None:
    *_, (_, state) = events(f"{demo.url}/connections", 3)
    [row] = [row for row in state["connections"] if row["id"] == state["you"]]
    assert row["deadline"]["slot"] == "stream"
    assert row["deadline"]["left"] > 298


def test_endings_are_shown_with_their_reason_and_the_counters_add_up(demo: Served) -> None:
    with member(demo) as socket:
        [(_, state)] = events(f"{demo.url}/connections", 1)
        [number] = [row["id"] for row in state["connections"] if row["peer"] == peer(socket)]
        socket.close(1001)
    for _ in range(20):
        [(_, state)] = events(f"{demo.url}/connections", 1)
        counters = state["counters"]
        assert counters["accepted"] == counters["open"] + counters["ended"]
        assert sum(state["reasons"].values()) == counters["ended"]
        ended = [row for row in state["endings"] if row["connection"] == number]
        if ended:
            break
    assert [(row["code"], row["reason"], row["who"], row["phase"], row["how"], row["status"]) for row in ended] == [
        ("CW", "ws_client_going_away", "client", "websocket", "close_frame", 1001)
    ]
    assert any(row["what"] == "WEBSOCKET /hub" for row in state["requests"])


def watched(url: str, after: str, until: str) -> list[tuple[str, str, Any]]:
    """The events of a task, as id, name and data, from one place until the first of a name."""
    found: list[tuple[str, str, Any]] = []
    fields: dict[str, str] = {}
    headers = {"accept": "text/event-stream", "last-event-id": after}
    with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if line:
                fields[field] = value
            elif "data" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                if fields["event"] == until:
                    break
                fields = {}
    return found


def test_an_export_goes_on_when_its_process_is_killed_and_who_watches_misses_nothing(tmp_path: Path) -> None:
    with served("examples.demo.app:app", tmp_path, "--workers", "1") as demo:
        assert httpx.post(f"{demo.url}/exports?pages=0").status_code == 400
        started = httpx.post(f"{demo.url}/exports?pages=6")
        assert started.status_code == 202
        assert int(started.headers["retry-after"]) >= 1
        task = f"{demo.url}{started.headers['location']}"
        (place, _, first) = watched(task, "", "progress")[-1]
        assert httpx.post(f"{demo.url}/kill").json() == {"killed": first["process"]}
        time.sleep(0.3)  # it dies a tenth of a second after its answer
        *progress, (_, _, end) = watched(task, place, "end")
        pages = [(number, data["page"]) for number, name, data in progress if name == "progress"]
        assert [int(number) for number, _ in pages] == list(range(2, len(pages) + 2))
        # A page may be written twice: when it was written, and the process died before that was saved.
        assert sorted({page for _, page in pages}) == [2, 3, 4, 5, 6]
        assert progress[-1][2]["process"] != first["process"]
        assert (end["state"], end["interruptions"]) == ("completed", 1)
        assert end["result"] == {"rows": 1500, "runs": 2}
        assert demo.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_at_once_with_a_stream_and_two_websockets_open(tmp_path: Path, number: signal.Signals) -> None:
    with served("examples.demo.app:app", tmp_path) as demo:
        with (
            member(demo) as one,
            member(demo) as two,
            httpx.stream("GET", f"{demo.url}/ticks", timeout=10) as stream,
        ):
            one.send('{"id":1,"join":{"ch":"panel"}}')  # somebody watches, so there are members that measure, too
            lines = stream.iter_lines()
            assert "event: tick" in itertools.islice(lines, 3)
            code, took = demo.stop(number)
            assert "event: goodbye" in list(lines)  # and no error: the stream is complete for its client
            for socket in (one, two):
                with pytest.raises(ConnectionClosed):
                    read_all(socket)
                assert socket.close_code == 1012
        assert code == 0, demo.log.read_text()
        assert took < 5


def test_under_another_server_the_page_is_told_that_there_is_nothing_to_show() -> None:
    """No extension in the scope: the stream says null, and the page explains it."""

    async def request() -> list[MutableMapping[str, Any]]:
        sent: list[MutableMapping[str, Any]] = []
        asked = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asked.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if message.get("body", b"").startswith(b"event"):
                asked.set()

        await Demo()({"type": "http", "method": "GET", "path": "/connections", "headers": []}, receive, send)
        return sent

    began = time.monotonic()
    start, comment, body = asyncio.run(request())
    assert start["status"] == 200
    assert comment["body"] == b":\n\n"
    assert body["body"] == b"event: connections\ndata: null\n\n"
    assert time.monotonic() - began < 2
