"""The head of the screen: how the server is, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from sojourn.ops.status import countdown
from sojourn.ops.top.watch import Watch
from sojourn.ops.words import duration, number, plain, size

__all__ = ["head"]


def head(watch: Watch) -> list[str]:
    """The lines: who it is, what it does, how it feels, and how far a drain is.

    Args:
        watch: What is known.
    """
    return ["   ".join(filter(None, parts)) for parts in _lines(watch)] if watch.status else []


def _lines(watch: Watch) -> Iterator[list[str]]:
    status, page = watch.status, watch.page
    workers = status["workers"]
    ready = sum(worker["state"] == "ready" for worker in workers)
    oldest = max((worker["age"] for worker in workers), default=None)
    yield [
        plain(status["instance"]),
        f"sojourn {plain(status['version'])}",
        f"up {duration(oldest)}",
        status["state"] if status["ready"] else f"{status['state']}, not ready",
        f"{ready} of {len(workers)} workers ready" if workers else "",
    ]
    protocols = {name: count for name, count in page.by("sojourn_connections", "protocol").items() if name and count}
    kinds = ", ".join(f"{number(count)} {name}" for name, count in sorted(protocols.items()))
    open_ = page.total("sojourn_connections")
    if open_ is None:
        open_ = float(sum(worker["connections"] for worker in workers))
    yield [
        f"connections {number(open_)}" + (f" ({kinds})" if kinds else ""),
        _rate("accepted", watch.rate("sojourn_connections_accepted_total")),
        _rate("requests", watch.rate("sojourn_requests_ended_total")),
        f"running {number(page.total('sojourn_requests_running'))}",
        f"queued {number(page.total('sojourn_requests_queued'))}",
        f"P99 {duration(watch.quantile('http_server_request_duration_seconds', 0.99))}",
    ]
    busy = watch.rate("sojourn_processor_seconds_total")
    yield [
        f"loop lag P99 {duration(watch.quantile('sojourn_loop_lag_seconds', 0.99))}",
        f"stalls {number(sum(watch.minute('sojourn_loop_stalls_total', 'cause').values()))}",
        f"leaks {number(page.total('sojourn_leaks') or 0)}",
        f"tasks {number(page.total('sojourn_tasks'))}",
        f"memory {size(page.total('sojourn_memory_resident_bytes'))}",
        f"processor {'-' if busy is None else f'{busy:.0%}'}",
        f"descriptors {number(page.total('sojourn_fds'))}",
    ]
    if status["countdown"]:
        yield [countdown(status["countdown"])]
    if status["problem"]:
        yield [f"problem: {plain(status['problem'])}"]


def _rate(what: str, each_second: float | None) -> str:
    return f"{what} {number(round(each_second, 1))}/s" if each_second is not None else f"{what} -"
