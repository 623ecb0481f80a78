"""One clock for all of Sojourn."""

from __future__ import annotations

import pytest

from sojourn.clock import NEVER, Clock, ManualClock, SystemClock


def test_the_machines_clock_never_goes_back() -> None:
    clock: Clock = SystemClock()
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.wall() > 1_700_000_000


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock: Clock = ManualClock(start=5.0, wall=100.0)
    assert (clock.monotonic(), clock.wall()) == (5.0, 100.0)
    assert isinstance(clock, ManualClock)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.wall()) == (7.5, 102.5)


def test_a_manual_clock_can_not_go_back() -> None:
    with pytest.raises(ValueError, match="can't go back"):
        ManualClock().advance(-0.1)


def test_never_is_later_than_everything() -> None:
    assert NEVER > 1e300
    assert NEVER == NEVER + 1.0
