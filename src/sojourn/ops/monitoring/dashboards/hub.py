"""Hubs: who is there, what is sent, who is slow, and whether anything is lost."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.dashboards.model import Bound, Dashboard, Panel, Row, each, mean, quantiles, rate

__all__ = ["DASHBOARD"]

DASHBOARD: Final = Dashboard(
    "sojourn-hub",
    "Sojourn: hub",
    "Who is in the hubs, how much is sent to them, who is slow, whether anything is lost, how the engine is.",
    (
        Row(
            "Members",
            (
                Panel(
                    "Members",
                    "By transport; direct is a WebSocket that this server writes to without a detour.",
                    (each("sojourn_hub_members", "transport"),),
                    stacked=True,
                ),
                Panel(
                    "Channels and presence",
                    "Channels with members, those of each worker added up; members that presence shows.",
                    (
                        each("sojourn_hub_channels", legend="channels"),
                        each("sojourn_hub_present", legend="present"),
                    ),
                ),
                Panel(
                    "Heartbeat",
                    "suspect: has missed a ping. Many at once are a network that fails, or a loop that stands still.",
                    (each("sojourn_hub_members_suspect", legend="suspect"),),
                    bounds=(Bound(1, "yellow"),),
                ),
                Panel(
                    "Closed by the hub",
                    "By close code: 4008 slow, 4011 gap, 4012 silent, 4029 too many messages; from 4500 on for good.",
                    (rate("sojourn_hub_closes_total", "code"),),
                    unit="ops",
                ),
                Panel(
                    "Refused",
                    "Members and messages over a limit, by limit.",
                    (rate("sojourn_hub_refused_total", "limit"),),
                    unit="ops",
                ),
                Panel(
                    "Round trip",
                    "From a ping of the hub to the first sign of life.",
                    (*quantiles("sojourn_hub_round_trip_seconds"), mean("sojourn_hub_round_trip_seconds")),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Messages",
            (
                Panel(
                    "In",
                    "Publications, and messages that came from members.",
                    (
                        rate("sojourn_hub_published_total", legend="published"),
                        rate("sojourn_hub_received_total", legend="received"),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Deliveries",
                    "Messages to members: a publication to a thousand members is a thousand.",
                    (rate("sojourn_hub_deliveries_total", legend="deliveries"),),
                    unit="ops",
                ),
                Panel(
                    "Bytes out",
                    "Bytes of what is delivered.",
                    (rate("sojourn_hub_bytes_total", legend="out"),),
                    unit="Bps",
                ),
            ),
        ),
        Row(
            "Slow members",
            (
                Panel(
                    "Slow",
                    "Members for whom more waits than the high watermark; `sojourn hub` names them.",
                    (each("sojourn_hub_members_slow", legend="slow"),),
                    bounds=(Bound(10, "yellow"),),
                ),
                Panel(
                    "Waiting",
                    "Bytes that wait; the most that lately waited on one worker, which Limits.buffered bounds.",
                    (
                        each("sojourn_hub_buffered_bytes", legend="waiting"),
                        each("sojourn_hub_buffered_high_bytes", legend="highest", join="max"),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "Dropped and conflated",
                    "Messages that were not sent: dropped, by policy, or a later one of the same key took their place.",
                    (
                        rate("sojourn_hub_dropped_total", "policy"),
                        rate("sojourn_hub_conflated_total", legend="conflated"),
                    ),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Order, resume, engine",
            (
                Panel(
                    "Resumes",
                    "Channels joined. recovered: all came; gap: something is missing; fresh: nothing was asked for.",
                    (rate("sojourn_hub_resumes_total", "outcome"),),
                    unit="ops",
                ),
                Panel(
                    "Gaps told",
                    "Members that were told that publications are missing; their history is too short, or was lost.",
                    (rate("sojourn_hub_gaps_total", legend="gaps"),),
                    unit="ops",
                    bounds=(Bound(0.1, "yellow"),),
                ),
                Panel(
                    "Holes and repositioning",
                    "What the engine did not deliver and was looked for; channels that were read again after a loss.",
                    (
                        rate("sojourn_hub_holes_total", legend="holes"),
                        rate("sojourn_hub_repositioned_total", legend="repositioned"),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Engine away",
                    "For how long the engine can't be reached. Members of one worker still hear each other.",
                    (each("sojourn_hub_engine_away_for_seconds", "instance", join="max"),),
                    unit="s",
                    bounds=(Bound(10, "orange"), Bound(120, "red")),
                ),
                Panel(
                    "Engine losses",
                    "How often it was lost, and the share of the time without it, all workers added up.",
                    (
                        rate("sojourn_hub_engine_losses_total", legend="losses"),
                        rate("sojourn_hub_engine_away_seconds_total", legend="away"),
                    ),
                ),
                Panel(
                    "Engine lag",
                    "How long the engine took to answer lately, on the worker where it was slowest.",
                    (each("sojourn_hub_engine_lag_seconds", "instance", join="max"),),
                    unit="s",
                ),
            ),
        ),
    ),
)
