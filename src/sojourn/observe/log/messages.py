"""Server messages: events that an operator should read, told through the logger ``sojourn``.

They go through the module logging, not past it, so that an application's own handlers and pytest's ``caplog`` see them.
The event itself travels along as the record's attribute ``event``, for handlers that write fields. What a client chose,
such as a path, is escaped here, because nobody knows what a handler does with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from sojourn.bus import Bus
from sojourn.clock import Clock, SystemClock
from sojourn.ending import REASONS
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    ApplicationFailed,
    CircuitChanged,
    ConfigChanged,
    DeadlineMissed,
    DrainCounted,
    DrainCut,
    DrainParticipantEnded,
    DrainPhaseChanged,
    DrainReported,
    Event,
    LeakFound,
    LeaseOverdue,
    LeaseReturned,
    LifespanFailed,
    LoopStalled,
    PressureChanged,
    RegistrationFailed,
    RestartFailed,
    ServerStarted,
    ServerStopped,
    StoreAway,
    StoreBack,
    TaskEnded,
    TaskFailed,
    TaskHandedOver,
    TaskLost,
    TaskSurvived,
    WorkerEnded,
    WorkerHung,
    WorkerReady,
    WorkerRetired,
    WorkerStarted,
)
from sojourn.observe.log import stores
from sojourn.observe.log.allowance import Allowance
from sojourn.observe.log.durable import DURABLE, Durable, said
from sojourn.observe.log.text import message

__all__ = ["LOGGER", "Messages"]

#: Name of the one logger of the server's messages.
LOGGER = "sojourn"

_CAUSES: Final = {
    "code": "its own thread was busy",
    "gc": "garbage collection",
    "native": "native code kept the interpreter lock",
    "machine": "the process got no processor time",
}
#: What is told only so often, in a word.
Masses = LoopStalled | LeakFound | LeaseOverdue | LeaseReturned | TaskEnded | TaskHandedOver | TaskLost
_WORDS: Final[dict[type[Masses], str]] = {
    LoopStalled: "stalls of the event loop",
    LeakFound: "leaks",
    LeaseOverdue: "overdue leases",
    LeaseReturned: "leases given back",
    TaskEnded: "durable tasks that failed",
    TaskHandedOver: "durable tasks handed over",
    TaskLost: "durable tasks lost",
}


class Messages:
    """Turns events into records of the logger ``sojourn``.

    Args:
        bus: Where the events come from.
        enable: Undo it when the logger was disabled before the server started, because the command line set it up:
            ``logging.config.dictConfig``, called by an application, disables every logger that it doesn't name.
        clock: Its seconds count where a message is told only so often in a minute.
    """

    __slots__ = ("_allowances", "_clock", "_enable", "_forget", "_logger")

    def __init__(self, bus: Bus, *, enable: bool = False, clock: Clock | None = None) -> None:
        self._enable = enable
        self._clock = clock or SystemClock()
        self._allowances: dict[type[Masses], Allowance] = {kind: Allowance() for kind in _WORDS}
        self._logger = logging.getLogger(LOGGER)
        self._forget: list[Callable[[], None]] = [
            bus.observe(DeadlineMissed, self._deadline_missed),
            bus.observe(TaskFailed, self._task_failed),
            bus.observe(TaskSurvived, self._task_survived),
            bus.observe(ApplicationFailed, self._application_failed),
            bus.observe(LoopStalled, self._loop_stalled),
            bus.observe(PressureChanged, self._pressure_changed),
            bus.observe(CircuitChanged, self._circuit_changed),
            bus.observe(LeakFound, self._leak_found),
            bus.observe(LeaseOverdue, self._lease_overdue),
            bus.observe(LeaseReturned, self._lease_returned),
            bus.observe(ConfigChanged, self._config_changed),
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
            bus.observe(StoreAway, self._store_away),
            bus.observe(StoreBack, self._store_back),
            *(bus.observe(kind, self._durable) for kind in DURABLE),
        ]

    def close(self) -> None:
        """End the subscriptions, and tell how many messages were left out since the last of their kind."""
        for forget in self._forget:
            forget()
        self._forget.clear()
        for kind, allowance in self._allowances.items():
            if left_out := allowance.left_out():
                self._logger.warning("%s: %d more were left out", _WORDS[kind], left_out)

    def _tell(self, level: int, event: Event, text: str, *args: Any, error: BaseException | None = None) -> None:
        self._logger.log(level, text, *args, exc_info=error, extra={"event": event})

    def _tell_some(self, level: int, signature: object, event: Masses, text: str) -> None:
        """What may come in masses: the first of a signature, then a few a minute."""
        left_out = self._allowances[type(event)].ask(signature, self._clock.monotonic())
        if left_out is not None:
            more = f" ({left_out} more like this were left out before)" if left_out else ""
            head, newline, rest = text.partition("\n")
            self._tell(level, event, "%s%s%s%s", head, more, newline, rest.rstrip())

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

    def _task_failed(self, event: TaskFailed) -> None:
        of = f" of {message(event.owner)}" if event.owner else ""
        self._tell(logging.ERROR, event, "task %s%s failed", message(event.name), of, error=event.error)

    def _application_failed(self, event: ApplicationFailed) -> None:
        row = REASONS.get(event.reason)
        text = "%s %s on connection %d: %s (%s)"
        what = (message(event.method), message(event.path), event.connection, row.advice if row else "", event.reason)
        self._tell(logging.ERROR, event, text, *what, error=event.error)

    def _loop_stalled(self, event: LoopStalled) -> None:
        where = f" in {message(event.function)}" if event.function else ""
        cause = f" ({_CAUSES.get(event.cause, event.cause)})" if event.cause else ""
        text = f"the event loop stood still for {event.seconds:.2f} s{where}{cause}"
        text += "; deadlines were extended by that much"
        text += f"\n{event.stack}" if event.stack else ""
        self._tell_some(logging.WARNING, (event.cause, event.function), event, text)

    def _circuit_changed(self, event: CircuitChanged) -> None:
        level, state = (logging.WARNING, "opened") if event.open else (logging.INFO, "closed")
        self._tell(level, event, "circuit %s %s: %s", message(event.guard), state, event.detail)

    def _pressure_changed(self, event: PressureChanged) -> None:
        text = "pressure on %s: level %d, it was %d%s; measures: %s"
        why = f" ({event.why})" if event.why else ""
        level = logging.WARNING if event.level > event.before else logging.INFO
        what = (event.cause, event.level, event.before, why, ", ".join(event.measures) or "none")
        self._tell(level, event, text, *what)

    def _leak_found(self, event: LeakFound) -> None:
        text = f"leak: {event.kind} {message(event.what)} made at {message(event.created)}"
        text += f" by {message(event.owner)}" if event.owner else ""
        text += f" is alive after {event.age:.1f} s"
        text += f", waiting at {message(event.waiting)}" if event.waiting else ""
        text += f", held by {message(event.holder)}" if event.holder else ""
        text += f" ({event.known} of this kind)" if event.known > 1 else ""
        text += f"\n{event.stack}" if event.stack else ""
        self._tell_some(logging.WARNING, (event.kind, event.what, event.created, event.waiting), event, text)

    def _lease_overdue(self, event: LeaseOverdue) -> None:
        whom = message(event.owner) or "nobody known"
        text = f"something of {message(event.pool)} is held for {event.seconds:.1f} s by {whom}; it was taken at"
        self._tell_some(logging.WARNING, (event.pool, event.stack), event, f"{text}\n{event.stack}")

    def _lease_returned(self, event: LeaseReturned) -> None:
        whom = message(event.owner) or "nobody known"
        text = f"what {whom} held of {message(event.pool)} was given back after {event.seconds:.1f} s"
        self._tell_some(logging.INFO, event.pool, event, text)

    def _store_away(self, event: StoreAway) -> None:
        self._tell(logging.ERROR, event, "%s", stores.away(event))

    def _store_back(self, event: StoreBack) -> None:
        self._tell(logging.INFO, event, "%s", stores.back(event))

    def _durable(self, event: Durable) -> None:
        if isinstance(event, TaskEnded) and event.state == "completed" and not self._logger.isEnabledFor(logging.DEBUG):
            return  # thousands in a second
        level, signature, text = said(event)
        if signature is None or not isinstance(event, TaskEnded | TaskHandedOver | TaskLost):
            self._tell(level, event, "%s", text)
        else:
            self._tell_some(level, signature, event, text)

    def _config_changed(self, event: ConfigChanged) -> None:
        changes = ", ".join(f"{key} {before!r} -> {now!r}" for key, (before, now) in event.changes.items())
        text = "configuration %d, set by %s: %s"
        self._tell(logging.INFO, event, text, event.version, message(event.who), message(changes))

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
        counts = ", ".join(f"{number} {message(what).replace('_', ' ')}" for what, number in event.counts.items())
        told = f": {counts}" if counts else ""
        if event.problem is None:
            text = "drain: %s is done after %.1f s%s"
            self._tell(logging.INFO, event, text, message(event.name), event.seconds, told)
        else:
            text = "drain: %s failed after %.1f s: %s%s"
            what = (message(event.name), event.seconds, message(event.problem), f" ({counts})" if counts else "")
            self._tell(logging.ERROR, event, text, *what)

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
        if event.addresses:
            self._tell(logging.INFO, event, "listening on %s", ", ".join(event.addresses))
        else:
            self._tell(logging.INFO, event, "started, and listening nowhere")

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
