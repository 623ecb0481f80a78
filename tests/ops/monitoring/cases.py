"""For each tier of each alert: series with which it fires, and series that come close and do not make it fire.

Values are promtool's: one a minute, ``0+5x30`` begins at 0 and rises by 5 thirty times. Job and instance are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["CALM", "CASES", "Case"]

Series = Mapping[str, str]


class Case(NamedTuple):
    """Series, and the minute in which one looks; ``quiet`` is that of the silent ones when it is another."""

    fires: Series
    silent: Series
    minute: int = 30
    quiet: int = 0

    @property
    def long(self) -> bool:
        """Whether it takes hours."""
        return self.minute > 120


def latency(le: str) -> Series:
    """A request a second, each of which takes as long as this bucket says."""
    bounds = [".25", ".5", "1", "2.5", "5", "+Inf"]
    buckets = {f'http_server_request_duration_seconds_bucket{{le="{b}"}}': "0x60" for b in bounds[: bounds.index(le)]}
    full = {f'http_server_request_duration_seconds_bucket{{le="{b}"}}': "0+60x60" for b in bounds[bounds.index(le) :]}
    return {**buckets, **full, "http_server_request_duration_seconds_count": "0+60x60"}


def answers(bad: int, minutes: int, good: int = 1000) -> Series:
    """HTTP answers a minute: so many with 500, so many with 200."""
    name = "http_server_request_duration_seconds_count"
    return {
        f'{name}{{http_response_status_code="200"}}': f"0+{good}x{minutes}",
        f'{name}{{http_response_status_code="500"}}': f"0+{bad}x{minutes}",
    }


def ends(minutes: int, **counts: int) -> Series:
    """Ends of requests a minute, by fault."""
    return {f'sojourn_requests_ended_total{{fault="{fault}"}}': f"0+{n}x{minutes}" for fault, n in counts.items()}


def reasons(total: str, **counts: int) -> Series:
    """Ends a minute, by reason."""
    return {f'{total}{{reason="{reason}"}}': f"0+{n}x60" for reason, n in counts.items()}


def lag(le: str, name: str = "sojourn_loop_lag_seconds", extra: str = "") -> Series:
    """Ten a second in this bucket of a histogram."""
    bounds = [".05", ".1", ".5", "1", "5", "+Inf"]
    at = bounds.index(le)
    return {f'{name}_bucket{{le="{b}"{extra}}}': "0+600x60" if i >= at else "0x60" for i, b in enumerate(bounds)}


def busy(seconds: int) -> Series:
    """Two workers that use so many seconds of processor a minute, together."""
    return {"sojourn_processor_seconds_total": f"0+{seconds}x60", 'sojourn_worker_up{worker="1"}': "1x60"} | {
        'sojourn_worker_up{worker="2"}': "1x60"
    }


def limit(connections: int) -> Series:
    """So many connections of 10,000."""
    return {
        'sojourn_connections{protocol="http"}': "100x60",
        'sojourn_connections{protocol="websocket"}': f"{connections - 100}x60",
        "sojourn_connections_limit": "10000x60",
    }


_CLOSES: Final = "sojourn_hub_closes_total"
_AWAY: Final = "sojourn_hub_engine_away_for_seconds"
_GAPS: Final = "sojourn_hub_gaps_total"
_RUNS: Final = "sojourn_journal_runs_total"
_OLDEST: Final = 'sojourn_journal_due_oldest_seconds{kind="export"}'
_JOURNAL: Final = "sojourn_journal_away_for_seconds"
_CRASHED: Final = 'sojourn_journal_interruptions_total{kind="export",why="crash"}'
_LOST: Final = 'sojourn_journal_lost_total{kind="export"}'
_REQUESTS: Final = "sojourn_requests_ended_total"
_ENDED: Final = "sojourn_connections_ended_total"
_SOCKETS: Final = f'{_ENDED}{{protocol="websocket"'
_ACCEPTED: Final = "sojourn_connections_accepted_total"
_RESTARTS: Final = "sojourn_worker_restarts_total"


def outcomes(minutes: int, **counts: int) -> Series:
    """Ends of runs a minute, by outcome."""
    return {f'{_RUNS}{{kind="export",outcome="{word}"}}': f"0+{n}x{minutes}" for word, n in counts.items()}


CASES: Final[Mapping[tuple[str, str], Case]] = {
    ("SojournLatency", "warning"): Case(latency("1"), latency(".5")),
    ("SojournLatency", "critical"): Case(latency("5"), latency("1")),
    ("SojournErrors", "critical"): Case(answers(20, 90), answers(8, 90), 70),
    ("SojournErrors", "warning"): Case(answers(7, 400), answers(4, 400), 380),
    ("SojournFaults", "critical"): Case(
        ends(90, none=1000, app=10) | {f'{_SOCKETS},fault="server"}}': "0+10x90"}, ends(90, none=1000, app=5), 70
    ),
    ("SojournFaults", "warning"): Case(
        ends(400, none=1000, overload=7), ends(400, none=1000, client=500, network=50, shutdown=50), 380
    ),
    ("SojournProcessorBusy", "warning"): Case(busy(105), busy(95)),
    ("SojournProcessorBusy", "critical"): Case(busy(118), busy(110)),
    ("SojournQueueWait", "warning"): Case(
        lag("1", "sojourn_request_queue_wait_seconds"), lag(".1", "sojourn_request_queue_wait_seconds")
    ),
    ("SojournShedding", "critical"): Case(ends(60, overload=120), ends(60, overload=30)),
    ("SojournConnectionsNearLimit", "warning"): Case(limit(8500), limit(7900)),
    ("SojournConnectionsNearLimit", "critical"): Case(limit(9800), limit(9000)),
    ("SojournAcceptPaused", "critical"): Case({"sojourn_accept_paused": "1x60"}, {"sojourn_accept_paused": "0x29 1x0"}),
    ("SojournSlowConsumers", "info"): Case(
        {"sojourn_connections_behind": "50x60", "sojourn_connections": "300x60"},
        {"sojourn_connections_behind": "50x60", "sojourn_connections": "3000x60"},
    ),
    ("SojournBuffered", "warning"): Case(
        {"sojourn_buffered_bytes": "300000000x60"}, {"sojourn_buffered_bytes": "100000000x60"}
    ),
    ("SojournPongTimeouts", "warning"): Case(
        reasons(_ENDED, pong_timeout=5, tcp_dead=5, completed=20), reasons(_ENDED, pong_timeout=5, completed=50)
    ),
    ("SojournClientsLeave", "info"): Case(
        reasons(_REQUESTS, client_closed_request=10, completed=100),
        reasons(_REQUESTS, client_closed_request=3, completed=100),
    ),
    ("SojournClientsLeave", "warning"): Case(
        reasons(_REQUESTS, client_reset=40, completed=100), reasons(_REQUESTS, client_reset=10, completed=100)
    ),
    # 5 a second as always, then 50 a second; a constant 50 a second is what this server is used to.
    ("SojournReconnectStorm", "warning"): Case({_ACCEPTED: "0+300x60 18000+3000x10"}, {_ACCEPTED: "0+3000x70"}, 66),
    ("SojournDrainStuck", "critical"): Case(
        {'sojourn_drain_phase{phase="persist"}': "1x60", "sojourn_drain_left_seconds": "60 0x60"},
        {'sojourn_drain_phase{phase="finish"}': "1x60", "sojourn_drain_left_seconds": "3600-60x60"},
        10,
    ),
    ("SojournDrainForced", "warning"): Case(
        {f'{_ENDED}{{reason="drain_forced"}}': "0x20 7x40"}, {f'{_ENDED}{{reason="drain_goodbye"}}': "0x20 7x40"}
    ),
    ("SojournHubSlowMembers", "info"): Case(
        {"sojourn_hub_members_slow": "50x60", 'sojourn_hub_members{transport="sse"}': "300x60"},
        {"sojourn_hub_members_slow": "50x60", 'sojourn_hub_members{transport="sse"}': "3000x60"},
    ),
    ("SojournHubSlowMembers", "warning"): Case(
        {f'{_CLOSES}{{code="4008"}}': "0+120x60"},
        {f'{_CLOSES}{{code="4008"}}': "0+30x60", f'{_CLOSES}{{code="1012"}}': "0+600x60"},
    ),
    ("SojournHubGaps", "warning"): Case({_GAPS: "0+12x60"}, {_GAPS: "0+3x60"}),
    ("SojournHubEngineAway", "warning"): Case({_AWAY: "0x29 20+60x30"}, {_AWAY: "5x60"}),
    ("SojournHubEngineAway", "critical"): Case({_AWAY: "0x27 20+60x30"}, {_AWAY: "100x60"}),
    ("SojournJournalWaiting", "warning"): Case({_OLDEST: "0x20 70+60x40"}, {_OLDEST: "50x60"}),
    ("SojournJournalWaiting", "critical"): Case({_OLDEST: "0x10 60+60x50"}, {_OLDEST: "800x60"}, minute=40),
    ("SojournJournalAway", "warning"): Case({_JOURNAL: "0x29 20+60x30"}, {_JOURNAL: "5x60"}),
    ("SojournJournalAway", "critical"): Case({_JOURNAL: "0x28 20+60x30"}, {_JOURNAL: "55x60"}),
    ("SojournJournalFailures", "warning"): Case(
        outcomes(60, completed=100, failed=10, retry=50), outcomes(60, completed=1000, failed=10, retry=900)
    ),
    ("SojournJournalCrashes", "warning"): Case({_CRASHED: "0x20 4x40"}, {_CRASHED: "0x20 2x40"}),
    ("SojournJournalLeasesLost", "warning"): Case({_LOST: "0x20 4x40"}, {_LOST: "0x20 2x40"}),
    ("SojournLoopStalled", "info"): Case(
        {'sojourn_loop_stalls_total{cause="code"}': "_x25 1x20"},
        {'sojourn_loop_stalls_total{cause="machine"}': "0+1x60"},
    ),
    ("SojournLoopStalled", "warning"): Case(
        {"sojourn_loop_stalled_seconds_total": "0+6x60"}, {"sojourn_loop_stalled_seconds_total": "0+2x60"}
    ),
    ("SojournLoopLag", "warning"): Case(lag(".5"), lag(".1")),
    ("SojournLoopLag", "critical"): Case(lag("5"), lag(".5")),
    ("SojournCollectorPauses", "info"): Case(
        lag(".5", "sojourn_gc_pause_seconds", ',generation="2"'),
        lag(".05", "sojourn_gc_pause_seconds", ',generation="2"'),
        40,
    ),
    ("SojournLeak", "warning"): Case(
        {'sojourn_leaks{kind="task"}': "0x5 1x60"}, {'sojourn_leaks{kind="task"}': "0x60"}
    ),
    ("SojournLeak", "critical"): Case(
        {'sojourn_leaks{kind="task"}': "0+50x60"}, {'sojourn_leaks{kind="task"}': "900x60"}, 40
    ),
    ("SojournTasksLost", "warning"): Case(
        {"sojourn_tasks_lost_total": "0x20 1x40"}, {"sojourn_tasks_lost_total": "1x60"}, 45
    ),
    ("SojournTasksSurvive", "warning"): Case(
        {"sojourn_tasks_survived_total": "0x20 1x40"}, {"sojourn_tasks_survived_total": "1x60"}, 45
    ),
    ("SojournLeaseHeld", "warning"): Case(
        {'sojourn_lease_overdue_total{pool="pg"}': "_x25 1x30"}, {'sojourn_lease_overdue_total{pool="pg"}': "_x2 1x60"}
    ),
    ("SojournFdHeadroom", "warning"): Case(
        {"sojourn_fds": "850x60", "sojourn_fds_limit": "1024x60"},
        {"sojourn_fds": "700x60", "sojourn_fds_limit": "1024x60"},
    ),
    ("SojournFdHeadroom", "critical"): Case(
        {"sojourn_fds": "1000x60", "sojourn_fds_limit": "1024x60"},
        {"sojourn_fds": "900x60", "sojourn_fds_limit": "1024x60"},
    ),
    ("SojournWorkerRestarts", "warning"): Case(
        {f'{_RESTARTS}{{cause="crash"}}': "_x20 1x40"}, {f'{_RESTARTS}{{cause="max_requests"}}': "0+1x60"}
    ),
    ("SojournWorkerRestarts", "critical"): Case(
        {f'{_RESTARTS}{{cause="crash"}}': "0+1x60"}, {f'{_RESTARTS}{{cause="crash"}}': "_x20 1x40"}
    ),
    ("SojournWorkerHung", "critical"): Case(
        {'sojourn_worker_beat_age_seconds{worker="3"}': "0x29 7x0"},
        {'sojourn_worker_beat_age_seconds{worker="3"}': "1x60"},
    ),
    ("SojournNoWorker", "critical"): Case(
        {'sojourn_worker_up{worker="1"}': "1x20 0x40"},
        {'sojourn_worker_up{worker="1"}': "1x20 0x40", 'sojourn_worker_up{worker="2"}': "0x20 1x40"},
    ),
    ("SojournLogLinesLost", "warning"): Case(
        {'sojourn_log_lines_lost_total{cause="dropped"}': "_x25 12x30"},
        {'sojourn_log_lines_lost_total{cause="dropped"}': "12x60"},
    ),
    # Who was never a Sojourn, or has not been one for an hour, is somebody else's concern.
    ("SojournMetricsStale", "critical"): Case(
        {"up": "1x20 0x40", "sojourn_build_info": "1x20"}, {"up": "1x20 0x100", "sojourn_build_info": "1x20"}, quiet=100
    ),
}

#: A server under load with which all is well.
CALM: Final[Series] = {
    **latency(".25"),
    **answers(0, 400),
    **ends(400, none=1000, client=20, shutdown=1, app=0, server=0, overload=0),
    **busy(60),
    **limit(4000),
    **lag(".05"),
    "sojourn_accept_paused": "0x400",
    "sojourn_connections_behind": "3x400",
    "sojourn_buffered_bytes": "1000000x400",
    "sojourn_hub_members_slow": "5x400",
    'sojourn_hub_members{transport="direct"}': "2000x400",
    f'{_CLOSES}{{code="4008"}}': "0+1x400",
    _GAPS: "0+1x400",
    _AWAY: "0x400",
    _OLDEST: "2x400",
    _JOURNAL: "0x400",
    _CRASHED: "0x400",
    _LOST: "0x400",
    **outcomes(400, completed=1000, retry=20, failed=1, handover=0),
    _ACCEPTED: "0+600x400",
    f'{_ENDED}{{reason="completed"}}': "0+600x400",
    f'{_ENDED}{{reason="drain_forced"}}': "0x400",
    'sojourn_drain_phase{phase="finish"}': "0x400",
    "sojourn_drain_left_seconds": "0x400",
    'sojourn_loop_stalls_total{cause="code"}': "0x400",
    "sojourn_loop_stalled_seconds_total": "0x400",
    'sojourn_leaks{kind="task"}': "0x400",
    "sojourn_tasks_lost_total": "0x400",
    "sojourn_tasks_survived_total": "0x400",
    'sojourn_lease_overdue_total{pool="pg"}': "0x400",
    "sojourn_fds": "400x400",
    "sojourn_fds_limit": "1024x400",
    f'{_RESTARTS}{{cause="restart"}}': "0+1x400",
    'sojourn_worker_beat_age_seconds{worker="1"}': "0.2x400",
    'sojourn_log_lines_lost_total{cause="dropped"}': "0x400",
}
