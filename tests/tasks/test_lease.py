"""When leases are renewed, and when they are given up."""

from __future__ import annotations

import pytest

from sojourn.tasks.lease import beat_at, fenced, patience


def test_what_is_held_is_renewed_a_third_of_the_lease_after_the_oldest_was() -> None:
    assert beat_at([105.0, 100.0, 130.0], 30.0) == 110.0
    assert beat_at([], 30.0) is None


@pytest.mark.parametrize(
    ("age", "tried", "over"),
    [
        (0.0, False, False),
        (19.9, True, False),  # tried in vain, but there is time to try again
        (20.0, False, False),  # a process that was frozen asks first
        (20.0, True, True),
        (29.9, False, False),
        (30.0, False, True),  # longer than anybody may believe
    ],
    ids=["fresh", "tried", "frozen", "fenced", "frozen long", "over"],
)
def test_a_run_is_given_up_after_two_thirds_of_its_lease_or_all_of_it_unasked(
    age: float, tried: bool, over: bool
) -> None:
    now = 1000.0
    renewed = now - age
    assert fenced(renewed, 30.0, now, now - 0.1 if tried and age else renewed - 1.0) is over


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (0.0, 10.0),
        (10.0, 10.0),
        (16.0, 4.0),  # up to two thirds of the lease, where it is given up
        (19.9, 1.0),
        (24.0, 6.0),  # a process that was frozen asks once, while it is sure of its lease
        (40.0, 1.0),
    ],
)
def test_a_try_to_renew_takes_no_longer_than_there_is_time(age: float, seconds: float) -> None:
    assert patience(1000.0 - age, 30.0, 1000.0) == pytest.approx(seconds)
    assert patience(None, 30.0, 1000.0) == 10.0
