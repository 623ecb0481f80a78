"""How many tasks run beside requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.appetite import Appetite


def test_it_is_halved_when_the_loop_comes_late_and_grows_step_by_step_when_it_does_not() -> None:
    appetite = Appetite(20)
    assert [appetite.look(0.2), appetite.look(0.2), appetite.look(0.03), appetite.look(0.0)] == [10, 5, 5, 7]


@given(st.integers(1, 500), st.lists(st.floats(0.0, 10.0), max_size=50))
def test_it_is_never_below_one_nor_above_what_may_run(most: int, lates: list[float]) -> None:
    appetite = Appetite(most)
    for late in lates:
        assert 1 <= appetite.look(late) <= most


@given(st.integers(1, 500))
def test_it_comes_back_to_all_when_all_is_well(most: int) -> None:
    appetite = Appetite(most)
    for _ in range(12):
        appetite.look(1.0)
    for _ in range(20):
        appetite.look(0.0)
    assert appetite.limit == most
