"""When something is tried again."""

from __future__ import annotations

from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import CircuitOpen
from sojourn.policy.retry import Backoff, RetryBudget, retry_after_of

WALL = 1_700_000_000.0


@given(tries=st.integers(1, 10_000), chance=st.floats(0.0, 1.0))
def test_a_wait_is_never_longer_than_its_ceiling_nor_than_the_most(tries: int, chance: float) -> None:
    backoff = Backoff(0.1, 5.0)
    assert 0.0 <= backoff.delay(tries, chance) <= min(5.0, 0.1 * 2.0 ** min(tries - 1, 100))


def test_the_ceiling_doubles_and_chance_takes_any_part_of_it() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.delay(tries, 1.0) for tries in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.delay(4, 0.0) == 0.0
    assert backoff.delay(4, 0.5) == 0.4


@pytest.mark.parametrize(("first", "most"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_a_backoff_that_falls_or_is_none_is_an_error(first: float, most: float) -> None:
    with pytest.raises(ValueError, match="a backoff from"):
        Backoff(first, most)


def test_a_budget_gives_what_was_saved_up_and_then_a_share_of_the_calls() -> None:
    budget = RetryBudget(share=0.1, per_second=0.0, most=5.0)
    assert [budget.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    given = 0
    for _ in range(1000):
        budget.called()
        given += budget.take(0.0)
    assert given in (99, 100)


def test_a_budget_gives_a_few_per_second() -> None:
    budget = RetryBudget(share=0.0, per_second=2.0, most=3.0)
    assert [budget.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(11.0) for _ in range(3)] == [True, True, False]
    assert budget.left(1e6) == 3.0


@given(
    events=st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.floats(0.0, 10.0)), max_size=100),
    share=st.floats(0.0, 1.0),
    per_second=st.floats(0.0, 5.0),
)
def test_a_budget_never_gives_more_than_its_share_its_seconds_and_what_it_began_with(
    events: list[tuple[str, float]], share: float, per_second: float
) -> None:
    budget, now, calls, given = RetryBudget(share, per_second, 4.0), 0.0, 0, 0
    for what, gap in events:
        now += gap
        if what == "call":
            calls += 1
            budget.called()
        else:
            given += budget.take(now)
        assert given <= 4.0 + share * calls + per_second * now + 1e-6
        assert 0.0 <= budget.left(now) <= 4.0


@pytest.mark.parametrize(("share", "per_second", "most"), [(-0.1, 1.0, 1.0), (0.1, -1.0, 1.0), (0.1, 1.0, 0.5)])
def test_a_budget_that_gives_nothing_or_less_is_an_error(share: float, per_second: float, most: float) -> None:
    with pytest.raises(ValueError, match="a budget of"):
        RetryBudget(share, per_second, most)


def answer(value: str, name: str = "retry-after") -> Any:
    return SimpleNamespace(headers={name: value})


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (CircuitOpen("payments", "open", 2.5), 2.5),
        (SimpleNamespace(retry_after=3), 3.0),
        (SimpleNamespace(retry_after=-1), 0.0),
        (SimpleNamespace(retry_after=float("nan")), None),
        (SimpleNamespace(response=answer("120")), 120.0),
        (SimpleNamespace(response=answer(" 7 ", "Retry-After")), 7.0),
        (answer("0"), 0.0),
        (answer(formatdate(WALL + 30, usegmt=True)), 30.0),
        (answer(formatdate(WALL - 30, usegmt=True)), 0.0),
        (answer("Tue, 14 Nov 2023 22:13:50 -0000"), 30.0),
        (answer("soon"), None),
        (answer("Tue, 14 Nov 2023 22:13:50 +9999999999999999999999"), None),
        (answer(f"Tue, 14 Nov {'9' * 400} 22:13:50 GMT"), None),
        (answer("-5"), None),
        (answer("1.5"), None),
        (answer("9" * 5000), None),
        (answer("\u0662"), None),
        (SimpleNamespace(response=None), None),
        (SimpleNamespace(headers=[("retry-after", "1")]), None),
        (ValueError("nothing"), None),
    ],
)
def test_what_the_one_who_refused_asks_for_is_read_or_nothing(error: object, seconds: float | None) -> None:
    found = retry_after_of(error, WALL)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(value=st.text(max_size=40))
def test_no_header_makes_reading_it_fail(value: str) -> None:
    found = retry_after_of(answer(value), WALL)
    assert found is None or found >= 0.0
