"""What the admin listener asks of one process that serves without a supervisor."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from sojourn.bus import Bus
from sojourn.config import Config
from sojourn.errors import ErrandError
from sojourn.events import ConfigChanged, DrainCounted, DrainPhaseChanged
from sojourn.net.anonymous import anonymous_file
from sojourn.observe.answers import Answers
from sojourn.observe.aside import aside
from sojourn.observe.metrics.application import application_text
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.page import SupervisorMetrics, WorkerState
from sojourn.server.admin.act import answers
from sojourn.server.admin.desk import Desk
from sojourn.server.admin.fleet import Countdown, Status, WorkerStatus
from sojourn.server.reconfigure import ConfigVersion, Running, apply, plan
from sojourn.server.workers.errands import Errand, perform

if TYPE_CHECKING:
    from sojourn.server.server import Server

__all__ = ["Solo"]

#: The number of the one worker, and where it counts.
_WORKER: Final = 1
_ROW: Final = 0
#: Longest dump of stacks that is read, in bytes.
_LONGEST: Final = 1024 * 1024


class Solo:
    """A server alone. It can't be restarted or upgraded: whoever started it would have to.

    Args:
        config: Settings.
        bus: The server's.

    Attributes:
        block: Where the server is to count; None when nobody could ask.

    Raises:
        ConfigError: ``admin.bind`` or ``admin.token`` can't be meant.
        BindError: It can't be listened on.
    """

    def __init__(self, config: Config, bus: Bus) -> None:
        self._desk = Desk(config, self)
        self._metrics: SupervisorMetrics | None = None
        if config.diagnostics.metrics and config.admin.bind is not None:
            self._metrics = SupervisorMetrics(bus, MetricsMemory.alone())
        self.block = self._metrics.memory.block(_ROW) if self._metrics is not None else None
        # Whatever it was told: there are no workers here, and none can be added.
        alone = msgspec.structs.replace(config.app, workers=0)
        self._running = Running(msgspec.structs.replace(config, app=alone))
        self._countdown: Countdown | None = None
        self._server: Server
        self._answers: Answers = {}
        self._since = 0.0
        bus.observe(DrainPhaseChanged, self._drains)
        bus.observe(DrainCounted, self._drains)

    async def open(self, server: Server) -> None:
        """Answer for a server that has been started."""
        self._server = server
        self._answers = {**server.diagnosis.answers, **answers(server)}
        self._since = server.runtime.ticker.now
        await self._desk.start()

    async def close(self) -> None:
        """Answer nobody any more."""
        await self._desk.close()

    def status(self) -> Status:
        """How it stands."""
        from sojourn import __version__

        server = self._server
        state: Literal["serving", "draining"] = "draining" if server.stopping else "serving"
        worker = WorkerStatus(
            _WORKER,
            os.getpid(),
            0,
            "draining" if server.stopping else "ready",
            server.runtime.ticker.now - self._since,
            0.0,
            len(server.runtime.registry),
            server.site.served,
        )
        name = server.config.app.instance or ", ".join(server.addresses)
        return Status(name, os.getpid(), __version__, state, True, (worker,), self._countdown)

    def config(self) -> Running:
        """The settings in force."""
        return self._running

    def drain(self) -> None:
        """Begin to end. Nothing happens when that has begun."""
        if not self._server.stopping:
            # Not in the context of the request that asks: what is logged then is not of its doing.
            self._server.runtime.context.copy().run(self._server.drain)

    def restart(self) -> None:
        """There is nobody who could do it.

        Raises:
            ErrandError: Always.
        """
        raise ErrandError(409, "no_supervisor", "this process serves alone: a restart needs sojourn serve --workers 1")

    upgrade = restart

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """The page of metrics: its content type and the page."""
        if self._metrics is None:
            raise ErrandError(404, "metrics_off", "diagnostics.metrics is off")
        text = await application_text(self._server.runtime.loop)
        if (look := self._answers.get("journal_gauges")) is not None:
            await look({})
        worker = WorkerState(_WORKER, _ROW, not self._server.stopping, 0.0)
        # In a thread: a long page must not hold up the loop that serves.
        loop, texts = self._server.runtime.loop, {_WORKER: text} if text else {}
        return await aside(loop, "sojourn-metrics", partial(self._metrics.page, accept, [worker], texts))

    async def ask(self, worker: int, name: str, arguments: Mapping[str, Any], seconds: float) -> bytes:
        """The answer to a question, as MessagePack."""
        self._check(worker)
        return await perform(self._server.runtime.loop, self._answers, Errand(name, dict(arguments), seconds))

    async def stacks(self, worker: int) -> str:
        """Where all threads stand."""
        self._check(worker)
        fd = anonymous_file("sojourn-stacks")
        try:
            faulthandler.dump_traceback(fd, all_threads=True)
            return os.pread(fd, _LONGEST, 0).decode("utf-8", "replace").strip()
        finally:
            os.close(fd)

    async def configure(self, changes: Mapping[str, Any], who: str) -> ConfigVersion:
        """Change settings."""
        change = plan(self._running.config, changes)
        change.check()
        if change.changes:
            apply(self._server, change.config)
        version = self._running.adopt(change, who)
        if change.changes:
            self._server.bus.emit(ConfigChanged(version.version, who, version.changes))
        return version

    def _check(self, worker: int) -> None:
        if worker != _WORKER:
            raise ErrandError(404, "no_such_worker", f"there is no worker {worker}; this process is worker {_WORKER}")

    def _drains(self, event: DrainPhaseChanged | DrainCounted) -> None:
        fields = event._asdict()
        self._countdown = Countdown(**fields)
