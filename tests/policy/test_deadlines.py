"""The arithmetic of deadlines: named slots, standstill, minimum rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import NEVER
from sojourn.policy.deadlines import SLOTS, Deadlines, Progress, rate_deadline

moments = st.floats(0.0, 1e9) | st.just(NEVER)


def test_a_new_set_has_nothing_armed() -> None:
    due = Deadlines()
    assert due.soonest() == NEVER
    assert due.earliest() == (NEVER, "")
    assert due.armed() == {}


def test_the_slots_are_the_attributes() -> None:
    assert set(SLOTS) == set(Deadlines.__annotations__)
    assert Deadlines.__slots__ == SLOTS


@given(st.dictionaries(st.sampled_from(SLOTS), moments))
def test_the_earliest_slot_is_found_whatever_is_armed(armed: dict[str, float]) -> None:
    due = Deadlines()
    for slot, moment in armed.items():
        setattr(due, slot, moment)
    expected = min(armed.values(), default=NEVER)
    moment, slot = due.earliest()
    assert due.soonest() == moment == expected
    assert slot == "" if expected == NEVER else armed[slot] == expected
    assert due.armed() == {name: when for name, when in armed.items() if when != NEVER}
    due.disarm()
    assert due.armed() == {}


def test_of_two_slots_at_the_same_moment_the_first_in_order_is_reported() -> None:
    due = Deadlines()
    due.close = due.body = due.long = 5.0
    assert due.earliest() == (5.0, "body")


@pytest.mark.parametrize(
    ("rate", "moved", "expected"),
    [(None, 0, NEVER), (100, 0, 15.0), (100, 1000, 25.0), (1, 1000, 1015.0)],
)
def test_a_minimum_rate_gives_grace_and_then_time_for_what_moved(rate: int | None, moved: int, expected: float) -> None:
    assert rate_deadline(10.0, 5.0, moved, rate) == expected


def test_progress_without_limits_never_ends() -> None:
    progress = Progress(0.0, 0, None, None, 5.0)
    assert progress.idle_deadline == progress.rate_deadline == NEVER


def test_only_bytes_extend_the_idle_deadline() -> None:
    progress = Progress(0.0, 100, 30.0, None, 5.0)
    progress.sample(20.0, 100)
    assert progress.idle_deadline == 30.0
    progress.sample(25.0, 101)
    assert progress.idle_deadline == 55.0
    progress.sample(26.0, 50)  # a measure that went back is not progress
    assert progress.idle_deadline == 55.0


def test_bytes_moved_before_the_wait_do_not_count_for_the_rate() -> None:
    progress = Progress(0.0, 10_000, None, 100, 5.0)
    assert progress.rate_deadline == 5.0
    progress.sample(1.0, 10_500)
    assert progress.rate_deadline == 10.0


@given(
    rate=st.integers(1, 10_000),
    factor=st.floats(0.1, 10.0),
    step=st.floats(0.1, 2.0),
    grace=st.floats(0.0, 10.0),
)
def test_a_peer_above_the_rate_is_never_cut_and_one_below_always(
    rate: int, factor: float, step: float, grace: float
) -> None:
    progress = Progress(0.0, 0, None, rate, grace)
    cut = False
    for number in range(1, 400):
        now = number * step
        progress.sample(now, int(now * rate * factor))
        cut = cut or progress.rate_deadline <= now
    if factor >= 1.01 and rate * step * factor > 10:
        assert not cut or grace < step  # within its first step nobody can have moved anything
    elif factor <= 0.9 and 400 * step > grace / (1 - factor) + 10:
        assert cut
