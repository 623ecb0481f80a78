"""How many tasks a node runs beside its requests: fewer when the event loop comes late, more again when it does not.

Additive increase, multiplicative decrease: halved when what is ready waits longer than is good for requests, one more
for each look at which it does not. Pure: the caller measures and tells.

Source: D.-M. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms", 1989.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Appetite"]

#: Seconds that what is ready may wait for the loop: above the first it is too much, below the second all is well.
_LATE: Final = 0.05
_CALM: Final = 0.02


class Appetite:
    """The number for one node.

    Args:
        most: When nothing is late.

    Attributes:
        limit: Runs at the same time; at least 1.
    """

    __slots__ = ("limit", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = most

    def look(self, late: float) -> int:
        """Judge anew.

        Args:
            late: Seconds by which the loop came late since the last look, at most.

        Returns:
            The limit.
        """
        if late > _LATE:
            self.limit = max(1, self.limit // 2)
        elif late < _CALM:
            self.limit = min(self.most, self.limit + max(1, self.most // 10))
        return self.limit
