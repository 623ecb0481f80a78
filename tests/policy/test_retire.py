"""When a worker has done enough: by requests, age or memory, each lowered by chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.config import Worker
from sojourn.policy.retire import Retirement

LIMITS = Worker(max_requests=100, max_lifetime=90.0, max_memory=1000, jitter=0.0)


@pytest.mark.parametrize(
    ("requests", "age", "memory", "due"),
    [
        (0, 0.0, 0, None),
        (99, 89.9, 999, None),
        (100, 0.0, 0, "max_requests"),
        (0, 90.0, 0, "max_lifetime"),
        (0, 59.9, 1000, None),
        (0, 60.0, 1000, "max_memory"),
        (100, 90.0, 1000, "max_requests"),
    ],
)
def test_the_first_limit_that_is_reached_is_named(requests: int, age: float, memory: int, due: str | None) -> None:
    assert Retirement(LIMITS, lambda: 0.5).due(requests, age, memory) == due


def test_without_limits_nobody_retires() -> None:
    retirement = Retirement(Worker(), lambda: 1.0)
    assert not retirement.wanted
    assert retirement.due(10**12, 10.0**12, 10**18) is None


@given(st.floats(0, 1), st.floats(0, 5))
def test_chance_lowers_each_limit_by_its_share_at_most(chance: float, jitter: float) -> None:
    settings = Worker(max_requests=100, max_lifetime=60.0, max_memory=1000, jitter=jitter)
    retirement = Retirement(settings, lambda: chance)
    assert retirement.wanted
    for limit, asked in ((retirement.requests, 100), (retirement.lifetime, 60.0), (retirement.memory, 1000)):
        assert asked * (1 - min(jitter, 1.0)) <= limit <= asked


def test_a_worker_serves_one_request_at_least() -> None:
    retirement = Retirement(Worker(max_requests=1, jitter=1.0), lambda: 1.0)
    assert retirement.due(0, 0.0, 0) is None
    assert retirement.due(1, 0.0, 0) == "max_requests"
