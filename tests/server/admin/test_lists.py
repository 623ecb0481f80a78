"""Lists: all workers are asked at once, each with a deadline; who is missing is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.connections import ConnectionInfo
from sojourn.observe.endings.reading import Settings
from sojourn.observe.endings.report import report
from sojourn.observe.endings.tally import Kind as EndingKind
from sojourn.observe.leaks.descriptors import DescriptorCounts
from sojourn.observe.leaks.detector import LeaksReport
from sojourn.observe.leaks.leases import OverdueLease
from sojourn.observe.leaks.ledger import LeakRecord
from sojourn.observe.profiles.model import Frame
from sojourn.observe.stalls.store import StallInfo
from sojourn.observe.tasks.describer import TaskInfo
from sojourn.scopes.hubs import ChannelInfo, HubInfo, MemberInfo
from sojourn.server.pressure import PressureInfo
from tests.server.admin.fleet import LEAVING, READY, SECOND, STARTING, FakeFleet, ask

BOTH: Any = {"workers": (READY, SECOND)}


def connection(number: int, age: float) -> ConnectionInfo:
    known: dict[str, Any] = {
        "id": number,
        "peer": "192.0.2.1:1024",
        "listener": "http://127.0.0.1:8000",
        "protocol": "http",
        "kind": "request",
        "phase": "handler",
        "method": "GET",
        "path": "/slow",
        "route": "/slow",
        "age": age,
        "idle": 1.0,
        "requests": 1,
        "bytes_in": 60,
        "bytes_out": 0,
        "buffered": 0,
        "blocked": False,
        "reading_paused": False,
        "deadline": "response_start",
        "deadline_in": 50.0,
        "rtt": None,
        "suspicious": "",
    }
    return ConnectionInfo(**known)


def task(number: int, age: float | None) -> TaskInfo:
    stack = [Frame("wait", "app.py", 7)]
    where = ("app.py:3 in handler", age, "connection 7 GET /slow", 7, "/slow", "waiting", "app.py:7 in wait", "Event")
    return TaskInfo(number, f"Task-{number}", "app.wait", *where, None, False, stack)


def said(fleet: FakeFleet, path: str) -> tuple[int, Any]:
    answer = ask(fleet, path)
    return answer.status, json.loads(answer.body)


def test_connections_of_all_workers_are_listed_oldest_first_each_with_its_worker() -> None:
    ages = {1: (5.0, 50.0), 2: (20.0,)}
    fleet = FakeFleet({"connections": lambda worker, _: [connection(7, age) for age in ages[worker]]}, **BOTH)
    status, document = said(fleet, "/connections")
    assert status == 200
    assert [(each["worker"], each["age"]) for each in document["connections"]] == [(1, 50.0), (2, 20.0), (1, 5.0)]
    assert document["connections"][0] == {"worker": 1, **connection(7, 50.0)._asdict()}
    assert document["workers"] == {"1": "ok", "2": "ok"}


def test_filters_reach_the_workers_as_plain_values() -> None:
    fleet = FakeFleet({"connections": lambda *_: []})
    path = "/connections?older=5m&idle=500ms&slow&suspicious=false&route=/slow&peer=192.0.2.1:5&limit=3&pretty"
    assert ask(fleet, path).status == 200
    filters = {"older": 300.0, "idle": 0.5, "slow": True, "suspicious": False, "route": "/slow", "limit": 3}
    assert fleet.asked == [(1, "connections", {**filters, "peer": "192.0.2.1:5"}, 5.0)]


def test_a_limit_holds_for_all_workers_together() -> None:
    fleet = FakeFleet({"connections": lambda worker, _: [connection(1, 10.0 * worker)]}, **BOTH)
    _, document = said(fleet, "/connections?limit=1")
    assert [each["worker"] for each in document["connections"]] == [2]


@pytest.mark.parametrize("query", ["older=soon", "older=-1", "limit=1.5", "slow=perhaps", "worker=first"])
def test_an_argument_that_is_no_good_is_told(query: str) -> None:
    status, document = said(FakeFleet({"connections": lambda *_: []}), f"/connections?{query}")
    assert (status, document["reason"]) == (400, "bad_argument")
    assert query.partition("=")[0] in document["detail"]


def test_tasks_are_listed_with_frames_by_name_and_those_of_unknown_age_last() -> None:
    fleet = FakeFleet({"tasks": lambda *_: [task(1, None), task(2, 3.0)]})
    _, document = said(fleet, "/tasks?owner=request&stacks=1")
    assert [each["id"] for each in document["tasks"]] == [2, 1]
    assert document["tasks"][0]["stack"] == [{"function": "wait", "file": "app.py", "line": 7}]
    assert fleet.asked[0][2] == {"owner": "request", "stacks": True}


def test_leaks_are_named_with_what_is_overdue_and_what_is_open() -> None:
    record = LeakRecord(
        kind="task",
        what="refresh",
        created="app.py:3 in handler",
        waiting="app.py:7 in wait",
        owner="connection 7 GET /slow",
        age=61.0,
        known=7,
        alive=3,
        first_seen=1.0,
        last_seen=2.0,
        stack=[Frame("wait", "app.py", 7)],
    )
    lease = OverdueLease("pg", 12.5, "connection 7 GET /slow", False, "app.py:5 in handler", [])
    found = LeaksReport(
        leaks=[record],
        overdue=[lease],
        leases={"pg": 1},
        descriptors=DescriptorCounts(
            open=20, limit=1024, connections=3, leases=1, before=12, unexplained=4, noting=False
        ),
        growth=[],
        retained=0,
        left_out=0,
    )
    _, document = said(FakeFleet({"leaks": lambda *_: found}, **BOTH), "/leaks")
    assert [(each["worker"], each["what"], each["known"]) for each in document["leaks"]] == [
        (1, "refresh", 7),
        (2, "refresh", 7),
    ]
    assert document["leaks"][0]["stack"] == [{"function": "wait", "file": "app.py", "line": 7}]
    assert document["overdue"][0]["pool"] == "pg"
    assert document["counts"][1]["leases"] == {"pg": 1}
    assert document["workers"] == {"1": "ok", "2": "ok"}


def test_stalls_name_the_function_and_where_it_stood() -> None:
    stall = StallInfo("code", "app.block app.py:9", "", 2, 3.0, 2.0, 2.9, 0.0, 1.0, 2.0, (Frame("block", "app.py", 9),))
    _, document = said(FakeFleet({"stalls": lambda *_: [stall]}), "/stalls")
    (shown,) = document["stalls"]
    assert (shown["worker"], shown["function"], shown["longest"]) == (1, "app.block app.py:9", 2.0)
    assert shown["stack"] == [{"function": "block", "file": "app.py", "line": 9}]


def test_pressure_is_told_by_worker_with_what_is_done_against_it() -> None:
    info = PressureInfo({"space": 1, "processor": 0}, ("short_idle",), {"memory": 1.2}, 40, 3, 0, 0.002)
    _, document = said(FakeFleet({"pressure": lambda *_: [info]}), "/pressure")
    (shown,) = document["pressure"]
    assert (shown["worker"], shown["levels"], shown["measures"]) == (1, {"space": 1, "processor": 0}, ["short_idle"])
    assert shown["requests_limit"] == 40


def test_the_ends_of_all_workers_are_told_in_one_report() -> None:
    settings = Settings(75.0, 60.0, 20.0)
    kind = EndingKind("http", "keep_alive_closed_by_client", "idle", 60.0)
    one = report([(60, {kind: 3})], 0.0, 120.0, settings)
    _, document = said(FakeFleet({"eof": lambda *_: one}, **BOTH), "/eof")
    assert (document["total"], document["rows"][0]["ended"]) == (6, 6)
    assert document["rows"][0]["reason"] == "keep_alive_closed_by_client"
    assert document["settings"]["keep_alive"] == 75.0
    assert document["minutes"][0]["counts"][0]["ended"] == 6
    assert document["workers"] == {"1": "ok", "2": "ok"}


# -- who is missing


def test_a_worker_that_does_not_answer_is_named_and_holds_nobody_up() -> None:
    problems = {2: ErrandError(504, "no_answer", "no answer within 5 s")}
    fleet = FakeFleet({"connections": lambda worker, _: problems.get(worker, [connection(1, 1.0)])}, **BOTH)
    status, document = said(fleet, "/connections")
    assert status == 200
    assert [each["worker"] for each in document["connections"]] == [1]
    assert document["workers"] == {"1": "ok", "2": "no answer within 5 s"}


def test_a_worker_that_starts_is_not_asked_and_one_that_drains_is() -> None:
    fleet = FakeFleet({"connections": lambda *_: []}, workers=(READY, STARTING, LEAVING))
    _, document = said(fleet, "/connections")
    assert document["workers"] == {"1": "ok", "2": "it is starting", "3": "ok"}
    assert [worker for worker, *_ in fleet.asked] == [1, 3]


def test_one_worker_can_be_asked_alone() -> None:
    fleet = FakeFleet({"connections": lambda *_: []}, **BOTH)
    _, document = said(fleet, "/connections?worker=2")
    assert document["workers"] == {"2": "ok"}
    assert [worker for worker, *_ in fleet.asked] == [2]


def test_a_worker_that_is_not_there_is_told_with_those_that_are() -> None:
    status, document = said(FakeFleet(**BOTH), "/connections?worker=9")
    assert (status, document["reason"]) == (404, "no_such_worker")
    assert "there are 1, 2" in document["detail"]


def test_when_nobody_answers_the_first_reason_is_the_status_and_all_are_told() -> None:
    def refuse(worker: int, _: Any) -> Any:
        return ErrandError(504, "no_answer", f"worker {worker} hangs")

    status, document = said(FakeFleet({"connections": refuse}, **BOTH), "/connections")
    assert (status, document["reason"]) == (504, "no_answer")
    assert document["workers"] == {"1": "worker 1 hangs", "2": "worker 2 hangs"}


def test_without_a_worker_the_answer_says_so() -> None:
    status, document = said(FakeFleet(workers=()), "/tasks")
    assert (status, document["reason"]) == (503, "no_worker")


# -- stacks


def test_stacks_are_there_for_workers_that_can_not_be_asked() -> None:
    _, document = said(FakeFleet(workers=(READY, STARTING)), "/stacks")
    assert document["stacks"] == [{"worker": number, "text": f"Current thread of {number}"} for number in (1, 2)]


def test_stacks_can_be_had_as_text() -> None:
    answer = ask(FakeFleet(**BOTH), "/stacks?format=text")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.body == b"worker 1\n\nCurrent thread of 1\n\nworker 2\n\nCurrent thread of 2\n"


def test_hubs_are_told_by_worker_with_their_channels_and_who_is_slow() -> None:
    channels, slow = (
        [ChannelInfo("chat:1", 7, "k3f9.1041")],
        [MemberInfo("m7", "ada", "", "sse", "normal", 1, 5, 99, 2.5)],
    )
    info = HubInfo("hub", "memory", None, 0.0, {"sse": 7}, 6, 0, 1, 1, 0, 99, channels, slow)
    fleet = FakeFleet({"hub": lambda *_: [info]}, **BOTH)
    _, document = said(fleet, "/hub?name=hub&limit=3")
    assert [row["worker"] for row in document["hubs"]] == [1, 2]
    assert document["hubs"][0] == {
        "worker": 1,
        **info._asdict(),
        "largest": [channels[0]._asdict()],
        "waiting": [slow[0]._asdict()],
    }
    assert fleet.asked[0][2] == {"name": "hub", "limit": 3}
