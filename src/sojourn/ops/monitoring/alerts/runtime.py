"""Alerts on the process: event loop, leaks, descriptors, workers, the log, and the metrics themselves."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.alerts.model import Alert, Severity
from sojourn.ops.monitoring.promql import per_server, quantile, rate, rise

__all__ = ["ALERTS"]

#: Why a worker ended when nobody had asked for it.
_UNASKED: Final = 'cause=~"crash|hung|failed"'
#: What the machine does to the process is told by another alert.
_OURS: Final = 'cause!="machine"'


def _lag(severity: Severity, bound: float) -> Alert:
    return Alert(
        "SojournLoopLag",
        severity,
        f"{quantile(0.99, 'sojourn_loop_lag_seconds', '5m')} > {bound}",
        "10m",
        "The event loop of {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
        "Everything on this loop waits that long at times. When the processor is busy, see sojourn profile cpu; when "
        "it is not, something blocks in short pieces: sojourn profile stall.",
    )


def _descriptors(severity: Severity, bound: float, lasts: str) -> Alert:
    return Alert(
        "SojournFdHeadroom",
        severity,
        f"min by (job, instance) (1 - sojourn_fds / (sojourn_fds_limit > 0)) < {bound}",
        lasts,
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its descriptors left",
        "Without descriptors nothing can be accepted or opened. Compare with open connections: when they explain it, "
        "raise LimitNOFILE; when not, sojourn leaks names what is left open.",
    )


ALERTS: Final = (
    Alert(
        "SojournLoopStalled",
        "info",
        f"{rise('sojourn_loop_stalls_total', '10m', select=_OURS)} > 0",
        "",
        "The event loop of {{ $labels.instance }} stood still",
        "For longer than diagnostics.stall nothing was served. The log line loop_stalled names the function; "
        "sojourn profile stall has all of them. Move it to a thread, or make it shorter.",
    ),
    Alert(
        "SojournLoopStalled",
        "warning",
        f"{rate('sojourn_loop_stalled_seconds_total', '10m')} > 0.05",
        "",
        "The event loops of {{ $labels.instance }} stand still for {{ $value | humanizePercentage }} of the time",
        "Clients notice this. sojourn profile stall names the functions by the time they took; cause machine in "
        "the log means that the processor was given to others.",
    ),
    _lag("warning", 0.1),
    _lag("critical", 0.5),
    Alert(
        "SojournCollectorPauses",
        "info",
        f"{quantile(0.99, 'sojourn_gc_pause_seconds', '15m', 'generation')} > 0.1",
        "15m",
        "Collections of generation {{ $labels.generation }} on {{ $labels.instance }} take {{ $value | humanize }} s",
        "Many objects are alive, or many cycles are made. sojourn profile heap shows of which type there are most.",
    ),
    Alert(
        "SojournLeak",
        "warning",
        f"{per_server('sojourn_leaks', 'kind')} > 0",
        "10m",
        "{{ $value | humanize }} leaked objects of kind {{ $labels.kind }} in {{ $labels.instance }}",
        "Something lives past its declared end. sojourn leaks names each with the line that made it and the line it "
        "waits at. What is meant to live on is declared with sojourn.adopt or diagnostics.leak_ignore.",
    ),
    Alert(
        "SojournLeak",
        "critical",
        f"{per_server('delta(sojourn_leaks[30m])', 'kind')} > 500",
        "",
        "{{ $labels.instance }} leaks {{ $value | humanize }} objects of kind {{ $labels.kind }} in half an hour",
        "It will run out of memory or descriptors. sojourn leaks names the line; a rolling restart (sojourn restart) "
        "buys time, worker.max_memory more of it.",
    ),
    Alert(
        "SojournTasksLost",
        "warning",
        f"{rise('sojourn_tasks_lost_total', '30m')} > 0",
        "",
        "{{ $labels.instance }} lost {{ $value | humanize }} running tasks to the garbage collector",
        "Nobody held them, so they vanished in the middle of their work. The log names the line that made each "
        "(leak_found, kind lost_task): keep a reference, or use a TaskGroup.",
    ),
    Alert(
        "SojournTasksSurvive",
        "warning",
        f"{rise('sojourn_tasks_survived_total', '30m')} > 0",
        "",
        "{{ $value | humanize }} tasks of {{ $labels.instance }} ignore that they are cancelled",
        "The client left or a deadline passed, and the application goes on. The log names the task with its stack "
        "(task_survived): look for an except that swallows CancelledError.",
    ),
    Alert(
        "SojournLeaseHeld",
        "warning",
        f"{rise('sojourn_lease_overdue_total', '10m', 'pool')} > 0",
        "",
        "{{ $value | humanize }} leases of pool {{ $labels.pool }} are held for too long on {{ $labels.instance }}",
        "Somebody took a connection from a pool and did not give it back within diagnostics.lease_held; others will "
        "wait for it. The log line lease_overdue has the stack that took it, lease_returned follows if all is well.",
    ),
    _descriptors("warning", 0.2, "5m"),
    _descriptors("critical", 0.05, "1m"),
    Alert(
        "SojournWorkerRestarts",
        "warning",
        f"{rise('sojourn_worker_restarts_total', '15m', select=_UNASKED)} > 0",
        "",
        "{{ $value | humanize }} workers of {{ $labels.instance }} ended although nobody had told them to",
        "A crash, a signal (9 is often the kernel that is out of memory) or a hang. The log lines worker_ended and "
        "worker_hung say which, and where a hung one stood.",
    ),
    Alert(
        "SojournWorkerRestarts",
        "critical",
        f"{rise('sojourn_worker_restarts_total', '15m', select=_UNASKED)} >= 5",
        "",
        "Workers of {{ $labels.instance }} end again and again: {{ $value | humanize }} in a quarter of an hour",
        "After worker.failures in a row the supervisor gives up with exit code 7. The last worker_ended line says why.",
    ),
    Alert(
        "SojournWorkerHung",
        "critical",
        "max by (job, instance, worker) (sojourn_worker_beat_age_seconds) > 5",
        "",
        "Worker {{ $labels.worker }} of {{ $labels.instance }} gave no sign of life for {{ $value | humanize }} s",
        "Its event loop stands still, and its clients with it; after worker.heartbeat it is killed and replaced. "
        "sojourn stacks --worker {{ $labels.worker }} shows where it is: the supervisor answers for it.",
    ),
    Alert(
        "SojournNoWorker",
        "critical",
        "sum by (job, instance) (sojourn_worker_up) == 0",
        "1m",
        "No worker of {{ $labels.instance }} serves",
        "The supervisor answers, nobody else does. The log says why workers do not start (worker_ended, problem).",
    ),
    Alert(
        "SojournLogLinesLost",
        "warning",
        f"{rise('sojourn_log_lines_lost_total', '10m', 'cause')} > 0",
        "",
        "{{ $labels.instance }} lost {{ $value | humanize }} log lines ({{ $labels.cause }})",
        "Whoever reads the log is slower than it is written, or the disk is full. What is lost is told by no other "
        "line, so do not conclude from silence.",
    ),
    Alert(
        "SojournMetricsStale",
        "critical",
        "up == 0 and on (job, instance) count by (job, instance) (last_over_time(sojourn_build_info[1h]))",
        "2m",
        "{{ $labels.instance }} served metrics within the hour, and does not answer any more",
        "Every other alert is blind for it. Is the process there (systemctl status), does the admin listener answer "
        "(sojourn status), can Prometheus reach it?",
    ),
)
