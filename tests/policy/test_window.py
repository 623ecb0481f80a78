"""The window that slides: how the calls of the last seconds went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.window import Window


def numbers(window: Window) -> tuple[int, int, int]:
    return window.calls, window.failures, window.slow


def test_calls_are_counted_by_how_they_went() -> None:
    window = Window(60.0, 12)
    window.add(1000.0, False, False)
    window.add(1001.0, True, False)
    window.add(1002.0, True, True)
    assert numbers(window) == (3, 2, 1)


def test_a_call_is_forgotten_when_the_window_has_passed_and_not_before_a_bucket_less() -> None:
    window = Window(60.0, 12)
    window.add(1000.0, True, True)
    window.turn(1054.9)
    assert numbers(window) == (1, 1, 1)
    window.turn(1060.0)
    assert numbers(window) == (0, 0, 0)


def test_after_a_long_silence_nothing_is_remembered() -> None:
    window = Window(10.0, 5)
    for second in range(10):
        window.add(float(second), True, False)
    window.add(1e9, False, False)
    assert numbers(window) == (1, 0, 0)


def test_clearing_forgets_everything() -> None:
    window = Window(10.0, 5)
    window.add(3.0, True, True)
    window.clear()
    window.add(4.0, False, False)
    assert numbers(window) == (1, 0, 0)


@given(
    calls=st.lists(st.tuples(st.floats(0.0, 30.0), st.booleans(), st.booleans()), max_size=60),
    buckets=st.integers(2, 20),
)
def test_it_counts_as_a_list_of_calls_would_to_one_bucket(calls: list[tuple[float, bool, bool]], buckets: int) -> None:
    window, seconds, now = Window(20.0, buckets), 20.0, 100.0
    width = seconds / buckets
    seen: list[tuple[int, bool, bool]] = []
    for gap, failed, slow in calls:
        now += gap
        window.add(now, failed, slow)
        seen.append((int(now / width), failed, slow))
        kept = [call for call in seen if call[0] > int(now / width) - buckets]
        assert numbers(window) == (len(kept), sum(call[1] for call in kept), sum(call[2] for call in kept))


@pytest.mark.parametrize(("seconds", "buckets"), [(0.0, 10), (-1.0, 10), (60.0, 1), (float("nan"), 10)])
def test_a_window_has_a_length_and_two_buckets_at_least(seconds: float, buckets: int) -> None:
    with pytest.raises(ValueError, match="a window of"):
        Window(seconds, buckets)
