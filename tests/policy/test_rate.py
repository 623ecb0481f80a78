"""Token buckets as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.rate import Bucket, Demand, Rate, fits, leaked, standing

RATES = {
    "100/minute": Rate(100, 60),
    "5/s": Rate(5, 1),
    "1000/15m": Rate(1000, 900),
    "2.5 / Hour": Rate(2.5, 3600),
    "1/day": Rate(1, 86400),
    "10/0.5sec": Rate(10, 0.5),
}


@pytest.mark.parametrize("text", RATES)
def test_a_rate_is_read_as_it_is_said(text: str) -> None:
    assert Rate.parse(text) == RATES[text]


@pytest.mark.parametrize(
    "text", ["", "100", "100/", "/s", "0/s", "1/0s", "-1/s", "5/fortnight", "5 per second", "nan/s"]
)
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate: .*100/minute"):
        Rate.parse(text)


def test_a_rate_knows_what_flows_in_a_second() -> None:
    assert Rate.parse("90/minute").per_second == 1.5


class Asked:
    """A bucket that is asked as engines do."""

    def __init__(self, rate: float, burst: float) -> None:
        self.demand = Demand("key", rate, burst, 1.0)
        self.bucket = Bucket(self.demand, 0.0)

    def take(self, now: float, cost: float = 1.0) -> bool:
        demand = self.demand._replace(cost=cost)
        used = leaked(self.bucket.used, self.bucket.at, now, demand.rate)
        taken = fits(used, demand)
        if taken:
            self.bucket.take(demand, used, now)
        self.standing = standing(used, demand, taken)
        return taken


def test_a_burst_is_allowed_at_once_and_one_more_is_not() -> None:
    bucket = Asked(rate=1.0, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.standing == (0.0, 1.0, 3.0)


def test_what_was_taken_flows_back_evenly() -> None:
    bucket = Asked(rate=2.0, burst=4)
    assert bucket.take(0.0, cost=4)
    assert not bucket.take(0.49)
    assert bucket.take(0.5)
    assert bucket.take(10.0, cost=4)
    assert bucket.standing == (0.0, 0.0, 2.0)


def test_a_refusal_takes_nothing_and_says_how_long_to_wait() -> None:
    bucket = Asked(rate=0.5, burst=2)
    assert bucket.take(0.0, cost=2)
    for _ in range(5):
        assert not bucket.take(1.0)
        assert bucket.standing.wait == 1.0
    assert bucket.take(2.0)


def test_what_costs_more_than_a_burst_is_never_allowed() -> None:
    bucket = Asked(rate=1.0, burst=2)
    assert not bucket.take(0.0, cost=2.5)
    assert bucket.standing == (2.0, float("inf"), 0.0)


def test_a_look_costs_nothing() -> None:
    bucket = Asked(rate=1.0, burst=1)
    assert bucket.take(0.0)
    assert bucket.take(0.0, cost=0.0)
    assert bucket.standing == (0.0, 0.0, 1.0)


def test_a_clock_that_goes_back_refills_nothing_and_locks_nobody_out_for_long() -> None:
    bucket = Asked(rate=1.0, burst=2)
    assert bucket.take(1000.0)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert bucket.take(11.0)


def test_a_burst_is_exact_however_late_it_is() -> None:
    bucket = Asked(rate=1000.0 / 3.0, burst=1000)
    now = 1.7e9 + 1 / 3
    assert [bucket.take(now) for _ in range(1001)] == [True] * 1000 + [False]


moments = st.lists(st.tuples(st.floats(0, 20), st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])), max_size=60)


@given(calls=moments, rate=st.floats(0.01, 1000), burst=st.integers(1, 50), start=st.floats(0, 2e9))
def test_in_no_window_more_is_allowed_than_a_burst_and_what_flows_in(
    calls: list[tuple[float, float]], rate: float, burst: int, start: float
) -> None:
    bucket, now = Asked(rate, burst), start
    allowed: list[tuple[float, float]] = []
    for gap, cost in calls:
        now += gap
        if bucket.take(now, cost):
            allowed.append((now, cost))
    for first, (begin, _) in enumerate(allowed):
        spent = 0.0
        for end, cost in allowed[first:]:
            spent += cost
            assert spent <= burst + rate * (end - begin) + burst * 1e-6 + rate * 1e-5


@given(calls=moments, rate=st.floats(0.01, 1000), burst=st.integers(1, 50))
def test_who_waits_as_long_as_told_is_let_in_and_not_sooner(
    calls: list[tuple[float, float]], rate: float, burst: int
) -> None:
    bucket, now = Asked(rate, burst), 0.0
    for gap, cost in calls:
        now += gap
        if not bucket.take(now, cost) and bucket.standing.wait < float("inf"):
            wait = bucket.standing.wait
            assert not bucket.take(now + wait * 0.99 - 1e-6, cost)
            now += wait
            assert bucket.take(now + 1e-6, cost)
            now += 1e-6


@given(calls=moments, rate=st.floats(0.01, 1000), burst=st.integers(1, 50))
def test_a_longer_pause_never_allows_less(calls: list[tuple[float, float]], rate: float, burst: int) -> None:
    soon, late, now = Asked(rate, burst), Asked(rate, burst), 0.0
    for gap, cost in calls:
        now += gap
        before = leaked(soon.bucket.used, soon.bucket.at, now, rate)
        after = leaked(soon.bucket.used, soon.bucket.at, now + 1.0, rate)
        assert 0.0 <= after <= before <= burst * (1 + 1e-6)
        soon.take(now, cost)
        late.take(now, cost)
    assert soon.bucket.share(now) == late.bucket.share(now)
