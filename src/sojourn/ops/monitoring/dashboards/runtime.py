"""Runtime and leaks: event loop, collector, tasks, leases, descriptors, memory, workers, the log."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.dashboards.model import (
    SERVERS,
    Bound,
    Dashboard,
    Panel,
    Row,
    each,
    quantiles,
    rate,
)
from sojourn.ops.monitoring.promql import Query

__all__ = ["DASHBOARD"]

_DESCRIPTORS_LEFT: Final = Query(
    f"min by (instance) (1 - sojourn_fds{{{SERVERS}}} / sojourn_fds_limit{{{SERVERS}}})", "{{instance}}"
)
_COLLECTING: Final = Query(
    f"sum by (generation) (rate(sojourn_gc_pause_seconds_sum{{{SERVERS}}}[$__rate_interval]))",
    "generation {{generation}}",
)

DASHBOARD: Final = Dashboard(
    "sojourn-runtime",
    "Sojourn: runtime and leaks",
    "Event loop, collector, tasks, leaks, descriptors, memory, workers.",
    (
        Row(
            "Event loop",
            (
                Panel(
                    "Lag",
                    "How late the loop comes to what is due. Above 0.1 s (P99) SojournLoopLag fires.",
                    quantiles("sojourn_loop_lag_seconds"),
                    unit="s",
                    bounds=(Bound(0.1, "orange"), Bound(0.5, "red")),
                ),
                Panel(
                    "Stalls",
                    "By cause. code: see sojourn profile stall; gc: the collector; machine: others had the processor.",
                    (rate("sojourn_loop_stalls_total", "cause"),),
                    unit="ops",
                ),
                Panel(
                    "Time stood still",
                    "Share of the time in which nothing was served because of stalls.",
                    (rate("sojourn_loop_stalled_seconds_total", "instance"),),
                    unit="percentunit",
                    bounds=(Bound(0.05, "orange"),),
                ),
                Panel(
                    "Processor",
                    "Cores used, by instance, all workers together.",
                    (rate("sojourn_processor_seconds_total", "instance"),),
                    unit="short",
                ),
                Panel(
                    "Collector's share",
                    "Share of the time spent in the garbage collector.",
                    (_COLLECTING,),
                    unit="percentunit",
                ),
                Panel(
                    "Collector's pauses",
                    "P99 by generation; the loop stands still meanwhile.",
                    quantiles("sojourn_gc_pause_seconds", "generation", shares=(0.99,)),
                    unit="s",
                    bounds=(Bound(0.1, "orange"),),
                ),
            ),
        ),
        Row(
            "Leaks",
            (
                Panel(
                    "Alive past their end",
                    "Named objects by kind. Any is worth a look: sojourn leaks has the line that made each.",
                    (each("sojourn_leaks", "kind"),),
                    bounds=(Bound(1, "orange"),),
                ),
                Panel(
                    "Signatures found",
                    "How many different leaks were found since the start, by kind: lines of code, not objects.",
                    (each("sojourn_leaks_found_total", "kind"),),
                ),
                Panel(
                    "Tasks",
                    "By what they belong to. request and connection follow the load; application should not grow.",
                    (each("sojourn_tasks", "owner"),),
                    stacked=True,
                ),
                Panel(
                    "Tasks that went wrong",
                    "Failed: spawned, and raised. Lost: collected while they ran. Survived: cancelled, still running.",
                    (
                        rate("sojourn_tasks_failed_total", legend="failed"),
                        rate("sojourn_tasks_lost_total", legend="lost"),
                        rate("sojourn_tasks_survived_total", legend="survived"),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Offloaded calls",
                    "Running in threads and processes, and waiting for their turn.",
                    (each("sojourn_offload_calls", "to", "state"),),
                ),
                Panel(
                    "Leases",
                    "Taken from a pool and not given back yet.",
                    (each("sojourn_leases", "pool"),),
                ),
                Panel(
                    "Leases overdue",
                    "Held for longer than diagnostics.lease_held. The log has the stack that took each.",
                    (rate("sojourn_lease_overdue_total", "pool"),),
                    unit="ops",
                ),
                Panel(
                    "Cycles",
                    "Objects that only the collector could free, by generation.",
                    (rate("sojourn_gc_collected_total", "generation"),),
                    unit="ops",
                ),
                Panel(
                    "Never freed",
                    "Objects in cycles that the collector could not free. More than none is a bug in an extension.",
                    (each("sojourn_gc_uncollectable_total", "instance"),),
                    bounds=(Bound(1, "red"),),
                ),
            ),
        ),
        Row(
            "Memory and descriptors",
            (
                Panel(
                    "Resident memory",
                    "All workers together.",
                    (each("sojourn_memory_resident_bytes", "instance"),),
                    unit="bytes",
                ),
                Panel(
                    "Descriptors left",
                    "Share of the limit that is free. Below 20 % SojournFdHeadroom fires.",
                    (_DESCRIPTORS_LEFT,),
                    unit="percentunit",
                    top=1,
                ),
                Panel(
                    "Descriptors and connections",
                    "Descriptors of the worker with most, connections of all. Descriptors alone that rise are a leak.",
                    (
                        each("sojourn_fds", "instance", join="max", legend="{{instance}} descriptors"),
                        each("sojourn_connections", "instance", legend="{{instance}} connections"),
                    ),
                ),
                Panel(
                    "Sockets",
                    "By state of the connection in the kernel. close_wait that rises: somebody does not close.",
                    (each("sojourn_sockets", "state"),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Workers, settings, log",
            (
                Panel(
                    "Workers up",
                    "1 for each worker that serves.",
                    (each("sojourn_worker_up", "instance", "worker"),),
                    stacked=True,
                ),
                Panel(
                    "Last sign of life",
                    "Of each worker's event loop. Above 5 s SojournWorkerHung fires; at worker.heartbeat it is killed.",
                    (each("sojourn_worker_beat_age_seconds", "instance", "worker", join="max"),),
                    unit="s",
                    bounds=(Bound(5, "red"),),
                ),
                Panel(
                    "Replaced",
                    "Workers replaced in the last ten minutes, by cause.",
                    (
                        Query(
                            f"sum by (cause) (increase(sojourn_worker_restarts_total{{{SERVERS}}}[10m]))",
                            "{{cause}}",
                        ),
                    ),
                ),
                Panel(
                    "Start of a worker",
                    "From its start until it serves, imports included.",
                    quantiles("sojourn_worker_start_seconds", shares=(0.95,)),
                    unit="s",
                ),
                Panel(
                    "Log lines lost",
                    "By cause. What is lost is told by no other line.",
                    (rate("sojourn_log_lines_lost_total", "cause"),),
                    unit="ops",
                    bounds=(Bound(0.001, "red"),),
                ),
                Panel(
                    "Versions",
                    "What runs where, and the how-manieth configuration it has.",
                    (
                        Query(
                            f"max by (instance, version, python, loop) (sojourn_build_info{{{SERVERS}}})"
                            f" * on (instance) group_left max by (instance) (sojourn_config_version{{{SERVERS}}})",
                            "",
                        ),
                    ),
                    kind="table",
                ),
            ),
        ),
    ),
)
