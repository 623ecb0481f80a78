"""Server messages go through the logger `sojourn`, so that handlers and caplog see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sojourn.bus import Bus
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    ApplicationFailed,
    DeadlineMissed,
    DrainCounted,
    DrainParticipantEnded,
    DrainPhaseChanged,
    DrainReported,
    Event,
    LoopStalled,
    RegistrationFailed,
    RestartFailed,
    ServerStarted,
    ServerStopped,
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
    ],
)
def test_a_client_cannot_forge_a_message(bus: Bus, caplog: pytest.LogCaptureFixture, event: Event) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        bus.emit(event)
    assert caplog.records[0].getMessage().isprintable()


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
