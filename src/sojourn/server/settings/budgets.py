"""``deadlines.budgets``: a duration for each dependency."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.errors import ConfigError
from sojourn.server.settings.values import duration

__all__ = ["read_budgets"]


def read_budgets(entries: Iterable[str]) -> dict[str, float]:
    """Seconds by name.

    Args:
        entries: Such as ``cache=50ms``.

    Raises:
        ConfigError: One is no name with a duration above zero, or a name comes twice.
    """
    found: dict[str, float] = {}
    for entry in entries:
        name, _, text = (part.strip() for part in entry.partition("="))
        seconds = duration(text)
        if not name or seconds is None or not seconds > 0:
            problem = f"{entry!r} is no budget: write a name and a duration above zero, such as cache=50ms"
        elif name in found:
            problem = f"{name} has two budgets"
        else:
            found[name] = seconds
            continue
        raise ConfigError(problem, key="deadlines.budgets")
    return found
