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
    DrainCounted,
    DrainCut,
    DrainParticipantEnded,
    DrainPhaseChanged,
    DrainReported,
    Event,
    LifespanFailed,
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
from sojourn.observe.log.text import message

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
            bus.observe(DrainCounted, self._drain_counted),
            bus.observe(DrainParticipantEnded, self._drain_participant_ended),
            bus.observe(DrainCut, self._drain_cut),
            bus.observe(DrainReported, self._drain_reported),
            bus.observe(LifespanFailed, self._lifespan_failed),
            bus.observe(ServerStarted, self._server_started),
            bus.observe(ServerStopped, self._server_stopped),
            bus.observe(WorkerStarted, self._worker_started),
            bus.observe(WorkerReady, self._worker_ready),
            bus.observe(WorkerRetired, self._worker_retired),
            bus.observe(WorkerEnded, self._worker_ended),
            bus.observe(WorkerHung, self._worker_hung),
            bus.observe(RestartFailed, self._restart_failed),
            bus.observe(RegistrationFailed, self._registration_failed),
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
        self._drain("begins", event)

    def _drain_counted(self, event: DrainCounted) -> None:
        self._drain("goes on", event)

    def _drain(self, what: str, event: DrainPhaseChanged | DrainCounted) -> None:
        text = "drain%s: %s %s, %.1f s left: %d requests, %d streams, %d websockets, %d idle"
        of = f" of {message(event.instance)}" if event.instance else ""
        counts = (event.requests, event.streams, event.sockets, event.idle)
        self._tell(logging.INFO, event, text, of, event.phase, what, event.left, *counts)

    def _drain_reported(self, event: DrainReported) -> None:
        told = "; ".join(
            f"{kind} {tally['finished']} finished, {tally['cut']} cut"
            for kind, tally in event.kinds.items()
            if tally["open"]
        )
        text = "drained%s in %.1f s: %s; %d WebSockets did not answer, exit code %d"
        of = f" {message(event.instance)}" if event.instance else ""
        level = logging.WARNING if event.exit_code else logging.INFO
        self._tell(level, event, text, of, event.seconds, told or "nothing was open", event.unanswered, event.exit_code)

    def _drain_participant_ended(self, event: DrainParticipantEnded) -> None:
        if event.problem is None:
            self._tell(logging.INFO, event, "drain: %s is done after %.1f s", message(event.name), event.seconds)
        else:
            text = "drain: %s failed after %.1f s: %s"
            self._tell(logging.ERROR, event, text, message(event.name), event.seconds, message(event.problem))

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

    def _worker_started(self, event: WorkerStarted) -> None:
        level = logging.DEBUG if event.why == "start" else logging.INFO
        self._tell(level, event, "worker %d (process %d) starts: %s", event.worker, event.pid, message(event.why))

    def _worker_ready(self, event: WorkerReady) -> None:
        text = "worker %d (process %d) serves after %.1f s"
        self._tell(logging.INFO, event, text, event.worker, event.pid, event.seconds)

    def _worker_retired(self, event: WorkerRetired) -> None:
        text = "worker %d (process %d) drains, another serves in its place: %s"
        self._tell(logging.INFO, event, text, event.worker, event.pid, message(event.why))

    def _worker_ended(self, event: WorkerEnded) -> None:
        how = f"code {event.code}" if event.code >= 0 else f"signal {-event.code}"
        problem = f": {message(event.problem)}" if event.problem else ""
        if event.expected:
            text = "worker %d (process %d) has ended with %s%s"
            self._tell(logging.INFO, event, text, event.worker, event.pid, how, problem)
            return
        then = "" if event.again is None else "; replaced now" if not event.again else f"; again in {event.again:g} s"
        text = "worker %d (process %d) ended unasked with %s%s%s"
        self._tell(logging.ERROR, event, text, event.worker, event.pid, how, problem, then)

    def _worker_hung(self, event: WorkerHung) -> None:
        text = "worker %d (process %d) gave no sign of life for %.1f s and is killed; it was at\n%s"
        self._tell(logging.ERROR, event, text, event.worker, event.pid, event.seconds, event.stacks.rstrip())

    def _restart_failed(self, event: RestartFailed) -> None:
        text = "%s given up, what served before serves on: %s"
        self._tell(logging.ERROR, event, text, message(event.what), message(event.problem, lines=True))

    def _registration_failed(self, event: RegistrationFailed) -> None:
        text = "the service registry could not be told (%s), serving goes on: %s"
        self._tell(logging.WARNING, event, text, event.call, message(event.problem))
