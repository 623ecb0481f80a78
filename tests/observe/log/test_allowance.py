"""The first of its kind at once, then a few a minute, and nothing is left out in silence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sojourn.observe.log.allowance import Allowance


def test_the_first_of_each_signature_is_told_at_once() -> None:
    allowance = Allowance(repeated=0)
    assert [allowance.ask(name, 0.0) for name in "abc"] == [0, 0, 0]
    assert allowance.ask("a", 0.0) is None


def test_repetitions_are_told_a_few_times_a_minute_with_how_many_were_left_out() -> None:
    allowance = Allowance(repeated=2)
    allowance.ask("a", 0.0)
    assert [allowance.ask("a", moment) for moment in (1.0, 2.0, 3.0, 4.0, 61.0, 62.0, 63.0)] == [
        0, 0, None, None, 2, 0, None,
    ]  # fmt: skip
    assert allowance.left_out() == 1
    assert allowance.left_out() == 0


def test_a_new_signature_tells_what_was_left_out_before() -> None:
    allowance = Allowance(repeated=0)
    assert [allowance.ask(name, 0.0) for name in "aab"] == [0, None, 1]


def test_ever_new_signatures_are_repetitions_in_the_end() -> None:
    allowance = Allowance(repeated=5)
    told = [allowance.ask(number, 0.0) is not None for number in range(1000)]
    assert sum(told) == 256 + 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500))))
def test_everything_is_told_or_counted(asked: list[tuple[str, float]]) -> None:
    allowance = Allowance()
    answers = [allowance.ask(name, moment) for name, moment in sorted(asked, key=lambda each: each[1])]
    told = [answer for answer in answers if answer is not None]
    assert len(told) + sum(told) + allowance.left_out() == len(asked)
