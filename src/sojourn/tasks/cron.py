"""Cron expressions as schedules: what they mean is left to the package cronsim, which follows Debian's cron."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Protocol, cast
from zoneinfo import ZoneInfo

from sojourn.errors import ConfigError

__all__ = ["Cron"]

#: Slots of the repeated hour that lie before the moment asked for: at most one for each second of two hours.
_MOST: Final = 7200


class _Made(Protocol):
    def __call__(self, expr: str, dt: datetime) -> Iterator[datetime]: ...


class Cron:
    """Slots by a cron expression: five fields, or six with seconds first.

    In the hour that clocks skip, what names an hour and a minute is due when they have been put forward; in the hour
    that comes twice, it is due in the first. What repeats (``*`` in hour or minute) goes by the time that really
    passes.

    Args:
        expression: Such as ``0 3 * * *``, or ``30 8 * * MON-FRI``.
        timezone: IANA name of the time zone that it is meant in.

    Raises:
        ConfigError: It can't be meant, there is no such time zone, or cronsim is not installed.
    """

    __slots__ = ("_made", "_zone", "expression", "timezone")

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise ConfigError(
                f"the cron expression {expression!r} needs the package cronsim: pip install 'sojourn[cron]'"
            ) from None
        try:
            self._zone = ZoneInfo(timezone)
        except (LookupError, ValueError, OSError):
            raise ConfigError(f"there is no time zone {timezone!r}; write it as in Europe/Berlin") from None
        self._made = cast(_Made, CronSim)
        self.expression = expression
        self.timezone = timezone
        try:
            self.next(0.0)
        except CronSimError as error:
            raise ConfigError(f"the cron expression {expression!r} can't be meant: {error}") from None

    def next(self, after: float) -> float:
        """The first slot that is later than a moment; both in seconds since 1970.

        Raises:
            ConfigError: There is none within fifty years, such as for a 31st of February.
        """
        slots = self._made(self.expression, datetime.fromtimestamp(after, UTC).astimezone(self._zone))
        for _ in range(_MOST):
            found = next(slots, None)
            if found is None:
                break
            # Asked in the second pass of an hour that comes twice, cronsim names slots of the first.
            if (slot := found.timestamp()) > after:
                return slot
        raise ConfigError(f"the cron expression {self.expression!r} never comes true")

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.timezone!r})"
