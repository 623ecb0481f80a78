"""When leases are renewed, and when they are given up."""

from __future__ import annotations

import pytest

from sojourn.tasks.lease import beat_at, fenced


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
