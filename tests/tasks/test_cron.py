"""Cron expressions: what is due when clocks are changed, and that who asks does not matter."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.errors import ConfigError
from sojourn.tasks.cron import Cron

BERLIN = ZoneInfo("Europe/Berlin")


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


def slots(expression: str, timezone: str, after: float, count: int) -> list[str]:
    """The next slots as local times with their offset."""
    cron, found = Cron(expression, timezone), []
    for _ in range(count):
        after = cron.next(after)
        found.append(datetime.fromtimestamp(after, ZoneInfo(timezone)).strftime("%d %H:%M%z"))
    return found


# In Berlin clocks are put forward on 2026-03-29, 02:00 -> 03:00, and back on 2026-10-25, 03:00 -> 02:00.
@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 3 * * *", (2026, 3, 28), ["28 03:00+0100", "29 03:00+0200", "30 03:00+0200"]),
        ("30 2 * * *", (2026, 3, 28), ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]),
        ("30 2 * * *", (2026, 10, 24), ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]),
        ("0,30 2 * * *", (2026, 3, 28, 12), ["29 03:00+0200", "30 02:00+0200"]),
        ("*/30 2 * * *", (2026, 3, 28, 12), ["30 02:00+0200", "30 02:30+0200"]),
        ("0 * * * *", (2026, 3, 29), ["29 03:00+0200", "29 04:00+0200"]),
        ("0 * * * *", (2026, 10, 24, 23, 30), ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        ("30 8 * * MON-FRI", (2026, 3, 27, 12), ["30 08:30+0200", "31 08:30+0200"]),
    ],
)
def test_each_local_time_is_due_once_also_when_clocks_are_changed(
    expression: str, after: tuple[int, ...], expected: list[str]
) -> None:
    after = after if len(after) > 3 else (*after, 0)
    moments = slots(expression, "Europe/Berlin", utc(*after), len(expected))
    assert moments == expected


def test_asked_in_the_second_pass_of_an_hour_it_does_not_name_the_first() -> None:
    # 02:40 comes at 00:40 and at 01:40 UTC; the slot 02:30 of that day is over in both.
    for minute in (0, 10, 40):
        after = utc(2026, 10, 25, 1, minute)
        assert slots("30 2 * * *", "Europe/Berlin", after, 1) == ["26 02:30+0100"]


@given(
    st.sampled_from(
        ["30 2 * * *", "0 * * * *", "*/20 * * * *", "0,45 1-3 * * *", "0 3 * * SUN", "59 1,2 25-31 3,10 *"]
    ),
    st.floats(utc(2026, 3, 27, 0), utc(2026, 3, 31, 0)) | st.floats(utc(2026, 10, 23, 0), utc(2026, 10, 27, 0)),
    st.integers(0, 86_400),
)
@example("30 2 * * *", utc(2026, 10, 25, 0, 59), 3600)
def test_who_asks_later_gets_the_same_slot_or_a_later_one(expression: str, after: float, more: int) -> None:
    cron = Cron(expression, "Europe/Berlin")
    slot = cron.next(after)
    assert slot > after
    later = after + more
    assert cron.next(later) == slot if later < slot else cron.next(later) > slot


def test_seconds_may_come_first() -> None:
    assert Cron("*/10 * * * * *").next(utc(2026, 1, 1, 0)) == utc(2026, 1, 1, 0) + 10


@pytest.mark.parametrize(
    ("expression", "timezone", "message"),
    [
        ("0 3 * *", "UTC", "can't be meant: Wrong number of fields"),
        ("61 * * * *", "UTC", "can't be meant: Bad minute"),
        ("0 0 31 2 *", "UTC", "can't be meant: Bad day-of-month"),
        ("0 3 * * *", "Europe/Berlni", "there is no time zone 'Europe/Berlni'"),
        ("0 3 * * *", "/etc/passwd", "there is no time zone"),
    ],
)
def test_what_can_t_be_meant_is_a_clear_error(expression: str, timezone: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cron(expression, timezone)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigError, match=r"pip install 'sojourn\[cron\]'"):
        Cron("0 3 * * *")
