"""The commands against a real server with two workers: what it answers is what they read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sojourn.cli.main import main
from tests.ops.fake import Works
from tests.server.processes import Serving
from tests.server.workers.processes import Site, eventually


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.chdir(tmp_path)
    place = f"unix:{tmp_path}/admin.sock"
    monkeypatch.setenv("SOJOURN_ADMIN_BIND", place)
    with Site(tmp_path).served("--workers", "2", admin__bind=place, admin__actions="true") as serving:
        assert serving.port
        yield serving


def document(lines: list[str]) -> Any:
    return json.loads("\n".join(lines))


def slow(serving: Serving, works: Works) -> tuple[socket.socket, str]:
    """A request that is being answered, and what it is called."""
    client = serving.ask("/resist")

    def found() -> str:
        rows = document(works("ps", "--route", "/resist", "--json"))["connections"]
        return f"{rows[0]['worker']}-{rows[0]['id']}" if rows else ""

    return client, eventually(found)


def test_all_that_looks_works_on_a_real_server(serving: Serving, works: Works) -> None:
    _, name = slow(serving, works)
    assert len(works("status")) == 5
    (_, line) = works("ps", "--route", "/resist")
    assert line.startswith(name)
    assert "GET /resist" in line
    assert any("web.py" in line and "app" in line for line in works("tasks", "--owner", "/resist", "--stacks"))
    for form in ("--tree", "--group"):
        assert any("web.py" in line for line in works("tasks", form))
    assert [line for line in works("stacks") if line.startswith("worker ")] == ["worker 1", "worker 2"]
    assert works("leaks") == []
    assert works("eof")[0].startswith("0 connections ended in the last ")
    assert any(line.startswith("sojourn_connections") for line in works("metrics", "sojourn_connections"))
    assert works("log-level") == ["info"]
    assert any(line.endswith("sleep  asyncio/tasks.py") for line in works("profile", "tasks"))
    once = works("top", "--once", "--seconds", "0.1")
    assert "2 of 2 workers ready" in once[0]
    assert any(line.startswith(name) for line in once)


@pytest.mark.parametrize(("workers", "said"), [("0", "app.workers can't change"), ("33", "there is room for 32, not")])
def test_a_number_of_workers_that_can_not_be_leaves_those_alone_that_serve(
    serving: Serving, works: Works, capsys: pytest.CaptureFixture[str], workers: str, said: str
) -> None:
    assert main(["config", "set", f"app.workers={workers}"]) == 1
    assert said in capsys.readouterr().err
    assert works("config", "--running", "app.workers")[1].split()[1] == "2"
    assert [worker["state"] for worker in document(works("status", "--json"))["workers"]] == ["ready", "ready"]


def test_settings_are_changed_and_a_connection_is_ended(serving: Serving, works: Works) -> None:
    client, name = slow(serving, works)
    changed = works("config", "set", "timeouts.keep_alive=33s")
    assert changed == ["timeouts.keep_alive: 75 s -> 33 s, for new connections"]
    (_, line) = works("config", "--running", "timeouts.keep_alive")
    assert line.split()[1:3] == ["33", "s"]
    assert works("log-level", "debug") == ["the log's level is debug"]
    assert works("log-level") == ["debug"]
    assert works("close", name, "--now") == [f"connection {name}: answered with 503"]
    assert client.recv(100).startswith(b"HTTP/1.1 503")


def test_a_drain_is_begun_and_the_server_ends(serving: Serving, works: Works) -> None:
    (line,) = works("drain")
    assert line.endswith(" drains")
    assert serving.ended() == 0
