"""The number of requests that run at once is found by trying: few where they compute, many where they wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.concurrency import AdaptiveLimit


def judge(limit: AdaptiveLimit, now: float, wait: float, running: int, samples: int = 5) -> float:
    """One interval in which everything waits equally long; when it ended."""
    for step in range(samples + 1):
        limit.sample(now + 0.1 * step / samples, wait, running)
    return now + 0.101


def served(limit: AdaptiveLimit, seconds: float, wait_of: float, demand: int, began: float = 0.0) -> list[int]:
    """The limit over time where each running request makes others wait ``wait_of`` seconds."""
    now, seen = began, []
    while now < began + seconds:
        running = min(limit.limit, demand)
        now = judge(limit, now, wait_of * (running - 1), running)
        seen.append(limit.limit)
    return seen


def test_handlers_that_compute_get_few_slots_within_two_seconds() -> None:
    seen = served(AdaptiveLimit(0.01), 10.0, wait_of=0.005, demand=600)
    assert max(seen[20:]) <= 4
    assert min(seen[20:]) >= 1


@pytest.mark.parametrize("demand", [1, 50, 5000])
def test_handlers_that_only_wait_are_not_held_back(demand: int) -> None:
    assert set(served(AdaptiveLimit(0.01), 10.0, wait_of=0.0, demand=demand)) == {10_000}


def test_a_limit_that_is_in_the_way_without_need_is_raised_quickly() -> None:
    limit = AdaptiveLimit(0.01)
    served(limit, 5.0, wait_of=0.005, demand=600)
    assert limit.limit <= 4
    seen = served(limit, 2.0, wait_of=0.0, demand=400, began=6.0)
    assert seen[-1] >= 400


def test_a_limit_that_is_in_nobodys_way_stays_as_it_is() -> None:
    limit = AdaptiveLimit(0.01)
    served(limit, 5.0, wait_of=0.001, demand=60)  # 9 or 10 make others wait for so long
    found = limit.limit
    assert found < 60
    assert set(served(limit, 5.0, wait_of=0.0, demand=found // 3, began=6.0)) == {found}


def test_one_blocking_call_changes_nothing() -> None:
    limit = AdaptiveLimit(0.01)
    now = 0.0
    for _ in range(10):
        for step, wait in enumerate((0.0, 0.0, 0.5, 0.0, 0.3, 0.0)):
            limit.sample(now + step * 0.02, wait, 20)
        now += 0.11
    assert limit.limit == 10_000


def test_few_waits_say_nothing() -> None:
    limit = AdaptiveLimit(0.01)
    assert not limit.sample(0.0, 9.0, 50)
    assert not limit.sample(5.0, 9.0, 50)
    assert limit.sample(5.1, 9.0, 50)
    assert limit.limit == 25


def test_the_maximum_follows_a_changed_setting() -> None:
    limit = AdaptiveLimit(0.01, maximum=100)
    limit.bound(200)
    assert limit.limit == 200
    limit.bound(50)
    assert limit.limit == 50
    served(limit, 2.0, wait_of=1.0, demand=50)
    found = limit.limit
    assert found <= 2
    limit.bound(70)
    assert limit.limit == found


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200)), max_size=200), st.integers(1, 20), st.integers(1, 100))
def test_it_stays_between_its_bounds(steps: list[tuple[float, int]], minimum: int, maximum: int) -> None:
    limit = AdaptiveLimit(0.01, minimum=minimum, maximum=maximum)
    for number, (wait, running) in enumerate(steps):
        before = limit.limit
        changed = limit.sample(number * 0.04, wait, running)
        assert changed == (limit.limit != before)
        assert minimum <= limit.limit <= max(minimum, maximum)
