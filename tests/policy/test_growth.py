"""Growth is told after long evidence, and never because of the load."""

from __future__ import annotations

import math
import random

import pytest

from sojourn.policy.growth import Growth, slope_of, trend_of

#: Samples, one each 30 s: a day.
DAY = 2880


def watch(value_of: object, *, samples: int, seed: int, swing: float = 0.0) -> int | None:
    """After how many samples growth is told; None when it never is."""
    chance = random.Random(seed)
    growth = Growth(spare=10.0)
    for at in range(samples):
        load = 500 * (1 + swing * math.sin(2 * math.pi * at / DAY)) * chance.uniform(0.8, 1.2)
        growth.add(value_of(at, load, chance), load)  # type: ignore[operator]
        if at % 12 == 0 and growth.verdict() is not None:
            return at
    return None


def proportional(at: int, load: float, chance: random.Random) -> float:
    return 3 * load * chance.uniform(0.9, 1.1)


def based(at: int, load: float, chance: random.Random) -> float:
    return 80e6 + 30e3 * load * chance.uniform(0.9, 1.1)


def high_water(at: int, load: float, chance: random.Random) -> float:
    """Memory that is never given back: it follows the highest load so far."""
    return 80e6 + 60e3 * 500 * (1 + 0.8 * math.sin(2 * math.pi * min(at % DAY, DAY / 4) / DAY))


def warming_up(at: int, load: float, chance: random.Random) -> float:
    return 80e6 + 200e6 * (1 - math.exp(-at / 60)) + 30e3 * load


@pytest.mark.parametrize("swing", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("value", [proportional, based, high_water, warming_up])
@pytest.mark.parametrize("seed", range(6))
def test_no_alarm_in_two_days_of_a_server_without_a_leak(value: object, swing: float, seed: int) -> None:
    assert watch(value, samples=2 * DAY, seed=seed, swing=swing) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("swing", [0.0, 0.4])
def test_what_grows_by_half_a_percent_a_sample_is_told_in_half_a_day(seed: int, swing: float) -> None:
    def leaking(at: int, load: float, chance: random.Random) -> float:
        return proportional(at, load, chance) * 1.005**at

    told = watch(leaking, samples=DAY, seed=seed, swing=swing)
    assert told is not None
    assert 2 * 12 * 12 <= told <= DAY / 2


def test_nothing_is_told_before_two_rows_of_windows_are_full() -> None:
    growth = Growth()
    for at in range(2 * 12 * 12 - 1):
        growth.add(1.1**at, 10)
        assert growth.verdict() is None
    growth.add(1.1**300, 10)
    verdict = growth.verdict()
    assert verdict is not None
    assert verdict.before == 1.0
    assert verdict.now == pytest.approx(1.1**276)


def test_trend_and_slope_are_those_of_the_books() -> None:
    assert trend_of([5.0] * 12) == 0.0
    assert trend_of(range(12)) == pytest.approx(65 / math.sqrt(12 * 11 * 29 / 18))  # type: ignore[arg-type]
    assert trend_of(range(12, 0, -1)) == pytest.approx(-trend_of(range(12)))  # type: ignore[arg-type]
    assert slope_of([100.0, 101.0, 102.0, 103.0, 104.0]) == pytest.approx(1 / 102)
    assert slope_of([0.0, 0.0, 0.0]) == 0.0
