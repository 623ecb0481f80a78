"""Lists of what workers hold: connections, tasks, stacks, leaks, stalls, ends, pressure, hubs.

All workers are asked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.asgi.probes import Answer
from sojourn.server.admin.answers import Kind, Question, Route, json, page
from sojourn.server.admin.gather import Gathered, ask_all, gather

if TYPE_CHECKING:
    from sojourn.observe.profiles.model import Frame

__all__ = ["ROUTES"]

_CONNECTIONS: Final[dict[str, Kind]] = {
    "older": "seconds",
    "idle": "seconds",
    "slow": "flag",
    "suspicious": "flag",
    "route": "text",
    "peer": "text",
    "limit": "number",
}
_TASKS: Final[dict[str, Kind]] = {"older": "seconds", "owner": "text", "limit": "number", "stacks": "flag"}
_HUBS: Final[dict[str, Kind]] = {"name": "text", "limit": "number"}


async def _connections(question: Question) -> Answer:
    from sojourn.observe.connections import ConnectionInfo  # workers' code; who only supervises may never need it

    found = await ask_all(question, "connections")
    return _listed(question, "connections", _oldest_first(question, _rows(found, ConnectionInfo)), found)


def _rows(found: Gathered[bytes], kind: type[Any]) -> list[dict[str, Any]]:
    """What workers have answered with lists of something, with the worker's number."""
    listed: Any = GenericAlias(list, (kind,))
    rows: list[dict[str, Any]] = []
    for worker, answer in found.answers.items():
        for info in msgspec.msgpack.decode(answer, type=listed):
            row = {"worker": worker, **info._asdict()}
            if "stack" in row:
                row["stack"] = _frames(info.stack)
            rows.append(row)
    return rows


async def _tasks(question: Question) -> Answer:
    from sojourn.observe.tasks.describer import TaskInfo

    found = await ask_all(question, "tasks")
    return _listed(question, "tasks", _oldest_first(question, _rows(found, TaskInfo)), found)


async def _stacks(question: Question) -> Answer:
    found = await gather(question, question.fleet.stacks, hung=True)
    if question.arguments.get("format") == "text":
        parts = [f"worker {worker}\n\n{text or '(it did not say)'}\n" for worker, text in found.answers.items()]
        parts += [f"worker {worker}: {problem}\n" for worker, problem in found.workers.items() if problem != "ok"]
        return page("\n".join(parts).encode(), "text/plain; charset=utf-8")
    rows = [{"worker": worker, "text": text} for worker, text in found.answers.items()]
    return _listed(question, "stacks", rows, found)


async def _leaks(question: Question) -> Answer:
    from sojourn.observe.leaks.detector import LeaksReport

    found = await ask_all(question, "leaks")
    reports = {worker: msgspec.msgpack.decode(answer, type=LeaksReport) for worker, answer in found.answers.items()}
    leaks = [
        {"worker": worker, **msgspec.structs.asdict(record), "stack": _frames(record.stack)}
        for worker, report in reports.items()
        for record in report.leaks
    ]
    overdue = [
        {"worker": worker, **lease._asdict(), "stack": _frames(lease.stack)}
        for worker, report in reports.items()
        for lease in report.overdue
    ]
    more = [
        {
            "worker": worker,
            "leases": report.leases,
            "descriptors": report.descriptors,
            "growth": report.growth,
            "retained": report.retained,
            "left_out": report.left_out,
        }
        for worker, report in reports.items()
    ]
    return json(question, {"leaks": leaks, "overdue": overdue, "counts": more, "workers": found.workers})


async def _stalls(question: Question) -> Answer:
    from sojourn.observe.stalls.store import StallInfo

    found = await ask_all(question, "stalls")
    return _listed(question, "stalls", _rows(found, StallInfo), found)


async def _pressure(question: Question) -> Answer:
    from sojourn.server.pressure import PressureInfo

    found = await ask_all(question, "pressure")
    return _listed(question, "pressure", _rows(found, PressureInfo), found)


async def _eof(question: Question) -> Answer:
    from sojourn.observe.endings.report import EofReport, merged

    found = await ask_all(question, "eof")
    whole = merged(msgspec.msgpack.decode(answer, type=EofReport) for answer in found.answers.values())
    rows = [row._asdict() for row in whole.rows]
    minutes = [{**minute._asdict(), "counts": [each._asdict() for each in minute.counts]} for minute in whole.minutes]
    document = {**msgspec.structs.asdict(whole), "rows": rows, "minutes": minutes, "workers": found.workers}
    document["settings"] = whole.settings._asdict()
    return json(question, document)


async def _hubs(question: Question) -> Answer:
    from sojourn.scopes.hubs import HubInfo

    found = await ask_all(question, "hub")
    rows = _rows(found, HubInfo)
    for row in rows:
        row["largest"] = [channel._asdict() for channel in row["largest"]]
        row["waiting"] = [member._asdict() for member in row["waiting"]]
    return _listed(question, "hubs", rows, found)


def _frames(stack: Iterable[Frame]) -> list[dict[str, Any]]:
    return [frame._asdict() for frame in stack]


def _oldest_first(question: Question, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of their age; each worker has kept to the limit, all together do now."""
    rows.sort(key=lambda row: row["age"] or 0.0, reverse=True)
    return rows[: question.arguments.get("limit") or None]


def _listed(question: Question, name: str, rows: list[dict[str, Any]], found: Gathered[Any]) -> Answer:
    document: Mapping[str, Any] = {name: rows, "workers": found.workers}
    return json(question, document)


ROUTES: Final = (
    Route("/connections", _connections, "open connections, oldest first", _CONNECTIONS),
    Route("/tasks", _tasks, "tasks: where each was made, and what it waits for", _TASKS),
    Route("/stacks", _stacks, "where all threads stand, also of a worker that hangs", {"format": "text"}),
    Route("/leaks", _leaks, "what outlived its owner, by name"),
    Route("/stalls", _stalls, "what blocked the event loop, and for how long"),
    Route("/pressure", _pressure, "what there is too little of, what is done against it, how many requests may run"),
    Route("/hub", _hubs, "members of hubs, the largest channels, who is slow, the engine", _HUBS),
    Route("/eof", _eof, "who hangs up, when, and after how long idle"),
)
