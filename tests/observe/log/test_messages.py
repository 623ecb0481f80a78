"""Server messages go through the logger `sojourn`, so that handlers and caplog see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    ApplicationFailed,
    ConfigChanged,
    DeadlineMissed,
    DrainCounted,
    DrainParticipantEnded,
    DrainPhaseChanged,
    DrainReported,
    Event,
    LeakFound,
    LeaseOverdue,
    LeaseReturned,
    LoopStalled,
    PressureChanged,
    RegistrationFailed,
    RestartFailed,
    ServerStarted,
    ServerStopped,
    StoreAway,
    StoreBack,
    TaskEnded,
    TaskHandedOver,
    TaskLost,
    TaskSurvived,
    WorkerEnded,
    WorkerHung,
    WorkerReady,
    WorkerRetired,
    WorkerStarted,
)
from sojourn.observe.log.messages import LOGGER, Messages

STACK = 'File "app.py", line 3, in slow\n    time.sleep(9)\n'
SURVIVED = TaskSurvived("request", "connection 12 GET /slow", "client_closed_request", 5.0, STACK, False)
FAILED = ApplicationFailed(12, "GET", "/items", "app_error_before_head", ValueError("no such item"))


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    messages = Messages(bus)
    yield bus
    messages.close()
    assert bus.failures == 0, bus.last_failure


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (DeadlineMissed(12, "header", 10.0, "/"), "DEBUG", "connection 12 /: deadline header of 10 s passed"),
        (
            SURVIVED,
            "WARNING",
            (
                "task request of connection 12 GET /slow still runs, 5.0 s after it was cancelled "
                f"(client_closed_request); it is at\n{STACK.rstrip()}"
            ),
        ),
        (
            SURVIVED._replace(ended=True),
            "INFO",
            "task request of connection 12 GET /slow has ended, 5.0 s after it was cancelled (client_closed_request)",
        ),
        (
            FAILED,
            "ERROR",
            "GET /items on connection 12: the application raised before its answer began (app_error_before_head)",
        ),
        (LoopStalled(1.234), "WARNING", "the event loop stood still for 1.23 s; deadlines were extended by that much"),
        (LoopStalled(0.5, "code", "shop.report app.py:3", STACK), "WARNING",
         ("the event loop stood still for 0.50 s in shop.report app.py:3 (its own thread was busy); deadlines were "
          f"extended by that much\n{STACK.rstrip()}")),
        (LoopStalled(0.5, "gc"), "WARNING",
         "the event loop stood still for 0.50 s (garbage collection); deadlines were extended by that much"),
        (PressureChanged("space", 2, 1, "memory", ("no_keep_alive", "short_idle")), "WARNING",
         "pressure on space: level 2, it was 1 (memory); measures: no_keep_alive, short_idle"),
        (PressureChanged("processor", 0, 1, "", ()), "INFO",
         "pressure on processor: level 0, it was 1; measures: none"),
        (LeakFound("task", "poll", "app.py:3 in start", "app.py:9 in poll", "connection 12 GET /", 6.0, 2), "WARNING",
         ("leak: task poll made at app.py:3 in start by connection 12 GET / is alive after 6.0 s, waiting at "
          "app.py:9 in poll (2 of this kind)")),
        (LeakFound("connection", "http", "net", "", "", 6.0, 1, "Hub.rooms -> dict", STACK), "WARNING",
         f"leak: connection http made at net is alive after 6.0 s, held by Hub.rooms -> dict\n{STACK.rstrip()}"),
        (LeaseOverdue("db", 10.0, "connection 12 GET /", STACK), "WARNING",
         f"something of db is held for 10.0 s by connection 12 GET /; it was taken at\n{STACK.rstrip()}"),
        (LeaseReturned("db", 12.0, ""), "INFO", "what nobody known held of db was given back after 12.0 s"),
        (ConfigChanged(2, "admin", {"timeouts.header": (10.0, 5.0), "log.level": ("info", "debug")}), "INFO",
         "configuration 2, set by admin: timeouts.header 10.0 -> 5.0, log.level 'info' -> 'debug'"),
        (AcceptPaused("http://[::]:8000", "no file descriptor left"), "ERROR",
         "http://[::]:8000: accepting is paused: no file descriptor left"),
        (AcceptResumed("http://[::]:8000", 1.0), "INFO", "http://[::]:8000: accepting again after 1.0 s"),
        (DrainPhaseChanged("finish", "", 60.0, 1, 2, 3, 4), "INFO",
         "drain: finish begins, 60.0 s left: 1 requests, 2 streams, 3 websockets, 4 idle"),
        (DrainCounted("finish", "web-1/2", 55.0, 1, 2, 3, 4), "INFO",
         "drain of web-1/2: finish goes on, 55.0 s left: 1 requests, 2 streams, 3 websockets, 4 idle"),
        (DrainReported("web-1", 12.5, 5, {"requests": {"open": 2, "told": 0, "finished": 1, "cut": 1},
                                          "streams": {"open": 0, "told": 0, "finished": 0, "cut": 0}}, 3, 1), "WARNING",
         "drained web-1 in 12.5 s: requests 1 finished, 1 cut; 3 WebSockets did not answer, exit code 5"),
        (DrainParticipantEnded("save", "persist", 1.0, None), "INFO", "drain: save is done after 1.0 s"),
        (DrainParticipantEnded("save", "persist", 1.0, "OSError: full"), "ERROR",
         "drain: save failed after 1.0 s: OSError: full"),
        (DrainParticipantEnded("tasks", "persist", 1.0, None, {"handed_over": 3, "lost": 0}), "INFO",
         "drain: tasks is done after 1.0 s: 3 handed over, 0 lost"),
        (DrainParticipantEnded("tasks", "persist", 1.0, "OSError: full", {"lost": 2}), "ERROR",
         "drain: tasks failed after 1.0 s: OSError: full (2 lost)"),
        (TaskEnded("export", "t1", "completed", 1, 0.25), "DEBUG",
         "durable task export t1, attempt 1: completed after 0.250 s"),
        (TaskEnded("export", "t1", "handover", 2, 0.25), "DEBUG",
         "durable task export t1, attempt 2: interrupted after 0.250 s"),
        (TaskEnded("export", "t1", "failed", 3, 2.0, "OSError: full", 7, 0.0, STACK), "ERROR",
         ("durable task export t1, attempt 3: failed after 2.0 s: OSError: full\n"
          + STACK.rstrip().replace("\n", "\n    "))),
        (TaskEnded("export", "t1", "retry", 1, 2.0, "OSError: full", 7, 4.0), "WARNING",
         "durable task export t1, attempt 1: failed, and is tried again in 4.0 s: OSError: full"),
        (TaskHandedOver("export", "t1", 2.0), "INFO",
         "durable task export t1 was interrupted after 2.0 s and handed over"),
        (TaskLost("export", "t1", "lease", 2.0), "WARNING",
         "durable task export t1 was lost after 2.0 s: its lease went to another node"),
        (TaskLost("export", "t1", "fenced", 2.0), "WARNING",
         "durable task export t1 was lost after 2.0 s: its lease could not be renewed in time"),
        (StoreAway("tasks", "tasks", "redis", "no route to host", 0), "ERROR",
         "the journal of tasks (redis) can't be reached, serving goes on: no route to host"),
        (StoreAway("tasks", "tasks", "redis", "no route to host", 3), "ERROR",
         "the journal of tasks (redis) can't be reached, serving goes on: no route to host; 3 tasks are held here"),
        (StoreAway("hub", "chat", "local", "refused", 7), "ERROR",
         "the engine of chat (local) can't be reached, serving goes on: refused; 7 members are here"),
        (StoreAway("sessions", "sessions", "redis", "refused"), "ERROR",
         "the store of sessions (redis) can't be reached, serving goes on: refused"),
        (StoreBack("tasks", "tasks", "redis", 12.34), "INFO",
         "the journal of tasks (redis) answers again after 12.3 s"),
        (ServerStarted(("http://a:1", "unix:/b")), "INFO", "listening on http://a:1, unix:/b"),
        (ServerStopped(10, 0), "INFO", "stopped: 10 connections finished, 0 cut"),
        (WorkerStarted(1, 10, "start"), "DEBUG", "worker 1 (process 10) starts: start"),
        (WorkerStarted(2, 11, "restart"), "INFO", "worker 2 (process 11) starts: restart"),
        (WorkerReady(2, 11, 0.44), "INFO", "worker 2 (process 11) serves after 0.4 s"),
        (WorkerRetired(1, 10, "restart"), "INFO", "worker 1 (process 10) drains, another serves in its place: restart"),
        (WorkerEnded(1, 10, 0, True, None), "INFO", "worker 1 (process 10) has ended with code 0"),
        (WorkerEnded(1, 10, -9, False, 0.0), "ERROR",
         "worker 1 (process 10) ended unasked with signal 9; replaced now"),
        (WorkerEnded(1, 10, 3, False, 0.25, "no module"), "ERROR",
         "worker 1 (process 10) ended unasked with code 3: no module; again in 0.25 s"),
        (WorkerHung(1, 10, 10.5, STACK), "ERROR",
         f"worker 1 (process 10) gave no sign of life for 10.5 s and is killed; it was at\n{STACK.rstrip()}"),
        (RestartFailed("restart", "2 settings can't be used:\n  a: is wrong"), "ERROR",
         "restart given up, what served before serves on: 2 settings can't be used:\n      a: is wrong"),
        (RegistrationFailed("beat", "it answered 500"), "WARNING",
         "the service registry could not be told (beat), serving goes on: it answered 500"),
    ],
)  # fmt: skip
def test_an_event_is_told_once_with_its_level(
    bus: Bus, caplog: pytest.LogCaptureFixture, event: Event, level: str, text: str
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        bus.emit(event)
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        (LOGGER, level, text)
    ]
    assert caplog.records[0].event is event  # type: ignore[attr-defined]


def test_a_failed_application_is_told_with_its_traceback(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.emit(FAILED)
    assert "ValueError: no such item" in caplog.text


@pytest.mark.parametrize(
    "event",
    [
        FAILED._replace(path="/\nERROR forged\x1b[2J"),
        FAILED._replace(method="GET\n"),
        DeadlineMissed(1, "header", 1.0, "/\r\n"),
        SURVIVED._replace(ended=True, owner="connection 1 GET /\n\x9b", name="n\n"),
        TaskEnded("export\n", "t1\x1b", "failed", 1, 1.0, "ValueError: \nERROR forged"),
        StoreAway("tasks", "tasks\n", "redis", "\x1b[2J", 0),
    ],
)
def test_a_client_cannot_forge_a_message(bus: Bus, caplog: pytest.LogCaptureFixture, event: Event) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        bus.emit(event)
    assert caplog.records[0].getMessage().isprintable()


def test_what_comes_in_masses_is_told_five_times_a_minute_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    bus, clock = Bus(), ManualClock()
    messages = Messages(bus, clock=clock)
    for _ in range(10):
        bus.emit(LoopStalled(0.5, "code", "shop.report app.py:3"))
    bus.emit(LoopStalled(0.5, "code", "shop.other app.py:9"))
    assert [("report" in text, "4 more like this" in text) for text in caplog.messages] == [(True, False)] * 6 + [
        (False, True)
    ]
    bus.emit(LoopStalled(0.5, "code", "shop.other app.py:9"))
    clock.advance(60.0)
    bus.emit(LoopStalled(0.5, "code", "shop.other app.py:9"))
    assert "(1 more like this were left out before)" in caplog.messages[-1]
    for _ in range(7):
        bus.emit(LoopStalled(0.5, "code", "shop.other app.py:9"))
    messages.close()
    assert caplog.messages[-1] == "stalls of the event loop: 3 more were left out"
    assert bus.failures == 0


def test_tasks_of_a_kind_that_fail_alike_are_told_five_times_a_minute_and_completed_ones_only_when_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Bus()
    messages = Messages(bus, clock=ManualClock())
    with caplog.at_level(logging.INFO, LOGGER):
        for number in range(10):
            bus.emit(TaskEnded("export", f"t{number}", "retry", 1, 1.0, f"OSError: file {number}"))
            bus.emit(TaskEnded("export", f"t{number}", "completed", 1, 1.0))
    assert len(caplog.messages) == 6
    messages.close()
    assert caplog.messages[-1] == "durable tasks that failed: 4 more were left out"


def test_leaks_of_other_signatures_do_not_hide_each_other(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        bus.emit(LeakFound("task", "poll", f"app.py:{number} in start", "", "", 6.0, 1))
    assert len(caplog.messages) == 20


def test_an_unknown_reason_is_still_told(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.emit(FAILED._replace(reason="from_a_newer_version"))
    assert "from_a_newer_version" in caplog.text


def test_nothing_is_told_after_close(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    Messages(bus).close()
    bus.emit(LoopStalled(1.0))
    assert not caplog.records
    assert not bus.wants(LoopStalled)


@pytest.mark.parametrize("enable", [True, False])
def test_a_logger_disabled_by_the_application_is_enabled_at_start_only_if_it_is_ours(enable: bool) -> None:
    bus, logger = Bus(), logging.getLogger(LOGGER)
    messages = Messages(bus, enable=enable)
    logger.disabled = True
    try:
        bus.emit(ServerStarted(()))
        assert logger.disabled is not enable
    finally:
        logger.disabled = False
        messages.close()
