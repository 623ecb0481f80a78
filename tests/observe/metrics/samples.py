"""What the tests of metrics share: a server in memory that is counted, and its page, read by prometheus_client."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from sojourn.bus import Bus
from sojourn.config import App, Config
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.page import SupervisorMetrics, WorkerState
from sojourn.observe.metrics.worker import Metrics
from sojourn.testing import MemoryServer

__all__ = ["OPENMETRICS", "Counted", "Numbers", "counting", "needs_promtool", "numbers", "promtool", "run"]

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool")


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(scene())


def promtool(page: bytes) -> str:
    """What ``promtool check metrics`` finds wrong with a page."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=page, capture_output=True, check=False, timeout=30)
    return (done.stdout + done.stderr).decode()


def numbers(page: bytes, *, openmetrics: bool = False) -> Numbers:
    """All samples of a page, as prometheus_client understands it."""
    families = (openmetrics_families if openmetrics else text_families)(page.decode())
    found: Numbers = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} stands there twice"
            found[key] = float(sample.value)
    return found


class Counted:
    """A server that is counted."""

    def __init__(self, server: MemoryServer, metrics: Metrics, memory: MetricsMemory) -> None:
        self.server = server
        self.metrics = metrics
        self.memory = memory
        self._supervisor = SupervisorMetrics(Bus(), memory)

    def page(self, accept: str = "") -> bytes:
        """The page as it is now, without the tick that requests may take to it."""
        self.metrics.meter.flush()
        return self._supervisor.page(accept, [WorkerState(1, 0, True, 0.1)], {})[1]

    def __call__(self, name: str, **labels: str) -> float:
        """A number of the page; 0 when it is not there."""
        return numbers(self.page()).get((name, tuple(sorted(labels.items()))), 0.0)


@asynccontextmanager
async def counting(app: Any, config: Config | None = None) -> AsyncIterator[Counted]:
    """Serve an application in memory, and count."""
    server = MemoryServer(app, config or Config(app=App(lifespan="off")))
    memory = MetricsMemory.alone()
    async with server:
        metrics = Metrics(server.site, memory.block(0))
        try:
            yield Counted(server, metrics, memory)
        finally:
            metrics.close()
    assert server.bus.failures == 0, server.bus.last_failure
