"""The workers of a supervisor: how many there are, who replaces whom and when, and how they end together.

A slot is one place to serve. It holds the worker that serves and, while that one is being replaced, its successor,
which takes over when it is ready. Whoever was replaced drains outside of the slots. So a slot is never emptied on
purpose, and a successor that fails changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from socket import socket
from typing import Any, Final

import msgspec

from sojourn.bus import Bus
from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.errors import BindError, ConfigError, RestartLoopError, SojournError, StartupError
from sojourn.events import RestartFailed, WorkerEnded, WorkerReady, WorkerRetired, WorkerStarted
from sojourn.net.ticker import Call, Ticker
from sojourn.policy.restart import SETTLED, Restarts
from sojourn.server.workers.board import Board, Row
from sojourn.server.workers.channel import Message
from sojourn.server.workers.child import Child, Life, Watcher, spawn
from sojourn.server.workers.stopping import code_word, longest_drain, lost, worst
from sojourn.server.workers.vigil import Vigil

__all__ = ["Pool", "Slot"]

#: Seconds for a worker that was given up during its start, or that can't be talked to any more, until it is killed.
_PATIENCE: Final = 10.0
_ERRORS: Final = {error.exit_code: error for error in (ConfigError, StartupError, BindError)}


class Slot:
    """One place to serve.

    Attributes:
        current: Who serves; None while nobody does.
        next: Who is to take over; None when nobody is on its way.
        changing: Whether a restart works on it: then nobody else tries again.
        timer: Starts the next one later.
        tries: Counts successors that failed while the one before serves on.
    """

    __slots__ = ("changing", "current", "next", "timer", "tries")

    def __init__(self) -> None:
        self.current: Child | None = None
        self.next: Child | None = None
        self.changing = False
        self.timer: Call | None = None
        self.tries = Restarts(sys.maxsize)

    def wait_no_more(self) -> None:
        """Forget the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Pool:
    """The workers.

    Args:
        config: Settings of those that are started from now on; ``app.instance`` is that of the supervisor.
        sockets: The listening sockets.
        board: Their shared memory.
        ticker: The supervisor's time.
        bus: Gets the events of workers.
        metrics: Descriptor of the memory for what they count; -1 for none.

    Attributes:
        config: As given; a restart changes it.
        generation: How many restarts there were.
        numbers: How many workers were ever made.
        stopping: Whether everything is to end.
        reports: How those drained that ended since then.
        on_ready: Called when every slot serves for the first time.
        on_empty: Called when everything was to end and no process is left.
        on_gone: Called with the row of each worker that has ended, before another can get it.
        on_lost: Called with the reason when nothing can serve: the first generation can't start, or workers end in a
            loop.
    """

    def __init__(
        self,
        config: Config,
        *,
        sockets: Sequence[socket],
        board: Board,
        ticker: Ticker,
        bus: Bus,
        metrics: int = -1,
    ) -> None:
        self.config = config
        self.generation = self.numbers = 0
        self.stopping = False
        self.reports: list[dict[str, Any]] = []
        self.slots: list[Slot] = []
        self.restarts = Restarts(config.worker.failures)
        self.on_ready: Callable[[], None] = _nothing
        self.on_empty: Callable[[], None] = _nothing
        self.on_lost: Callable[[SojournError], None] = _nothing_of
        self.on_gone: Callable[[Row], None] = _nothing_of
        self.watcher = Watcher(self._message, self._ended, self._silent)
        self.children: dict[int, Child] = {}
        self._vigil = Vigil(self.children, lambda: self.config.worker.heartbeat, ticker, bus)
        self._sockets = sockets
        self._board = board
        self.metrics = metrics
        self._ticker = ticker
        self._bus = bus
        self._codes: list[int] = []
        #: Until one is ready or crashes, what can't start is kept back: all of them may fail for the same reason.
        self._young = True
        self._early: list[tuple[Slot, Child, int]] = []
        self._served = False

    @property
    def now(self) -> float:
        """Seconds of served time."""
        return self._ticker.now

    @property
    def room(self) -> int:
        """Workers there can be: each may have a successor while it drains."""
        return len(self._board) // 2

    def begin(self) -> None:
        """Start the first generation, or go on with adopted workers."""
        for _ in range(len(self.slots), self.config.app.workers):
            self.slots.append(Slot())
        for slot in self.slots:
            self._tend(slot)
        self._vigil.begin()

    def adopt(self, child: Child, place: int | None, *, successor: bool) -> None:
        """Take over a worker of the supervisor before.

        Args:
            child: The worker; it is listened to already.
            place: Its slot; None when it drains outside of the slots.
            successor: Whether it was to take over that slot, and not serving in it.
        """
        self.children[child.number] = child
        self._young = False
        self._served = True
        if place is None:
            self._limit(child, 0.0)
            return
        while len(self.slots) <= place:
            self.slots.append(Slot())
        if successor:
            self.slots[place].next = child
            self._limit_start(child)
        else:
            self.slots[place].current = child

    # Starting and replacing

    def _start(self, slot: Slot, config: Config, why: str) -> str | None:
        """Make a worker for a slot; what went wrong if there is none."""
        slot.wait_no_more()
        self.numbers += 1
        number = self.numbers
        own = msgspec.structs.replace(
            config,
            app=msgspec.structs.replace(config.app, instance=f"{config.app.instance}/{number}"),
            drain=msgspec.structs.replace(config.drain, report=None),
        )
        try:
            child = spawn(
                number,
                self.generation,
                own,
                sockets=self._sockets,
                board=self._board,
                metrics=self.metrics,
                ticker=self._ticker,
                watcher=self.watcher,
            )
        except (OSError, StartupError) as error:
            return f"no worker could be made: {error}"
        child.config = config
        slot.next = self.children[number] = child
        self._limit_start(child)
        self._bus.emit(WorkerStarted(number, child.pid, why))
        return None

    def _limit_start(self, child: Child) -> None:
        limit = child.config.worker.start
        if limit is not None:
            self._later(child, limit, partial(self._vigil.overdue, child, limit))

    def _tend(self, slot: Slot) -> None:
        """See that somebody serves in a slot, or is about to."""
        if self.stopping or slot.changing or slot.next is not None or slot.timer is not None:
            return
        current = slot.current
        if current is None or current.wish:
            why = current.wish if current is not None else "start" if self._young else "replacement"
            problem = self._start(slot, self.config, why)
            if problem is not None:
                self._bus.emit(RestartFailed("the start of a worker", problem))
                self._again(slot, slot.tries.ended(0.0))

    def _again(self, slot: Slot, wait: float | None) -> None:
        """Tend a slot later."""
        if wait is not None:
            slot.timer = self._ticker.call_later(wait, partial(self._rung, slot)) if wait else None
            if not wait:
                self._tend(slot)

    def _rung(self, slot: Slot) -> None:
        slot.timer = None
        self._tend(slot)

    async def restart(self, config: Config, why: str) -> str | None:
        """Replace all workers, one after the other: the new one is ready before the old one drains.

        Args:
            config: Settings of the new ones; ``app.workers`` may be another number.
            why: ``restart`` or ``upgrade``.

        Returns:
            What went wrong; None when all are replaced. What was not replaced serves on.
        """
        self.generation += 1
        for index in range(config.app.workers):
            if index == len(self.slots):
                self.slots.append(Slot())
            problem = await self._renew(self.slots[index], config, why)
            if self.stopping:
                return None
            if problem is not None:
                if self.slots[index].current is None and index >= self.config.app.workers:
                    del self.slots[index]  # one more than before was wanted, and there is none
                return problem
            self.config = config
            self.restarts.most = config.worker.failures
        self._resize(config.app.workers, why)
        return None

    def follow(self, config: Config) -> None:
        """The workers have been told of changed settings: those that are made from now on have them too."""
        self.config = config
        self.restarts.most = config.worker.failures
        for slot in self.slots:
            if slot.current is not None:
                slot.current.config = config
        for _ in range(len(self.slots), config.app.workers):
            self.slots.append(Slot())
            self._tend(self.slots[-1])
        self._resize(config.app.workers, "fewer workers")

    def _resize(self, most: int, why: str) -> None:
        """Let those go that are too many."""
        for slot in self.slots[most:]:
            slot.wait_no_more()
            if slot.next is not None:
                self._give_up_start(slot.next)
            if slot.current is not None:
                self._retire(slot.current, why)
        del self.slots[most:]

    async def _renew(self, slot: Slot, config: Config, why: str) -> str | None:
        slot.changing = True
        try:
            slot.wait_no_more()
            if slot.next is not None and slot.next.config is not config:
                self._give_up_start(slot.next)
                slot.next = None
            if slot.next is None:
                if slot.current is not None and slot.current.config is config and not slot.current.wish:
                    return None  # it was replaced meanwhile, by one of the new kind
                problem = self._start(slot, config, why)
                if problem is not None:
                    return problem
            assert slot.next is not None
            return await slot.next.outcome
        finally:
            slot.changing = False
            self._tend(slot)

    def _give_up_start(self, child: Child) -> None:
        child.expected = "given up"
        child.settle("it was given up")
        child.terminate()
        self._later(child, _PATIENCE, child.kill)

    def _retire(self, child: Child, why: str) -> None:
        """Others serve on: it may go."""
        child.expected = why
        child.life = Life.DRAINING
        self._bus.emit(WorkerRetired(child.number, child.pid, why))
        child.tell("drain", delay=0.0, last=False)
        self._limit(child, 0.0)

    def _limit(self, child: Child, delay: float | None) -> None:
        """Kill it when it has not ended although all its time is over."""
        seconds = longest_drain(child.config, delay)
        if seconds < NEVER:
            self._later(child, seconds, child.kill)

    def _later(self, child: Child, seconds: float, call: Callable[[], None]) -> None:
        child.calls.append(self._ticker.call_later(seconds, call))

    # What workers say

    def _message(self, child: Child, message: Message) -> None:
        match message.get("type"):
            case "ready":
                self._ready(child)
            case "failed":
                child.failure = (str(message.get("message")), int(message.get("code", 1)))
            case "retire":
                self._wish(child, str(message.get("reason")))
            case "drain":
                child.drain = message
                if not child.expected:
                    self._wish(child, "stopped from outside")
            case "report":
                child.report = {key: value for key, value in message.items() if key != "type"}

    def _wish(self, child: Child, why: str) -> None:
        child.wish = child.wish or why
        slot = self._slot_of(child)
        if slot is not None and slot.current is child:
            self._tend(slot)

    def _ready(self, child: Child) -> None:
        for call in child.calls:
            call.cancel()
        child.calls.clear()
        child.life = Life.READY
        child.ready = self._ticker.now
        self._bus.emit(WorkerReady(child.number, child.pid, child.ready - child.born))
        self._later(child, SETTLED, self.restarts.settled)
        slot = self._slot_of(child)
        if self.stopping or slot is None:
            self._end(child, None)
            return
        before, slot.current, slot.next = slot.current, child, None
        slot.tries.settled()
        child.settle(None)
        if before is not None:
            self._retire(before, before.wish or "restart")
        self._grow_up()
        if not self._served and all(each.current is not None for each in self.slots):
            self._served = True
            self.on_ready()

    def _silent(self, child: Child) -> None:
        """Its end of the channel is closed: it has ended, or will have to."""
        self._later(child, _PATIENCE, child.kill)

    def _slot_of(self, child: Child) -> Slot | None:
        return next((slot for slot in self.slots if child in (slot.current, slot.next)), None)

    # Ends

    def _ended(self, child: Child, code: int) -> None:
        del self.children[child.number]
        self.on_gone(child.row)
        self._board.free(child.row)
        child.settle(_problem(child, code))
        if self.stopping:
            self._account(child, code)
            self._tell_end(child, code, None)
            if not self.children:
                self.on_empty()
            return
        slot = self._slot_of(child)
        if slot is None:
            self._tell_end(child, code, None)
        elif slot.current is child:
            slot.current = None
            if slot.next is None:
                self._fallen(slot, child, code)
            else:
                self._tell_end(child, code, 0.0)
        else:
            slot.next = None
            if slot.current is None:
                self._fallen(slot, child, code)
            else:  # the one before serves on
                wait = None if slot.changing else slot.tries.ended(0.0)
                if slot.changing:
                    child.expected = child.expected or "failed"  # who restarts says so
                self._tell_end(child, code, wait)
                self._again(slot, wait)

    def _fallen(self, slot: Slot, child: Child, code: int) -> None:
        """Nobody serves in this slot any more."""
        if self._young and child.failure is not None:
            self._early.append((slot, child, code))
            if not any(each.next or each.current for each in self.slots):
                self.stopping = True
                message, number = max((each.failure for _, each, _ in self._early if each.failure), key=_code_of)
                self.on_lost(_error(message, number))
            return
        self._grow_up()
        served = self._ticker.now - child.ready if child.ready is not None else 0.0
        wait = 0.0 if child.report is not None else self.restarts.ended(served)
        self._tell_end(child, code, wait)
        if wait is None:
            line = f"{self.restarts.row} workers in a row ended before they had served for a minute; the last one: "
            self.on_lost(RestartLoopError(line + _problem(child, code)))
        else:
            self._again(slot, wait)

    def _grow_up(self) -> None:
        """Not all of the first generation fail for the same reason: each is dealt with by itself."""
        if self._young:
            self._young = False
            early, self._early = self._early, []
            for slot, child, code in early:
                self._fallen(slot, child, code)

    def _tell_end(self, child: Child, code: int, again: float | None) -> None:
        expected = bool(child.expected or child.report is not None) and not child.killed
        problem = "" if child.failure is None else child.failure[0]
        self._bus.emit(WorkerEnded(child.number, child.pid, code, expected, again, problem))

    def _account(self, child: Child, code: int) -> None:
        if child.ready is None:
            return  # it has served nobody
        instance = f"{child.config.app.instance}/{child.number}"
        self.reports.append(child.report or lost(instance, code))
        self._codes += [code, int(self.reports[-1].get("exit_code", 0))]

    @property
    def code(self) -> int:
        """The exit code of all workers that ended since everything was to end."""
        return worst(self._codes)

    # The end of everything

    def stop(self) -> None:
        """Everybody drains, by the plan of their settings; nobody is replaced any more."""
        self.stopping = True
        for slot in self.slots:
            slot.wait_no_more()
        for child in list(self.children.values()):
            self._end(child, None)
        if not self.children:
            self.on_empty()

    def _end(self, child: Child, delay: float | None) -> None:
        if child.ready is None:
            self._give_up_start(child)
            return
        if not child.expected:
            child.expected = "stop"
            self._limit(child, delay)
        child.life = Life.DRAINING
        child.tell("drain", delay=delay, last=True)

    def hurry(self) -> None:
        """Everybody goes on to the next phase of their drain."""
        for child in self.children.values():
            child.tell("hurry")

    def kill(self) -> None:
        """Nobody gets any more time."""
        for child in self.children.values():
            child.kill()


def _problem(child: Child, code: int) -> str:
    return child.failure[0] if child.failure is not None else f"it ended with {code_word(code)}"


def _error(message: str, code: int) -> SojournError:
    """What a worker could not start with, as an error of this process."""
    return _ERRORS.get(code, SojournError)(message)


def _code_of(failure: tuple[str, int]) -> int:
    return failure[1]


def _nothing() -> None: ...


def _nothing_of(_: object) -> None: ...
