"""Profiles: of one worker or of all in one, in every format, with what each costs."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample
from sojourn.observe.tasks.describer import TaskInfo
from tests.server.admin.fleet import READY, SECOND, FakeFleet, ask

BOTH: Any = {"workers": (READY, SECOND)}


def made(worker: int, arguments: Any) -> Profile:
    """A profile of one sample, whose value is the number of the worker."""
    stack = (Frame("wait", "app.py", 7), Frame("handler", "app.py", 3))
    return Profile(name=arguments["name"], kinds=(Kind("cpu", "nanoseconds"),), samples=[Sample(stack, (worker,))])


PROFILE: Any = {"profile": made}


def test_a_profile_is_what_go_tool_pprof_reads() -> None:
    answer = ask(FakeFleet(PROFILE), "/debug/pprof/profile?seconds=1")
    assert answer.status == 200
    assert b"handler" in gzip.decompress(answer.body)
    assert answer.header("content-disposition") == 'attachment; filename="profile.pb.gz"'
    assert ask(FakeFleet(PROFILE), "/debug/pprof/profile?seconds=1&format=pb").status == 200


@pytest.mark.parametrize(
    ("query", "kind", "part"),
    [
        ("debug=1", "text/plain", b"app.py:7"),
        ("debug=2", "text/plain", b"app.py:7"),
        ("format=text", "text/plain", b"app.py:7"),
        ("format=collapsed", "text/plain", b"handler"),
        ("format=speedscope", "application/json", b"speedscope"),
        ("format=json", "application/json", b'"kinds"'),
    ],
)
def test_a_profile_can_be_had_in_other_formats(query: str, kind: str, part: bytes) -> None:
    answer = ask(FakeFleet(PROFILE), f"/debug/pprof/profile?{query}")
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith(kind)
    assert part in answer.body


@pytest.mark.parametrize("query", ["debug=3", "format=svg"])
def test_an_unknown_format_is_told_what_there_is(query: str) -> None:
    answer = ask(FakeFleet(PROFILE), f"/debug/pprof/profile?{query}")
    assert (answer.status, json.loads(answer.body)["reason"]) == (400, "unknown_format")


def test_profiles_of_all_workers_are_one_and_say_whose_each_sample_is() -> None:
    document = json.loads(ask(FakeFleet(PROFILE, **BOTH), "/debug/pprof/heap?format=json").body)
    assert [(each["values"], each["labels"]) for each in document["samples"]] == [
        ([1], {"worker": "1"}),
        ([2], {"worker": "2"}),
    ]


def test_a_profile_without_a_worker_says_that_it_is_missing() -> None:
    def half(worker: int, arguments: Any) -> Any:
        return made(worker, arguments) if worker == 1 else ErrandError(504, "no_answer", "it hangs")

    document = json.loads(ask(FakeFleet({"profile": half}, **BOTH), "/debug/pprof/profile?format=json").body)
    assert document["comments"] == ["worker 2: it hangs"]


@pytest.mark.parametrize(("query", "seconds"), [("", 30.0), ("?seconds=2.5", 2.5), ("?seconds=1m", 60.0)])
def test_a_worker_has_the_time_of_the_profile_and_some_more(query: str, seconds: float) -> None:
    fleet = FakeFleet(PROFILE)
    ask(fleet, f"/debug/pprof/profile{query}")
    assert fleet.asked == [(1, "profile", {"name": "profile", "seconds": seconds}, seconds + 75.0)]


@pytest.mark.parametrize("seconds", ["0", "-1", "301", "1d"])
def test_a_profile_of_no_length_or_of_too_long_a_one_is_refused(seconds: str) -> None:
    answer = ask(FakeFleet(PROFILE), f"/debug/pprof/profile?seconds={seconds}")
    assert (answer.status, json.loads(answer.body)["reason"]) == (400, "bad_argument")


def test_a_profile_may_take_longer_than_any_other_wait_of_the_listener() -> None:
    silent = ask(FakeFleet({"profile": lambda *_: None}), "/debug/pprof/profile?seconds=300", seconds=400)
    assert not silent.complete


def test_every_task_is_told_by_itself() -> None:
    stack = [Frame("wait", "app.py", 7)]
    where = ("app.py:3 in handler", 5.0, "connection 7 GET /slow", 7, "/slow", "waiting", "app.py:7 in wait", "Event")
    fleet = FakeFleet({"tasks": lambda *_: [TaskInfo(4, "Task-4", "wait", *where, None, False, stack)]}, **BOTH)
    answer = ask(fleet, "/debug/pprof/goroutine?debug=2")
    assert answer.body.count(b'task 4 "Task-4" [Event, 5.0 s]:') == 2
    assert b"worker 2, connection 7 GET /slow" in answer.body


def test_traces_of_all_workers_are_one_timeline() -> None:
    def trace(worker: int, _: Any) -> bytes:
        return json.dumps({"traceEvents": [{"pid": worker}], "displayTimeUnit": "ms"}).encode()

    document = json.loads(ask(FakeFleet({"trace": trace}, **BOTH), "/debug/pprof/trace?seconds=1").body)
    assert document == {"traceEvents": [{"pid": 1}, {"pid": 2}], "displayTimeUnit": "ms"}


# -- the index


def test_the_index_counts_what_there_is_and_says_what_each_profile_costs() -> None:
    fleet = FakeFleet({"counts": lambda worker, _: {"goroutine": 10 * worker, "thread": 2}}, **BOTH)
    document = json.loads(ask(fleet, "/debug/pprof/").body)
    rows = {each["name"]: each for each in document["profiles"]}
    assert (rows["goroutine"]["count"], rows["thread"]["count"], rows["heap"]["count"]) == (30, 4, None)
    assert all(each["cost"] for each in rows.values())
    assert document["workers"] == {"1": "ok", "2": "ok"}


def test_the_index_is_a_page_for_a_browser_of_paths_and_stands_without_workers() -> None:
    answer = ask(FakeFleet(), "/debug/pprof/", "accept: text/html,*/*")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert b'<a href="goroutine?debug=1">' in answer.body
    assert b"this worker does not answer &#x27;counts&#x27;" in answer.body


def test_symbols_are_in_the_profiles() -> None:
    assert ask(FakeFleet(), "/debug/pprof/symbol").body == b"num_symbols: 0\n"


def test_the_command_line_is_words_with_zeros_between() -> None:
    assert b"\0" in ask(FakeFleet(), "/debug/pprof/cmdline").body
