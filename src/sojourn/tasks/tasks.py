"""Durable tasks: what must be done is written down first, answered with 202, and finished whatever happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

import msgspec

from sojourn.asgi.server_control import CURRENT_SERVER, ServerControl
from sojourn.clock import SystemClock
from sojourn.errors import (
    ConfigError,
    DeadlineExceeded,
    JournalUnavailable,
    TaskArguments,
    TaskConflict,
    TaskFailed,
    TaskNotFound,
)
from sojourn.scopes.budget import budget
from sojourn.scopes.journals import Journals, met
from sojourn.scopes.pausing import within
from sojourn.tasks.access import Access, Authorizer
from sojourn.tasks.app import TasksApp
from sojourn.tasks.cancelling import cancel
from sojourn.tasks.definition import Definition
from sojourn.tasks.journal import Journal
from sojourn.tasks.kinds import Kind, Kinds, decoded
from sojourn.tasks.making import kept, made, spec_of
from sojourn.tasks.node import Node
from sojourn.tasks.opening import journal_from
from sojourn.tasks.origin import owner_here
from sojourn.tasks.pace import Pace
from sojourn.tasks.periodic import Periodic, Plan, schedule_of
from sojourn.tasks.record import ENDED, Event, NewTask, Settlement, Task
from sojourn.tasks.runner import Reauthorise, Run
from sojourn.tasks.settings import Settings
from sojourn.tasks.spec import Problem
from sojourn.tasks.started import Started
from sojourn.tasks.stats import Stats
from sojourn.tasks.view import View
from sojourn.tasks.wish import Wish

if TYPE_CHECKING:
    from sojourn.tasks.webhooks import Webhooks

__all__ = ["Tasks"]

F = TypeVar("F", bound=Callable[..., Any])

#: What errors and ``deadlines.budgets`` call a submission, and seconds for one without a word of that.
BUDGET: Final = "tasks"
SECONDS: Final = 2.0
_wall: Final = SystemClock.wall


class Tasks:
    """Work that outlives its request, its connection and its process.

    One object for the application, made before it serves. Give its lifespan to the application, or use ``async with``
    in your own: then it takes up what others have left as well. Each process of the service runs tasks beside its
    requests, or none with ``work=False``: then ``sojourn work`` does it in processes of its own.

    What is started is done at least once, and its end is written down exactly once: a run that was interrupted, or
    whose node was lost, begins anew, from its checkpoint if it saved one.

    Args:
        journal: Where tasks are written down: ``SqliteJournal`` or a path for one host, ``PostgresJournal`` or
            ``RedisJournal``, or their URL, for many.
        name: What metrics and reports call it.
        reauthorise: Asked before each run of a task that somebody has started, with who that was (``SecurityContext``)
            and the kind: may it still be done? Returns that, or the context in which it acts. None: it is not asked.
        webhooks: How callbacks are told of the ends of tasks; None: there are none.
        settings: Of this node: see ``Settings``. Or each of them by its name: ``concurrency``, ``lease``, ``work``,
            ``keep``, ``path``, ``kinds``, ``polite``, ``handover``.

    Raises:
        ConfigError: Settings that can't be, or no journal.

    Example:
        >>> tasks = Tasks("/tmp/shop-tasks.db", concurrency=4)
        >>> @tasks.define(deadline=300, retries=3)
        ... async def export(order: int) -> str:
        ...     return f"/exports/{order}.csv"
    """

    def __init__(
        self,
        journal: Journal | str | os.PathLike[str],
        *,
        name: str = "tasks",
        reauthorise: Reauthorise | None = None,
        webhooks: Webhooks | None = None,
        settings: Settings | None = None,
        **each: Any,
    ) -> None:
        self.name = name
        self.journal = journal_from(journal)
        self.webhooks = webhooks
        self.kinds = Kinds()
        try:
            self.settings = msgspec.structs.replace(settings or Settings(), **each)
        except TypeError as error:
            raise ConfigError(f"durable tasks: {error}") from error
        self.stats = Stats()
        #: Who may do what over HTTP, and when it makes sense to ask again.
        self.access = Access()
        self.pace = Pace()
        self._reauthorise = reauthorise
        self._periodic = Periodic()
        self._node: Node | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._ended = False
        self._forget: list[Callable[[], None]] = []
        self._met: Journals | None = None
        self._view: View | None = None
        if webhooks is not None:
            webhooks.join(self)

    # What can be done

    @overload
    def define(self, function: F, /) -> F: ...
    @overload
    def define(self, **options: Unpack[Definition]) -> Callable[[F], F]: ...
    def define(self, *function: Any, **options: Any) -> Any:
        """Make a function a kind of task. It can still be called as it is.

        Its parameters are checked, by their annotations, when a task is started, and again when it is run; they and its
        result are written down as JSON, at most 1 MiB.

        Args:
            function: A coroutine function, or a plain one, that runs in a thread or a process.
            options: See ``Definition``.

        Raises:
            ConfigError: It can't be a task, there is another of its name, or no such option.
        """
        if not function:
            return partial(self._define, options)
        (one,) = function
        return self._define(options, one)

    def _define(self, options: Mapping[str, Any], function: F) -> F:
        left = dict(options)
        schedule = schedule_of(left.pop("every", None), left.pop("cron", None), left.pop("timezone", "UTC"))
        if schedule is not None and self._node is not None:
            raise ConfigError("what comes by a schedule is defined before the service begins")
        catch_up = left.pop("catch_up", True)
        try:
            kind = Kind(function, **left)
        except TypeError as error:
            raise ConfigError(f"a task can't be defined so: {error}") from error
        self.kinds.add(kind)
        if schedule is not None:
            try:
                payload = kind.bind((), {})
            except TaskArguments as error:
                raise ConfigError(f"what comes by a schedule is started without arguments: {error}") from error
            task = NewTask(
                id="", kind=kind.name, payload=payload, priority=kind.priority, keep=kept(kind, self.settings)
            )
            self._periodic.add(Plan(schedule=schedule, task=task, spec=spec_of(kind, Wish()), catch_up=catch_up))
        if self._node is not None:
            self._node.due()  # there may be tasks of it already
        return function

    # Life

    async def __aenter__(self) -> Tasks:
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """A lifespan for Starlette or FastAPI: ``FastAPI(lifespan=tasks.lifespan)``."""
        async with self:
            yield

    async def begin(self) -> Node:
        """Begin, if it has not: everything that needs it does so, but only this takes up what others have left.

        Raises:
            ConfigError: The journal can't be used as it is.
            JournalUnavailable: It can't be reached.
            RuntimeError: It has ended, or runs in another event loop.

        Cancel: safe.
        """
        while (node := self._node) is None:
            if self._ended:
                raise RuntimeError("the service of durable tasks has ended")
            beginning = self._beginning
            if beginning is None:
                node = Node(
                    self.name, self.journal, self.kinds, self.settings, self.stats, self._then, self._reauthorise
                )
                # Not in the context of whoever comes first: its deadline is not the journal's.
                self._beginning = beginning = node.base.launch(self._begin(node), "tasks begin")
                beginning.add_done_callback(_read, context=node.base.context)
            await asyncio.wait((beginning,))
            beginning.result()  # who has waited as well does not try it once more
        if node.loop is not asyncio.get_running_loop():
            raise RuntimeError("the tasks run in another event loop: each process has one loop for them")
        return node

    async def _begin(self, node: Node) -> None:
        try:
            concurrency = self.settings.concurrency if self.settings.work else 0
            self._view = View(self.name, self.journal, self.stats, kinds=self.kinds.names, concurrency=concurrency)
            self._view.node = node
            self._met = met(self._view)
            node.observed(self._met)
            await node.begin(self._periodic)
            self._node = node
            server = CURRENT_SERVER.get(None)
            if server is not None and self.settings.work:
                self._join(node, server)
        except BaseException:
            self._leave()
            raise
        finally:
            self._beginning = None

    def _join(self, node: Node, server: ServerControl) -> None:
        """Take part in the drain: claims stop at once, what runs may finish, what is left is handed back."""

        async def notice() -> None:
            node.stop_claiming()

        async def finish() -> None:
            node.stop_claiming()  # a drain that is hurried may have passed over the notice
            await node.finish(server.settings.requests * 0.98)

        async def persist() -> Mapping[str, int]:
            return await node.hand_over(server.settings.persist * 0.95)

        for call, phase in ((notice, "notice"), (finish, "finish"), (persist, "persist")):
            try:
                self._forget.append(server.on_drain(call, phase=phase, name=self.name))  # type: ignore[arg-type]
            except ValueError:  # it is over: who begins in a drain only starts tasks, for others
                node.stop_claiming()

    async def aclose(self) -> None:
        """End: what runs is cancelled and handed back, then the journal is closed.

        Cancel: what could not be handed back is found when its lease runs out.
        """
        self._ended = True
        if self._beginning is not None:
            await asyncio.wait((self._beginning,))
        node, self._node = self._node, None
        for forget in self._forget:
            forget()
        self._forget = []
        try:
            if node is not None:
                await node.aclose(self.settings.handover)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._met is not None and self._view is not None:
            self._met.leave(self._view)

    # Starting

    async def start(  # noqa: PLR0913 - options beside the arguments of the task
        self,
        what: Callable[..., Any] | str,
        /,
        *args: Any,
        key: str = "",
        delay: float = 0.0,
        run_at: float | None = None,
        priority: int | None = None,
        callback: str = "",
        expires: float | None = None,
        **kwargs: Any,
    ) -> Started:
        """Write a task down. When this returns, it will be done, whatever happens to this process.

        Args:
            what: The function, or its name.
            args: For it, in the order of its parameters.
            key: Idempotency key: started again with the same key and arguments by the same principal, it is the same
                task, for as long as its record is kept.
            delay: Seconds until it is due.
            run_at: When it is due, in seconds since 1970; in place of ``delay``.
            priority: Higher ones come first; None takes that of the kind.
            callback: URL that is told of its end.
            expires: Seconds after it is due within which it must have been begun; else it fails.
            kwargs: For it, by name.

        Returns:
            Where to ask for it; ``started.response()`` is the answer of a handler.

        Raises:
            TaskArguments: They are not what the function takes, or an option is none.
            TaskConflict: The key was used for something else.
            JournalUnavailable: It could not be written within the budget ``tasks``, 2 s if the configuration says
                nothing; started again with the same key, there is one task.
            SecurityContextError: Who acts here does so no more: that has expired.
            ConfigError: It is no task of this service, or a callback that can't be.

        Cancel: safe; it may have been written.
        """
        kind = self.kinds.of(what)
        wish = Wish(key, delay, run_at, priority, callback, expires)
        return await self._submit(kind, kind.bind(args, kwargs), wish, owner_here())

    async def submit(
        self, kind: str, arguments: Mapping[str, Any], *, owner: str | None = None, **wish: Any
    ) -> Started:
        """As :meth:`start`, by names alone.

        Args:
            kind: Its name.
            arguments: By name.
            owner: Principal who starts it; None for who acts here.
            wish: ``key``, ``delay``, ``run_at``, ``priority``, ``callback``, ``expires``: as there.
        """
        found = self.kinds.of(kind)
        return await self._submit(
            found, found.bind((), arguments), Wish(**wish), owner_here() if owner is None else owner
        )

    async def _submit(self, kind: Kind, payload: bytes, wish: Wish, owner: str) -> Started:
        wish.check(kind.name)
        if wish.callback:
            if self.webhooks is None:
                raise ConfigError("a callback needs webhooks: Tasks(webhooks=Webhooks(...))")
            self.webhooks.check(wish.callback)
        limit = budget(BUDGET, default=SECONDS)
        try:
            node = self._node
            if node is None or node.loop is not asyncio.get_running_loop():
                async with limit:
                    node = await self.begin()
            # One that is due now, where nothing else waits, is this node's from the first: one step less.
            taker = node.id if wish.now and node.takes(kind) else ""
            task = made(kind, payload, wish, owner, self.settings, taker)
            submitted = await within(limit.seconds, node.submit(task))
        except TimeoutError as error:
            if isinstance(error, DeadlineExceeded) and error.deadline != BUDGET:
                raise
            why = f": {self._node.problem}" if self._node is not None and self._node.problem else ""
            raise JournalUnavailable(f"it has not answered in {limit.seconds:g} s{why}") from error
        if submitted.new:
            self.stats.submitted(kind.name)
        elif submitted.fingerprint != task.fingerprint:
            raise TaskConflict(wish.key, submitted.id)
        return Started(
            id=submitted.id,
            new=submitted.new,
            state=submitted.state,
            kind=kind.name,
            location=self.location(submitted.id),
            retry_after=self.pace.retry_after(kind.name, delay=max(0.0, wish.delay)),
        )

    # Watching and changing

    async def get(self, id: str) -> Task:
        """A task as it is written down.

        Raises:
            TaskNotFound: There is none, or no more.
            JournalUnavailable: The journal can't be reached.
        """
        await self._begun()
        return _found(await self.journal.get(id), id)

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """What a task returned, when it has ended.

        Args:
            id: The task.
            timeout: Seconds to wait; None: only the deadline around it counts.

        Raises:
            TaskFailed: It failed, or was cancelled.
            TaskNotFound: There is none, or no more.
            DeadlineExceeded: It has not ended in time; it goes on.
            JournalUnavailable: The journal can't be reached.

        Cancel: safe; the task goes on.
        """
        node = await self._begun()
        task = _found(await node.watchers.ended(id, timeout), id)
        if task.state == "completed":
            return decoded(task.result)
        if task.state not in ENDED:
            raise DeadlineExceeded(f"task {task.kind}", timeout or 0.0)
        if task.state == "failed":
            problem = msgspec.json.decode(task.error, type=Problem) if task.error else Problem("")
            raise TaskFailed(id, task.state, problem.type, problem.detail)
        raise TaskFailed(id, task.state)

    async def wait(self, id: str, timeout: float) -> Task:
        """A task when it has ended, or as it is after so many seconds. Raises as :meth:`get`. Cancel: safe."""
        node = await self._begun()
        return _found(await node.watchers.ended(id, timeout), id)

    async def watch(self, id: str, after: int = 0) -> AsyncGenerator[Event | Task, None]:
        """What a task says after a number, and its record: first, and each time that its state has changed.

        Ends after the record of its end. Any node can be asked. While the journal is away it waits.

        Args:
            id: The task.
            after: Number of the last event that is known; 0 for all that are kept.

        Raises:
            TaskNotFound: There is none, or no more.
            JournalUnavailable: It can't be reached at the beginning, or this service ends; another node can be asked.

        Cancel: safe.
        """
        node = await self._begun()
        _found(await self.journal.get(id), id)
        watching = node.watchers.watch(id, after)
        try:
            async for each in watching:
                yield each
        finally:
            await watching.aclose()

    async def cancel(self, id: str) -> Task:
        """End a task: at once when it waits, as soon as its node hears of it when it runs. What has ended stays so.

        Raises:
            TaskNotFound: There is none, or no more.
            JournalUnavailable: The journal can't be reached.

        Cancel: safe; it may be done.
        """
        node = await self._begun()
        task = _found(await cancel(self.journal, id), id)
        if task.cancelling:
            node.cancelled(id)
        return task

    async def retry(self, id: str) -> Task:
        """Do a task that failed or was cancelled once more, from its beginning or its checkpoint.

        Raises:
            TaskNotFound: There is none, or no more.
            JournalUnavailable: The journal can't be reached.

        Cancel: safe; it may be done.
        """
        await self._begun()
        return _found(await self.journal.retry(id), id)

    # Over HTTP

    def app(self, *, body: int = 1 << 20, heartbeat: float = 15.0) -> TasksApp:
        """An ASGI application that starts, shows, watches and cancels tasks. Mount it at ``path``, or serve it alone.

        Args:
            body: Bytes that the arguments of a task may have.
            heartbeat: Seconds of quiet after which an event stream has a comment.
        """
        return TasksApp(self, body=body, heartbeat=heartbeat)

    def authorize(self, call: Authorizer) -> Authorizer:
        """Say who may do what over HTTP: a coroutine function of the action, the task and the principal. A decorator.

        Without one a task is its owner's, and one without an owner is of whoever knows its id.
        """
        return self.access.authorize(call)

    @property
    def path(self) -> str:
        """Where its application is mounted."""
        return self.settings.path

    def is_public(self, kind: str) -> bool:
        """Whether there is such a kind, and it may be started over HTTP."""
        found = self.kinds.get(kind)
        return found is not None and found.public

    def location(self, id: str) -> str:
        """The path under which a task can be asked for."""
        return f"{self.settings.path.rstrip('/')}/{id}"

    async def _begun(self) -> Node:
        node = self._node
        if node is None or node.loop is not asyncio.get_running_loop():
            return await self.begin()
        return node

    def _then(self, run: Run, settlement: Settlement) -> list[NewTask]:
        """What is submitted together with the end of a task."""
        self.pace.note(run.kind.name, run.claim.age + SystemClock.monotonic() - run.since)
        following = []
        if run.spec.callback and self.webhooks is not None:
            following.append(
                self.webhooks.delivery(
                    run.claim.id,
                    run.kind.name,
                    settlement.outcome,
                    settlement.result,
                    settlement.error,
                    run.spec.callback,
                    run=str(run.claim.epoch),
                )
            )
        if not run.left_out:
            again = self._periodic.after(run.kind.name, run.spec.slot, _wall())
            if again is not None:
                following.append(again)
        return following


def _read(beginning: asyncio.Task[None]) -> None:
    """Who waited for it may have left before it failed."""
    if not beginning.cancelled():
        beginning.exception()


def _found(task: Task | None, id: str) -> Task:
    if task is None:
        raise TaskNotFound(id)
    return task
