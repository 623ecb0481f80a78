"""Shutdown: stop accepting, let everybody finish within its time, cut who does not, and say who that was.

    begin   no new connections; idle ones end, event streams and WebSockets are told, everything else goes on
    cut     its time is over (drain.requests, drain.streams, drain.sockets): 503 where no answer has begun, else the end
            of the connection; applications are cancelled, by the ladder
    abort   drain.total is over: what is still open is closed as it is

What a request leaves running after its answer counts as a request. Cutting begins a little before drain.total, so that
what is said then still leaves. A task that resists its cancellation is waited for until the ladder has named it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sojourn.asgi.cycle import HttpCycle, Stage
from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.ending import Ending, How
from sojourn.events import DrainCut, DrainPhaseChanged
from sojourn.net.connection import Connection
from sojourn.net.listener import Listener
from sojourn.net.ticker import Call
from sojourn.scopes.work import LADDER, stack_of

__all__ = ["Report", "Shutdown"]

#: Kinds of connection, each with its own time.
_REQUESTS, _STREAMS, _SOCKETS, _IDLE = "requests", "streams", "sockets", "idle"
#: What reports call one of a kind.
_ONE: Final = {_REQUESTS: "request", _STREAMS: "stream", _SOCKETS: "websocket", _IDLE: "connection"}
#: Seconds for a cancelled task: the whole ladder, and a little.
_PATIENCE: Final = LADDER[-1] + 1.0
#: Cuts reported one by one; more are counted.
_REPORTED: Final = 50


class Report(NamedTuple):
    """How a server ended.

    Attributes:
        finished: Connections that ended by themselves after the shutdown began.
        cut: Connections and tasks that had to be cut.
        cuts: Who they were; the first fifty.
        problem: What went wrong in the application's own shutdown; None when nothing did.
    """

    finished: int
    cut: int
    cuts: tuple[DrainCut, ...]
    problem: str | None = None

    @property
    def exit_code(self) -> int:
        """0 for a clean end, 5 when something was cut, 1 when the application's own shutdown failed."""
        return 5 if self.cut else 1 if self.problem is not None else 0


class Shutdown:
    """The end of a server. Begun once; hurried by further signals.

    Args:
        site: What is served.
        listeners: What accepts.
        last: Whether nobody else has the listening sockets: closing them would reset who waits in the kernel.
    """

    def __init__(self, site: Site, listeners: Sequence[Listener], *, last: bool) -> None:
        self._site = site
        self._work = site.work
        self._registry = site.runtime.registry
        self._listeners = listeners
        self._last = last
        self._no_connections = asyncio.Event()
        #: Set when no task is left, or when those that are had all the time there is.
        self._no_tasks = asyncio.Event()
        #: Whether tasks without a connection had their time.
        self._tasks_over = False
        self._at_begin = self._cut_connections = self._cut_tasks = 0
        #: Tasks that are counted, by themselves or with their connection.
        self._counted: set[asyncio.Task[Any]] = set()
        self._cuts: list[DrainCut] = []
        self._timers: list[Call] = []
        self._ends = self._farewell = 0.0
        self.begun = self.hurried = False

    def begin(self) -> None:
        """Stop accepting, tell everybody, and set the times. Only the first call does anything."""
        if self.begun:
            return
        self.begun = True
        for listener in self._listeners:
            if self._last:
                listener.accept_pending()
            listener.close()
        self._site.begin_drain()
        self._registry.on_empty = self._no_connections.set
        self._work.on_empty = self._no_tasks.set
        self._at_begin = len(self._registry)
        self._set_times()
        self._tell("finish")
        for connection in self._registry:
            self._act(_tell_of_drain, connection)
        if not len(self._registry):
            self._no_connections.set()

    def hurry(self) -> None:
        """Give nobody more time: all are cut; called again, all are closed as they are."""
        if not self.begun:
            return
        if self.hurried:
            self._abort()
            return
        self.hurried = True
        self._stop_timers()
        self._ends = self._site.runtime.ticker.now + self._farewell
        self._later(self._farewell, self._abort)
        self._cut(_ONE)

    async def finished(self) -> Report:
        """Wait until every connection has ended, and every task that a request left behind."""
        await self._no_connections.wait()
        # No request can come any more: the tasks that run now are all there will be.
        self._no_tasks.clear()
        if self._tasks_over:
            self._end_tasks()
        if self._work.running:
            await self._no_tasks.wait()
        self._stop_timers()
        self._work.on_empty = None
        cut = self._cut_connections + self._cut_tasks
        return Report(self._at_begin - self._cut_connections, cut, tuple(self._cuts))

    def _set_times(self) -> None:
        drain = self._site.config.drain
        self._farewell = min(self._site.config.timeouts.close, drain.total / 2)
        self._ends = self._site.runtime.ticker.now + drain.total
        last = drain.total - self._farewell
        self._later(min(drain.requests, last), partial(self._cut, (_REQUESTS, _IDLE)))
        self._later(min(drain.streams, last), partial(self._cut, (_STREAMS,)))
        self._later(min(drain.sockets, last), partial(self._cut, (_SOCKETS,)))
        self._later(drain.total, self._abort)

    def _later(self, delay: float, step: Callable[[], None]) -> None:
        self._timers.append(self._site.runtime.ticker.call_later(delay, step))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # Cutting

    def _cut(self, kinds: Collection[str]) -> None:
        """The time of these kinds is over."""
        over = [connection for connection in self._registry if connection.ending is None and _kind(connection) in kinds]
        if over:
            self._tell(f"cut {' '.join(kind for kind in kinds if kind != _IDLE)}")
        for connection in over:
            self._act(self._cut_one, connection)
        if _REQUESTS in kinds:
            self._end_tasks()

    def _cut_one(self, connection: Connection) -> None:
        cycle = _cycle(connection)
        if cycle is not None and cycle.event_stream:
            self._count_task(connection)
            cycle.end_stream()  # whole, as far as it came: that is no cut
        else:
            self._note(connection)
            _cut_off(connection)

    def _act(self, act: Callable[[Connection], None], connection: Connection) -> None:
        """Do something to a connection; a bug met there ends it, and holds nobody else up."""
        try:
            act(connection)
        except Exception as error:  # noqa: BLE001 - told below; the others must still be told to end
            loop = self._site.runtime.loop
            loop.call_exception_handler({"message": "a connection could not be drained", "exception": error})
            connection.end(Ending("internal_error", connection.phase, How.LOCAL_ABORT, repr(error)), abort=True)

    def _abort(self) -> None:
        """All the time is over."""
        for connection in self._registry:
            self._act(self._abort_one, connection)
        self._end_tasks()

    def _abort_one(self, connection: Connection) -> None:
        if connection.ending is None:
            self._note(connection)
        connection.end(Ending("drain_forced", connection.phase, How.LOCAL_ABORT), abort=True)

    def _end_tasks(self) -> None:
        """Tasks without a connection had their time: what requests left running, or what does not heed its end."""
        self._tasks_over = True
        for task, owner in self._work.running.items():
            if task not in self._counted:
                self._counted.add(task)
                self._cut_tasks += 1
                self._remember(DrainCut("task", 0, "", owner, 0.0, "", stack_of(task)))
                self._work.cancel(task, "drain_forced", owner)
        if self._no_connections.is_set():
            self._later(_PATIENCE, self._no_tasks.set)

    def _note(self, connection: Connection) -> None:
        """A connection is about to be cut."""
        self._cut_connections += 1
        self._count_task(connection)
        self._remember(_described(connection))

    def _count_task(self, connection: Connection) -> None:
        """The task of a connection is dealt with: it is not counted again when it outlives it."""
        if (task := _task(connection)) is not None:
            self._counted.add(task)

    def _remember(self, cut: DrainCut) -> None:
        if len(self._cuts) < _REPORTED:
            self._cuts.append(cut)
            self._site.runtime.bus.emit(cut)

    def _tell(self, phase: str) -> None:
        counts = dict.fromkeys(_ONE, 0)
        for connection in self._registry:
            counts[_kind(connection)] += 1
        left = max(0.0, self._ends - self._site.runtime.ticker.now)
        self._site.runtime.bus.emit(DrainPhaseChanged(phase, left, *counts.values()))


def _tell_of_drain(connection: Connection) -> None:
    if isinstance(connection.handler, HttpHandler | WebSocketHandler):
        connection.handler.begin_drain()


def _cycle(connection: Connection) -> HttpCycle | None:
    """The request in hand."""
    return connection.handler.cycle if isinstance(connection.handler, HttpHandler) else None


def _kind(connection: Connection) -> str:
    if isinstance(connection.handler, WebSocketHandler):
        return _SOCKETS
    cycle = _cycle(connection)
    if cycle is None:
        return _IDLE
    return _STREAMS if cycle.event_stream else _REQUESTS


def _cut_off(connection: Connection) -> None:
    """End a connection that had its time, and its application; politely where something can still be said."""
    handler, cycle = connection.handler, _cycle(connection)
    begun = cycle is None or cycle.stage >= Stage.BODY
    ending = Ending("drain_forced", connection.phase, How.LOCAL_ABORT if begun else How.LOCAL_FIN)
    if cycle is not None:
        cycle.fail(ending, 503)
        cycle.cancel(ending.reason)
    elif isinstance(handler, WebSocketHandler):
        handler.cancel(ending.reason)
    if connection.ending is None:
        connection.end(ending, abort=True)


def _task(connection: Connection) -> asyncio.Task[None] | None:
    """The application's task."""
    handler, cycle = connection.handler, _cycle(connection)
    task = handler.task if isinstance(handler, WebSocketHandler) else cycle.task if cycle is not None else None
    return task if task is not None and not task.done() else None


def _described(connection: Connection) -> DrainCut:
    cycle, task = _cycle(connection), _task(connection)
    method = cycle.scope["method"] if cycle is not None else ""
    return DrainCut(
        _ONE[_kind(connection)],
        connection.id,
        connection.peer_name,
        f"{method} {connection.path}".strip(),
        connection.age,
        connection.phase.value,
        stack_of(task) if task is not None else "",
    )
