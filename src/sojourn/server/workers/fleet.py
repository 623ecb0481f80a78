"""What the admin listener asks of a supervisor, and how the supervisor answers for its workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.errors import ErrandError
from sojourn.events import ConfigChanged
from sojourn.observe.metrics.page import WorkerState
from sojourn.scopes.work import together
from sojourn.server.admin.fleet import Countdown, Status, WorkerStatus
from sojourn.server.reconfigure import ConfigVersion, Running, for_workers, plan
from sojourn.server.workers.child import Child, Life
from sojourn.server.workers.errands import Errand, ask

if TYPE_CHECKING:
    from sojourn.server.workers.supervisor import Supervisor

__all__ = ["SupervisedFleet"]

#: Seconds for a worker to follow changed settings.
_FOLLOW: Final = 5.0
#: Seconds without a sign of life after which a worker is not asked.
_SILENT: Final = 2.0
#: Seconds for an application to tell its own metrics: a scrape waits ten seconds at most.
_APPLICATION: Final = 3.0
#: Seconds for a worker to look into the journals of durable tasks; it gives up waiting for them after half a second.
_JOURNALS: Final = 1.0
#: Between two looks for the stacks that a worker was asked for, and how often to look.
_LOOK: Final = 0.05
_LOOKS: Final = 20


class SupervisedFleet:
    """A supervisor and its workers.

    Args:
        supervisor: Whom.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._configuring = asyncio.Lock()

    def status(self) -> Status:
        """How it stands."""
        from sojourn import __version__

        supervisor = self._supervisor
        return Status(
            supervisor.name,
            os.getpid(),
            __version__,
            "draining" if supervisor.stopping else "serving" if supervisor.started else "starting",
            supervisor.started,
            tuple(self._worker(child) for child in supervisor.pool.children.values()),
            self._countdown() if supervisor.stopping else None,
            supervisor.upgrades,
            supervisor.changing,
            supervisor.problem,
        )

    def _worker(self, child: Child) -> WorkerStatus:
        row, beats = child.row, child.ready is not None
        supervisor = self._supervisor
        return WorkerStatus(
            child.number,
            child.pid,
            child.generation,
            Life.DRAINING.value if child.wish == "stopped from outside" else child.life.value,
            supervisor.ticker.now - child.born,
            max(0.0, supervisor.ticker.clock.monotonic() - row.beat) if beats and row.beat else None,
            row.open,
            row.served,
        )

    def _countdown(self) -> Countdown | None:
        """The drains of all workers in one: the earliest phase, the longest time, the sums."""
        children = self._supervisor.pool.children.values()
        said: Sequence[dict[str, Any]] = [child.drain for child in children if child.drain]
        if not said:
            return None
        order = {"notice": 0, "finish": 1, "persist": 3, "stop": 4}
        phase = min((str(each.get("phase")) for each in said), key=lambda word: order.get(word, 2))
        sums = [sum(int(each.get(kind, 0)) for each in said) for kind in ("requests", "streams", "sockets", "idle")]
        left = max(float(each.get("left", 0.0)) for each in said)
        return Countdown(self._supervisor.name, phase, left, *sums)

    def config(self) -> Running:
        """The settings in force."""
        return self._supervisor.running

    def drain(self) -> None:
        """Begin to end everything. Nothing happens when that has begun."""
        self._supervisor.drain()

    def restart(self) -> None:
        """Begin a rolling restart, or remember it while another is under way."""
        self._supervisor.restart()

    def upgrade(self) -> None:
        """Begin to replace the supervisor, or remember it while a restart is under way."""
        self._supervisor.upgrade()

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """The page of metrics: its content type and the page."""
        supervisor = self._supervisor
        if supervisor.metrics is None:
            raise ErrandError(404, "metrics_off", "diagnostics.metrics is off")
        children = list(supervisor.pool.children.values())
        asking = [*map(self._application_metrics, children), self._journal_gauges(children)]
        *texts, _ = await together(asking, "application metrics")
        workers = [self._counted(child) for child in children if child.number in supervisor.pool.children]
        said = {child.number: text for child, text in zip(children, texts, strict=True) if text}
        return supervisor.metrics.page(accept, workers, said)

    async def _application_metrics(self, child: Child) -> str:
        """What the application in a worker counts itself; "" when it does not, or does not say so in time."""
        if not self._answers_soon(child):
            return ""  # it would only make the page late
        try:
            answer = await ask(child.errands, Errand("application_metrics", {}, _APPLICATION))
        except ErrandError:
            return ""  # the page must be there although a worker hangs; sojourn_worker_beat_age_seconds tells of it
        return msgspec.msgpack.decode(answer, type=str)

    async def _journal_gauges(self, children: Sequence[Child]) -> str:
        """Have one worker look what there is in the journals of durable tasks: all would find the same."""
        for child in filter(self._answers_soon, children):
            try:
                await ask(child.errands, Errand("journal_gauges", {}, _JOURNALS))
            except ErrandError:
                continue
            break
        return ""

    def _answers_soon(self, child: Child) -> bool:
        age = self._worker(child).beat_age
        return child.life is Life.READY and (age is None or age <= _SILENT)

    def _counted(self, child: Child) -> WorkerState:
        status = self._worker(child)
        return WorkerState(child.number, child.row.index, child.life is Life.READY, status.beat_age)

    async def ask(self, worker: int, name: str, arguments: Mapping[str, Any], seconds: float) -> bytes:
        """The answer of a worker to a question, as MessagePack."""
        child = self._child(worker)
        if child.ready is None:
            raise ErrandError(503, "starting", f"worker {worker} does not serve yet")
        return await ask(child.errands, Errand(name, dict(arguments), seconds))

    async def stacks(self, worker: int) -> str:
        """Where all threads of a worker stand, also of one that hangs."""
        child = self._child(worker)
        child.stacks.ask(child.pid)
        for _ in range(_LOOKS):
            await self._supervisor.pause(_LOOK)
            if text := child.stacks.read():
                return text
        return ""

    async def configure(self, changes: Mapping[str, Any], who: str) -> ConfigVersion:
        """Change settings of all workers, or of none: when one does not follow, the others go back.

        Cancel: may leave workers with different settings until the next change or restart.
        """
        async with self._configuring:
            running, pool = self._supervisor.running, self._supervisor.pool
            if self._supervisor.changing:
                raise ErrandError(409, "restarting", "the workers are being replaced; ask again when that is done")
            if any(child.life is Life.STARTING for child in pool.children.values()):
                raise ErrandError(409, "starting", "a worker is starting; ask again when it serves")
            change = plan(running.config, changes)
            change.check()
            if (wanted := change.config.app.workers) > pool.room:
                detail = (
                    f"nothing was changed. app.workers: until a new start there is room for {pool.room}, not {wanted}"
                )
                raise ErrandError(409, "needs_restart", detail)
            if change.changes:
                serving = [child for child in pool.children.values() if child.life is Life.READY]
                problems = await self._told(serving, for_workers(changes))
                if any(problems):
                    back = {path: before for path, (before, _) in change.changes.items()}
                    followed = [child for child, problem in zip(serving, problems, strict=True) if not problem]
                    await self._told(followed, for_workers(back))
                    said = "; ".join(filter(None, problems))
                    raise ErrandError(503, "not_followed", f"nothing was changed, because not all could follow: {said}")
                pool.follow(change.config)
                self._supervisor.follow(change.config)
            version = running.adopt(change, who)
            if change.changes:
                self._supervisor.bus.emit(ConfigChanged(version.version, who, version.changes))
            return version

    async def _told(self, children: Sequence[Child], changes: Mapping[str, Any]) -> list[str]:
        """Have workers follow; for each what went wrong, "" when nothing did."""

        async def tell(child: Child) -> str:
            try:
                await ask(child.errands, Errand("configure", {"changes": dict(changes)}, _FOLLOW))
            except ErrandError as error:
                return f"worker {child.number}: {error}"
            return ""

        return await together(map(tell, children), "changed settings")

    def _child(self, worker: int) -> Child:
        child = self._supervisor.pool.children.get(worker)
        if child is None:
            known = ", ".join(map(str, self._supervisor.pool.children)) or "none"
            raise ErrandError(404, "no_such_worker", f"there is no worker {worker}; there are {known}")
        return child
