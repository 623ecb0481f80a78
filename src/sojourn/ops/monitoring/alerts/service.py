"""Alerts on what clients get: time, errors, refusals; and the processor that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sojourn.ops.monitoring.alerts.model import Alert, Recorded, Severity
from sojourn.ops.monitoring.promql import HTTP, OURS, per_server, quantile, rate

__all__ = ["ALERTS", "RECORDED"]

#: Windows of the error ratios: a short one ends an alert soon after the errors do, a long one keeps it from a blip.
_SECONDS: Final = {"5m": 300, "30m": 1800, "1h": 3600, "6h": 21600}
#: Fewer than this many in the long window are no ratio.
_ENOUGH: Final = 10
#: Faults that are ours: clients and networks never page anyone, and a drain is no fault.
_5XX: Final = 'http_response_status_code=~"5.."'
_ENDED: Final = "sojourn_requests_ended_total"
_OUR_FAULT: Final = 'fault=~"app|server|overload"'
_OVERLOAD: Final = 'fault="overload"'


def _all_kinds(window: str, select: str) -> str:
    """Ends a second of requests and event streams, which are counted together, and of WebSockets."""
    sockets = f'sojourn_connections_ended_total{{protocol="websocket",{select}}}'
    return per_server(f"rate({_ENDED}{{{select}}}[{window}]) or rate({sockets}[{window}])")


def _ratios() -> Iterator[Recorded]:
    """What fails a second, and its share of everything, for each window."""
    for window in _SECONDS:
        failed, every = rate(f"{HTTP}_count", window, select=_5XX), rate(f"{HTTP}_count", window)
        yield Recorded(f"sojourn:http_errors:rate{window}", f"{failed} {OURS}")
        yield Recorded(f"sojourn:http_errors:ratio_rate{window}", f"sojourn:http_errors:rate{window} / ({every} > 0)")
        faults, ended = _all_kinds(window, _OUR_FAULT), _all_kinds(window, 'fault=~".+"')
        yield Recorded(f"sojourn:faults:rate{window}", faults)
        yield Recorded(f"sojourn:faults:ratio_rate{window}", f"sojourn:faults:rate{window} / ({ended} > 0)")


RECORDED: Final = (
    Recorded("sojourn:http_requests:rate5m", f"{rate(f'{HTTP}_count', '5m')} {OURS}"),
    Recorded("sojourn:http_request_duration_seconds:p50_5m", f"{quantile(0.5, HTTP, '5m')} {OURS}"),
    Recorded("sojourn:http_request_duration_seconds:p99_5m", f"{quantile(0.99, HTTP, '5m')} {OURS}"),
    Recorded(
        "sojourn:processor:ratio_rate5m",
        f"{rate('sojourn_processor_seconds_total', '5m')} / (sum by (job, instance) (sojourn_worker_up) > 0)",
    ),
    *_ratios(),
)


def _latency(severity: Severity, bound: float) -> Alert:
    return Alert(
        "SojournLatency",
        severity,
        f"sojourn:http_request_duration_seconds:p99_5m > {bound} and sojourn:http_requests:rate5m > 0.1",
        "5m",
        "P99 of {{ $labels.instance }} is {{ $value | humanizeDuration }}",
        f"One of a hundred plain HTTP requests takes longer than {bound} s. Find the route on the overview dashboard, "
        "then whether the time is spent computing (sojourn profile cpu) or waiting (sojourn profile wait).",
    )


def _burning(name: str, of: str, summary: str, description: str) -> tuple[Alert, Alert]:
    """Two tiers on a recorded ratio. The long window says that it lasts, the short one that it still does."""

    def tier(severity: Severity, bound: float, short: str, long: str, lasts: str) -> Alert:
        ratios = [f"sojourn:{of}:ratio_rate{window} > {bound}" for window in (short, long)]
        enough = f"sojourn:{of}:rate{long} * {_SECONDS[long]} >= {_ENOUGH}"
        return Alert(name, severity, " and ".join((*ratios, enough)), lasts, summary, description)

    return tier("critical", 0.01, "5m", "1h", "2m"), tier("warning", 0.005, "30m", "6h", "15m")


def _busy(severity: Severity, bound: float, lasts: str) -> Alert:
    return Alert(
        "SojournProcessorBusy",
        severity,
        f"sojourn:processor:ratio_rate5m > {bound}",
        lasts,
        "Workers of {{ $labels.instance }} use {{ $value | humanizePercentage }} of a core each",
        "A worker is one event loop on one core: requests queue behind each other soon. Look where the time goes "
        "(sojourn profile cpu), then add workers or machines.",
    )


ALERTS: Final = (
    _latency("warning", 0.8),
    _latency("critical", 2.5),
    *_burning(
        "SojournErrors",
        "http_errors",
        "{{ $value | humanizePercentage }} of the HTTP answers of {{ $labels.instance }} are 5xx",
        "Clients get errors: within the short window and the long one, so it lasts. The log has each with its reason "
        'and, where the application raised, the traceback: look for "request" lines of level error.',
    ),
    *_burning(
        "SojournFaults",
        "faults",
        "{{ $value | humanizePercentage }} of what {{ $labels.instance }} serves ends by its own fault",
        "Requests, event streams and WebSockets end by a fault of the application, of the server, or because there is "
        "no room. The overview dashboard shows which reasons; docs/reference/endings.md says what each means.",
    ),
    _busy("warning", 0.85, "5m"),
    _busy("critical", 0.95, "15m"),
    Alert(
        "SojournQueueWait",
        "warning",
        f"{quantile(0.95, 'sojourn_request_queue_wait_seconds', '5m')} > 0.5",
        "5m",
        "One of twenty queued requests of {{ $labels.instance }} waits {{ $value | humanizeDuration }}",
        "limits.requests are running and others wait for a slot. Look what those in hand wait for (sojourn tasks); "
        "a slow dependency is more likely than a limit that is too low.",
    ),
    Alert(
        "SojournShedding",
        "critical",
        f"{rate(_ENDED, '5m', select=_OVERLOAD)} > 1",
        "5m",
        "{{ $labels.instance }} refuses {{ $value | humanize }} requests a second",
        "There is no room: a limit of requests, queue or connections is reached. See which (reasons on the overview "
        "dashboard), and whether load rose or serving slowed down (P99, processor, loop lag).",
    ),
)
