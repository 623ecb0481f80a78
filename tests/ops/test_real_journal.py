"""Durable tasks of a real server with two workers: seen, changed, counted, and handed over in a drain that says so."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ops.fake import Works
from tests.server.processes import Serving
from tests.server.workers.processes import Site, eventually

APP = """
import asyncio
from sojourn.tasks.tasks import Tasks

tasks = Tasks("tasks.db", lease=5.0)

@tasks.define(name="export", deadline=60)
async def export() -> None:
    await asyncio.sleep(3600)

@tasks.define(name="bad", retries=0)
async def bad() -> None:
    raise ValueError("no such page")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await tasks.begin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await tasks.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await tasks.start(scope["path"][1:])).id.encode()
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.chdir(tmp_path)
    place = f"unix:{tmp_path}/admin.sock"
    monkeypatch.setenv("SOJOURN_ADMIN_BIND", place)
    site = Site(tmp_path)
    (tmp_path / "web.py").write_text(APP)
    keys = {"admin__bind": place, "admin__actions": "true", "drain__requests": "0.2", "drain__report": "report.json"}
    with site.served("--workers", "2", **keys) as serving:
        assert serving.port
        yield serving


def document(lines: list[str]) -> Any:
    return json.loads("\n".join(lines))


def start(serving: Serving, kind: str) -> str:
    client = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=10)
    client.request("POST", f"/{kind}", headers={"connection": "close"})
    return client.getresponse().read().decode()


def test_durable_tasks_are_seen_changed_counted_and_handed_over(serving: Serving, works: Works, tmp_path: Path) -> None:
    runs, fails = start(serving, "export"), start(serving, "bad")

    def state(task: str) -> str:
        return str(document(works("journal", "show", task, "--json"))["state"])

    eventually(lambda: state(fails) == "failed")
    shown = document(works("journal", "--json"))
    assert sorted(row["worker"] for row in shown["journals"]) == [1, 2]
    assert [each["id"] for row in shown["journals"] for each in row["runs"]] == [runs]
    assert shown["tasks"]["tasks"]["states"] == {"export": {"running": 1}, "bad": {"failed": 1}}
    assert any(line.startswith(fails) and "no such page" in line for line in works("journal", "list", "--kind", "bad"))
    assert any(f"task export {runs}" in line for line in works("tasks"))
    assert works("journal", "retry", "--kind", "bad") == ["1 task to be tried again"]
    eventually(lambda: state(fails) == "failed")
    metrics = works("metrics", "sojourn_journal_tasks")
    assert 'sojourn_journal_tasks{kind="export",state="running"} 1.0' in metrics
    eventually(
        lambda: (
            'sojourn_journal_runs_total{kind="bad",outcome="failed"} 2.0' in works("metrics", "sojourn_journal_runs")
        )
    )
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(timeout=30) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"]["tasks"] == {"finished": 0, "handed_over": 1, "lost": 0}
    assert document(works("journal", "show", runs, "--journal", "tasks.db", "--json"))["interruptions"] == 1
