"""How a service of durable tasks works on its node."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sojourn.errors import ConfigError

__all__ = ["Settings"]

#: A lease shorter than this would be lost to a scheduler that is busy.
_SHORTEST: Final = 0.2


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one node; see ``Tasks``.

    Attributes:
        concurrency: Runs at the same time in this process.
        lease: Seconds that a claim lasts; it is renewed each third of that.
        work: Whether this process runs tasks; else it only starts and watches them.
        keep: Seconds that the record of an ended task is kept.
        path: Where the application for them is mounted; begins their locations.
        kinds: Only these are run here; None for all that are defined.
        polite: Whether it claims less while the event loop comes late, so that requests do not suffer.
        handover: Seconds for what runs to end and to be handed back, where no server of Sojourn's gives a time.
    """

    concurrency: int = 10
    lease: float = 30.0
    work: bool = True
    keep: float = 86_400.0
    path: str = "/_tasks"
    kinds: frozenset[str] | None = None
    polite: bool = True
    handover: float = 10.0

    def __post_init__(self) -> None:
        concurrency: Any = self.concurrency  # of applications, whatever the annotation says
        for right, what in (
            (
                isinstance(concurrency, int) and concurrency >= 1,
                f"concurrency is at least 1, not {concurrency!r}",
            ),
            (
                not self.path or self.path.startswith("/") or "://" in self.path,
                f"the path of their application begins with a slash; {self.path!r} does not",
            ),
            (
                not isinstance(self.kinds, str),
                f"kinds are several names, such as {{{self.kinds!r}}}, not one text",
            ),
            (self.lease >= _SHORTEST, f"a lease is at least {_SHORTEST} s, not {self.lease}"),
            (self.keep >= 0, f"records are kept for 0 s or longer, not {self.keep}"),
            (self.handover > 0, f"the hand-over has more than 0 s, not {self.handover}"),
        ):
            if not right:
                raise ConfigError(f"durable tasks: {what}")
