"""Deadlines, overload and guards: what comes too late, what is refused, what is called no more."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.dashboards.model import Bound, Dashboard, Panel, Row, each, rate

__all__ = ["DASHBOARD"]

DASHBOARD: Final = Dashboard(
    "sojourn-overload",
    "Sojourn: deadlines, overload and guards",
    "What comes too late, what is refused, and which dependencies are not called any more.",
    (
        Row(
            "Deadlines",
            (
                Panel(
                    "Missed",
                    "By deadline; application: one of its own that nobody caught.",
                    (rate("sojourn_deadlines_missed_total", "deadline"),),
                    unit="ops",
                ),
                Panel(
                    "Of callers",
                    "Requests that brought a deadline. refused: no time was left; let_through: too many were refused.",
                    (rate("sojourn_caller_deadlines_total", "outcome"),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Overload",
            (
                Panel(
                    "Requests that may run at once",
                    "As admission.mode adaptive has found out; it follows how long requests wait to be begun.",
                    (
                        each("sojourn_requests_limit", "instance", legend="limit {{instance}}"),
                        each("sojourn_requests_running", "instance", legend="running {{instance}}"),
                    ),
                ),
                Panel(
                    "Shed",
                    "Requests not begun because of overload, by priority and reason.",
                    (rate("sojourn_requests_shed_total", "priority", "reason"),),
                    unit="reqps",
                ),
                Panel(
                    "Pressure",
                    "Measures taken because there is too little of something; 0 is none, 5 closes the slowest.",
                    (each("sojourn_pressure_level", "cause", join="max"),),
                    bounds=(Bound(1, "yellow"), Bound(3, "orange"), Bound(5, "red")),
                    top=5.0,
                ),
            ),
        ),
        Row(
            "Guards",
            (
                Panel(
                    "Calls",
                    "By guard and what became of them.",
                    (rate("sojourn_guard_calls_total", "guard", "outcome"),),
                    unit="ops",
                ),
                Panel(
                    "Circuits",
                    "0 closed, 1 half-open, 2 open: the dependency fails or is slow, and is not called.",
                    (each("sojourn_guard_state", "guard", join="max"),),
                    bounds=(Bound(1, "orange"), Bound(2, "red")),
                    top=2.0,
                ),
                Panel(
                    "Running",
                    "Calls that a guard let through and that have not ended.",
                    (each("sojourn_guard_running", "kind", "guard"),),
                ),
                Panel(
                    "Waiting",
                    "Calls that wait at a guard: a bulkhead or workers without a free place.",
                    (each("sojourn_guard_waiting", "kind", "guard"),),
                    bounds=(Bound(1, "yellow"),),
                ),
            ),
        ),
    ),
)
