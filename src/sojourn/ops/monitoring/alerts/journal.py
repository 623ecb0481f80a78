"""Alerts on durable tasks: what waits too long, what fails, what is lost with its node, a journal that is away."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.alerts.model import Alert, Severity
from sojourn.ops.monitoring.promql import increase, rise

__all__ = ["ALERTS"]

_RUNS: Final = "sojourn_journal_runs_total"
_INTERRUPTIONS: Final = "sojourn_journal_interruptions_total"
_FAILED: Final = increase(_RUNS, "30m", "kind", select='outcome="failed"')
_OVER: Final = increase(_RUNS, "30m", "kind", select='outcome=~"completed|failed"')
_CRASHED: Final = rise(_INTERRUPTIONS, "30m", "kind", select='why="crash"')
_LOST: Final = rise("sojourn_journal_lost_total", "30m", "kind")


def _waiting(severity: Severity, seconds: int, lasts: str) -> Alert:
    return Alert(
        "SojournJournalWaiting",
        severity,
        f"sojourn_journal_due_oldest_seconds > {seconds}",
        lasts,
        "Tasks {{ $labels.kind }} in the journal of {{ $labels.instance }} have waited for "
        "{{ $value | humanizeDuration }}",
        "They are due, and nobody has room for them, or nobody knows the kind. `sojourn journal` shows what runs and "
        "how much room there is: raise concurrency, add `sojourn work` processes, or see why runs take longer.",
    )


def _away(severity: Severity, seconds: int) -> Alert:
    return Alert(
        "SojournJournalAway",
        severity,
        f"sojourn_journal_away_for_seconds > {seconds}",
        "",
        "{{ $labels.instance }} is without its journal of tasks for {{ $value | humanizeDuration }}",
        "Requests are served; submissions get 503, and what runs is cancelled when its lease can't be renewed. Nothing "
        "acknowledged is lost. See whether the engine answers, and whether its disk is full.",
    )


ALERTS: Final = (
    _waiting("warning", 60, "5m"),
    _waiting("critical", 900, "5m"),
    _away("warning", 10),
    _away("critical", 60),
    Alert(
        "SojournJournalFailures",
        "warning",
        f"{_FAILED} / ({_OVER} > 0) > 0.05 and {_FAILED} >= 10",
        "5m",
        "{{ $value | humanizePercentage }} of the tasks {{ $labels.kind }} of {{ $labels.instance }} fail for good",
        "No attempt is left for them. `sojourn journal list --state failed` says why; when the cause is gone, "
        "`sojourn journal retry --kind KIND` tries them again.",
    ),
    Alert(
        "SojournJournalCrashes",
        "warning",
        f"{_CRASHED} >= 3",
        "",
        "{{ $value | humanize }} runs of tasks {{ $labels.kind }} were lost with their node and taken up by "
        "{{ $labels.instance }}",
        "A process ended without handing over: killed, out of memory, or frozen for longer than the lease. A kind that "
        "crashes again and again may be the cause; it fails by itself after its crashes=3.",
    ),
    Alert(
        "SojournJournalLeasesLost",
        "warning",
        f"{_LOST} >= 3",
        "",
        "{{ $labels.instance }} has lost the leases of {{ $value | humanize }} runs of tasks {{ $labels.kind }}",
        "They were done twice, at least in part; only one end counts. The journal was away, or the event loop stood "
        "still, for longer than the lease.",
    ),
)
