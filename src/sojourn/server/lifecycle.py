"""Shutdown: stop accepting, let everybody finish within its time, cut who does not, and say who that was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.ending import Ending, How
from sojourn.events import DrainPhaseChanged, TaskSurvived
from sojourn.net.connection import Connection
from sojourn.net.listener import Listener
from sojourn.scopes.work import stack_of

__all__ = ["Report", "Shutdown", "Survivor"]

#: Seconds for tasks that were cancelled at the very end.
_LAST_CANCEL = 5.0


class Survivor(NamedTuple):
    """A connection that had to be cut."""

    connection: int
    peer: str
    protocol: str
    path: str
    age: float
    phase: str
    stack: str


class Report(NamedTuple):
    """What became of the connections that were open when the shutdown began."""

    finished: int
    cut: int
    survivors: tuple[Survivor, ...]
    problems: tuple[str, ...]


class Shutdown:
    """The end of a server, in phases. Begun once; hurried by further signals.

    Args:
        site: What is served.
        listeners: What accepts.
    """

    def __init__(self, site: Site, listeners: Sequence[Listener]) -> None:
        self._site = site
        self._listeners = listeners
        self._done = asyncio.Event()
        self._at_begin = 0
        self._survivors: list[Survivor] = []
        self._problems: list[str] = []
        self._timers: list[Any] = []
        #: What ``hurry`` does next, in order.
        self._next: list[Callable[[], None]] = []
        self.begun = False

    def begin(self) -> None:
        """Stop accepting and tell everybody."""
        if self.begun:
            return
        self.begun = True
        site, registry = self._site, self._site.runtime.registry
        for listener in self._listeners:
            listener.close()
        site.begin_drain()
        registry.on_empty = self._done.set
        self._at_begin = len(registry)
        drain = site.config.drain
        self._tell("finish", drain.total)
        later = site.runtime.ticker.call_later
        self._next = [self._end_streams, self._cut_all]
        self._timers = [
            later(min(drain.streams, drain.total), self._end_streams),
            later(min(max(drain.requests, drain.sockets), drain.total), self._cut_all),
        ]
        for connection in registry:
            handler = connection.handler
            if isinstance(handler, HttpHandler | WebSocketHandler):
                handler.begin_drain()
        if not len(registry):
            self._done.set()

    def hurry(self) -> None:
        """Go on to the next phase now."""
        if self._next:
            self._next.pop(0)()

    async def finished(self) -> Report:
        """Wait until every connection has ended."""
        await self._done.wait()
        for timer in self._timers:
            timer.cancel()
        cut = len(self._survivors)
        return Report(self._at_begin - cut, cut, tuple(self._survivors), tuple(self._problems))

    def note(self, problem: str) -> None:
        """Remember something that went wrong on the way."""
        self._problems.append(problem)

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong on the way."""
        return tuple(self._problems)

    async def end_tasks(self) -> None:
        """Cancel the tasks that are left, and name those that resist."""
        work = self._site.work
        tasks = [task for task in work.running if task is not asyncio.current_task()]
        for task in tasks:
            work.cancel(task, "drain_forced", "the server")
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_CANCEL)
        for task in tasks:
            if not task.done():
                stack = stack_of(task)
                self._problems.append(f"task {task.get_name()} did not end:\n{stack}")
                self._site.runtime.bus.emit(
                    TaskSurvived(task.get_name(), "the server", "drain_forced", _LAST_CANCEL, stack, False)
                )

    def _end_streams(self) -> None:
        """Streams had their time; what still streams is ended."""
        if self._end_streams not in self._next:
            return
        self._next.remove(self._end_streams)
        self._tell("streams", max(0.0, self._site.config.drain.total - self._site.config.drain.streams))
        for connection in self._site.runtime.registry:
            handler = connection.handler
            if isinstance(handler, HttpHandler) and handler.cycle is not None and handler.cycle.streaming:
                handler.cycle.goodbye(0.0)

    def _cut_all(self) -> None:
        """The time is over."""
        if self._cut_all not in self._next:
            return
        self._next.clear()
        self._tell("cut", 0.0)
        for connection in self._site.runtime.registry:
            if connection.ending is None:
                self._survivors.append(_survivor(connection))
            connection.end(Ending("drain_forced", connection.phase, How.LOCAL_ABORT), abort=True)

    def _tell(self, phase: str, left: float) -> None:
        requests = streams = sockets = idle = 0
        for connection in self._site.runtime.registry:
            handler = connection.handler
            if isinstance(handler, WebSocketHandler):
                sockets += 1
            elif isinstance(handler, HttpHandler) and handler.cycle is not None:
                if handler.cycle.streaming:
                    streams += 1
                else:
                    requests += 1
            else:
                idle += 1
        self._site.runtime.bus.emit(DrainPhaseChanged(phase, left, requests, streams, sockets, idle))


def _survivor(connection: Connection) -> Survivor:
    handler = connection.handler
    task: asyncio.Task[None] | None = None
    if isinstance(handler, WebSocketHandler):
        task = handler.task
    elif isinstance(handler, HttpHandler) and handler.cycle is not None:
        task = handler.cycle.task
    stack = stack_of(task) if task is not None and not task.done() else ""
    protocol = handler.protocol if handler is not None else ""
    return Survivor(
        connection.id, connection.peer_name, protocol, connection.path, connection.age, connection.phase.name, stack
    )
