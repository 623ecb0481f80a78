"""What `top` knows: the newest answers of the admin listener, and the pages of metrics of the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from sojourn.clock import Clock
from sojourn.ops.client import Answer, Refused
from sojourn.ops.exposition import Page, parse

__all__ = ["Asked", "Look", "Watch"]

#: Rates are over so many seconds, or over what there is.
_WINDOW: Final = 60.0
#: Pages kept at most, however often one looks.
_PAGES: Final = 64


class Asked(Protocol):
    """The client, as far as `top` needs it."""

    place: str

    def get(self, path: str, seconds: float | None = None, **query: object) -> Any:
        """The JSON document at a path."""

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        seconds: float | None = None,
    ) -> Answer:
        """The answer, whatever it is."""


class Look(NamedTuple):
    """A page of metrics and its moment.

    Attributes:
        moment: On the monotonic clock.
        page: The page.
    """

    moment: float
    page: Page


class Watch:
    """Remembers looks at one server, and counts what happened between them.

    Args:
        admin: Whom to ask.
        clock: Where moments come from.

    Attributes:
        status: The newest answer of ``/status``; empty before the first.
    """

    def __init__(self, admin: Asked, clock: Clock) -> None:
        self.status: Mapping[str, Any] = {}
        self._admin = admin
        self._clock = clock
        self._looks: deque[Look] = deque(maxlen=_PAGES)

    @property
    def page(self) -> Page:
        """The newest page; an empty one before the first."""
        return self._looks[-1].page if self._looks else Page({})

    def fetch(self) -> tuple[Mapping[str, Any], Look]:
        """Ask for what the head of the screen shows. Blocks; changes nothing.

        Raises:
            SojournError: There is no answer.
        """
        status = self._admin.get("/status")
        try:
            text = self._admin.ask("GET", "/metrics").body.decode("utf-8", "replace")
        except Refused:
            text = ""  # diagnostics.metrics is off: the status alone says much
        return status, Look(self._clock.monotonic(), parse(text))

    def note(self, status: Mapping[str, Any], look: Look) -> None:
        """Remember what came."""
        self.status = status
        while self._looks and look.moment - self._looks[0].moment > _WINDOW:
            self._looks.popleft()
        self._looks.append(look)

    def rate(self, name: str) -> float | None:
        """How much a counter gains in a second, between the last two looks; None when nobody knows."""
        if len(self._looks) < 2:
            return None
        before, now = self._looks[-2], self._looks[-1]
        gained = now.page.grown(before.page, name)
        passed = now.moment - before.moment
        return None if gained is None or passed <= 0 else gained / passed

    def minute(self, name: str, label: str) -> dict[str, float]:
        """What a counter gained in the last minute, or since the first look, for each value of a label."""
        if len(self._looks) < 2:
            return {}
        return self.page.gained(self._looks[0].page, name, label)

    def quantile(self, name: str, share: float) -> float | None:
        """A quantile of what a histogram gained in the last minute, or since the first look; None for nothing."""
        return self.page.quantile(self._looks[0].page, name, share) if len(self._looks) > 1 else None

    @property
    def seconds(self) -> float:
        """How far the looks reach back."""
        return self._looks[-1].moment - self._looks[0].moment if self._looks else 0.0
