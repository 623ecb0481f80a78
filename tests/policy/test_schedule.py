"""Slots: everybody names the same ones, none is named twice, and none is left out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.schedule import Every, stands

MOMENTS = st.floats(0, 4e9)
DISTANCES = st.floats(0.1, 1e8)


@given(DISTANCES, MOMENTS, st.floats(0, 1e6))
def test_the_next_slot_is_later_and_at_most_one_distance_away(seconds: float, after: float, anchor: float) -> None:
    slot = Every(seconds, anchor).next(after)
    assert after < slot <= after + seconds * (1 + 1e-6) + 1e-5


@given(DISTANCES, MOMENTS)
def test_who_asks_between_two_slots_gets_the_second(seconds: float, start: float) -> None:
    every = Every(seconds)
    first = every.next(start)
    second = every.next(first)
    assert first < second
    for share in (0.0, 0.01, 0.5, 0.99):
        assert every.next(first + share * (second - first)) == second


def test_slots_are_multiples_since_1970_from_their_anchor() -> None:
    assert [Every(60.0).next(moment) for moment in (0.0, 59.9, 60.0, 61.0)] == [60.0, 60.0, 120.0, 120.0]
    assert [Every(60.0, 15.0).next(moment) for moment in (0.0, 15.0, 75.5)] == [15.0, 75.0, 135.0]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_a_distance_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Every(seconds)


@pytest.mark.parametrize(
    ("slot", "now", "right"),
    [
        (120.0, 70.0, True),  # the next
        (60.0, 70.0, True),  # due, and not begun yet
        (61.0, 70.0, True),  # due, whatever schedule it is of
        (100.0, 70.0, False),  # of another schedule
        (180.0, 70.0, False),  # one of its slots, but not the next: of a schedule with greater distances
    ],
)
def test_what_waits_stands_when_it_is_due_or_next(slot: float, now: float, right: bool) -> None:
    assert stands(Every(60.0), slot, now) is right
