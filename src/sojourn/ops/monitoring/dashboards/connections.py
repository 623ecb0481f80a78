"""Connections and drain: who is connected, why connections end, who is slow, and how a shutdown goes."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.dashboards.model import (
    SERVERS,
    Bound,
    Dashboard,
    Panel,
    Row,
    each,
    mean,
    quantiles,
    rate,
)
from sojourn.ops.monitoring.promql import Query

__all__ = ["DASHBOARD"]

_FULL: Final = Query(
    f"sum by (instance) (sojourn_connections{{{SERVERS}}})"
    f" / on (instance) sum by (instance) (sojourn_connections_limit{{{SERVERS}}})",
    "{{instance}}",
)

DASHBOARD: Final = Dashboard(
    "sojourn-connections",
    "Sojourn: connections and drain",
    "Who is connected, why connections end, who is slow, how a shutdown goes.",
    (
        Row(
            "Open",
            (
                Panel(
                    "By protocol",
                    "Open connections. An empty protocol has not sent a request yet.",
                    (each("sojourn_connections", "protocol"),),
                    stacked=True,
                ),
                Panel(
                    "By state",
                    "What open connections are doing.",
                    (each("sojourn_connections", "state"),),
                    stacked=True,
                ),
                Panel(
                    "Of the limit",
                    "Share of limits.connections that is taken. Beyond it new clients get 503.",
                    (_FULL,),
                    unit="percentunit",
                    bounds=(Bound(0.8, "orange"), Bound(0.95, "red")),
                    top=1,
                ),
                Panel(
                    "Accepted and ended",
                    "Two lines that run together. A peak of accepted connections alone is a reconnect storm.",
                    (
                        rate("sojourn_connections_accepted_total", legend="accepted"),
                        rate("sojourn_connections_ended_total", legend="ended"),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Refused",
                    "Connections that were answered with 503, or closed, before their first request.",
                    (rate("sojourn_connections_refused_total", "reason"),),
                    unit="ops",
                ),
                Panel(
                    "Accepting is paused",
                    "1 while a listener waits, most likely for descriptors.",
                    (each("sojourn_accept_paused", "instance", join="max"),),
                    bounds=(Bound(1, "red"),),
                ),
            ),
        ),
        Row(
            "Ended",
            (
                Panel(
                    "By reason",
                    "One first cause each. `sojourn eof` tells in addition after how long idle.",
                    (rate("sojourn_connections_ended_total", "reason"),),
                    unit="ops",
                    width=12,
                ),
                Panel(
                    "By fault",
                    "Whom an end is charged to.",
                    (rate("sojourn_connections_ended_total", "fault"),),
                    unit="ops",
                    stacked=True,
                    width=12,
                ),
                Panel(
                    "How long they lived",
                    "From accept to the end, by protocol.",
                    quantiles("sojourn_connection_duration_seconds", "protocol", shares=(0.5, 0.95)),
                    unit="s",
                ),
                Panel(
                    "Event streams lived",
                    "From the head of the answer to its end.",
                    quantiles("sojourn_event_stream_duration_seconds", shares=(0.5, 0.95)),
                    unit="s",
                ),
                Panel(
                    "WebSockets lived",
                    "From the handshake to the end.",
                    quantiles("sojourn_websocket_duration_seconds", shares=(0.5, 0.95)),
                    unit="s",
                ),
                Panel(
                    "Handshakes",
                    "P95 of TLS and WebSocket handshakes.",
                    quantiles("sojourn_handshake_duration_seconds", "kind", shares=(0.95,)),
                    unit="s",
                ),
                Panel(
                    "Waited for a slot",
                    "How long requests were queued because limits.requests were running.",
                    quantiles("sojourn_request_queue_wait_seconds"),
                    unit="s",
                    bounds=(Bound(0.5, "orange"),),
                ),
                Panel(
                    "Deadlines missed",
                    "Which wait ran out.",
                    (rate("sojourn_deadlines_missed_total", "deadline"),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Slow and silent clients",
            (
                Panel(
                    "Buffered",
                    "Bytes that wait in the server for clients to take them.",
                    (each("sojourn_buffered_bytes", "instance"),),
                    unit="bytes",
                    bounds=(Bound(268435456, "orange"),),
                ),
                Panel(
                    "Highest buffer of one connection",
                    "In the last interval. `sojourn ps --slow` names the connection.",
                    (each("sojourn_outbox_high_bytes", "instance", join="max"),),
                    unit="bytes",
                ),
                Panel(
                    "Connections behind",
                    "How many do not take what is sent to them.",
                    (each("sojourn_connections_behind", "instance"),),
                ),
                Panel(
                    "Ping round trip",
                    "From our ping to the client's pong: the network, and how busy the client is.",
                    (
                        *quantiles("sojourn_ping_round_trip_seconds", shares=(0.5, 0.95)),
                        mean("sojourn_ping_round_trip_seconds"),
                    ),
                    unit="s",
                ),
                Panel(
                    "Pongs missed",
                    "Pings that nobody answered in time. websocket.ping_misses in a row end the connection.",
                    (rate("sojourn_pongs_missed_total", "instance"),),
                    unit="ops",
                ),
                Panel(
                    "Clients that left early",
                    "Ends before the answer was complete, by reason.",
                    (rate("sojourn_requests_ended_total", "reason", select='reason=~"client_.+"'),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Drain",
            (
                Panel(
                    "Phase",
                    "1 while the phase lasts: notice (serving on, not ready), finish, cut, persist.",
                    (each("sojourn_drain_phase", "instance", "phase", join="max"),),
                    top=1,
                ),
                Panel(
                    "Time left",
                    "Until everything is cut. At zero with a phase still running SojournDrainStuck fires.",
                    (each("sojourn_drain_left_seconds", "instance", join="max"),),
                    unit="s",
                ),
                Panel(
                    "Phases of the last drain",
                    "How long each lasted.",
                    (each("sojourn_drain_phase_seconds", "phase", join="max"),),
                    unit="s",
                    kind="bargauge",
                ),
                Panel(
                    "What became of connections",
                    "In all drains so far: how many were told to go, finished by themselves, or had to be cut.",
                    (each("sojourn_drain_connections", "kind", "outcome"),),
                    kind="bargauge",
                    width=12,
                ),
                Panel(
                    "Cut, and tasks that survived it",
                    "Connections cut because their time was over, and tasks that ignore that they are cancelled.",
                    (
                        rate("sojourn_connections_ended_total", select='reason="drain_forced"', legend="cut"),
                        rate("sojourn_tasks_survived_total", legend="tasks that survived"),
                    ),
                    unit="ops",
                    width=12,
                ),
            ),
        ),
    ),
)
