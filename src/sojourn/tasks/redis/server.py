"""Whether a Redis can keep tasks, by what it says of itself."""

from __future__ import annotations

from typing import Final

from sojourn.errors import ConfigError

__all__ = ["BUDGET", "LAYOUT", "SECONDS", "usable"]

#: What errors and ``deadlines.budgets`` call it, and seconds for one call without a word of that.
BUDGET: Final = "tasks"
SECONDS: Final = 2.0
#: Of keys and records; another one is not understood.
LAYOUT: Final = "1"
#: Redis since which commands and scripts do what is asked of them here.
_OLDEST: Final = (6, 2)


def usable(server: bytes, memory: bytes, layout: bytes) -> None:
    """Refuse a Redis that would lose tasks, or would not do what it is asked.

    Args:
        server: Section ``server`` of its INFO.
        memory: Section ``memory`` of its INFO.
        layout: Of the keys that are there.

    Raises:
        ConfigError: It is too old, throws away keys when memory is full, or keeps tasks of a newer version.
    """
    about = _fields(server)
    version = about.get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise ConfigError(f"tasks need Redis {_OLDEST[0]}.{_OLDEST[1]} or Valkey, and this is Redis {version}")
    policy = _fields(memory).get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys-"):
        raise ConfigError(f"a Redis with maxmemory-policy {policy} throws away tasks when memory is full: noeviction")
    if layout != LAYOUT.encode():
        raise ConfigError(f"the tasks in Redis have layout {layout.decode()}, and this version knows {LAYOUT}")


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value.strip() for name, _, value in pairs}
