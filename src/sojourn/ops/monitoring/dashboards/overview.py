"""Overview: rate, errors, duration of what is served; and whether anything needs a closer look."""

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
from sojourn.ops.monitoring.promql import HTTP, Query

__all__ = ["DASHBOARD"]

_5XX: Final = f'{{{SERVERS},http_response_status_code=~"5.."}}'
_ERRORS: Final = Query(
    f"(sum(rate({HTTP}_count{_5XX}[$__rate_interval])) or vector(0))"
    f" / sum(rate({HTTP}_count{{{SERVERS}}}[$__rate_interval]))",
    "5xx",
)
_BUSY: Final = Query(
    f"sum by (instance) (rate(sojourn_processor_seconds_total{{{SERVERS}}}[$__rate_interval]))"
    f" / sum by (instance) (sojourn_worker_up{{{SERVERS}}})",
    "{{instance}}",
)
_SLOW: Final = (Bound(0.8, "orange"), Bound(2.5, "red"))
_BAD: Final = (Bound(0.005, "orange"), Bound(0.01, "red"))

DASHBOARD: Final = Dashboard(
    "sojourn-overview",
    "Sojourn: overview",
    "How much is asked, how much of it fails, how long it takes.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Requests",
                    "Plain HTTP requests a second, all chosen instances together.",
                    (rate(f"{HTTP}_count"),),
                    unit="reqps",
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Errors",
                    "Share of plain HTTP answers with a 5xx status. Above 1 % over an hour SojournErrors fires.",
                    (_ERRORS,),
                    unit="percentunit",
                    kind="stat",
                    bounds=_BAD,
                    width=4,
                ),
                Panel(
                    "P99",
                    "One of a hundred plain HTTP requests takes longer. Above 0.8 s SojournLatency fires.",
                    quantiles(HTTP, shares=(0.99,)),
                    unit="s",
                    kind="stat",
                    bounds=_SLOW,
                    width=4,
                ),
                Panel(
                    "Open connections",
                    "Everything that is connected: idle, HTTP, event streams, WebSockets.",
                    (each("sojourn_connections"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Workers",
                    "Workers that serve. None at all fires SojournNoWorker.",
                    (each("sojourn_worker_up"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Leaks",
                    "Named objects that live past their declared end. `sojourn leaks` lists them.",
                    (each("sojourn_leaks"),),
                    kind="stat",
                    bounds=(Bound(1, "orange"), Bound(500, "red")),
                    width=4,
                ),
            ),
        ),
        Row(
            "Plain HTTP",
            (
                Panel(
                    "Requests by status",
                    "Answers a second. 499: the client left before the answer began.",
                    (rate(f"{HTTP}_count", "http_response_status_code"),),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    "Duration",
                    "From the end of the request's head to the end of the answer, without streams and WebSockets.",
                    quantiles(HTTP),
                    unit="s",
                    bounds=_SLOW,
                ),
                Panel(
                    "P99 by route",
                    "Which route is slow. Routes are named by the application's router; without one the name is empty.",
                    quantiles(HTTP, "http_route", shares=(0.99,)),
                    unit="s",
                    bounds=_SLOW,
                ),
                Panel(
                    "Error share",
                    "5xx answers of all plain HTTP answers.",
                    (_ERRORS,),
                    unit="percentunit",
                    bounds=_BAD,
                ),
                Panel(
                    "Errors by route",
                    "5xx answers a second, with the reason the server gives them.",
                    (
                        rate(
                            f"{HTTP}_count",
                            "http_route",
                            "error_type",
                            select='http_response_status_code=~"5.."',
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    "Waiting for a slot",
                    "Requests that run, and that wait because limits.requests are running.",
                    (
                        each("sojourn_requests_running", legend="running"),
                        each("sojourn_requests_queued", legend="queued"),
                    ),
                ),
            ),
        ),
        Row(
            "Event streams and WebSockets",
            (
                Panel(
                    "Event streams ended",
                    "By reason. drain_goodbye and completed are as they should be.",
                    (rate("sojourn_event_streams_total", "reason"),),
                    unit="ops",
                ),
                Panel(
                    "WebSockets ended",
                    "By reason. pong_timeout means a peer that vanished, slow_consumer one that reads too slowly.",
                    (rate("sojourn_websockets_total", "reason"),),
                    unit="ops",
                ),
                Panel(
                    "WebSocket messages",
                    "Messages a second in each direction.",
                    (rate("sojourn_websocket_messages_total", "direction"),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Whose fault",
            (
                Panel(
                    "Ends by fault",
                    "Requests of every kind, by whom their end is charged to. client and network are no fault of ours.",
                    (rate("sojourn_requests_ended_total", "fault"),),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Faults by reason",
                    "Charged to the application, the server, or lack of room. docs/reference/endings.md has each.",
                    (rate("sojourn_requests_ended_total", "reason", select='fault=~"app|server|overload"'),),
                    unit="ops",
                ),
                Panel(
                    "Deadlines missed",
                    "Which wait ran out. Each is a key of the group timeouts, limits or websocket.",
                    (rate("sojourn_deadlines_missed_total", "deadline"),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Room",
            (
                Panel(
                    "Processor per worker",
                    "Share of a core that a worker uses. Above 85 % for five minutes SojournProcessorBusy fires.",
                    (_BUSY,),
                    unit="percentunit",
                    bounds=(Bound(0.85, "orange"), Bound(0.95, "red")),
                ),
                Panel(
                    "Loop lag",
                    "How late the event loop comes to what is due; everything on it waits that long.",
                    quantiles("sojourn_loop_lag_seconds", shares=(0.5, 0.99)),
                    unit="s",
                    bounds=(Bound(0.1, "orange"), Bound(0.5, "red")),
                ),
                Panel(
                    "Traffic",
                    "Bytes a second in each direction, over all connections.",
                    (rate("sojourn_bytes_total", "direction"),),
                    unit="Bps",
                ),
            ),
        ),
    ),
)
