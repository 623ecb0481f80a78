"""What is open with a session on this node: kept in use while it is, and ended when the session is.

Two tasks, while anything is open. One is told by the store what is revoked. The other uses all sessions that are open
once in a quarter of their idle time, so that a session lasts as long as its connections, and finds those that are over
though nobody has said so. It also looks at once wherever something may have been missed: after the store was away, and
when a connection was entered that was loaded before anybody listened. So nothing is missed; at worst it is late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Collection, Coroutine, Iterable
from contextvars import Context
from typing import Any, Final, NamedTuple, Protocol

from sojourn.asgi.server_control import CURRENT_SERVER, ServerControl
from sojourn.clock import NEVER, Clock, SystemClock
from sojourn.errors import DeadlineExceeded, SessionStoreUnavailable
from sojourn.scopes.failures import WORK
from sojourn.scopes.work import launch
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import GRACE, Revocation

__all__ = ["Held", "Live", "Mark"]

#: Sessions in one statement.
_BATCH: Final = 1000
#: Seconds with nothing open after which nobody listens any more: the next request most often comes before.
_LINGER: Final = 10.0
#: Seconds before a store that was away is asked again.
_AGAIN: Final = 1.0
#: Revocations that are remembered for those that were on their way in.
_RECENT: Final = 256
_REVOKED: Final = "credentials_revoked"
_EXPIRED: Final = "credentials_expired"


class Held(Protocol):
    """A request or WebSocket that is open with a session.

    Attributes:
        key: Of the session.
        user: Whose that is; "" for nobody.
    """

    key: str
    user: str

    def end(self, reason: str) -> None:
        """The session does not count any more: a word of ``ending.REASONS``."""


class Mark(NamedTuple):
    """How much had been told when a session was loaded; what came after it was told of the session as it was."""

    listening: int
    told: int


class _End(NamedTuple):
    """Something is over at a moment, if it still has this session. The number tells those of one moment apart."""

    moment: float
    number: int
    held: Held
    key: str


class Live:
    """All that is open with a session, in one event loop.

    Args:
        store: Where the sessions are.
        idle: Seconds of their idle time.
        clock: Times the waits.
    """

    def __init__(self, store: SessionStore, idle: float, clock: Clock | None = None) -> None:
        self._store = store
        self._interval = idle / 4
        self._clock = clock or SystemClock()
        self._by_key: dict[str, dict[Held, None]] = {}
        self._by_user: dict[str, dict[Held, None]] = {}
        self._ends: list[_End] = []
        self._sweep_at = _RECENT
        self._numbers = itertools.count()
        self._recent: deque[tuple[int, Revocation]] = deque(maxlen=_RECENT)
        self._told = 0
        #: How often it has begun to listen, and whether it does now.
        self._listening = 0
        self._hears = False
        #: Keys of which somebody may have said something that was not heard.
        self._unsure: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake: asyncio.Future[None] | None = None
        #: At whose drain it is closed.
        self._server: ServerControl | None = None

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def mark(self) -> Mark | None:
        """To be taken before a session is loaded, and given to :meth:`enter`. None while nobody listens."""
        return Mark(self._listening, self._told) if self._hears else None

    def enter(self, held: Held, left: float, mark: Mark | None) -> None:
        """Something is open from now on.

        Args:
            held: What.
            left: Seconds until its session is over in any case.
            mark: Taken before the session was loaded.
        """
        self._by_key.setdefault(held.key, {})[held] = None
        if held.user:
            self._by_user.setdefault(held.user, {})[held] = None
        self._end_in(held, left)
        if mark is None or mark.listening != self._listening or self._forgotten(mark):
            self._unsure.add(held.key)
        else:
            for number, revocation in self._recent:
                if number > mark.told and self._meant(held, revocation):
                    self._apply(revocation, (held,))
        self._start()
        if self._unsure:
            self._rouse()

    def leave(self, held: Held) -> None:
        """It is not open any more, or not with this session. Nothing happens when it was not."""
        for index, name in ((self._by_key, held.key), (self._by_user, held.user)):
            group = index.get(name)
            if group is not None:
                group.pop(held, None)
                if not group:
                    del index[name]
        if not self._by_key:
            self._rouse()

    async def aclose(self) -> None:
        """Listen no more.

        Cancel: safe.
        """
        tasks, self._tasks = self._tasks, []
        self._hears = False
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)

    # What the store tells

    def revoked(self, revocation: Revocation) -> None:
        """See Watcher."""
        self._told += 1
        self._recent.append((self._told, revocation))
        self._apply(revocation, self._those(revocation))

    def missed(self) -> None:
        """See Watcher."""
        self._listening += 1
        self._hears = True
        self._unsure.update(self._by_key)
        self._rouse()

    def away(self) -> None:
        """See Watcher."""
        self._hears = False

    # Its own

    def _forgotten(self, mark: Mark) -> bool:
        return bool(self._recent) and self._recent[0][0] > mark.told + 1

    def _those(self, revocation: Revocation) -> list[Held]:
        what, name, keep = revocation
        if what == "all":
            return [held for group in self._by_key.values() for held in group]
        group = (self._by_user if what == "user" else self._by_key).get(name, {})
        return [held for held in group if not keep or held.key != keep]

    def _meant(self, held: Held, revocation: Revocation) -> bool:
        what, name, keep = revocation
        if what == "all":
            return True
        return name == (held.user if what == "user" else held.key) and (not keep or held.key != keep)

    def _apply(self, revocation: Revocation, those: Iterable[Held]) -> None:
        for held in those:
            if revocation.what == "rotated":
                self._end_in(held, GRACE)
            else:
                self._end(held, _REVOKED)

    def _end(self, held: Held, reason: str) -> None:
        if self._holds(held, held.key):
            self.leave(held)
            # Not from here: who calls may be the very application that is ended.
            asyncio.get_running_loop().call_soon(held.end, reason)

    def _end_in(self, held: Held, seconds: float) -> None:
        ends = self._ends
        if len(ends) >= self._sweep_at:  # most of them have left
            ends[:] = [end for end in ends if self._holds(end.held, end.key)]
            heapq.heapify(ends)
            self._sweep_at = 2 * len(ends) + _RECENT
        end = _End(self._clock.monotonic() + seconds, next(self._numbers), held, held.key)
        heapq.heappush(ends, end)
        if ends[0] is end:
            self._rouse()

    def _holds(self, held: Held, key: str) -> bool:
        return held.key == key and held in self._by_key.get(key, ())

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        running = [task for task in self._tasks if not task.done() and task.get_loop() is loop]
        if len(running) == 2:
            return
        for task in running:
            task.cancel()
        self._hears = False
        self._tasks = [self._launch(self._use(), "sessions in use"), self._launch(self._listen(), "revoked sessions")]
        server = CURRENT_SERVER.get(None)
        if server is not None and server is not self._server:
            # The tasks are nobody's for whom a drain would wait; and not every application has a lifespan.
            self._server = server
            server.on_drain(self.aclose, name="sessions")

    def _launch(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        work = WORK.get(None)
        return launch(coroutine, name, Context() if work is None else work.context())

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._store.watch(self)
            except Exception as error:  # noqa: BLE001 - whatever the store of somebody else does, others are not deaf
                loop.call_exception_handler({"message": "watching the session store failed", "exception": error})
            finally:
                self._hears = False
            await asyncio.wait((loop.create_future(),), timeout=_AGAIN)

    async def _use(self) -> None:
        now = self._clock.monotonic()
        due, empty_since = self._next(now), now
        while True:
            # First: whoever rouses it from here on shortens the wait at the end.
            self._wake = wake = asyncio.get_running_loop().create_future()
            now = self._clock.monotonic()
            self._expire(now)
            again = NEVER
            if self._unsure and self._hears:
                keys, self._unsure = self._unsure & self._by_key.keys(), set()
                if not await self._touch(keys, _REVOKED):
                    self._unsure |= keys
                    again = now + _AGAIN
            if now >= due:
                due = self._next(now) if await self._touch(list(self._by_key), _EXPIRED) else now + _AGAIN
            if self._by_key:
                empty_since = NEVER
            elif empty_since == NEVER:
                empty_since = now
            elif now >= empty_since + _LINGER:
                break
            moment = min(due, again, empty_since + _LINGER, self._ends[0].moment if self._ends else NEVER)
            await asyncio.wait((wake,), timeout=max(0.0, moment - self._clock.monotonic()))
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _next(self, now: float) -> float:
        """When all are used next: nodes that began together do not ask together."""
        return now + self._interval * random.uniform(0.75, 1.0)

    def _rouse(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done() and wake.get_loop() is asyncio.get_running_loop():
            wake.set_result(None)

    def _expire(self, now: float) -> None:
        ends = self._ends
        while ends and ends[0].moment <= now:
            end = heapq.heappop(ends)
            if self._holds(end.held, end.key):
                self._end(end.held, _EXPIRED)

    async def _touch(self, keys: Collection[str], reason: str) -> bool:
        """Use sessions, and end what is open with those that are over. Returns whether the store has answered."""
        keys = list(keys)
        for begin in range(0, len(keys), _BATCH):
            batch = keys[begin : begin + _BATCH]
            try:
                there = await self._store.touch(batch)
            except (SessionStoreUnavailable, DeadlineExceeded):
                return False
            for key in batch:
                if key not in there:
                    for held in list(self._by_key.get(key, ())):
                        self._end(held, reason)
        return True
