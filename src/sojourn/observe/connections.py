"""What is connected now: one row for each connection, with the deadline that would end it next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.scope import route_of
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.clock import NEVER
from sojourn.ending import Phase
from sojourn.net.connection import Connection
from sojourn.observe.answers import Answers, refuse_unknown
from sojourn.observe.turn import turn
from sojourn.policy.heartbeat import Life

__all__ = ["ConnectionInfo", "Connections", "described", "next_deadline"]

#: Connections looked at in one turn of the loop: about a millisecond.
_SLICE: Final = 200
#: A request head that takes longer than so many seconds, or bytes that wait for so long, look like no ordinary client.
_LATE: Final = 5.0
#: What the filters take.
_FILTERS: Final = frozenset({"older", "idle", "slow", "suspicious", "route", "peer", "limit"})


class ConnectionInfo(NamedTuple):
    """An open connection.

    Attributes:
        id: Its number on the worker.
        peer: ``host:port`` of the client; ``unix`` for a Unix socket.
        listener: Where it came in.
        protocol: ``http``, ``websocket``, or "" before its first request.
        kind: ``request``, ``event_stream``, ``stream``, ``websocket``, ``idle`` or ``opening``.
        phase: Where it is, as in the log.
        method: Of the request in hand; "" when there is none.
        path: Of its last request.
        route: The pattern the application's router matched; "" when it does not say.
        age: Seconds since accept.
        idle: Seconds since the last byte either way.
        requests: Requests begun on it.
        bytes_in: Bytes received.
        bytes_out: Bytes handed to the kernel.
        buffered: Bytes that wait for the client, outside the kernel.
        blocked: Whether more waits than the high watermark, so that ``send()`` waits as well.
        reading_paused: Whether it is not read from, because the application does not take what came.
        deadline: What would end it next; "" when nothing would.
        deadline_in: Seconds until then; None when nothing would.
        rtt: Seconds from the last ping to its pong, to a tenth; None where there was none.
        suspicious: Why somebody should look at it; "" when nothing speaks for it.
    """

    id: int
    peer: str
    listener: str
    protocol: str
    kind: str
    phase: str
    method: str
    path: str
    route: str
    age: float
    idle: float
    requests: int
    bytes_in: int
    bytes_out: int
    buffered: int
    blocked: bool
    reading_paused: bool
    deadline: str
    deadline_in: float | None
    rtt: float | None
    suspicious: str


class Connections:
    """Lists the connections of a worker.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        #: The errands it does.
        self.answers: Answers = {"connections": self.list}

    def close(self) -> None:
        """There is nothing to undo."""

    async def list(self, arguments: Mapping[str, Any]) -> list[ConnectionInfo]:
        """The open connections, oldest first.

        Args:
            arguments: ``older`` and ``idle``: at least so many seconds; ``slow``: its client does not take what waits
                for it; ``suspicious``: something about it is odd; ``route``: of this route or path; ``peer``: of this
                address, or ``address:port``; ``limit``: at most so many.

        Raises:
            ErrandError: There is no such filter.

        Cancel: safe.
        """
        refuse_unknown(arguments, _FILTERS)
        limit = int(arguments.get("limit") or 0)
        found: list[ConnectionInfo] = []
        for index, connection in enumerate(self._site.runtime.registry, 1):
            if index % _SLICE == 0:
                await turn(self._site.runtime.loop)
            if connection.ending is None or connection.transport is not None:
                info = described(connection)
                if _wanted(info, arguments):
                    found.append(info)
                    if len(found) == limit:
                        break
        return found


def described(connection: Connection) -> ConnectionInfo:
    """One connection as it is now."""
    handler = connection.handler
    now = connection.runtime.ticker.now
    kind, method, route = "idle" if connection.requests else "opening", "", ""
    rtt = None
    if isinstance(handler, HttpHandler):
        cycle = handler.cycle
        if cycle is not None:
            kind = "event_stream" if cycle.event_stream else "stream" if cycle.streaming else "request"
            method, route = cycle.scope["method"], route_of(cycle.scope)
    elif isinstance(handler, WebSocketHandler):
        kind, method, route, rtt = "websocket", "WEBSOCKET", route_of(handler.scope), handler.round_trip
    deadline, due = next_deadline(connection)
    idle = now - max(connection.last_read, connection.last_write)
    return ConnectionInfo(
        id=connection.id,
        peer=connection.peer_name,
        listener=connection.listener,
        protocol=handler.protocol if handler is not None else "",
        kind=kind,
        phase=connection.phase.name.lower(),
        method=method,
        path=connection.path,
        route=route,
        age=round(connection.age, 3),
        idle=round(idle, 3),
        requests=connection.requests,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        buffered=connection.buffered,
        blocked=connection.blocked,
        reading_paused=connection.reading_paused,
        deadline=deadline,
        deadline_in=round(max(0.0, due - now), 3) if deadline else None,
        rtt=rtt,
        suspicious=_suspicion(connection, isinstance(handler, WebSocketHandler) and handler.life is not Life.NORMAL),
    )


def next_deadline(connection: Connection) -> tuple[str, float]:
    """The slot that ends something first, and its moment in served time; "" and NEVER when none is armed."""
    armed = connection.due.armed()
    armed.pop("long", None)  # not an end: the log then tells of the connection
    config = connection.runtime.config
    # A byte does not move these two: when their moment comes the server looks when the last byte was, and waits on.
    if "stream" in armed and config.timeouts.stream_idle is not None:
        last = max(connection.last_read, connection.last_write)
        armed["stream"] = max(armed["stream"], last + config.timeouts.stream_idle)
    handler = connection.handler
    if "ping" in armed and isinstance(handler, WebSocketHandler) and handler.ping_interval is not None:
        armed["ping"] = max(armed["ping"], connection.last_read + handler.ping_interval)
    slot = min(armed, key=lambda name: armed[name], default="")
    return slot, armed.get(slot, NEVER)


def _suspicion(connection: Connection, suspect: bool) -> str:
    """What is odd about a connection; "" when nothing is."""
    if connection.ending is not None:
        return f"ends since a moment, because of {connection.ending.reason}"
    if connection.phase is Phase.HEAD and connection.age > _LATE and connection.bytes_in:
        return "takes long to send a request head"
    if suspect:
        return "did not answer a ping in time"
    if connection.blocked and connection.runtime.ticker.now - connection.last_write > _LATE:
        return "takes nothing of what waits for it"
    if connection.due.soonest() == NEVER:
        return "no deadline would end it"
    return ""


def _wanted(info: ConnectionInfo, filters: Mapping[str, Any]) -> bool:
    """Whether it passes all filters."""
    peer, route = filters.get("peer"), filters.get("route")
    return (
        info.age >= float(filters.get("older") or 0.0)
        and info.idle >= float(filters.get("idle") or 0.0)
        and (not filters.get("slow") or info.blocked or info.buffered > 0)
        and (not filters.get("suspicious") or bool(info.suspicious))
        and (not peer or info.peer == peer or info.peer.rpartition(":")[0].strip("[]") == str(peer).strip("[]"))
        and (not route or route in (info.route, info.path))
    )
