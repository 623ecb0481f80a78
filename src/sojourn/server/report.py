"""The drain report: how many of each kind were open, told, finished and cut; who was cut; who took part, and how."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.http import HttpHandler
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.events import DrainCut, DrainParticipantEnded, DrainReported
from sojourn.net.connection import Connection
from sojourn.policy.drain import Kind
from sojourn.scopes.work import stack_of

__all__ = [
    "Report",
    "Tally",
    "counted",
    "cycle_of",
    "described",
    "kind_of",
    "summed",
    "task_of",
    "write_report",
    "write_whole",
]

#: What reports call one of a kind.
ONE: Final = {Kind.REQUESTS: "request", Kind.STREAMS: "stream", Kind.SOCKETS: "websocket", Kind.IDLE: "connection"}


class Tally(NamedTuple):
    """What became of the connections of one kind.

    Attributes:
        open: How many there were when the server stopped accepting; ``finished`` and ``cut`` add up to it.
        told: How many were told to end: a close frame, ``http.disconnect``, or the end of an idle connection.
        finished: How many ended by themselves or by what they were told.
        cut: How many had to be cut.
    """

    open: int = 0
    told: int = 0
    finished: int = 0
    cut: int = 0


class Report(NamedTuple):
    """How a server ended.

    Attributes:
        finished: Connections that ended by themselves after the server had stopped accepting.
        cut: Connections and tasks that had to be cut.
        cuts: Who they were; the first thousand.
        problem: What went wrong in the application's own shutdown; None when nothing did.
        kinds: What became of requests, streams, sockets and idle connections.
        unanswered: WebSockets whose client did not answer the close frame.
        participants: Those that took part in the drain, in the order they ended.
        seconds: From the beginning of the drain to the end of the last connection and task.
        instance: Who this is about.
    """

    finished: int
    cut: int
    cuts: tuple[DrainCut, ...]
    problem: str | None = None
    kinds: Mapping[str, Tally] = MappingProxyType({})
    unanswered: int = 0
    participants: tuple[DrainParticipantEnded, ...] = ()
    seconds: float = 0.0
    instance: str = ""

    @property
    def lost(self) -> bool:
        """Whether a participant of the phase ``persist`` did not save what it was to, or counts what is ``lost``."""
        saves = [ended for ended in self.participants if ended.phase == "persist"]
        return any(ended.problem is not None or ended.counts.get("lost", 0) > 0 for ended in saves)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """What participants say that they did, by their names."""
        return summed((ended.name, ended.counts) for ended in self.participants)

    @property
    def exit_code(self) -> int:
        """0: a clean end. 6: work was lost; else 5: something was cut; else 1: the application's shutdown failed."""
        return 6 if self.lost else 5 if self.cut else 1 if self.problem is not None else 0

    @property
    def event(self) -> DrainReported:
        """The report in short, for observers."""
        kinds = {name: tally._asdict() for name, tally in self.kinds.items()}
        return DrainReported(self.instance, self.seconds, self.exit_code, kinds, self.unanswered, self.cut)

    def asdict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "instance": self.instance,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "cut": self.cut,
            "unanswered": self.unanswered,
            "kinds": {name: tally._asdict() for name, tally in self.kinds.items()},
            "cuts": [cut._asdict() for cut in self.cuts],
            "participants": [{**ended._asdict(), "counts": dict(ended.counts)} for ended in self.participants],
            "counts": self.counts,
            "problem": self.problem,
        }


def summed(counted: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """What participants counted, those of one name together.

    Args:
        counted: Name and counts of each.
    """
    totals: dict[str, dict[str, int]] = {}
    for name, counts in counted:
        for what, number in counts.items():
            total = totals.setdefault(name, {})
            total[what] = total.get(what, 0) + number
    return totals


def write_report(report: Report, path: str | None) -> str | None:
    """Write the report to a file, whole or not at all.

    Args:
        report: The report.
        path: Where; None writes nothing.

    Returns:
        What went wrong; None when nothing did.
    """
    if path is None:
        return None
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(report.asdict()), indent=2) + b"\n")
    except OSError as error:
        return f"the drain report can't be written: {error.strerror or error}: {path}"
    return None


def write_whole(path: str, data: bytes) -> None:
    """Write a file so that its readers see either the old content or all of the new.

    Raises:
        OSError: It can't be written.
    """
    folder, name = os.path.split(path)
    with tempfile.NamedTemporaryFile(dir=folder or ".", prefix=f".{name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def cycle_of(connection: Connection) -> HttpCycle | None:
    """The request in hand."""
    return connection.handler.cycle if isinstance(connection.handler, HttpHandler) else None


def kind_of(connection: Connection) -> Kind:
    """What a connection is to the drain, now."""
    if isinstance(connection.handler, WebSocketHandler):
        return Kind.SOCKETS
    cycle = cycle_of(connection)
    if cycle is None:
        return Kind.IDLE
    return Kind.STREAMS if cycle.event_stream else Kind.REQUESTS


def counted(connections: Iterable[Connection]) -> dict[Kind, int]:
    """How many there are of each kind."""
    counts = dict.fromkeys(Kind, 0)
    for connection in connections:
        counts[kind_of(connection)] += 1
    return counts


def task_of(connection: Connection) -> asyncio.Task[None] | None:
    """The application's task, while it runs."""
    handler, cycle = connection.handler, cycle_of(connection)
    task = handler.task if isinstance(handler, WebSocketHandler) else cycle.task if cycle is not None else None
    return task if task is not None and not task.done() else None


def described(connection: Connection) -> DrainCut:
    """Who is about to be cut: peer, route, age, phase, stack."""
    cycle, task = cycle_of(connection), task_of(connection)
    method = cycle.scope["method"] if cycle is not None else ""
    return DrainCut(
        ONE[kind_of(connection)],
        connection.id,
        connection.peer_name,
        f"{method} {connection.path}".strip(),
        connection.age,
        connection.phase.value,
        stack_of(task) if task is not None else "",
    )
