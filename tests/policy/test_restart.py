"""When workers that ended are replaced: once at once, then ever later, in the end not any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.restart import LONGEST_WAIT, SETTLED, Restarts


def test_the_first_is_replaced_at_once_and_the_next_ones_ever_later() -> None:
    restarts = Restarts(11)
    waits = [restarts.ended(0.0) for _ in range(10)]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert restarts.ended(0.0) is None


def test_one_that_served_for_a_minute_is_no_failure() -> None:
    restarts = Restarts(3)
    assert [restarts.ended(0.0), restarts.ended(SETTLED - 0.1)] == [0.0, 0.25]
    assert restarts.ended(SETTLED) == 0.0
    assert [restarts.ended(0.0), restarts.ended(0.0), restarts.ended(0.0)] == [0.0, 0.25, None]


def test_a_minute_of_service_ends_the_row() -> None:
    restarts = Restarts(3)
    restarts.ended(0.0)
    restarts.ended(0.0)
    restarts.settled()
    assert restarts.ended(0.0) == 0.0


def test_one_failure_can_be_too_many() -> None:
    assert Restarts(1).ended(0.0) is None


@given(st.integers(1, 5000), st.lists(st.floats(0, 2 * SETTLED), max_size=60))
def test_no_wait_is_longer_than_the_longest_and_no_row_longer_than_the_limit(most: int, lives: list[float]) -> None:
    restarts, row = Restarts(most), 0
    for served in lives:
        row = 0 if served >= SETTLED else row + 1
        wait = restarts.ended(served)
        assert (wait is None) == (row >= most)
        assert wait is None or 0.0 <= wait <= LONGEST_WAIT


def test_a_very_long_row_is_counted_on() -> None:
    restarts = Restarts(10**6)
    assert [restarts.ended(0.0) for _ in range(2000)][-1] == LONGEST_WAIT
