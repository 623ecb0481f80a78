"""Which connection, request and trace a line belongs to: read where it is written, in the context of the request.

Three ways lead there. Our own console asks for each record. An application with handlers of its own finds the ids on
its records (:func:`mark_records`). structlog gets a processor (:func:`structlog_ids`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final, NamedTuple

from sojourn.asgi.site import CURRENT
from sojourn.observe.log.text import message
from sojourn.wire.traceparent import parse_headers

__all__ = ["Ids", "current_ids", "mark_records", "structlog_ids"]


class Ids(NamedTuple):
    """What a line belongs to.

    Attributes:
        connection: Number of the connection on this worker; None outside a request.
        request: Method and path, such as ``GET /items``; "" outside a request and when it is long over.
        trace: Trace id (W3C Trace Context), 32 hex digits; "" without one.
    """

    connection: int | None
    request: str
    trace: str


NOTHING: Final = Ids(None, "", "")


def current_ids() -> Ids:
    """The ids of the request that runs in the present context, also in its threads and in the tasks it made."""
    request = CURRENT.get(None)
    if request is None:
        return NOTHING
    scope = getattr(request, "scope", None)  # taken away when the request is over, while its tasks may run on
    trace = request.trace_id
    if not scope:
        return Ids(request.connection_id, "", trace)
    if not trace and (context := parse_headers(scope["headers"])) is not None:
        trace = context.trace_id
    # A client chose the path, and nobody knows what a handler of the application does with it.
    return Ids(request.connection_id, message(f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"), trace)


def mark_records() -> Callable[[], None]:
    """Put the ids on every log record: ``sojourn_connection``, ``sojourn_request`` and ``sojourn_trace``.

    Their names have a prefix because logging raises KeyError when a name in ``extra`` is on the record already, and
    ``request`` or ``trace_id`` are names that applications use there. For who owns the process.

    Returns:
        A function that undoes it. When somebody has put another factory in front meanwhile, ours stays behind it and
        does nothing any more. Called where records are marked already, it changes nothing.

    Example:
        >>> undo = mark_records()
        >>> logging.getLogger("shop").makeRecord("shop", 20, "", 0, "sold", (), None).sojourn_connection is None
        True
        >>> undo()
    """
    before = logging.getLogRecordFactory()
    if isinstance(before, _Marker) and before.active:
        return lambda: None
    marker = _Marker(before)
    logging.setLogRecordFactory(marker)
    return marker.undo


class _Marker:
    """Makes records as before, and puts the ids on them while it is active."""

    def __init__(self, before: Callable[..., Any]) -> None:
        self._before = before
        self.active = True

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._before(*args, **kwargs)
        if self.active:
            record.sojourn_connection, record.sojourn_request, record.sojourn_trace = current_ids()
        return record

    def undo(self) -> None:
        self.active = False
        if logging.getLogRecordFactory() is self:
            logging.setLogRecordFactory(self._before)


def structlog_ids(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: adds ``connection``, ``request`` and ``trace_id`` where a request runs.

    What the application has bound under these names stays.

    Args:
        logger: Not used.
        method: Not used.
        event: The values of the line.

    Returns:
        The same values.

    Example:
        >>> structlog_ids(None, "info", {"event": "sold"})
        {'event': 'sold'}
    """
    connection, request, trace = current_ids()
    if connection is not None:
        event.setdefault("connection", connection)
        if request:
            event.setdefault("request", request)
        if trace:
            event.setdefault("trace_id", trace)
    return event
