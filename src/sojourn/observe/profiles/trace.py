"""A timeline of a few seconds: connections, requests, missed deadlines, stalls, collections, lateness of the loop.

Built from the server's own events, so it costs nothing before it is asked for; meanwhile, four microseconds for each
request, and a place in a ring. It opens in ui.perfetto.dev, chrome://tracing and speedscope.

Source: Trace Event Format (Chromium project): complete events ``X``, instants ``i``, counters ``C``, metadata ``M``.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.events import (
    AcceptPaused,
    ApplicationFailed,
    ConnectionEnded,
    ConnectionOpened,
    DeadlineMissed,
    DrainPhaseChanged,
    LeakFound,
    LoopStalled,
    RequestEnded,
    TaskSurvived,
    WebSocketOpened,
)
from sojourn.observe.profiles.window import passed, seconds_of
from sojourn.observe.turn import turn

__all__ = ["Timeline", "TraceMaker"]

_SECONDS: Final = 5.0
_SHORTEST, _LONGEST = 0.1, 300.0
#: Events kept; of more the oldest go.
KEPT: Final = 100_000
#: Open connections that are told at the end.
_OPEN: Final = 1_000
#: Events encoded in one turn of the loop: about a millisecond.
_SLICE: Final = 500
#: Tracks that belong to no connection; the track of a connection is its number and _CONNECTIONS.
_STALLS, _COLLECTOR, _DRAIN, _SERVER = 1, 2, 3, 4
_TRACKS: Final = {_STALLS: "stalls", _COLLECTOR: "garbage collector", _DRAIN: "drain", _SERVER: "server"}
_CONNECTIONS: Final = 100
#: Of RequestEnded, up to its headers.
_FIELDS: Final = RequestEnded._fields.index("headers")
_ENCODER: Final = msgspec.json.Encoder()

#: Kind, track, name, begin and length in seconds, further facts.
_Entry = tuple[str, int, str, float, float, dict[str, Any]]
#: When a request ended, the first fields of its event (not its headers, which would live on), kind and route.
_Request = tuple[float, tuple[Any, ...], str, str]


class Timeline:
    """Records until it is closed. Made on the event loop.

    Args:
        site: What the worker serves.
        kept: Events kept.
    """

    def __init__(self, site: Site, kept: int = KEPT) -> None:
        self._site = site
        self._ticker = site.runtime.ticker
        self._now = self._ticker.clock.monotonic
        self._entries: deque[_Entry | _Request] = deque(maxlen=kept)
        self._names: dict[int, str] = {}
        #: When connections came that are open.
        self._opened: dict[int, float] = {}
        #: Events in all.
        self.count = 0
        #: The first moment, in monotonic seconds.
        self.start = self._now()
        self._collecting = 0.0
        self._phase: tuple[str, float] | None = None
        bus = site.runtime.bus
        self._forget: list[Callable[[], None]] = [
            bus.observe(RequestEnded, self._request_ended),
            bus.observe(ConnectionOpened, self._connection_opened),
            bus.observe(ConnectionEnded, self._connection_ended),
            bus.observe(WebSocketOpened, self._websocket_opened),
            bus.observe(DeadlineMissed, self._deadline_missed),
            bus.observe(ApplicationFailed, self._application_failed),
            bus.observe(LoopStalled, self._loop_stalled),
            bus.observe(TaskSurvived, self._task_survived),
            bus.observe(LeakFound, self._leak_found),
            bus.observe(AcceptPaused, self._accept_paused),
            bus.observe(DrainPhaseChanged, self._drain_phase_changed),
        ]
        gc.callbacks.append(self._collected)
        self._before = self._ticker.lagged
        self._hook = self._ticked
        self._ticker.lagged = self._hook

    def close(self) -> None:
        """Record nothing more. Calling it twice does nothing."""
        if not self._forget:
            return
        for forget in self._forget:
            forget()
        self._forget.clear()
        gc.callbacks.remove(self._collected)
        if self._ticker.lagged is self._hook:
            self._ticker.lagged = self._before
        now = self._now()
        if self._phase is not None:
            self._add("X", _DRAIN, self._phase[0], self._phase[1], now - self._phase[1], {})
        for connection, _ in zip(self._site.runtime.registry, range(_OPEN), strict=False):
            self._names[connection.id] = connection.peer_name
            facts = {"open": True, "requests": connection.requests, "phase": connection.phase.name.lower()}
            begin = self._begin(connection.id, now - connection.age)
            self._add("X", _CONNECTIONS + connection.id, "connection", begin, now - begin, facts)

    def _add(self, kind: str, track: int, name: str, begin: float, length: float, facts: dict[str, Any]) -> None:
        self.count += 1
        self._entries.append((kind, track, name, begin, length, facts))

    # -- Observers

    def _request_ended(self, event: RequestEnded) -> None:
        self.count += 1
        self._entries.append((self._now(), event[:_FIELDS], event.kind, event.route))

    def _connection_opened(self, event: ConnectionOpened) -> None:
        self._opened[event.connection] = self._now()

    def _connection_ended(self, event: ConnectionEnded) -> None:
        self._names[event.connection] = event.peer
        if len(self._names) > KEPT:
            self._names.clear()  # only names of tracks
        facts = {"reason": event.ending.reason, "requests": event.requests, "bytes_in": event.bytes_in}
        now = self._now()
        begin = self._begin(event.connection, now - event.duration)
        self._add("X", _CONNECTIONS + event.connection, "connection", begin, now - begin, facts)

    def _begin(self, connection: int, begin: float) -> float:
        """When a connection came. Its own age leaves out stalls, so it is right only for one older than the window."""
        return self._opened.pop(connection, min(begin, self.start))

    def _websocket_opened(self, event: WebSocketOpened) -> None:
        self._add("i", _CONNECTIONS + event.connection, "websocket accepted", self._now(), 0.0, {})

    def _deadline_missed(self, event: DeadlineMissed) -> None:
        facts = {"seconds": event.seconds}
        self._add("i", _CONNECTIONS + event.connection, f"deadline {event.deadline} passed", self._now(), 0.0, facts)

    def _application_failed(self, event: ApplicationFailed) -> None:
        facts = {"error": type(event.error).__qualname__, "reason": event.reason}
        self._add("i", _CONNECTIONS + event.connection, "application failed", self._now(), 0.0, facts)

    def _loop_stalled(self, event: LoopStalled) -> None:
        facts = {"cause": event.cause, "function": event.function, "processor": event.processor}
        self._add("X", _STALLS, f"stall {event.cause}".rstrip(), self._now() - event.seconds, event.seconds, facts)

    def _task_survived(self, event: TaskSurvived) -> None:
        name = "task ended at last" if event.ended else "task does not end"
        self._add("i", _SERVER, name, self._now(), 0.0, {"task": event.name, "owner": event.owner})

    def _leak_found(self, event: LeakFound) -> None:
        facts = {"kind": event.kind, "what": event.what, "created": event.created}
        self._add("i", _SERVER, f"leak of a {event.kind}", self._now(), 0.0, facts)

    def _accept_paused(self, event: AcceptPaused) -> None:
        self._add("i", _SERVER, "accepting is paused", self._now(), 0.0, {"cause": event.cause})

    def _drain_phase_changed(self, event: DrainPhaseChanged) -> None:
        now = self._now()
        if self._phase is not None:
            self._add("X", _DRAIN, self._phase[0], self._phase[1], now - self._phase[1], {})
        self._phase = (event.phase, now)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._collecting = self._now()
        elif self._collecting:
            name = f"generation {info['generation']}"
            facts = {"collected": info["collected"], "uncollectable": info["uncollectable"]}
            self._add("X", _COLLECTOR, name, self._collecting, self._now() - self._collecting, facts)
            self._collecting = 0.0

    def _ticked(self, late: float) -> None:
        if self._before is not None:
            self._before(late)
        if self._forget:
            now = self._now()
            self._add("C", 0, "loop lag", now, 0.0, {"ms": round(1000 * max(late, 0.0), 3)})
            self._add("C", 0, "connections", now, 0.0, {"open": len(self._site.runtime.registry)})

    # -- Output

    async def encode(self) -> bytes:
        """The document, encoded in slices.

        Cancel: safe.
        """
        pid = os.getpid()
        loop = self._site.runtime.loop
        pieces: list[bytes] = [b'{"displayTimeUnit":"ms","traceEvents":[']
        tracks: set[int] = set()
        entries = list(self._entries)
        for start in range(0, len(entries), _SLICE):
            for each in entries[start : start + _SLICE]:
                entry = _request(each) if len(each) == 4 else each
                tracks.add(entry[1])
                pieces += (_ENCODER.encode(self._event(pid, entry)), b",")
            await turn(loop)
        for number, track in enumerate(sorted(tracks - {0}), 1):
            connection = track - _CONNECTIONS
            label = _TRACKS.get(track) or f"connection {connection} {self._names.get(connection, '')}".rstrip()
            pieces += (_metadata(pid, track, "thread_name", {"name": label}), b",")
            if number % _SLICE == 0:
                await turn(loop)
        pieces.append(_metadata(pid, 0, "process_name", {"name": f"sojourn worker {pid}"}))
        facts = {"events": self.count, "left_out": self.count - len(entries)}
        pieces += (b'],"otherData":', _ENCODER.encode(facts), b"}")
        return b"".join(pieces)

    def _event(self, pid: int, entry: _Entry) -> dict[str, Any]:
        kind, track, name, begin, length, facts = entry
        # Nothing reaches back before the window: it would make everything else too small to see.
        # A connection goes first, because it is around its requests.
        inside = track > _CONNECTIONS and name != "connection"
        start = max(begin, self.start + 1e-6 if inside else self.start)
        # The clock is the same in all processes, so the traces of several workers fit together.
        event = {"ph": kind, "pid": pid, "tid": track, "name": name, "ts": round(1e6 * start, 3), "args": facts}
        if kind == "X":
            event["cat"] = "sojourn"
            event["dur"] = round(1e6 * max(begin + length - start, 0.0), 3)
            if begin < start:
                event["args"] = {**facts, "began_before": round(start - begin, 3)}
        elif kind == "i":
            event["s"] = "t"
        return event


def _request(noted: _Request) -> _Entry:
    ended, fields, kind, route = noted
    connection, _, method, target, _, status, ending, duration, bytes_in, bytes_out = fields
    path = target.partition(b"?")[0].decode("ascii", "backslashreplace")
    facts = {
        "status": status,
        "reason": ending.reason,
        "kind": kind,
        "path": path,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }
    return "X", _CONNECTIONS + connection, f"{method} {route or path}", ended - duration, duration, facts


def _metadata(pid: int, track: int, name: str, facts: dict[str, str]) -> bytes:
    return _ENCODER.encode({"ph": "M", "pid": pid, "tid": track, "name": name, "ts": 0, "args": facts})


class TraceMaker:
    """One at a time.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._timeline: Timeline | None = None

    def close(self) -> None:
        """End what runs."""
        timeline, self._timeline = self._timeline, None
        if timeline is not None:
            timeline.close()

    async def trace(self, arguments: Mapping[str, Any]) -> bytes:
        """Record for a while.

        Args:
            arguments: ``seconds``: 0.1 to 300, 5 when it is not given.

        Returns:
            A JSON document.

        Raises:
            ErrandError: An argument is no good, or one is being made.

        Cancel: safe; recording stops.
        """
        seconds = seconds_of(arguments, _SECONDS, _SHORTEST, _LONGEST)
        if self._timeline is not None:
            raise ErrandError(409, "busy", "a trace of this worker is being made; ask again when it is done")
        self._timeline = timeline = Timeline(self._site)
        try:
            await passed(self._site.runtime.loop, seconds)
        finally:
            self.close()
        return await timeline.encode()
