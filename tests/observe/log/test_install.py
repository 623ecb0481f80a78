"""What the server installs: the right format on the right output, and nothing left behind."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.config import Log
from sojourn.errors import ConfigError
from sojourn.events import ConnectionEnded, ConnectionGrewOld, LoopStalled, RequestEnded, ServerStarted, WebSocketOpened
from sojourn.observe.log import Installed, Losses, configure, install
from sojourn.observe.log.messages import LOGGER
from tests.observe.log.samples import OPENED, REQUEST, drain, fill, pipe, release

Install = Callable[..., Installed]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def put(bus: Bus) -> Iterator[Install]:
    """Install with these log settings; closed at the end."""
    with ExitStack() as stack:

        def make(log: Log, stdout: int = 1) -> Installed:
            installed = install(bus, log, ManualClock(), stdout=stdout)
            stack.callback(installed.close)
            return installed

        yield make


def test_access_off_observes_no_access_event(bus: Bus, put: Install) -> None:
    installed = put(Log(access="off"))
    assert not any(map(bus.wants, (RequestEnded, ConnectionEnded, ConnectionGrewOld, WebSocketOpened)))
    assert bus.wants(LoopStalled)
    assert installed.losses == Losses(0, 0, 0)
    installed.reopen()
    installed.level("debug")
    assert installed.close()


@pytest.mark.parametrize(
    ("access", "begin"), [("auto", b'{"time":'), ("json", b'{"time":'), ("combined", b"203.0.113.9 - - [")]
)
def test_an_output_that_is_no_terminal_gets(bus: Bus, put: Install, access: str, begin: bytes) -> None:
    with pipe() as (reader, writer):
        installed = put(Log(access=access), writer)  # type: ignore[arg-type]
        bus.emit(REQUEST)
        assert installed.close()
        assert drain(reader).startswith(begin)


def test_human_without_a_terminal_has_no_colours(bus: Bus, put: Install) -> None:
    with pipe() as (reader, writer):
        installed = put(Log(access="human"), writer)
        bus.emit(REQUEST)
        installed.close()
        assert b"\x1b" not in drain(reader)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_human_lines(
    bus: Bus, put: Install, monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    try:
        installed = put(Log(), slave)
        bus.emit(REQUEST)
        installed.close()
        line = os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)
    assert b"GET /items/42?expand=owner" in line
    assert (b"\x1b[32m200\x1b[0m" in line) is coloured


def test_combined_observes_only_what_it_can_write(bus: Bus, put: Install) -> None:
    with pipe() as (_, writer):
        put(Log(access="combined"), writer)
        assert bus.wants(RequestEnded)
        assert not bus.wants(WebSocketOpened)


def test_a_file_is_written_and_reopened_for_logrotate(bus: Bus, put: Install, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    installed = put(Log(file=str(path)))
    bus.emit(REQUEST)
    path.rename(tmp_path / "access.log.1")
    bus.emit(OPENED)
    installed.reopen()
    bus.emit(REQUEST._replace(connection=99))
    assert installed.close()
    events = [json.loads(line)["event"] for line in (tmp_path / "access.log.1").read_text().splitlines()]
    assert events == ["request", "websocket_opened"]
    assert [json.loads(line)["connection"] for line in path.read_text().splitlines()] == [99]


def test_a_file_is_json_unless_told_otherwise(bus: Bus, put: Install, tmp_path: Path) -> None:
    installed = put(Log(file=str(tmp_path / "access.log")))
    bus.emit(REQUEST)
    installed.close()
    assert json.loads((tmp_path / "access.log").read_text())["event"] == "request"


def test_a_file_that_cannot_be_opened_leaves_nothing_installed(bus: Bus, put: Install, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.file"):
        put(Log(file=str(tmp_path)))
    assert not bus.wants(RequestEnded)
    assert not bus.wants(LoopStalled)


def test_a_closed_standard_output_is_an_error_of_configuration(put: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(ConfigError, match="standard output is closed"):
        put(Log())


def test_standard_output_is_the_default(bus: Bus, put: Install, capfd: pytest.CaptureFixture[str]) -> None:
    installed = put(Log(access="json"))
    bus.emit(REQUEST)
    installed.close()
    assert json.loads(capfd.readouterr().out)["event"] == "request"


def test_close_writes_everything_and_leaves_no_observer(bus: Bus, put: Install) -> None:
    with pipe() as (reader, writer):
        installed = put(Log(access="json"), writer)
        for _ in range(100):
            bus.emit(REQUEST)
        assert installed.close()
        assert drain(reader).count(b"\n") == 100
        assert installed.close()
    assert not any(map(bus.wants, (RequestEnded, ConnectionEnded, LoopStalled, ServerStarted)))


def test_a_pipe_nobody_reads_neither_stops_the_loop_nor_the_exit(
    bus: Bus, put: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    with pipe() as (reader, writer):
        fill(writer)
        installed = put(Log(access="json"), writer)
        began = time.monotonic()
        for _ in range(50_000):
            bus.emit(REQUEST)
        assert time.monotonic() - began < 5
        assert installed.losses.dropped > 30_000
        began = time.monotonic()
        assert not installed.close(0.1)
        assert time.monotonic() - began < 2
        assert "nobody took its last lines for 0.1 s" in capfd.readouterr().err
        release(reader)


def test_lost_lines_are_told_where_they_are_missing(bus: Bus, put: Install) -> None:
    with pipe() as (reader, writer):
        fill(writer)
        installed = put(Log(access="json"), writer)
        while not installed.losses.dropped:
            bus.emit(REQUEST)
        collected = bytearray()
        thread = threading.Thread(target=collect, args=(reader, collected))
        thread.start()
        assert installed.close(30)
        os.close(writer)
        thread.join(10)
    *lines, last = collected.lstrip(b"x").splitlines()
    assert {json.loads(line)["event"] for line in lines} == {"request"}
    assert json.loads(last)["event"] == "log_lines_lost"
    assert json.loads(last)["lines"] == installed.losses.dropped


def collect(fd: int, into: bytearray) -> None:
    while data := os.read(fd, 65536):
        into += data


def test_a_changed_level_applies_at_once(bus: Bus, put: Install) -> None:
    with pipe() as (reader, writer):
        installed = put(Log(access="json", level="error"), writer)
        bus.emit(REQUEST)
        assert installed._log is not None
        assert installed._log.ring.flush()
        assert drain(reader) == b""
        installed.level("info")
        bus.emit(REQUEST)
        installed.close()
        assert drain(reader).count(b"\n") == 1


def test_the_access_log_shares_the_consoles_thread_and_does_not_end_it(bus: Bus, put: Install) -> None:
    logger = logging.getLogger(LOGGER)
    with pipe() as (access_end, access), pipe() as (console_end, stderr):
        console = configure(Log(access="json"), fd=stderr)
        try:
            installed = put(Log(access="json"), access)
            assert installed._log is not None
            assert installed._log.ring is console.ring
            bus.emit(REQUEST)
            bus.emit(LoopStalled(1.0))
            installed.level("warning")
            logger.info("too quiet now")
            assert installed.close()
            logger.warning("after close")
        finally:
            assert console.close() == 0
        assert json.loads(drain(access_end))["event"] == "request"
        told = [json.loads(line) for line in drain(console_end).splitlines()]
        assert [line["message"][:11] for line in told] == ["the event l", "after close"]


def test_the_console_may_be_closed_first(bus: Bus, put: Install, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with pipe() as (_, stderr):
        console = configure(Log(), fd=stderr)
        installed = put(Log(file=str(path)))
        bus.emit(REQUEST)
        assert console.close() == 0
        bus.emit(REQUEST)
        assert installed.close()
    assert path.read_bytes().count(b"\n") == 1
    assert installed.losses.dropped == 1


def test_a_console_disabled_by_the_application_speaks_again_once_the_server_started(bus: Bus, put: Install) -> None:
    logger = logging.getLogger(LOGGER)
    with pipe() as (reader, writer):
        console = configure(Log(access="human"), fd=writer)
        try:
            put(Log(access="off"))
            logger.disabled = True  # logging.config.dictConfig does this to loggers it doesn't know
            bus.emit(ServerStarted(("http://127.0.0.1:8000",)))
        finally:
            logger.disabled = False
            console.close()
        assert b"listening on http://127.0.0.1:8000" in drain(reader)


def test_the_library_sets_up_no_logging(bus: Bus, put: Install) -> None:
    before = list(logging.getLogger(LOGGER).handlers)
    put(Log(access="off"))
    assert logging.getLogger(LOGGER).handlers == before
