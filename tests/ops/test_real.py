"""The commands against a real server with two workers: what it answers is what they read."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sojourn.cli.main import main
from tests.server.processes import Serving
from tests.server.workers.processes import Site, eventually

Run = Callable[..., list[str]]


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.chdir(tmp_path)
    place = f"unix:{tmp_path}/admin.sock"
    monkeypatch.setenv("SOJOURN_ADMIN_BIND", place)
    with Site(tmp_path).served("--workers", "2", admin__bind=place, admin__actions="true") as serving:
        assert serving.port
        yield serving


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line that must work; its lines."""

    def run(*arguments: str) -> list[str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out.splitlines()

    return run


def document(lines: list[str]) -> Any:
    return json.loads("\n".join(lines))


def slow(serving: Serving, run: Run) -> tuple[socket.socket, str]:
    """A request that is being answered, and what it is called."""
    client = serving.ask("/resist")

    def found() -> str:
        rows = document(run("ps", "--route", "/resist", "--json"))["connections"]
        return f"{rows[0]['worker']}-{rows[0]['id']}" if rows else ""

    return client, eventually(found)


def test_all_that_looks_works_on_a_real_server(serving: Serving, run: Run) -> None:
    _, name = slow(serving, run)
    assert len(run("status")) == 5
    (_, line) = run("ps", "--route", "/resist")
    assert line.startswith(name)
    assert "GET /resist" in line
    assert any("web.py" in line and "app" in line for line in run("tasks", "--owner", "/resist", "--stacks"))
    for form in ("--tree", "--group"):
        assert any("web.py" in line for line in run("tasks", form))
    assert [line for line in run("stacks") if line.startswith("worker ")] == ["worker 1", "worker 2"]
    assert run("leaks") == []
    assert run("eof")[0].startswith("0 connections ended in the last ")
    assert any(line.startswith("sojourn_connections") for line in run("metrics", "sojourn_connections"))
    assert run("log-level") == ["info"]
    assert any(line.endswith("sleep  asyncio/tasks.py") for line in run("profile", "tasks"))
    once = run("top", "--once", "--seconds", "0.1")
    assert "2 of 2 workers ready" in once[0]
    assert any(line.startswith(name) for line in once)


@pytest.mark.parametrize(("workers", "said"), [("0", "app.workers can't change"), ("33", "there is room for 32, not")])
def test_a_number_of_workers_that_can_not_be_leaves_those_alone_that_serve(
    serving: Serving, run: Run, capsys: pytest.CaptureFixture[str], workers: str, said: str
) -> None:
    assert main(["config", "set", f"app.workers={workers}"]) == 1
    assert said in capsys.readouterr().err
    assert run("config", "--running", "app.workers")[1].split()[1] == "2"
    assert [worker["state"] for worker in document(run("status", "--json"))["workers"]] == ["ready", "ready"]


def test_settings_are_changed_and_a_connection_is_ended(serving: Serving, run: Run) -> None:
    client, name = slow(serving, run)
    changed = run("config", "set", "timeouts.keep_alive=33s")
    assert changed == ["timeouts.keep_alive: 75 s -> 33 s, for new connections"]
    (_, line) = run("config", "--running", "timeouts.keep_alive")
    assert line.split()[1:3] == ["33", "s"]
    assert run("log-level", "debug") == ["the log's level is debug"]
    assert run("log-level") == ["debug"]
    assert run("close", name, "--now") == [f"connection {name}: answered with 503"]
    assert client.recv(100).startswith(b"HTTP/1.1 503")


def test_a_drain_is_begun_and_the_server_ends(serving: Serving, run: Run) -> None:
    (line,) = run("drain")
    assert line.endswith(" drains")
    assert serving.ended() == 0
