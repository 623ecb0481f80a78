"""What `top` counts between looks, and the head it makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sojourn.clock import ManualClock
from sojourn.ops.client import Admin
from sojourn.ops.exposition import parse
from sojourn.ops.top.head import head
from sojourn.ops.top.views import VIEWS, Choice
from sojourn.ops.top.watch import Look, Watch
from tests.ops.fake import Fake, serving, status, worker

PAGE = """
sojourn_connections{{protocol="http",state="idle",worker="1"}} 1000
sojourn_connections{{protocol="websocket",state="open",worker="1"}} 234
sojourn_connections_accepted_total{{worker="1"}} {accepted}
sojourn_requests_ended_total{{reason="completed",fault="none"}} {ended}
sojourn_requests_ended_total{{reason="app_error_before_head",fault="app"}} {failed}
sojourn_deadlines_missed_total{{deadline="header"}} {missed}
sojourn_requests_running 3
sojourn_loop_stalls_total{{cause="code"}} {stalls}
sojourn_leaks{{kind="task"}} 2
sojourn_memory_resident_bytes{{worker="1"}} 104857600
sojourn_memory_resident_bytes{{worker="2"}} 104857600
sojourn_processor_seconds_total {cpu}
"""


def page(**counts: float) -> str:
    plain = {"accepted": 0, "ended": 0, "failed": 0, "missed": 0, "stalls": 0, "cpu": 0}
    return PAGE.format(**plain | counts)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with serving(tmp_path) as fake:
        yield fake


def watching(*pages: tuple[float, str]) -> Watch:
    clock = ManualClock()
    watch = Watch(Admin("unix:/never/asked"), clock)
    for moment, text in pages:
        watch.note(status(), Look(moment, parse(text)))
    return watch


def test_a_rate_is_between_the_last_two_looks() -> None:
    watch = watching((0, page(ended=0)), (10, page(ended=100)), (12, page(ended=150)))
    assert watch.rate("sojourn_requests_ended_total") == 25
    assert watch.rate("absent") is None
    assert watching((0, page())).rate("sojourn_requests_ended_total") is None


def test_a_minute_is_what_is_remembered() -> None:
    looks = [(float(moment), page(missed=moment)) for moment in range(0, 200, 10)]
    watch = watching(*looks)
    assert watch.seconds == 60
    assert watch.minute("sojourn_deadlines_missed_total", "deadline") == {"header": 60}


def test_looking_often_does_not_fill_the_memory() -> None:
    watch = watching(*((moment / 100, page()) for moment in range(1000)))
    assert watch.seconds < 1.0


def test_a_look_takes_status_and_metrics(fake: Fake) -> None:
    fake.shows("/metrics", page(accepted=5))
    clock = ManualClock()
    watch = Watch(Admin(fake.place), clock)
    watch.note(*watch.fetch())
    assert fake.paths() == ["/status", "/metrics"]
    assert watch.page.total("sojourn_connections_accepted_total") == 5


def test_the_head_says_how_the_server_is() -> None:
    watch = watching((0, page()), (10, page(accepted=25, ended=400, stalls=2, cpu=5)))
    lines = head(watch)
    assert lines[0] == "web-1:8000   sojourn 0.1.0   up 60 min   serving   2 of 2 workers ready"
    assert lines[1] == (
        "connections 1,234 (1,000 http, 234 websocket)   accepted 2.5/s   requests 40/s   running 3   queued -   P99 -"
    )
    assert lines[2] == (
        "loop lag P99 -   stalls 2   leaks 2   tasks -   memory 200 MiB   processor 50%   descriptors -"
    )
    assert len(lines) == 3


def test_without_metrics_the_head_shows_what_the_status_knows() -> None:
    watch = watching((0, ""))
    assert head(watch)[1].startswith("connections 24   accepted -   requests -")


def test_the_head_counts_a_drain_down() -> None:
    watch = watching((0, page()))
    drain = {"instance": "w", "phase": "finish", "left": 71.4, "requests": 0, "streams": 0, "sockets": 9, "idle": 0}
    draining = status(state="draining", ready=False, countdown=drain, problem="x", workers=[worker(state="draining")])
    watch.note(draining, Look(2, parse(page())))
    lines = head(watch)
    assert lines[0].endswith("draining, not ready   0 of 1 workers ready")
    assert lines[3:] == ["drain: finish, 71 s left; 9 WebSockets open", "problem: x"]


def test_before_the_first_look_there_is_no_head() -> None:
    assert head(watching()) == []


def test_endings_are_counted_by_the_minute_the_most_frequent_first() -> None:
    view = next(view for view in VIEWS if view.name == "endings")
    watch = watching((0, page(ended=100, failed=5)), (30, page(ended=110, failed=25)))
    rows = [{title.title: title.show(row) for title in view.columns} for row in view.rows(watch, None, Choice())]
    assert rows == [
        {"WHAT": "request", "REASON": "app_error_before_head", "A MINUTE": "40", "EVER": "25"},
        {"WHAT": "request", "REASON": "completed", "A MINUTE": "20", "EVER": "110"},
    ]


def test_deadlines_that_were_never_missed_are_not_listed() -> None:
    view = next(view for view in VIEWS if view.name == "deadlines")
    assert view.rows(watching((0, page()), (30, page())), None, Choice()) == []
    assert [row["word"] for row in view.rows(watching((0, page()), (30, page(missed=1))), None, Choice())] == ["header"]
