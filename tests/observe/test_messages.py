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
    DrainPhaseChanged,
    Event,
    LoopStalled,
    ServerStarted,
    ServerStopped,
    TaskSurvived,
)
from sojourn.observe.messages import LOGGER, Messages

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
        (DrainPhaseChanged("requests", 60.0, 1, 2, 3, 4), "INFO",
         "drain: requests, 60.0 s left: 1 requests, 2 streams, 3 websockets, 4 idle"),
        (ServerStarted(("http://a:1", "unix:/b")), "INFO", "listening on http://a:1, unix:/b"),
        (ServerStopped(10, 0), "INFO", "stopped: 10 connections finished, 0 cut"),
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
