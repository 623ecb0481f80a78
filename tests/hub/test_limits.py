"""How many members there may be, how fast they may come, and how much each may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.hub.limits import Doors, Inbound
from sojourn.hub.rules import HubLimits


def limits(**given: float | None) -> HubLimits:
    return HubLimits(**{"total": None, "connect_rate": None, **given})  # type: ignore[arg-type]


def test_without_limits_everybody_comes_in() -> None:
    doors = Doors(limits())
    for number in range(1000):
        assert doors.come("192.0.2.1", float(number)) is None
        assert doors.admit("192.0.2.1", "ada") is None
    assert doors.total == 1000


def test_when_it_is_full_the_next_is_told_to_come_later() -> None:
    doors = Doors(limits(total=1))
    assert doors.admit("192.0.2.1", "ada") is None
    refused = doors.come("192.0.2.2", 0.0)
    assert refused is not None
    assert refused[:3] == ("total", 503, 1013)
    assert refused.retry_after is not None
    doors.leave("192.0.2.1", "ada")
    assert doors.come("192.0.2.2", 0.0) is None


def test_one_address_takes_no_more_than_its_part() -> None:
    doors = Doors(limits(per_ip=2))
    for _ in range(2):
        assert doors.admit("192.0.2.1", "") is None
    refused = doors.come("192.0.2.1", 0.0)
    assert refused is not None
    assert refused[:3] == ("per_ip", 429, 4504)
    assert refused.retry_after is None
    assert doors.come("192.0.2.2", 0.0) is None
    doors.leave("192.0.2.1", "")
    assert doors.come("192.0.2.1", 0.0) is None


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    doors = Doors(limits(per_ip=1))
    assert doors.admit("2001:db8::1", "") is None
    assert doors.come("2001:db8::ffff:2", 0.0) is not None
    assert doors.come("2001:db8:0:1::1", 0.0) is None
    doors.leave("2001:db8::1", "")
    assert doors.come("2001:db8::2", 0.0) is None


def test_an_address_that_is_not_known_is_not_counted() -> None:
    doors = Doors(limits(per_ip=1, per_user=1))
    for _ in range(3):
        assert doors.come("", 0.0) is None
        assert doors.admit("", "") is None
    doors.leave("", "")
    assert doors.total == 2


def test_one_user_takes_no_more_than_its_part_from_wherever_it_comes() -> None:
    doors = Doors(limits(per_user=1))
    assert doors.user("ada") is None
    assert doors.admit("192.0.2.1", "ada") is None
    refused = doors.user("ada")
    assert refused is not None
    assert refused[:3] == ("per_user", 429, 4504)
    assert doors.user("bob") is None
    assert doors.user("") is None


def test_those_who_came_together_do_not_pass_a_limit_together() -> None:
    doors = Doors(limits(total=5, per_ip=2, per_user=1))
    # All are in the doorway at once, and prove who they are.
    assert [doors.come("192.0.2.1", 0.0) for _ in range(3)] == [None] * 3
    admitted = [doors.admit("192.0.2.1", user) for user in ("ada", "bob", "eve")]
    assert [refused and refused.limit for refused in admitted] == [None, None, "per_ip"]
    refused = doors.admit("192.0.2.2", "ada")
    assert refused is not None
    assert refused.limit == "per_user"
    assert doors.total == 2


def test_as_many_come_in_a_second_as_may_and_twice_as_many_in_a_burst() -> None:
    doors = Doors(limits(connect_rate=10.0))
    verdicts = [doors.come("192.0.2.1", 100.0) for _ in range(21)]
    assert verdicts[:20] == [None] * 20
    refused = verdicts[20]
    assert refused is not None
    assert refused == ("connect_rate", 503, 1013, "too many come at once", 1)
    assert doors.come("192.0.2.1", 100.1) is None
    assert doors.come("192.0.2.1", 100.1) is not None


def test_a_rate_below_one_lets_somebody_in_from_time_to_time() -> None:
    doors = Doors(limits(connect_rate=0.1))
    assert doors.come("192.0.2.1", 0.0) is None
    refused = doors.come("192.0.2.1", 0.0)
    assert refused is not None
    assert refused.retry_after == 10
    assert doors.come("192.0.2.1", 10.0) is None


def test_who_is_over_a_limit_of_its_own_takes_nothing_from_the_others() -> None:
    doors = Doors(limits(per_ip=1, connect_rate=1.0))
    assert doors.come("192.0.2.1", 0.0) is None
    assert doors.admit("192.0.2.1", "") is None
    for _ in range(100):
        assert doors.come("192.0.2.1", 0.0) is not None
    assert doors.come("192.0.2.2", 0.0) is None


@given(st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2", ""]), st.sampled_from(["ada", "bob", ""]))))
def test_when_all_have_left_nothing_is_remembered(members: list[tuple[str, str]]) -> None:
    doors = Doors(limits(per_ip=3, per_user=2))
    inside = [member for member in members if doors.admit(*member) is None]
    assert doors.total == len(inside)
    for member in inside:
        doors.leave(*member)
    assert (doors.total, doors._addresses, doors._users) == (0, {}, {})


# What a member says


def test_a_burst_is_heeded_at_once_and_then_the_rate_is_kept() -> None:
    inbound = Inbound(50.0, 100, 1000.0)
    assert [inbound.take(1000.0) for _ in range(100)] == [0.0] * 100
    assert inbound.take(1000.0) == pytest.approx(0.02)


def test_who_waits_as_it_is_told_keeps_the_rate() -> None:
    inbound = Inbound(50.0, 10, 0.0)
    now = 0.0
    for _ in range(1010):
        now += inbound.take(now)
    assert now == pytest.approx(20.0)


def test_silence_earns_no_more_than_a_burst() -> None:
    inbound = Inbound(50.0, 3, 0.0)
    assert [inbound.take(1e6) for _ in range(3)] == [0.0] * 3
    assert inbound.take(1e6) > 0


def test_a_clock_that_goes_back_earns_nothing() -> None:
    inbound = Inbound(1.0, 1, 100.0)
    assert inbound.take(100.0) == 0.0
    assert inbound.take(50.0) == pytest.approx(1.0)
    assert inbound.take(101.0) == pytest.approx(1.0)


@given(st.lists(st.floats(0, 0.5), max_size=200), st.integers(1, 20))
def test_no_second_has_more_than_a_burst_and_the_rate(pauses: list[float], burst: int) -> None:
    inbound = Inbound(10.0, burst, 0.0)
    now, heeded = 0.0, []
    for pause in pauses:
        now += pause
        now += inbound.take(now)
        heeded.append(now)
    for first in range(len(heeded)):
        count = sum(1 for each in heeded[first:] if each <= heeded[first] + 1.0)
        assert count <= burst + 10 + 1e-6
