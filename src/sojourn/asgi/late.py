"""What happens to a request one of whose deadlines has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase

if TYPE_CHECKING:
    from sojourn.asgi.cycle import HttpCycle

__all__ = ["late"]


def late(cycle: HttpCycle, slot: str, now: float) -> None:
    """A deadline of a request has passed: it is answered, if it can be, and its application is cancelled.

    Args:
        cycle: The request.
        slot: Which: ``body``, ``body_total``, ``response_start``, ``handler`` or ``stream``.
        now: Served time, in seconds.
    """
    due = cycle.connection.due
    match slot:
        case "body" | "body_total":
            due.body = due.body_total = NEVER
            word, name = cycle.body_too_slow(now) if slot == "body" else ("request_body_timeout", "body")
            _time_out(cycle, Ending(word, Phase.BODY, How.TIMEOUT, name), 408)
        case "response_start":
            due.response_start = NEVER
            _time_out(cycle, Ending("response_start_timeout", Phase.HANDLER, How.TIMEOUT, slot), 504)
        case "handler":
            due.handler = NEVER
            _handler(cycle)
        case _:
            _stream(cycle, now)


def _handler(cycle: HttpCycle) -> None:
    phase = Phase.RESPONSE if cycle.stage >= 2 else Phase.HANDLER if cycle.begun else Phase.QUEUED
    header = getattr(cycle, "caller", "")
    word = "handler_deadline" if not header else "caller_deadline" if cycle.begun else "caller_deadline_passed"
    if not cycle.begun:
        cycle.leave_queue()
    _time_out(cycle, Ending(word, phase, How.TIMEOUT, header or "handler"), 504)


def _stream(cycle: HttpCycle, now: float) -> None:
    connection = cycle.connection
    idle = cycle.timeout("stream_idle") if cycle.stage != 4 else None
    if idle is None:
        connection.due.stream = NEVER
        return
    # Lazily: a byte moves nothing; what it did is seen here.
    connection.due.stream = max(connection.last_write, connection.last_read) + idle
    if connection.due.stream <= now:
        connection.due.stream = NEVER
        _time_out(cycle, Ending("stream_idle", Phase.RESPONSE, How.TIMEOUT, "stream_idle"), 504)


def _time_out(cycle: HttpCycle, ending: Ending, status: int) -> None:
    cycle.connection.missed(ending)
    cycle.fail(ending, status)
    cycle.cancel(ending.reason)
