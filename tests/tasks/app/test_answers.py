"""What is told of a task: documents, tags, when to ask again, and the answer of a handler."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sojourn.routing.response import Response
from sojourn.tasks.documents import document, etag
from sojourn.tasks.pace import Pace
from sojourn.tasks.record import Event, State, Task
from sojourn.tasks.spec import Problem
from sojourn.tasks.started import Started

TASK = Task(id="t1", kind="resize", state="pending", owner="ada", payload=b'{"secret":1}', node="host:1", created=1.5)
STARTED = Started(id="t1", new=True, state="pending", kind="resize", location="/_tasks/t1", retry_after=7.4)
ERROR = msgspec.json.encode(Problem("ValueError", "no", "Traceback: inside", 2))


def shown(task: Task, latest: Event | None = None) -> dict[str, object]:
    found: dict[str, object] = json.loads(msgspec.json.encode(document(task, "/_tasks/t1", latest)))
    return found


def test_a_document_has_nothing_that_is_not_its_readers() -> None:
    text = json.dumps(shown(replace(TASK, state="failed", failures=2, error=ERROR, ended=9.0)))
    for inside in ("secret", "ada", "host:1", "Traceback"):
        assert inside not in text


def test_a_document_says_what_happened() -> None:
    assert shown(TASK) == {
        "id": "t1",
        "kind": "resize",
        "state": "pending",
        "attempt": 0,
        "failures": 0,
        "interruptions": 0,
        "location": "/_tasks/t1",
        "created": "1970-01-01T00:00:01.500Z",
        "run_at": "1970-01-01T00:00:00.000Z",
    }
    running = replace(TASK, state="running", failures=1, interruptions=2, begun=2.0, cancelling=True, error=ERROR)
    assert shown(running, Event(3, b'{"done":0.5}', 4.0)).items() >= {
        "attempt": 2,
        "cancelling": True,
        "begun": "1970-01-01T00:00:02.000Z",
        "progress": {"seq": 3, "data": {"done": 0.5}, "at": "1970-01-01T00:00:04.000Z"},
        "error": {"type": "ValueError", "detail": "no", "attempt": 2},
    }.items()  # fmt: skip
    assert shown(replace(TASK, state="cancelled", begun=2.0))["attempt"] == 1, "it was cancelled while it ran"
    done = shown(replace(TASK, state="completed", result=b'{"n":1}', error=ERROR, ended=9.0))
    assert done["result"] == {"n": 1}
    assert "error" not in done, "an earlier attempt's does not matter any more"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "running"},
        {"epoch": 1},
        {"seq": 1},
        {"failures": 1},
        {"interruptions": 1},
        {"cancelling": True},
        {"ended": 1.0},
    ],
)
def test_a_tag_changes_with_what_is_told(change: dict[str, object]) -> None:
    assert etag(replace(TASK, **change)) != etag(TASK) == etag(replace(TASK, updated=5.0))


@given(
    seconds=st.lists(st.floats(0, 1e6), max_size=5),
    elapsed=st.floats(0, 1e9),
    delay=st.floats(0, 1e9),
)
def test_a_client_is_told_to_come_back_in_1_to_30_seconds(seconds: list[float], elapsed: float, delay: float) -> None:
    pace = Pace()
    for each in seconds:
        pace.note("resize", each)
    assert 1.0 <= pace.retry_after("resize", elapsed, delay) <= 30.0


def test_one_that_takes_longer_than_others_is_asked_for_ever_less_often() -> None:
    pace = Pace()
    pace.note("resize", 10.0)
    assert [pace.retry_after("resize", elapsed) for elapsed in (0, 6, 10, 40, 80, 1000)] == [10, 4, 1.25, 5, 10, 30]


def test_the_pace_follows_what_happens() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note("resize", 20.0)
    assert pace.retry_after("resize") == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("state", "status"), [("pending", 202), ("running", 202), ("completed", 200), ("failed", 200), ("cancelled", 200)]
)
def test_what_has_not_ended_is_accepted_and_says_when_to_ask(state: State, status: int) -> None:
    started = replace(STARTED, state=state)
    answer = started.response()
    assert isinstance(answer, Response)
    assert answer.status == status
    assert json.loads(answer.body) == started.document()  # type: ignore[arg-type]  # bytes
    expected = {"location": "/_tasks/t1"} | ({"retry-after": "7"} if status == 202 else {})
    assert dict(started.headers) == expected


def test_any_response_class_can_be_made_of_it() -> None:
    def make(content: object, status: int, headers: dict[str, str]) -> tuple[object, int, dict[str, str]]:
        return content, status, headers

    assert STARTED.response(make) == (STARTED.document(), 202, dict(STARTED.headers))
