"""Measures are taken one after the other while there is too much, and taken back, later, when there is less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.pressure import MEASURES, Ladder, Measure


def run(ladder: Ladder, began: float, seconds: float, signal: float, name: str = "memory") -> list[tuple[float, int]]:
    """Looks twice a second; the changes, as seconds since the beginning and level."""
    moments = [step / 2 for step in range(int(seconds * 2) + 1)]
    return [(moment, ladder.level) for moment in moments if ladder.look(began + moment, {name: signal})]


def test_one_more_measure_for_each_second_of_pressure() -> None:
    ladder = Ladder("space")
    assert run(ladder, 0.0, 7.0, 1.5) == [(1.0, 1), (2.0, 2), (3.0, 3), (4.0, 4), (5.0, 5)]
    assert ladder.measures == set(Measure)
    assert ladder.why == "memory"


def test_all_of_it_is_taken_back_one_by_one() -> None:
    ladder = Ladder("space")
    run(ladder, 0.0, 3.0, 2.0)
    assert run(ladder, 3.5, 20.0, 0.1) == [(4.5, 2), (9.5, 1), (14.5, 0)]
    assert ladder.measures == frozenset()
    assert ladder.why == ""


def test_between_too_much_and_clearly_less_nothing_changes() -> None:
    ladder = Ladder("space")
    run(ladder, 0.0, 2.0, 1.0)
    assert ladder.level == 2
    assert run(ladder, 2.5, 60.0, 0.9) == []


def test_a_moment_of_it_is_no_pressure() -> None:
    ladder = Ladder("space")
    for step in range(100):
        ladder.look(step / 2, {"memory": 2.0 if step % 2 else 0.0})
    assert ladder.level == 0


def test_the_worst_signal_counts_and_is_named() -> None:
    ladder = Ladder("space")
    for step in range(4):
        ladder.look(step / 2, {"memory": 0.2, "descriptors": 1.1, "buffered": 1.0})
    assert (ladder.level, ladder.why) == (1, "descriptors")


def test_no_connection_is_closed_for_want_of_processor_time() -> None:
    ladder = Ladder("processor")
    run(ladder, 0.0, 60.0, 5.0, "queue")
    assert ladder.level == 4
    assert ladder.measures == {Measure.NO_STREAMS, Measure.SHED_LOW}


def test_without_signals_there_is_no_pressure() -> None:
    assert not Ladder("space").look(5.0, {})


@pytest.mark.parametrize("cause", MEASURES)
@given(signals=st.lists(st.floats(0, 3), max_size=60))
def test_a_level_changes_by_one_and_has_the_measures_of_those_below(cause: str, signals: list[float]) -> None:
    ladder = Ladder(cause)
    for number, signal in enumerate(signals):
        before, had = ladder.level, ladder.measures
        changed = ladder.look(number * 0.7, {"lag": signal})
        assert abs(ladder.level - before) == int(changed)
        assert had <= ladder.measures or ladder.measures <= had
