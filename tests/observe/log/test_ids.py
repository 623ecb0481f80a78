"""Whatever is logged inside a request says which: through our console, the application's handlers, or structlog."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from sojourn.config import App, Config
from sojourn.observe.log.ids import current_ids, mark_records, structlog_ids
from sojourn.testing.server import MemoryServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"
CONFIG = Config(app=App(lifespan="off"))
FORM = "%(sojourn_connection)s|%(sojourn_request)s|%(sojourn_trace)s|%(message)s"


def inside(work: Callable[[], Any], *headers: str, path: str = "/items") -> Any:
    """What ``work`` returns inside a request."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(work())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        async with MemoryServer(app, CONFIG) as server:
            server.connect().get(path, *headers)
            await server.settle()

    asyncio.run(main())
    return found[0]


@pytest.fixture
def records() -> Iterator[io.StringIO]:
    """What an application's own handler writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORM))
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    undo = mark_records()
    yield stream
    undo()
    logger.removeHandler(handler)


def test_a_request_has_its_connection_its_path_and_the_trace_it_came_with() -> None:
    assert inside(current_ids, PARENT) == (1, "GET /items", TRACE)
    assert inside(current_ids) == (1, "GET /items", "")
    assert inside(current_ids, "traceparent: 00-0-0-0") == (1, "GET /items", "")
    assert current_ids() == (None, "", "")


def test_a_client_cannot_forge_a_line_of_the_applications_own_handler(records: io.StringIO) -> None:
    inside(lambda: logging.getLogger("shop").warning("sold"), path="/%0aERROR%20forged%1b[2J")
    assert records.getvalue() == "1|GET /\\nERROR forged\\x1b[2J||sold\n"


def test_a_task_that_outlives_its_request_still_says_where_it_came_from() -> None:
    async def main() -> Any:
        went_on = asyncio.Event()
        found: list[Any] = []

        async def later() -> None:
            await went_on.wait()
            found.append(current_ids())

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.get_running_loop().create_task(later()))
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        tasks: list[Any] = []
        async with MemoryServer(app, CONFIG) as server:
            server.connect().get("/items")
            await server.settle()
            went_on.set()
            await tasks[0]
        return found[0]

    assert asyncio.run(main())[:2] == (1, "")


def test_records_of_the_application_carry_the_ids(records: io.StringIO) -> None:
    logger = logging.getLogger("shop")
    inside(lambda: logger.warning("sold"), PARENT)
    logger.warning("closed")
    assert records.getvalue().splitlines() == [f"1|GET /items|{TRACE}|sold", "None|||closed"]


def test_an_application_that_names_its_own_values_as_it_likes_is_not_disturbed(records: io.StringIO) -> None:
    """logging raises KeyError for a name in `extra` that the record has already; django passes `request`."""
    logger = logging.getLogger("shop")
    extra = {"request": 1, "connection": 2, "trace_id": 3, "connection_id": 4, "request_id": 5, "trace": 6}
    inside(lambda: logger.warning("sold", extra=extra))
    assert records.getvalue() == "1|GET /items||sold\n"


def test_the_record_factory_is_given_back_or_stays_behind_another_and_does_nothing() -> None:
    before = logging.getLogRecordFactory()
    mark_records()()
    assert logging.getLogRecordFactory() is before
    undo = mark_records()
    ours = logging.getLogRecordFactory()

    def theirs(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return ours(*args, **kwargs)

    logging.setLogRecordFactory(theirs)
    try:
        undo()
        assert logging.getLogRecordFactory() is theirs
        assert not hasattr(logging.getLogger("shop").makeRecord("shop", 20, "", 0, "m", (), None), "sojourn_trace")
    finally:
        logging.setLogRecordFactory(before)


def test_structlog_lines_carry_the_ids_and_keep_what_the_application_bound() -> None:
    stream = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream), processors=[structlog_ids, structlog.processors.JSONRenderer()]
    )
    inside(lambda: logger.info("sold", trace_id="own"), PARENT)
    inside(lambda: logger.info("sold"), PARENT)
    logger.info("closed")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "sold", "trace_id": "own", "connection": 1, "request": "GET /items"},
        {"event": "sold", "trace_id": TRACE, "connection": 1, "request": "GET /items"},
        {"event": "closed"},
    ]


def test_a_thread_that_works_for_a_request_has_its_ids() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((threading.current_thread().name, await asyncio.to_thread(current_ids)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    found: list[Any] = []

    async def main() -> None:
        async with MemoryServer(app, CONFIG) as server:
            server.connect().get("/items")
            for _ in range(1000):
                await asyncio.sleep(0.001)
                if found:
                    break

    asyncio.run(main())
    assert found[0][1] == (1, "GET /items", "")


def test_records_are_marked_once_whoever_asks() -> None:
    undo = mark_records()
    first = logging.getLogRecordFactory()
    second = mark_records()
    assert logging.getLogRecordFactory() is first
    second()
    assert logging.getLogRecordFactory() is first
    undo()
    assert logging.getLogRecordFactory() is not first
