"""The handler that writes to standard error, through the ring; for who owns the process.

It writes the logger ``sojourn``, and what the application logs as long as that has set up nothing. Logging itself tells
which: a record that finds no handler goes to ``logging.lastResort``, and that is where ours stands then. A handler on
the root logger would instead make the application's ``logging.basicConfig`` do nothing.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from traceback import TracebackException
from typing import Any, Final, NamedTuple

from sojourn.config import Log
from sojourn.observe.log.access import SEVERITY
from sojourn.observe.log.ids import Ids, current_ids, mark_records
from sojourn.observe.log.messages import LOGGER
from sojourn.observe.log.ring import Ring
from sojourn.observe.log.sink import Cause, Form, Sink
from sojourn.observe.log.text import clock_time, json_gap, json_line, message, rfc3339

__all__ = ["Console", "RingHandler", "configure", "is_coloured", "is_terminal"]

_PAINT: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
#: What every record has; anything else came as ``extra``.
_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "event", "color_message", "sojourn_connection", "sojourn_request", "sojourn_trace",
}  # fmt: skip
#: What of ``extra`` may cross to another thread: it holds nothing.
_PLAIN: Final = (str, int, float, bool, type(None))
_capital = re.compile(r"(?<!^)(?=[A-Z])")


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is an open terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def is_coloured(fd: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours: to a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    return is_terminal(fd) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Message(NamedTuple):
    """A log record, ready to cross to another thread: it holds nothing of the application.

    Attributes:
        level: Name of its level.
        logger: Name of its logger.
        text: The message, arguments filled in.
        event: Name of the event it tells; "" when it tells none.
        fields: Values of that event, and what plain values the record got as ``extra``.
        error: The error it came with, without its frames.
        stack: The stack it came with, "" without.
        ids: What it belongs to.
    """

    level: str
    logger: str
    text: str
    event: str
    fields: dict[str, Any]
    error: TracebackException | None
    stack: str
    ids: Ids


class RingHandler(logging.Handler):
    """Hands records to the ring.

    An error is taken apart here, in the thread it belongs to: a frame that reached the writer thread could be freed
    there, and with it objects of the application whose finalizers expect their event loop. Reading source lines for the
    traceback is left to the writer.

    Args:
        ring: Where the lines go.
        sink: The output they are for.
    """

    def __init__(self, ring: Ring, sink: Sink) -> None:
        super().__init__()
        self.ring = ring
        self.sink = sink
        self._before: tuple[int, bool] | None = None
        self._last: _LastResort | None = None
        self._unmark: Callable[[], None] | None = None

    def attach(self, level: int) -> None:
        """Become the handler of the logger, which then writes from this level on and nowhere else.

        Also of what the application logs from this level on and no handler of its own takes; and every record gets ids.
        """
        logger = logging.getLogger(LOGGER)
        self._before = (logger.level, logger.propagate)
        logger.addHandler(self)
        logger.setLevel(level)
        logger.propagate = False
        self._last = _LastResort(self, level)
        logging.lastResort = self._last
        self._unmark = mark_records()

    def set_level(self, level: int) -> None:
        """Write from this level on."""
        logging.getLogger(LOGGER).setLevel(level)
        if self._last is not None:
            self._last.setLevel(level)

    def detach(self) -> None:
        """Give the logger back as it was."""
        if self._before is not None:
            logger = logging.getLogger(LOGGER)
            logger.removeHandler(self)
            level, logger.propagate = self._before
            logger.setLevel(level)
            self._before = None
        if self._last is not None:
            if logging.lastResort is self._last:
                logging.lastResort = self._last.before
            self._last = None
        if self._unmark is not None:
            self._unmark()
            self._unmark = None
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that don't fit their message: reported as by any handler
            self.handleError(record)
            return
        error = None
        if record.exc_info and record.exc_info[1] is not None:
            kind, value, trace = record.exc_info
            error = TracebackException(kind, value, trace, lookup_lines=False, compact=True)
        event = getattr(record, "event", None)
        name, fields = "", {}
        if isinstance(event, tuple) and hasattr(event, "_asdict"):
            name = _capital.sub("_", type(event).__name__).lower()
            fields = {key: value for key, value in event._asdict().items() if not isinstance(value, BaseException)}
        for key in record.__dict__.keys() - _ORDINARY:
            value = record.__dict__[key]
            if type(value) in _PLAIN:
                fields.setdefault(key, value)
        ids = current_ids()
        told = Message(record.levelname, record.name, text, name, fields, error, record.stack_info or "", ids)
        self.ring.urgent((self.sink, record.created, told))

    def flush(self) -> None:
        """Write what waits, for two seconds at most. ``logging.shutdown`` calls it when the interpreter exits."""
        self.ring.flush()


class _LastResort(logging.Handler):
    """Takes what no handler of the application takes.

    Args:
        handler: Writes it.
        level: From this level on.
    """

    def __init__(self, handler: RingHandler, level: int) -> None:
        super().__init__(level)
        self.before = logging.lastResort
        self._handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        self._handler.emit(record)


class _JsonMessages:
    """One object per message: time, level, event, logger, message, the event's values, ids, error and traceback."""

    def __init__(self) -> None:
        self._time = rfc3339()

    def line(self, when: float, payload: Message) -> bytes:
        record: dict[str, Any] = {"time": self._time(when), "level": payload.level.lower()}
        record |= {"event": payload.event or "message", "logger": payload.logger, "message": payload.text}
        for key, value in payload.fields.items():
            record.setdefault(key, value)
        connection, request, trace = payload.ids
        if connection is not None:
            record.setdefault("connection", connection)
        if request:
            record.setdefault("request", request)
        if trace:
            record.setdefault("trace_id", trace)
        if payload.error is not None:
            record["error"] = "".join(payload.error.format_exception_only()).rstrip()
            record["traceback"] = "".join(payload.error.format())
        if payload.stack:
            record["stack"] = payload.stack
        return json_line(record)

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return json_gap(self._time(when), count, cause)


class _HumanMessages:
    """Time, level, message and ids, with the logger's name where it is not ours; further lines are indented."""

    def __init__(self, *, colour: bool) -> None:
        self._time = clock_time()
        self._colour = colour

    def line(self, when: float, payload: Message) -> bytes:
        head, newline, rest = payload.text.partition("\n")
        if payload.logger.partition(".")[0] != LOGGER:
            head = f"{payload.logger}: {head}"
        connection, request, trace = payload.ids
        if connection is not None:
            head += f" [{' '.join(filter(None, (f'#{connection}', request, trace)))}]"
        parts = [head + newline + rest]
        if payload.error is not None:
            parts.append("".join(payload.error.format()).rstrip())
        if payload.stack:
            parts.append(payload.stack.rstrip())
        return self._line(when, payload.level, message("\n".join(parts), lines=True))

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return self._line(when, "WARNING", f"{count} messages lost ({cause})")

    def _line(self, when: float, level: str, text: str) -> bytes:
        paint = _PAINT.get(level) if self._colour else None
        name = f"\x1b[{paint}m{level:<8}\x1b[0m" if paint else f"{message(level):<8}"
        return f"{self._time(when)} {name} {text}\n".encode("utf-8", "backslashreplace")


class Console:
    """What :func:`configure` set up. ``close()`` takes it back."""

    __slots__ = ("handler", "ring")

    def __init__(self, handler: RingHandler) -> None:
        self.handler = handler
        self.ring = handler.ring

    def close(self, timeout: float = 2.0) -> int:
        """Write what waits, end the thread, give the logger back as it was.

        Args:
            timeout: Seconds after which a stuck reader is left behind.

        Returns:
            Lines that were not written in time.
        """
        self.handler.detach()
        return self.ring.close(timeout)


def configure(log: Log, *, fd: int = 2) -> Console:
    """Write the logger ``sojourn`` to standard error, and what the application logs while it sets up nothing itself.

    For who owns the process; a library never sets up logging. Each record made from now on has the ids of its request:
    :func:`sojourn.observe.log.ids.mark_records`.

    Lines are json when ``log.access`` is json, human when it is human or combined, and otherwise human on a terminal
    and json elsewhere. A handler from an earlier call is replaced. Call it in the process that serves: threads don't
    survive a fork.

    Args:
        log: Its ``level`` and ``access`` count.
        fd: Descriptor to write to.
    """
    for old in [handler for handler in logging.getLogger(LOGGER).handlers if isinstance(handler, RingHandler)]:
        old.detach()
        old.ring.close()
    human = log.access in ("human", "combined") or (log.access != "json" and is_terminal(fd))
    form: Form = _HumanMessages(colour=is_coloured(fd)) if human else _JsonMessages()
    handler = RingHandler(Ring(), Sink(form, "console", fd=fd))
    handler.attach(SEVERITY[log.level])
    return Console(handler)
