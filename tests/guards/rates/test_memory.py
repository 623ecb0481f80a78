"""Buckets in memory: a bounded number, and nobody gets rid of a full count by making others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.guards.rates.memory import MemoryRates
from sojourn.policy.rate import Demand


class Rates:
    """Buckets of three, refilled one a second."""

    def __init__(self, keys: int) -> None:
        self.clock = ManualClock()
        self.engine = MemoryRates(keys, clock=self.clock)

    def take(self, *keys: str, cost: float = 1.0, burst: float = 3.0) -> bool:
        demands = [Demand(key, 1.0, burst, cost) for key in keys]
        return all(each.wait == 0.0 for each in asyncio.run(self.engine.take(demands)))


def test_full_buckets_are_forgotten_when_new_ones_come() -> None:
    rates = Rates(keys=1000)
    for number in range(200):
        assert rates.take(f"q|{number}")
        rates.clock.advance(0.2)  # each is full again after a second: about five are in use
    assert len(rates.engine) < 25


def test_a_flood_of_keys_never_resets_a_limited_one() -> None:
    rates = Rates(keys=100)
    assert rates.take("q|abuser", cost=3)
    for number in range(5000):
        rates.take(f"q|{number}")
        assert not rates.take("q|abuser")
    assert len(rates.engine) <= 101


def test_a_flood_of_keys_does_not_even_reset_a_nearly_limited_one() -> None:
    rates = Rates(keys=100)
    assert rates.take("q|abuser", cost=2)
    for number in range(5000):
        rates.take(f"q|{number}")
    assert [rates.take("q|abuser") for _ in range(2)] == [True, False]


def test_when_all_are_limited_newcomers_share_one_bucket() -> None:
    rates = Rates(keys=50)
    for number in range(50):
        assert rates.take(f"q|{number}", cost=3)
    assert [rates.take(f"q|new{number}") for number in range(5)] == [True, True, True, False, False]
    assert rates.engine.crowded == 5
    assert rates.take("other|new")  # of another quota
    assert len(rates.engine) == 52
    rates.clock.advance(10.0)
    assert rates.take("q|new", cost=3)


def test_refused_newcomers_take_no_room() -> None:
    rates = Rates(keys=50)
    assert rates.take("all|", cost=3)
    for number in range(500):
        assert not rates.take("all|", f"q|{number}")
    assert len(rates.engine) == 1


def test_keys_of_one_request_do_not_push_each_other_out() -> None:
    rates = Rates(keys=1)
    assert [rates.take("a|x", "b|x", "c|x") for _ in range(4)] == [True, True, True, False]


def test_what_is_closed_is_empty() -> None:
    rates = Rates(keys=10)
    assert rates.take("q|a")
    asyncio.run(rates.engine.aclose())
    assert len(rates.engine) == 0


def test_room_for_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        MemoryRates(0)


@given(
    keys=st.integers(1, 8),
    calls=st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.0, 0.1, 1.0, 5.0])), max_size=150),
)
def test_with_any_room_nobody_is_allowed_more_than_one_burst_and_the_rate_once_limited(
    keys: int, calls: list[tuple[int, float]]
) -> None:
    """Who was refused stays refused until the time it was told, whoever comes meanwhile."""
    rates = Rates(keys)
    until: dict[str, float] = {}
    for who, gap in calls:
        rates.clock.advance(gap)
        key, now = f"q|{who}", rates.clock.monotonic()
        (standing,) = asyncio.run(rates.engine.take([Demand(key, 1.0, 3.0, 1.0)]))
        assert len(rates.engine) <= keys + 1
        if key in rates.engine._buckets:  # else it is one of the crowd, whose bucket is another's too
            if standing.wait == 0.0:
                assert now >= until.get(key, 0.0) - 1e-6
            else:
                until[key] = now + standing.wait
