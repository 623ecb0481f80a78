"""``sojourn journal``: what it shows of durable tasks, in a running server and in a journal, and what it changes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.clock import SystemClock
from sojourn.tasks.opening import journal_of
from sojourn.tasks.record import NewTask, Settlement
from tests.ops.fake import Fake, Run, problem


def service(worker: int = 1, **more: Any) -> dict[str, Any]:
    plain = {
        "worker": worker,
        "name": "tasks",
        "engine": "redis",
        "node": "host:1:ab",
        "away": None,
        "kinds": ["export"],
        "running": {"export": 2},
        "held": 3,
        "room": 8,
        "runs": [],
        "ended": {"completed": 1234, "retry": 5, "failed": 2},
        "submitted": 1300,
        "interrupted": {"drain": 1, "crash": 4},
        "lost": 0,
    }
    return plain | more


def a_run(task: str, age: float, **more: Any) -> dict[str, Any]:
    plain = {
        "id": task,
        "kind": "export",
        "epoch": 1,
        "attempt": 2,
        "interruptions": 0,
        "age": age,
        "deadline": 60.0,
        "owner": "ada",
        "stuck": False,
    }
    return plain | more


def task(name: str = "t1", **more: Any) -> dict[str, Any]:
    now = SystemClock.wall()
    plain = {
        "service": "tasks",
        "id": name,
        "kind": "export",
        "state": "failed",
        "owner": "ada",
        "key": "",
        "priority": 0,
        "failures": 3,
        "interruptions": 0,
        "crashes": 0,
        "epoch": 4,
        "node": "host:1:ab",
        "cancelling": False,
        "run_at": now - 7200,
        "created": now - 7200,
        "begun": now - 70,
        "updated": now - 12,
        "ended": now - 12,
        "lease_until": 0.0,
        "problem": "OSError: full",
    }
    return plain | more


def whole(**more: Any) -> dict[str, Any]:
    long = {"payload": {"order": 7}, "spec": {"attempts": 4}, "result": None, "checkpoint": None}
    error = {"type": "OSError", "detail": "full", "trace": "Traceback:\n  line 1"}
    return task() | long | {"error": error, "said": [{"seq": 1, "data": {"page": 3}, "at": SystemClock.wall()}]} | more


def overview(*services: dict[str, Any], problem: str | None = None, **kinds: dict[str, int]) -> dict[str, Any]:
    tasks = {"tasks": {"states": kinds, "oldest": {"export": 75.0}}} if kinds else {}
    return {"journals": list(services), "tasks": tasks, "problem": problem, "workers": {"1": "ok"}}


# -- a running server


def test_workers_kinds_and_runs_are_shown(run: Run, fake: Fake) -> None:
    runs = [a_run("t1", 3.5), a_run("t2", 75.0, stuck=True)]
    fake.says("/journal", overview(service(2), service(1, runs=runs), export={"pending": 1234, "failed": 2}))
    code, out, err = run("journal", "--limit", "5")
    assert (code, err) == (0, "")
    assert [line.split()[:4] for line in out[1:3]] == [["tasks", "1", "redis", "2"], ["tasks", "2", "redis", "2"]]
    assert out[5].split() == ["export", "1,234", "0", "0", "2", "0", "75", "s", "tasks"]
    assert [line.split()[0] for line in out[7:]] == ["TASK", "t2", "t1"]
    assert "stuck" in out[8]
    assert fake.asked[0].query == {"limit": "5"}


def test_a_journal_that_is_away_is_said_and_what_runs_is_shown(run: Run, fake: Fake) -> None:
    fake.says("/journal", overview(service(away=75.0), problem="no route to host"))
    code, out, err = run("journal")
    assert (code, err) == (0, "warning: no route to host\n")
    assert "redis, away for 75 s" in out[1]


def test_no_durable_tasks_are_said(run: Run, fake: Fake) -> None:
    fake.says("/journal", overview())
    assert run("journal") == (0, [], "no durable tasks\n")


def test_tasks_are_listed_with_their_age_and_problem(run: Run, fake: Fake) -> None:
    waiting = task("t2", state="pending", run_at=SystemClock.wall() + 7200, failures=0, problem="")
    fake.says("/journal/tasks", {"tasks": [task(), waiting, task("t3", state="running", cancelling=True)]})
    code, out, _ = run("journal", "list", "--state", "failed", "--kind", "export", "--owner", "", "--limit", "7")
    assert code == 0
    assert [line.split()[:3] for line in out[1:]] == [
        ["t1", "export", "failed"],
        ["t2", "export", "pending"],
        ["t3", "export", "cancelling"],
    ]
    assert "OSError: full" in out[1]
    assert "2.0 h" in out[2]
    assert fake.asked[0].query == {"state": "failed", "kind": "export", "limit": "7"}  # "" is lost by the fake


def test_nothing_to_list_is_said(run: Run, fake: Fake) -> None:
    fake.says("/journal/tasks", {"tasks": []})
    assert run("journal", "list") == (0, [], "no such task\n")


def test_a_task_is_shown_with_arguments_error_and_what_it_has_said(run: Run, fake: Fake) -> None:
    fake.says("/journal/tasks/t1", whole())
    code, out, _ = run("journal", "show", "t1")
    text = "\n".join(out)
    assert code == 0
    for part in ("failed", "ada", "OSError: full", '{"order": 7}', "2.0 h ago", "      line 1", '{"page": 3}'):
        assert part in text, part


def test_what_a_stranger_wrote_can_not_drive_the_terminal(run: Run, fake: Fake) -> None:
    fake.says("/journal/tasks/t1", whole(owner="\x1b[2J", problem="\x1b[2J", payload={"\x1b": "\x9b"}))
    fake.says("/journal/tasks", {"tasks": [task(owner="\x1b[2J")]})
    for words in (("show", "t1"), ("list",)):
        assert not set("\x1b\x9b") & set("".join(run("journal", *words)[1]))


def test_json_is_what_the_server_said(run: Run, fake: Fake) -> None:
    for path, document, words in (
        ("/journal", overview(service()), ()),
        ("/journal/tasks", {"tasks": [task()]}, ("list",)),
        ("/journal/tasks/t1", whole(), ("show", "t1")),
    ):
        fake.says(path, document)
        assert json.loads("\n".join(run("journal", *words, "--json")[1])) == document


def test_tasks_are_changed_by_their_ids_until_one_is_refused(run: Run, fake: Fake) -> None:
    fake.says("/journal/tasks/t1/retry", task(state="pending"), method="POST")
    fake.says("/journal/tasks/t2/retry", problem(409, "no_retry", "the task is running"), method="POST", status=409)
    code, out, err = run("journal", "retry", "t1", "t2", "t3")
    assert (code, out) == (1, ["t1: pending"])
    assert "the task is running" in err
    assert fake.paths() == ["/journal/tasks/t1/retry", "/journal/tasks/t2/retry"]


def test_all_of_a_kind_are_changed_however_many(run: Run, fake: Fake) -> None:
    more = {"": {"changed": 200, "before": "t200"}, "t200": {"changed": 34, "before": ""}}
    fake.says("/journal/cancel", lambda asked: more[asked.query.get("before", "")], method="POST")
    assert run("journal", "cancel", "--kind", "export", "--state", "running") == (0, ["234 tasks cancelled"], "")
    assert fake.asked[0].query == {"kind": "export", "state": "running"}
    assert fake.asked[1].query == {"kind": "export", "state": "running", "before": "t200"}


@pytest.mark.parametrize("words", [(), ("t1", "--kind", "export"), ("t1", "--state", "failed"), ("--state", "failed")])
def test_nothing_is_changed_when_it_is_not_said_what(run: Run, fake: Fake, words: tuple[str, ...]) -> None:
    code, out, err = run("journal", "retry", *words)
    assert (code, out) == (2, [])
    assert "say which" in err
    assert fake.asked == []


# -- the journal itself


def written(path: Path) -> None:
    """A journal in which two tasks have failed and one is waiting."""

    async def write() -> None:
        journal = journal_of(str(path))
        await journal.open("a-node")
        try:
            tasks = [NewTask(id=f"t{n}", kind="export", payload=b'{"n":1}', node="a-node", lease=30.0) for n in (1, 2)]
            await journal.submit([*tasks, NewTask(id="t3", kind="export", delay=60.0, owner="ada")])
            error = b'{"type":"OSError","detail":"full"}'
            await journal.settle([Settlement(id=each.id, epoch=1, outcome="failed", error=error) for each in tasks])
        finally:
            await journal.aclose()

    asyncio.run(write())


def test_a_journal_is_read_and_changed_without_a_server(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    written(path)
    of = ("--journal", str(path))
    assert run("journal", *of)[1][1].split()[:6] == ["export", "1", "0", "0", "2", "0"]
    assert [line.split()[0] for line in run("journal", "list", "--state", "failed", *of)[1][1:]] in (
        ["t2", "t1"],
        ["t1", "t2"],
    )
    document = json.loads("\n".join(run("journal", "show", "t1", "--json", *of)[1]))
    assert (document["state"], document["payload"], document["problem"]) == ("failed", {"n": 1}, "OSError: full")
    assert run("journal", "retry", "t1", *of)[:2] == (0, ["t1: pending"])
    assert run("journal", "cancel", "t3", *of)[:2] == (0, ["t3: cancelled"])
    assert run("journal", "cancel", "--kind", "export", *of)[:2] == (0, ["1 task cancelled"])
    assert run("journal", "retry", "--kind", "export", *of)[:2] == (0, ["1 task to be tried again"])
    code, _, err = run("journal", "show", "nobody", *of)
    assert code == 1
    assert "no durable task" in err


def test_a_journal_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "nothing.db"
    for text in (str(path), f"sqlite:{path}"):
        code, _, err = run("journal", "--journal", text)
        assert code == 2
        assert "there is no journal" in err
    assert not path.exists()


def test_a_journal_of_no_known_kind_is_refused(run: Run) -> None:
    code, _, err = run("journal", "--journal", "mysql://localhost/tasks")
    assert code == 2
    assert "mysql: keeps no journal" in err
