"""When a worker that ended is replaced: at once, later, or never again."""

from __future__ import annotations

from typing import Final

__all__ = ["SETTLED", "Restarts"]

#: Seconds of service after which a start counts as good.
SETTLED: Final = 60.0
#: Seconds before the second failure in a row is replaced; doubled for each further one, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.25, 15.0


class Restarts:
    """Counts failures in a row: workers that ended, unasked, before they had served for a minute.

    The first is replaced at once, because one crash is not a loop; then it takes 0.25 s, 0.5 s, 1 s, ... 15 s. A minute
    of service, of whichever worker, ends the row.

    Args:
        most: Failures in a row at which there is no replacement any more.

    Attributes:
        row: Failures in a row so far.
        most: As given; may be changed.
    """

    __slots__ = ("most", "row")

    def __init__(self, most: int) -> None:
        self.most = most
        self.row = 0

    def ended(self, served: float) -> float | None:
        """A worker ended although nobody had asked it to.

        Args:
            served: Seconds it had served; 0 when its start failed.

        Returns:
            Seconds to wait before its replacement is started; None when there is to be none: it is a loop.
        """
        if served >= SETTLED:
            self.row = 0
            return 0.0
        self.row += 1
        if self.row >= self.most:
            return None
        if self.row == 1:
            return 0.0
        # The exponent is bounded as well: worker.failures may be any number.
        return float(min(FIRST_WAIT * 2 ** min(self.row - 2, 30), LONGEST_WAIT))

    def settled(self) -> None:
        """A worker has served for a minute."""
        self.row = 0
