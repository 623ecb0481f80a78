"""Alerts on connections: how many, who leaves, who is slow, and drains."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.alerts.model import Alert, Severity
from sojourn.ops.monitoring.promql import increase, per_server, rate, rise

__all__ = ["ALERTS"]

_OPEN: Final = per_server("sojourn_connections")
_ENDED: Final = "sojourn_connections_ended_total"
_ACCEPTED: Final = "sojourn_connections_accepted_total"
_REQUESTS: Final = "sojourn_requests_ended_total"
_LEFT: Final = 'reason=~"client_closed_request|client_closed_in_queue|client_closed_mid_response|client_reset"'
_DEAD: Final = 'reason=~"pong_timeout|tcp_dead"'
_FORCED: Final = 'reason="drain_forced"'


def _near_limit(severity: Severity, bound: float) -> Alert:
    return Alert(
        "SojournConnectionsNearLimit",
        severity,
        f"{_OPEN} / on (job, instance) (sojourn_connections_limit > 0) > {bound}",
        "5m",
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the connections it may have",
        "Beyond limits.connections new clients get 503. See who has them (sojourn ps) and whether they are idle "
        "(sojourn ps --idle 300); then raise the limit, if memory and descriptors allow it, or add workers.",
    )


def _leaving(severity: Severity, bound: float) -> Alert:
    ratio = f"{rate(_REQUESTS, '10m', select=_LEFT)} / {rate(_REQUESTS, '10m')}"
    return Alert(
        "SojournClientsLeave",
        severity,
        f"{ratio} > {bound} and {increase(_REQUESTS, '10m', select=_LEFT)} >= 20",
        "5m",
        "{{ $value | humanizePercentage }} of the clients of {{ $labels.instance }} leave before it is answered",
        "Clients, or a proxy in front, give up waiting or are cut off. `sojourn eof` says in which phase and after how "
        "long: one age for all is somebody's timeout, many ages are slow answers.",
    )


ALERTS: Final = (
    _near_limit("warning", 0.8),
    _near_limit("critical", 0.95),
    Alert(
        "SojournAcceptPaused",
        "critical",
        "sojourn_accept_paused > 0",
        "1m",
        "{{ $labels.instance }} does not accept connections",
        "Accepting is paused, most likely because descriptors have run out; clients wait in the kernel's queue. "
        "Look for accept_paused in the log, then at descriptors on the runtime dashboard.",
    ),
    Alert(
        "SojournSlowConsumers",
        "info",
        f"sojourn_connections_behind > 10 and sojourn_connections_behind / on (job, instance) ({_OPEN} > 0) > 0.1",
        "10m",
        "{{ $value | humanize }} connections of {{ $labels.instance }} do not take what is sent to them",
        "More than a tenth of the clients read slower than the application writes. sojourn ps --slow names them; "
        "one network or one kind of client points there, all of them to messages that are too many or too large.",
    ),
    Alert(
        "SojournBuffered",
        "warning",
        "sojourn_buffered_bytes > 268435456",
        "5m",
        "{{ $value | humanize1024 }}B wait in {{ $labels.instance }} for slow clients",
        "Each connection's buffer is bounded (limits.write_buffer, websocket.queue_bytes); many slow ones add up. "
        "sojourn ps --slow sorts by buffered bytes.",
    ),
    Alert(
        "SojournPongTimeouts",
        "warning",
        f"{rate(_ENDED, '10m', select=_DEAD)} / {rate(_ENDED, '10m')} > 0.2"
        f" and {increase(_ENDED, '10m', select=_DEAD)} >= 10",
        "5m",
        "{{ $value | humanizePercentage }} of the connections that end on {{ $labels.instance }} are found dead",
        "Peers vanish without a word: a network that failed, a NAT or proxy that forgets idle connections (then "
        "websocket.ping_interval must be shorter than its timeout), or mobile clients that sleep.",
    ),
    _leaving("info", 0.05),
    _leaving("warning", 0.2),
    Alert(
        "SojournReconnectStorm",
        "warning",
        f"{rate(_ACCEPTED, '2m')} > 20 and {rate(_ACCEPTED, '2m')}"
        f" > 5 * {per_server(f'rate({_ACCEPTED}[1h] offset 5m)')}",
        "2m",
        "{{ $labels.instance }} accepts {{ $value | humanize }} connections a second, five times its usual",
        "Many clients connect at once: after a restart elsewhere, a network that came back, or a client that retries "
        "without a pause. See why connections end just before (reasons on the connections dashboard).",
    ),
    Alert(
        "SojournDrainStuck",
        "critical",
        "max by (job, instance) (sojourn_drain_phase) > 0 and on (job, instance) (sojourn_drain_left_seconds <= 0)",
        "1m",
        "{{ $labels.instance }} still drains although its time is over",
        "Everything should have been cut a minute ago. sojourn stacks shows where it stands; what is left is most "
        "likely a drain participant, the lifespan's shutdown, or a thread that does not end.",
    ),
    Alert(
        "SojournDrainForced",
        "warning",
        f"{rise(_ENDED, '15m', select=_FORCED)} > 0",
        "",
        "A drain of {{ $labels.instance }} cut {{ $value | humanize }} connections",
        "They did not end within their time (drain.requests, drain.streams, drain.sockets). The log names each with "
        "its route and stack (drain_cut): give that route more time, or let it hear shutdown coming.",
    ),
)
