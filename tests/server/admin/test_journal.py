"""Durable tasks over the admin listener: what runs where, what there is, and what is done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.config import Admin
from sojourn.errors import ErrandError
from sojourn.scopes.journals import Amounts, JournalInfo, Moment, Record, RunInfo
from tests.server.admin.fleet import LEAVING, READY, SECOND, STARTING, FakeFleet, ask

BOTH: Any = {"workers": (READY, SECOND)}
ACTIONS = Admin(actions=True)
RECORD = Record("tasks", "t1", "export", "failed", "ada", failures=3, created=5.0, problem="OSError: full")
WHOLE = RECORD._replace(payload={"n": 1}, spec={}, error={"type": "OSError"}, said=[Moment(1, "half", 6.0)])
LONG = ("payload", "spec", "result", "error", "checkpoint", "said")
SHORT = {name: value for name, value in RECORD._asdict().items() if name not in LONG}


def said(fleet: FakeFleet, path: str, **more: Any) -> tuple[int, Any]:
    answer = ask(fleet, path, **more)
    return answer.status, json.loads(answer.body)


def test_what_runs_is_told_by_worker_and_what_there_is_once() -> None:
    runs = [RunInfo("t1", "export", 2, 1, 1, 3.5, 60.0)]
    info = JournalInfo("tasks", "redis", "n", None, ["export"], {"export": 1}, 1, 9, runs, {}, 4, {}, 0)
    amounts = {"tasks": Amounts({"export": {"pending": 3}}, {"export": 7.5})}
    fleet = FakeFleet({"journal": lambda *_: [info], "journal_amounts": lambda *_: amounts}, **BOTH)
    status, document = said(fleet, "/journal?name=tasks&limit=3")
    assert status == 200
    assert [row["worker"] for row in document["journals"]] == [1, 2]
    assert document["journals"][0] == {"worker": 1, **info._asdict(), "runs": [runs[0]._asdict()]}
    assert document["tasks"] == {"tasks": {"states": {"export": {"pending": 3}}, "oldest": {"export": 7.5}}}
    assert document["problem"] is None
    assert [asked[:3] for asked in fleet.asked] == [
        (1, "journal", {"name": "tasks", "limit": 3}),
        (2, "journal", {"name": "tasks", "limit": 3}),
        (1, "journal_amounts", {"name": "tasks"}),
    ]


def test_what_runs_is_told_although_the_journal_is_away() -> None:
    away = ErrandError(503, "journal_away", "no route to host")
    status, document = said(FakeFleet({"journal": lambda *_: [], "journal_amounts": lambda *_: away}), "/journal")
    assert (status, document["tasks"], document["problem"]) == (200, {}, "no route to host")


def test_tasks_are_listed_by_one_worker_without_what_may_be_long() -> None:
    fleet = FakeFleet({"journal_tasks": lambda *_: [WHOLE]}, **BOTH)
    status, document = said(fleet, "/journal/tasks?state=failed&kind=export&owner=ada&before=t2&limit=7")
    assert (status, document) == (200, {"tasks": [SHORT]})
    query = {"state": "failed", "kind": "export", "owner": "ada", "before": "t2", "limit": 7}
    assert [asked[:3] for asked in fleet.asked] == [(1, "journal_tasks", query)]


def test_a_task_is_told_with_all_that_is_known() -> None:
    fleet = FakeFleet({"journal_task": lambda *_: WHOLE})
    status, document = said(fleet, "/journal/tasks/4fN_x-1.~")
    assert (status, document) == (200, {**WHOLE._asdict(), "said": [{"seq": 1, "data": "half", "at": 6.0}]})
    assert fleet.asked[0][2] == {"id": "4fN_x-1.~"}


def test_a_worker_that_hangs_is_passed_by_and_one_that_says_no_is_believed() -> None:
    def first_is_late(worker: int, _: Any) -> Any:
        return ErrandError(504, "no_answer", "there was no answer within 5 s") if worker == 1 else WHOLE

    workers = (STARTING._replace(number=4), LEAVING._replace(number=9), READY, SECOND)
    fleet = FakeFleet({"journal_task": first_is_late}, workers=workers)
    assert said(fleet, "/journal/tasks/t1")[0] == 200
    assert [asked[0] for asked in fleet.asked] == [1, 2]
    gone = ErrandError(404, "no_such_task", "there is no durable task 't1', or no more")
    fleet = FakeFleet({"journal_task": lambda *_: gone}, **BOTH)
    status, document = said(fleet, "/journal/tasks/t1")
    assert (status, document["reason"], len(fleet.asked)) == (404, "no_such_task", 1)


def test_a_worker_that_is_named_is_asked_alone_and_without_any_there_is_no_answer() -> None:
    fleet = FakeFleet({"journal_tasks": lambda *_: []}, **BOTH)
    assert said(fleet, "/journal/tasks?worker=2")[0] == 200
    assert [asked[0] for asked in fleet.asked] == [2]
    assert said(FakeFleet(workers=()), "/journal/tasks")[0] == 503


@pytest.mark.parametrize("what", ["cancel", "retry"])
def test_a_task_is_changed_and_that_is_recorded(what: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    fleet = FakeFleet({"journal_change": lambda *_: RECORD}, **BOTH)
    settings = Admin(actions=True, audit=str(audit))
    status, document = said(fleet, f"/journal/tasks/t1/{what}", method="POST", settings=settings)
    assert (status, document) == (200, SHORT)
    assert [asked[:3] for asked in fleet.asked] == [(1, "journal_change", {"id": "t1", "what": what})]
    line = json.loads(audit.read_text())
    assert (line["what"], line["task"], line["result"]) == (f"journal-{what}", "t1", "ok")


@pytest.mark.parametrize("what", ["cancel", "retry"])
def test_those_of_a_kind_are_changed_with_the_query_or_a_body(what: str) -> None:
    for path, body in ((f"/journal/{what}?kind=export&state=failed", b""), (f"/journal/{what}", b'{"kind": "export"}')):
        fleet = FakeFleet({"journal_change_all": lambda *_: {"changed": 7, "before": "t9"}}, **BOTH)
        status, document = said(fleet, path, method="POST", body=body, settings=ACTIONS)
        assert (status, document) == (200, {"changed": 7, "before": "t9"})
        assert fleet.asked[0][2]["kind"] == "export"
        assert fleet.asked[0][2]["what"] == what


@pytest.mark.parametrize(
    "path", ["/journal/tasks/t1/cancel", "/journal/tasks/t1/retry", "/journal/cancel", "/journal/retry"]
)
def test_a_change_needs_post_and_the_key(path: str) -> None:
    fleet = FakeFleet()
    assert ask(fleet, path, settings=ACTIONS).status == 405
    status, document = said(fleet, path, method="POST")
    assert (status, document["reason"]) == (403, "actions_off")
    assert fleet.asked == []


@pytest.mark.parametrize("path", ["/journal/tasks/", "/journal/tasks/a/b", "/journal/tasks/t1/destroy"])
def test_what_is_no_name_of_a_task_is_no_path(path: str) -> None:
    assert ask(FakeFleet(), path).status == 404
