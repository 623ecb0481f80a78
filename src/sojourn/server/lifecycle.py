"""The drain of one worker: acts on what the plan (`policy/drain`) says, and reports what became of everybody.

    notice    serving goes on; the application is told, readiness says no
    finish    nobody new: requests finish, streams are told, WebSockets are closed one by one; whose time is over is cut
    persist   participants save what is left
    stop      the application's own shutdown (Server.wait_stopped)

What a request leaves running after its answer counts as a request. Cut is: 503 where no answer has begun, else the end
of the connection; the application is cancelled, by the ladder. A task that resists is waited for until the ladder has
named it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from sojourn.asgi.cycle import Stage
from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.clock import NEVER
from sojourn.ending import Ending, How
from sojourn.events import ConnectionEnded, DrainCounted, DrainCut, DrainPhaseChanged
from sojourn.net.connection import Connection
from sojourn.net.listener import Listener
from sojourn.net.ticker import Call
from sojourn.policy.drain import DrainPhase, DrainPlan, Kind, Step, Times
from sojourn.scopes.work import stack_of
from sojourn.server.participants import PATIENCE, Participants
from sojourn.server.report import Report, Tally, counted, cycle_of, described, kind_of, task_of

__all__ = ["Shutdown"]

#: Seconds between two marks of the countdown.
_MARK: Final = 5.0
#: Seconds from refusing handshakes to closing the socket: those under way get complete meanwhile.
_HANDSHAKE: Final = 0.5
#: Cuts told one by one, and kept for the report; more are counted.
_TOLD: Final = 50
_KEPT: Final = 1000


class Shutdown:
    """The end of a worker. Begun once; hurried by further signals.

    Args:
        site: What is served.
        listeners: What accepts.
        last: Whether nobody else has the listening sockets: closing them would reset who waits in the kernel.
        notice: Called when the drain begins, to tell the application.
        jitter: Returns numbers from 0 to 1.
    """

    def __init__(
        self,
        site: Site,
        listeners: Sequence[Listener],
        *,
        last: bool,
        notice: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.last = last
        self._site = site
        self._work = site.work
        self._ticker = site.runtime.ticker
        self._bus = site.runtime.bus
        self._registry = site.runtime.registry
        self._listeners = listeners
        self._notice = notice
        self._jitter = jitter
        self._instance = site.config.app.instance or ""
        self._plan: DrainPlan | None = None
        self._participants = Participants(site.work, self._ticker, self._bus, self._step)
        #: Set when only the application's own shutdown is left.
        self._over = asyncio.Event()
        #: Guards against steps in a step: an ending that it causes may ask for the next.
        self._stepping = self._again = False
        self._alarm: Call | None = None
        self._began = 0.0
        #: What each connection was when accepting stopped, and WebSockets that are still to be closed.
        self._kinds: dict[int, Kind] = {}
        self._sockets: deque[Connection] = deque()
        self._told = dict.fromkeys(Kind, 0)
        self._cut_of = dict.fromkeys(Kind, 0)
        self._cut_tasks = self._unanswered = 0
        self._forget: Callable[[], None] | None = None
        #: Tasks that are counted, by themselves or with their connection.
        self._counted: set[asyncio.Task[Any]] = set()
        self._cuts: list[DrainCut] = []

    @property
    def begun(self) -> bool:
        """Whether the drain has begun."""
        return self._plan is not None

    def begin(self, delay: float | None = None) -> None:
        """Begin. Only the first call does anything.

        Args:
            delay: Seconds of notice; None takes ``drain.delay``.
        """
        if self._plan is not None:
            return
        config = self._site.config
        self._began = self._ticker.now
        times = Times(config.timeouts.close, config.websocket.close, PATIENCE)
        self._plan = DrainPlan(config.drain, self._began, times, self._jitter, delay=delay)
        self._registry.on_empty = self._work.on_empty = self._step
        self._site.begin_notice()
        self._notice()
        self._enter(self._plan, DrainPhase.NOTICE)
        self._ticker.call_later(_MARK, self._mark)
        notice = config.drain.delay if delay is None else delay
        if notice > _HANDSHAKE:
            self._ticker.call_later(notice - _HANDSHAKE, self._stop_handshakes)
        self._step()

    def hurry(self) -> None:
        """Go on to what comes next: nobody waits for what it is now."""
        if self._plan is not None:
            self._plan.hurry()
            self._step()

    async def finished(self) -> Report:
        """Wait until every connection has ended, every task that a request left behind, and every participant."""
        await self._over.wait()
        self._work.on_empty = self._registry.on_empty = None
        if self._forget is not None:
            self._forget()
        opened = dict.fromkeys(Kind, 0)
        for kind in self._kinds.values():
            opened[kind] += 1
        cut = self._cut_of
        tallies = {
            kind.value: Tally(opened[kind], self._told[kind], opened[kind] - cut[kind], cut[kind]) for kind in Kind
        }
        connections = sum(cut.values())
        return Report(
            len(self._kinds) - connections,
            connections + self._cut_tasks,
            tuple(self._cuts),
            kinds=tallies,
            unanswered=self._unanswered,
            participants=tuple(self._participants.ended),
            seconds=self._ticker.now - self._began,
            instance=self._instance,
        )

    # The plan and its phases

    def _step(self) -> None:
        """Ask the plan what is to be done, do it, and set the time to ask again."""
        if self._stepping:
            self._again = True
            return
        plan = self._plan
        assert plan is not None
        self._stepping = True
        try:
            while True:
                self._again = False
                before = plan.phase
                step = plan.decide(
                    self._ticker.now, len(self._registry), len(self._work.running), self._participants.busy
                )
                self._do(plan, step, before)
                if step.phase is before and not self._again:
                    break
        finally:
            self._stepping = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if step.wake < NEVER:
            self._alarm = self._ticker.call_later(max(0.0, step.wake - self._ticker.now), self._step)

    def _do(self, plan: DrainPlan, step: Step, before: DrainPhase) -> None:
        if step.give_up:
            self._participants.give_up()
        if step.cut:
            self._cut(step.cut)
        if step.cut_tasks:
            self._end_tasks()
        if step.abort:
            self._abort()
        for _ in range(min(step.close, len(self._sockets))):
            self._tell_one(self._sockets.popleft())
        if step.phase is not before:
            self._enter(plan, step.phase)

    def _enter(self, plan: DrainPlan, phase: DrainPhase) -> None:
        """A phase begins."""
        if phase is DrainPhase.STOP:
            self._over.set()
            return
        if phase is DrainPhase.FINISH:
            self._stop_accepting(plan)
        self._tell(phase.value)
        self._participants.begin([one for one in self._site.control.participants if one.phase == phase.value])

    def _stop_handshakes(self) -> None:
        """Accepting is about to end: who is connecting may come in, nobody begins to."""
        if self.last:
            for listener in self._listeners:
                listener.stop_handshakes()

    def _stop_accepting(self, plan: DrainPlan) -> None:
        """Nobody new; everybody is told, WebSockets when their turn comes."""
        self._stop_handshakes()
        for listener in self._listeners:
            if self.last:
                listener.accept_pending()
            listener.close()
        self._site.begin_drain()
        self._forget = self._bus.observe(ConnectionEnded, self._ended)
        self._kinds = {connection.id: kind_of(connection) for connection in self._registry}
        for connection in self._registry:
            if self._kinds[connection.id] is Kind.SOCKETS:
                self._sockets.append(connection)
            else:
                self._tell_one(connection)
        plan.sockets(len(self._sockets), self._ticker.now)

    def _ended(self, event: ConnectionEnded) -> None:
        if event.ws_sent is not None and event.ws_received is None:
            self._unanswered += 1

    def _tell_one(self, connection: Connection) -> None:
        handler = connection.handler
        if connection.ending is None and isinstance(handler, HttpHandler | WebSocketHandler):
            kind = kind_of(connection)
            if kind is not Kind.REQUESTS:
                self._told[kind] += 1
            self._act(_begin_drain, connection)

    def _tell(self, phase: str) -> None:
        plan = self._plan
        if plan is not None and self._bus.wants(DrainPhaseChanged):
            self._bus.emit(DrainPhaseChanged(phase, self._instance, *self._left(plan)))

    def _mark(self) -> None:
        """The countdown."""
        plan = self._plan
        if plan is None or plan.phase is DrainPhase.STOP:
            return
        self._bus.emit(DrainCounted(plan.phase.value, self._instance, *self._left(plan)))
        self._ticker.call_later(_MARK, self._mark)

    def _left(self, plan: DrainPlan) -> tuple[float, int, int, int, int]:
        counts = counted(self._registry)
        left = max(0.0, plan.ends - self._ticker.now)
        return left, counts[Kind.REQUESTS], counts[Kind.STREAMS], counts[Kind.SOCKETS], counts[Kind.IDLE]

    # Cutting

    def _cut(self, kinds: Collection[Kind]) -> None:
        """The time of these kinds is over."""
        over = [
            connection for connection in self._registry if connection.ending is None and kind_of(connection) in kinds
        ]
        if over:
            self._tell(f"cut {' '.join(kind.value for kind in kinds if kind is not Kind.IDLE)}")
        for connection in over:
            self._act(self._cut_one, connection)

    def _cut_one(self, connection: Connection) -> None:
        cycle = cycle_of(connection)
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

    def _abort_one(self, connection: Connection) -> None:
        if connection.ending is None:
            self._note(connection)
        connection.end(Ending("drain_forced", connection.phase, How.LOCAL_ABORT), abort=True)

    def _end_tasks(self) -> None:
        """Tasks without a connection had their time: what requests left running, or what does not heed its end."""
        for task, owner in list(self._work.running.items()):
            if task not in self._counted:
                self._counted.add(task)
                self._cut_tasks += 1
                self._remember(DrainCut("task", 0, "", owner, 0.0, "", stack_of(task)))
                self._work.cancel(task, "drain_forced", owner)

    def _note(self, connection: Connection) -> None:
        """A connection is about to be cut."""
        # One that came by accepting the kernel's queue is known; nobody else can have come since.
        self._cut_of[self._kinds.setdefault(connection.id, kind_of(connection))] += 1
        self._count_task(connection)
        self._remember(described(connection))

    def _count_task(self, connection: Connection) -> None:
        """The task of a connection is dealt with: it is not counted again when it outlives it."""
        if (task := task_of(connection)) is not None:
            self._counted.add(task)

    def _remember(self, cut: DrainCut) -> None:
        if len(self._cuts) < _KEPT:
            self._cuts.append(cut)
        if len(self._cuts) <= _TOLD:
            self._bus.emit(cut)


def _begin_drain(connection: Connection) -> None:
    if isinstance(connection.handler, HttpHandler | WebSocketHandler):
        connection.handler.begin_drain()


def _cut_off(connection: Connection) -> None:
    """End a connection that had its time, and its application; politely where something can still be said."""
    handler, cycle = connection.handler, cycle_of(connection)
    begun = cycle is None or cycle.stage >= Stage.BODY
    ending = Ending("drain_forced", connection.phase, How.LOCAL_ABORT if begun else How.LOCAL_FIN)
    if cycle is not None:
        cycle.fail(ending, 503)
        cycle.cancel(ending.reason)
    elif isinstance(handler, WebSocketHandler):
        handler.cancel(ending.reason)
    if connection.ending is None:
        connection.end(ending, abort=True)
