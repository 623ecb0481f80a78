"""Counts the endings of a worker and answers who hangs up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.events import ConnectionEnded
from sojourn.observe.answers import Answers
from sojourn.observe.endings.reading import Settings
from sojourn.observe.endings.report import EofReport, report
from sojourn.observe.endings.tally import MINUTES, Tally

__all__ = ["Endings"]


class Endings:
    """How the connections of a worker ended in the last hour.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._wall = wall = site.runtime.ticker.clock.wall
        self._tally = tally = Tally(wall())

        def ended(event: ConnectionEnded) -> None:
            tally.add(event, wall())

        self._forget = site.runtime.bus.observe(ConnectionEnded, ended)
        #: The errands it does.
        self.answers: Answers = {"eof": self.report}

    def close(self) -> None:
        """Count no more. Idempotent."""
        self._forget()

    async def report(self, arguments: Mapping[str, Any]) -> EofReport:
        """The report of this worker.

        Args:
            arguments: There are none.

        Raises:
            ErrandError: An argument is given.

        Cancel: safe.
        """
        if arguments:
            raise ErrandError(400, "unknown_argument", f"there is no argument {next(iter(arguments))!r}")
        now = self._wall()
        config = self._site.config
        settings = Settings(config.timeouts.keep_alive, config.timeouts.response_start, config.websocket.ping_interval)
        since = max(self._tally.since, (now // 60 - MINUTES + 1) * 60)
        return report(self._tally.minutes(now), since, now, settings)
