"""Where buckets are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sojourn.policy.rate import Demand, Standing

__all__ = ["Engine"]


class Engine(Protocol):
    """Keeps buckets by their keys."""

    async def take(self, demands: Sequence[Demand]) -> Sequence[Standing]:
        """Take from all buckets, or from none, in one step that nobody sees half done.

        Args:
            demands: What is asked of which bucket; no key twice.

        Returns:
            How each stands now. It was given if no ``wait`` is above zero.

        Raises:
            RateLimitsUnavailable: The buckets can't be reached, and nothing is allowed then.

        Cancel: safe; it may have taken.
        """

    async def aclose(self) -> None:
        """Give back what it holds; to be called once, at the end."""
