"""The figures: what is measured, in which unit, and which direction is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the report."""

    name: str
    title: str
    unit: str
    digits: int = 0


PER_CORE = "received per second of processor time"
#: What is measured of durable tasks on each store, as `Figure` takes it.
DURABLE_STORES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite"}
DURABLE_MEASURES = {
    "turn": ("submits by one caller", "tasks/s", 0),
    "together": ("submits by 100 callers", "tasks/s", 0),
    "done": ("5,000 tasks worked off, 10 at once", "tasks/s", 0),
    "p50": ("from submit to start at 20 a second, P50", "ms", 2),
    "p99": ("from submit to start at 20 a second, P99", "ms", 2),
    "cpu": ("processor time of producer, worker and store", "us a task", 0),
}
FIGURES = {
    figure.name: figure
    for figure in (
        Figure("get", "Plain GET", "requests/s"),
        Figure("get7", "GET with seven browser headers", "requests/s"),
        Figure("post", "POST 10 KB", "requests/s"),
        Figure("echo", "WebSocket echo, 100 bytes", "messages/s"),
        Figure("get1000", "GET, 1,000 connections", "requests/s"),
        Figure("idle_http", "Memory per idle keep-alive connection", "KiB", 2),
        Figure("idle_ws", "Memory per idle WebSocket", "KiB", 2),
        Figure("idle_cpu", "Processor time of idle WebSockets with pings", "% of a core", 3),
        Figure("connect", "Processor time per short connection, supervisor included", "us", 1),
        Figure("balance", "Larger share of 2,000 WebSockets opened at 500/s on two workers", "%", 1),
        Figure("drain", "From SIGTERM to exit with 5,000 idle WebSockets, without notice and spread", "s", 2),
        Figure("diagnostics", "Plain GET, everything watched and /metrics read once a second", "requests/s"),
        Figure("dumps", "A look at 10,000 tasks and 5,000 WebSockets", "ms", 1),
        Figure("overshoot", "How late 2,000 missed deadlines of 100 ms are noticed, processor 80% busy, P99", "ms", 2),
        Figure("overshoot_asyncio", "The same on asyncio's own event loop", "ms", 2),
        Figure("rearm", "Arming a deadline again, 100,000 connections", "us", 3),
        Figure("goodput", "Answers within 1 s at three times the peak load, 5 ms of work each, of the peak", "%", 0),
        Figure("overload_p99", "P99 of what is answered then, of that at 80% load", "x", 1),
        Figure("route", "Finding one of 1,000 routes", "us", 2),
        Figure("route_flat", "Finding one of 10,000 routes, of finding one of 10", "x", 2),
        Figure("fan20", "Fan-out to 2,000 members, 20 messages of 200 bytes a call", PER_CORE),
        Figure("fan1", "Fan-out to 2,000 members, one message a call", PER_CORE),
        Figure("fan20_5000", "Fan-out to 5,000 members, 20 messages a call", PER_CORE),
        Figure("fan1_5000", "Fan-out to 5,000 members, one message a call", PER_CORE),
        Figure("fan_calls", "Fan-out: a call in milliseconds, processor time and time until all have all", "ms"),
        Figure("fan_memory", "Memory per idle member, 5,000 members", "KiB", 2),
        Figure("fan_stalled", "P99 for 999 members beside one that reads nothing, of that without it", "x", 2),
        Figure("fan_redis", "Fan-out over Redis, two nodes of 1,000 members, 20 messages a call", PER_CORE),
        Figure("collector", "Latency with 20,000 idle tasks, by the collector's thresholds", "ms", 2),
        Figure("durable", "Durable tasks", "tasks/s"),
        *(
            Figure(f"durable_{store}", f"Durable tasks on {title}", "tasks/s")
            for store, title in DURABLE_STORES.items()
        ),
        *(
            Figure(f"durable_{store}_{key}", f"Durable tasks on {title}: {what}", unit, digits)
            for store, title in DURABLE_STORES.items()
            for key, (what, unit, digits) in DURABLE_MEASURES.items()
        ),
    )
}
#: What can be asked for: the figures that are measured together have one name.
ASKED = tuple(name for name in FIGURES if not name.startswith("durable_"))
THROUGHPUT = ("get", "get7", "post", "echo", "get1000")
LIFE = ("connect", "balance", "drain")
DEADLINES = ("overshoot", "overshoot_asyncio", "rearm")
FANOUT = ("fan20", "fan1", "fan20_5000", "fan1_5000", "fan_memory")
IDLE = ("idle_http", "idle_ws", "idle_cpu")
