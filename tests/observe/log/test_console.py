"""The console writes the logger `sojourn` through the ring: nothing forged, nothing of the application kept."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sojourn.config import Log
from sojourn.events import AcceptResumed, ApplicationFailed, TaskSurvived
from sojourn.observe.log.console import Console, RingHandler, configure, is_coloured, is_terminal
from sojourn.observe.log.messages import LOGGER
from tests.observe.log.samples import drain, fill, pipe, release
from tests.observe.log.test_ids import inside

logger = logging.getLogger(LOGGER)

Read = Callable[[], str]
Open = Callable[..., tuple[Console, Read]]


@pytest.fixture
def open_console() -> Iterator[Open]:
    """Configure a console whose output is a pipe, and a function that reads what it wrote."""
    with ExitStack() as stack:

        def make(log: Log | None = None) -> tuple[Console, Read]:
            reader, writer = stack.enter_context(pipe())
            console = configure(log or Log(), fd=writer)
            stack.callback(console.close)

            def read() -> str:
                assert console.ring.flush()
                return drain(reader).decode()

            return console, read

        yield make


def fail(text: str = "no such item") -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_message_for_machines_is_one_json_object(open_console: Open) -> None:
    _, read = open_console(Log(access="json"))
    logger.warning("loop stood still for %.1f s", 1.5, extra={"event": AcceptResumed("tcp", 1.5)})
    record = json.loads(read())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {
        "level": "warning",
        "event": "accept_resumed",
        "logger": "sojourn",
        "message": "loop stood still for 1.5 s",
        "listener": "tcp",
        "seconds": 1.5,
    }


def test_a_message_for_people_is_a_line(open_console: Open) -> None:
    _, read = open_console(Log(access="human"))
    logger.info("größe %d", 3)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO     größe 3\n", read())


def test_an_error_is_written_with_its_traceback(open_console: Open) -> None:
    event = ApplicationFailed(12, "GET", "/items", "app_error_before_head", fail())
    _, read = open_console(Log(access="json"))
    logger.error("failed", exc_info=event.error, extra={"event": event})
    record = json.loads(read())
    assert record["event"] == "application_failed"
    assert record["path"] == "/items"
    assert record["error"] == "ValueError: no such item"
    assert "raise ValueError(text)" in record["traceback"]

    _, read = open_console(Log(access="human"))
    logger.error("failed", exc_info=event.error)
    text = read()
    assert "raise ValueError(text)" in text
    assert text.endswith("    ValueError: no such item\n")


def test_a_stack_is_written(open_console: Open) -> None:
    event = TaskSurvived("t", "o", "c", 1.0, 'File "app.py", line 3', False)
    _, read = open_console(Log(access="json"))
    logger.warning("survived", extra={"event": event})
    logger.warning("here", stack_info=True)
    survived, here = map(json.loads, read().splitlines())
    assert survived["stack"] == event.stack
    assert "test_a_stack_is_written" in here["stack"]


@pytest.mark.parametrize("access", ["json", "human"])
def test_an_error_text_cannot_forge_a_line_or_drive_the_terminal(open_console: Open, access: str) -> None:
    _, read = open_console(Log(access=access))  # type: ignore[arg-type]
    nasty = "x\n12:00:00.000 INFO     all is well\x1b[2J\x9b\u2028\udc80"
    logger.error("nasty %s", nasty, exc_info=fail(nasty))
    lines = read().split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if not line.startswith("    ")]) == 1


@pytest.mark.parametrize(
    ("access", "machine"), [("json", True), ("auto", True), ("off", True), ("human", False), ("combined", False)]
)
def test_the_format_follows_the_access_log(open_console: Open, access: str, machine: bool) -> None:
    _, read = open_console(Log(access=access))  # type: ignore[arg-type]
    logger.info("hello")
    assert read().startswith("{") == machine


def test_a_terminal_gets_the_human_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    try:
        console = configure(Log(), fd=slave)
        logger.warning("hello")
        console.close()
        assert b" \x1b[33mWARNING \x1b[0m hello\r\n" in os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_need_a_terminal_that_wants_them(environ: dict[str, str], coloured: bool) -> None:
    master, slave = os.openpty()
    try:
        assert is_coloured(slave, environ) is coloured
    finally:
        os.close(master)
        os.close(slave)
    assert not is_coloured(slave, {})
    assert not is_terminal(slave)


def test_the_level_decides_what_is_written(open_console: Open) -> None:
    _, read = open_console(Log(level="error", access="human"))
    logger.warning("quiet")
    logger.error("loud")
    assert read().endswith("ERROR    loud\n")


def test_child_loggers_are_written_and_named(open_console: Open) -> None:
    _, read = open_console(Log(access="json"))
    logging.getLogger("sojourn.tasks").info("hello")
    assert json.loads(read())["logger"] == "sojourn.tasks"


def test_no_object_of_the_application_reaches_the_writer_thread(open_console: Open) -> None:
    class Owned:
        """Stands for what must be finalized in its own thread."""

    def handler(owned: Owned) -> None:
        raise ValueError("failed with a local")

    console, _ = open_console()
    owned = Owned()
    gone = weakref.ref(owned)
    console.ring.order(lambda: time.sleep(0.2))  # the writer is busy: the record waits in the ring
    try:
        handler(owned)
    except ValueError as error:
        event = ApplicationFailed(1, "GET", "/", "internal_error", error)
        logger.error("failed", exc_info=error, extra={"event": event})
        del event
    del owned
    assert len(console.ring) > 0
    assert gone() is None


def test_there_is_one_handler_however_often_it_is_configured(open_console: Open) -> None:
    open_console()
    _, read = open_console(Log(access="human"))
    logger.info("once")
    assert read().count("once") == 1
    assert sum(isinstance(handler, RingHandler) for handler in logger.handlers) == 1


def test_close_writes_what_waits_and_gives_the_logger_back() -> None:
    before = (logger.level, logger.propagate, list(logger.handlers))
    with pipe() as (reader, writer):
        console = configure(Log(level="debug"), fd=writer)
        assert (logger.level, logger.propagate) == (logging.DEBUG, False)
        logger.debug("last words")
        assert console.close() == 0
        assert b"last words" in drain(reader)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert console.close() == 0


def test_a_stuck_reader_holds_up_the_exit_once_not_at_every_step() -> None:
    with pipe() as (reader, writer):
        fill(writer)
        console = configure(Log(), fd=writer)
        logger.error("nobody reads this")
        began = time.monotonic()
        console.handler.flush()
        console.close()
        console.handler.flush()  # as logging.shutdown does at exit
        assert time.monotonic() - began < 4
        release(reader)


def test_a_message_that_does_not_fit_its_arguments_is_reported_as_by_any_handler(
    open_console: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, read = open_console(Log(access="human"))
    logger.error("%d", "not a number")
    assert read() == ""
    assert "Logging error" in capsys.readouterr().err


def test_logging_set_up_by_the_application_does_not_end_the_console(open_console: Open) -> None:
    _, read = open_console(Log(access="human"))
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    logger.info("still here")
    assert read().endswith("still here\n")


@contextmanager
def bare_logging() -> Iterator[None]:
    """Logging as in a process where nobody has set it up: what the test runner and frameworks did is out of the way."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = before
        root.setLevel(level)


def test_an_application_that_sets_up_nothing_gets_its_lines_in_the_same_format(open_console: Open) -> None:
    shop = logging.getLogger("shop.orders")
    with bare_logging():
        _, read = open_console(Log(access="json"))
        shop.info("quiet: nobody asked for it")
        shop.warning("sold %d", 3, extra={"order": 7, "customer": object()})
        shop.setLevel(logging.DEBUG)
        try:
            shop.info("asked for")
            shop.debug("less than log.level")
        finally:
            shop.setLevel(logging.NOTSET)
        sold, asked = map(json.loads, read().splitlines())
        assert (sold["level"], sold["logger"], sold["message"], sold["order"]) == (
            "warning",
            "shop.orders",
            "sold 3",
            7,
        )
        assert "customer" not in sold  # no object of the application crosses to the writer
        assert asked["message"] == "asked for"

        _, read = open_console(Log(access="human"))
        shop.warning("sold")
        assert read().endswith("WARNING  shop.orders: sold\n")


def test_an_application_that_sets_up_logging_keeps_it(open_console: Open) -> None:
    stream = io.StringIO()
    with bare_logging():
        _, read = open_console(Log(access="human"))
        logging.basicConfig(stream=stream, format="own %(message)s %(sojourn_connection)s")
        logging.getLogger("shop").warning("sold")
        logger.warning("ours")
    assert stream.getvalue() == "own sold None\n"
    (line,) = read().splitlines()
    assert line.endswith("WARNING  ours")


def test_a_changed_level_counts_for_the_application_too(open_console: Open) -> None:
    with bare_logging():
        console, read = open_console(Log(access="human"))
        console.handler.set_level(logging.ERROR)
        logging.getLogger("shop").warning("quiet")
        logging.getLogger("shop").error("loud")
    assert read().endswith("ERROR    shop: loud\n")


def test_what_was_set_up_for_the_application_is_taken_back() -> None:
    before = (logging.lastResort, logging.getLogRecordFactory())
    with pipe() as (_, writer):
        first, second = configure(Log(), fd=writer), configure(Log(), fd=writer)
        assert logging.lastResort is not before[0]
        second.close()
        first.close()
    assert (logging.lastResort, logging.getLogRecordFactory()) == before


@pytest.mark.parametrize("access", ["json", "human"])
def test_a_line_written_inside_a_request_names_it(open_console: Open, access: str) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    _, read = open_console(Log(access=access))  # type: ignore[arg-type]
    inside(lambda: logger.warning("sold"), f"traceparent: 00-{trace}-00f067aa0ba902b7-01")
    line = next(line for line in read().splitlines() if "sold" in line)
    if access == "human":
        assert line.endswith(f"sold [#1 GET /items {trace}]")
    else:
        record = json.loads(line)
        assert (record["connection"], record["request"], record["trace_id"]) == (1, "GET /items", trace)
