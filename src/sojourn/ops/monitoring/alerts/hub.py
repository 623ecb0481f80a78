"""Alerts on hubs: slow members, gaps, an engine that is away."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.alerts.model import Alert, Severity
from sojourn.ops.monitoring.promql import increase, per_server, rate

__all__ = ["ALERTS"]

_MEMBERS: Final = per_server("sojourn_hub_members")
_GAPS: Final = "sojourn_hub_gaps_total"
_SLOW: Final = 'code="4008"'


def _away(severity: Severity, seconds: int) -> Alert:
    return Alert(
        "SojournHubEngineAway",
        severity,
        f"sojourn_hub_engine_away_for_seconds > {seconds}",
        "",
        "The hub of {{ $labels.instance }} is without its engine for {{ $value | humanizeDuration }}",
        "Members of one worker still hear each other; those of other workers and nodes do not, and nobody can resume. "
        "See whether Redis answers, and whether its address or password has changed; `sojourn hub` shows the engine.",
    )


ALERTS: Final = (
    Alert(
        "SojournHubSlowMembers",
        "info",
        f"sojourn_hub_members_slow > 10 and sojourn_hub_members_slow / on (job, instance) ({_MEMBERS} > 0) > 0.05",
        "5m",
        "{{ $value | humanize }} members of the hub of {{ $labels.instance }} do not take what is sent to them",
        "More than one of twenty members is behind. `sojourn hub` names them: one network or one kind of client points "
        "there, all of them to more messages than clients can take.",
    ),
    Alert(
        "SojournHubSlowMembers",
        "warning",
        f"{rate('sojourn_hub_closes_total', '10m', select=_SLOW)} > 1",
        "10m",
        "The hub of {{ $labels.instance }} closes {{ $value | humanize }} members a second for being slow",
        "They come back, resume, and are slow again: that costs more than it brings. Publish less to that channel, or "
        "give it on_full='latest' where only the latest counts; see which channels they are in with `sojourn hub`.",
    ),
    Alert(
        "SojournHubGaps",
        "warning",
        f"{rate(_GAPS, '10m')} > 0.1 and {increase(_GAPS, '10m')} >= 20",
        "5m",
        "The hub of {{ $labels.instance }} tells members of {{ $value | humanize }} gaps a second",
        "Members load their state anew because publications are missing. Their history is too short for the time they "
        "are away (History size and ttl), a channel drops messages, or the engine has lost its store.",
    ),
    _away("warning", 10),
    _away("critical", 120),
)
