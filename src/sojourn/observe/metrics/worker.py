"""The metrics of one worker: wired to what it serves, into its block of the memory."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from sojourn.asgi.site import Site
from sojourn.observe.answers import Answers
from sojourn.observe.metrics.application import application_text
from sojourn.observe.metrics.drain import DrainMetrics
from sojourn.observe.metrics.memory import Block
from sojourn.observe.metrics.meter import Meter, declare
from sojourn.observe.metrics.observed import Observed
from sojourn.observe.metrics.process import Collections
from sojourn.observe.metrics.sampler import Sampler

__all__ = ["Metrics"]


class Metrics:
    """Counts for a worker. Made on the event loop, before the application's lifespan.

    Args:
        site: What the worker serves; its ``meter`` is set.
        block: The worker's part of the memory.

    Attributes:
        meter: For those who count something themselves.
        answers: The errands it does.
    """

    def __init__(self, site: Site, block: Block) -> None:
        runtime = site.runtime
        clock = runtime.ticker.clock
        declare(block)
        self._site = site
        self.meter = meter = Meter(block)
        self._observed = Observed(runtime.bus, meter)
        self._drain = DrainMetrics(runtime.bus, meter, clock)
        self._collections = Collections(meter, clock.monotonic)
        self._sampler = Sampler(site, meter, self._observed, self._drain)
        meter.gauge("build_info", 1.0, **_build(runtime.loop))
        site.meter = meter
        self.answers: Answers = {"application_metrics": self._application}

    def close(self) -> None:
        """Count no more; what was counted stays in the block. Calling it twice does nothing."""
        self._sampler.close()
        self._collections.close()
        self._drain.close()
        self._observed.close()
        if self._site.meter is self.meter:
            self._site.meter = None

    async def _application(self, arguments: Mapping[str, Any]) -> str:
        """The application's own metrics, as text; "" when it has none."""
        return await application_text(self._site.runtime.loop)


def _build(loop: object) -> dict[str, str]:
    from sojourn import __version__

    kind = type(loop).__module__.partition(".")[0]
    return {"version": __version__, "python": platform.python_version(), "loop": kind}
