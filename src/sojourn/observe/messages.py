"""Server messages: events that an operator should read, told through the logger ``sojourn``.

They go through the module logging, not past it, so that an application's own handlers and pytest's ``caplog`` see them.
The event itself travels along as the record's attribute ``event``, for handlers that write fields. What a client chose,
such as a path, is escaped here, because nobody knows what a handler does with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sojourn.bus import Bus
from sojourn.ending import REASONS
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    ApplicationFailed,
    DeadlineMissed,
    DrainCut,
    DrainPhaseChanged,
    Event,
    LifespanFailed,
    LoopStalled,
    ServerStarted,
    ServerStopped,
    TaskSurvived,
)
from sojourn.observe.text import message

__all__ = ["LOGGER", "Messages"]

#: Name of the one logger of the server's messages.
LOGGER = "sojourn"


class Messages:
    """Turns events into records of the logger ``sojourn``.

    Args:
        bus: Where the events come from.
        enable: Undo it when the logger was disabled before the server started, because the command line set it up:
            ``logging.config.dictConfig``, called by an application, disables every logger that it doesn't name.
    """

    __slots__ = ("_enable", "_forget", "_logger")

    def __init__(self, bus: Bus, *, enable: bool = False) -> None:
        self._enable = enable
        self._logger = logging.getLogger(LOGGER)
        self._forget: list[Callable[[], None]] = [
            bus.observe(DeadlineMissed, self._deadline_missed),
            bus.observe(TaskSurvived, self._task_survived),
            bus.observe(ApplicationFailed, self._application_failed),
            bus.observe(LoopStalled, self._loop_stalled),
            bus.observe(AcceptPaused, self._accept_paused),
            bus.observe(AcceptResumed, self._accept_resumed),
            bus.observe(DrainPhaseChanged, self._drain_phase_changed),
            bus.observe(DrainCut, self._drain_cut),
            bus.observe(LifespanFailed, self._lifespan_failed),
            bus.observe(ServerStarted, self._server_started),
            bus.observe(ServerStopped, self._server_stopped),
        ]

    def close(self) -> None:
        """End the subscriptions."""
        for forget in self._forget:
            forget()
        self._forget.clear()

    def _tell(self, level: int, event: Event, text: str, *args: Any, error: BaseException | None = None) -> None:
        self._logger.log(level, text, *args, exc_info=error, extra={"event": event})

    def _deadline_missed(self, event: DeadlineMissed) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            text = "connection %d %s: deadline %s of %g s passed"
            self._tell(logging.DEBUG, event, text, event.connection, message(event.path), event.deadline, event.seconds)

    def _task_survived(self, event: TaskSurvived) -> None:
        name, owner = message(event.name), message(event.owner)
        if event.ended:
            text = "task %s of %s has ended, %.1f s after it was cancelled (%s)"
            self._tell(logging.INFO, event, text, name, owner, event.seconds, event.cause)
        else:
            text = "task %s of %s still runs, %.1f s after it was cancelled (%s); it is at\n%s"
            self._tell(logging.WARNING, event, text, name, owner, event.seconds, event.cause, event.stack.rstrip())

    def _application_failed(self, event: ApplicationFailed) -> None:
        row = REASONS.get(event.reason)
        text = "%s %s on connection %d: %s (%s)"
        what = (message(event.method), message(event.path), event.connection, row.advice if row else "", event.reason)
        self._tell(logging.ERROR, event, text, *what, error=event.error)

    def _loop_stalled(self, event: LoopStalled) -> None:
        text = "the event loop stood still for %.2f s; deadlines were extended by that much"
        self._tell(logging.WARNING, event, text, event.seconds)

    def _accept_paused(self, event: AcceptPaused) -> None:
        self._tell(logging.ERROR, event, "%s: accepting is paused: %s", event.listener, message(event.cause))

    def _accept_resumed(self, event: AcceptResumed) -> None:
        self._tell(logging.INFO, event, "%s: accepting again after %.1f s", event.listener, event.seconds)

    def _drain_phase_changed(self, event: DrainPhaseChanged) -> None:
        text = "drain: %s, %.1f s left: %d requests, %d streams, %d websockets, %d idle"
        counts = (event.requests, event.streams, event.sockets, event.idle)
        self._tell(logging.INFO, event, text, event.phase, event.left, *counts)

    def _drain_cut(self, event: DrainCut) -> None:
        what = f"{event.what} {message(event.route)}".rstrip()
        if event.connection:
            what += f", connection {event.connection} of {event.peer}, {event.age:.1f} s old, in phase {event.phase}"
        stack = f"; it was at\n{event.stack.rstrip()}" if event.stack else ""
        self._tell(logging.WARNING, event, "drain: cut %s%s", what, stack)

    def _lifespan_failed(self, event: LifespanFailed) -> None:
        level = logging.WARNING if event.phase == "startup" else logging.ERROR
        self._tell(level, event, "the application %s", message(event.problem), error=event.error)

    def _server_started(self, event: ServerStarted) -> None:
        if self._enable:
            self._logger.disabled = False
        self._tell(logging.INFO, event, "listening on %s", ", ".join(event.addresses))

    def _server_stopped(self, event: ServerStopped) -> None:
        text = "stopped: %d connections finished, %d cut"
        self._tell(logging.INFO, event, text, event.finished, event.cut)
