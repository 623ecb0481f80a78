"""The states of a circuit breaker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.breaker import Breaker, BreakerState, BreakerThresholds

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
OPEN_SECONDS = 10.0


def make(probes: int = 2, **thresholds: Any) -> Breaker:
    return Breaker(BreakerThresholds(**{"minimum": 4, "window": 60.0, **thresholds}), OPEN_SECONDS, probes)


def call(breaker: Breaker, now: float, how: str = "ok") -> bool:
    """One call that ends at once; whether it was let through."""
    entered = breaker.enter(now)
    if entered >= 0:
        breaker.leave(entered, now, failed="f" in how, slow="s" in how)
    return entered >= 0


def opened(probes: int = 2) -> Breaker:
    breaker = make(probes)
    breaker.trip(0.0)
    return breaker


@pytest.mark.parametrize(
    ("calls", "state"),
    [
        (["f", "f", "f"], CLOSED),  # too few to say anything
        (["f", "f", "f", "f"], OPEN),
        (["ok", "ok", "f", "f"], OPEN),
        (["f", "f", "f", "ok"], OPEN),  # the fourth call makes three failures count
        (["ok", "ok", "ok", "f"], CLOSED),
        (["ok", "ok", "s", "s"], OPEN),
        (["ok", "ok", "s", "f"], CLOSED),  # neither share alone is a half
        (["ok", "ok", "ok", "sf", "sf"], CLOSED),
    ],
)
def test_it_opens_when_the_share_that_failed_or_was_slow_is_reached(calls: list[str], state: BreakerState) -> None:
    breaker = make()
    for how in calls:
        call(breaker, 1.0, how)
    assert breaker.state is state


def test_failures_that_the_window_has_forgotten_do_not_open_it() -> None:
    breaker = make()
    for now in (0.0, 1.0, 2.0, 70.0, 71.0, 72.0):
        call(breaker, now, "f")
    assert breaker.state is CLOSED


def test_open_it_refuses_everybody_until_its_time_is_over() -> None:
    breaker = opened()
    assert [call(breaker, now) for now in (0.0, 5.0, 9.9)] == [False, False, False]
    assert breaker.until == 10.0
    assert call(breaker, 10.0)


def test_half_open_it_lets_so_many_probes_through_at_once() -> None:
    breaker = opened(probes=2)
    first, second = breaker.enter(10.0), breaker.enter(10.0)
    assert first == second >= 0
    assert breaker.enter(10.1) == -1
    assert breaker.state is HALF_OPEN


def test_it_closes_when_as_many_probes_went_well_and_remembers_nothing() -> None:
    breaker = opened(probes=2)
    assert call(breaker, 10.0)
    assert breaker.state is HALF_OPEN
    assert call(breaker, 10.1)
    assert breaker.state is CLOSED
    for _ in range(3):
        call(breaker, 10.2, "f")
    assert breaker.state is CLOSED


@pytest.mark.parametrize("how", ["f", "s", "fs"])
def test_one_probe_that_fails_or_is_slow_opens_it_again_for_as_long(how: str) -> None:
    breaker = opened(probes=2)
    call(breaker, 10.0)
    call(breaker, 12.0, how)
    assert breaker.state is OPEN
    assert not call(breaker, 21.9)
    assert call(breaker, 22.0)


def test_a_probe_that_says_nothing_gives_its_place_back() -> None:
    breaker = opened(probes=1)
    entered = breaker.enter(10.0)
    assert breaker.enter(10.0) == -1
    breaker.withdraw(entered)
    assert breaker.enter(10.0) == entered


def test_probes_that_never_end_do_not_keep_it_half_open_for_ever() -> None:
    breaker = opened(probes=1)
    lost = breaker.enter(10.0)
    assert breaker.enter(19.9) == -1
    fresh = breaker.enter(20.0)
    assert fresh > lost
    breaker.leave(lost, 21.0, failed=True, slow=True)
    assert breaker.state is HALF_OPEN
    breaker.leave(fresh, 21.0, failed=False, slow=False)
    assert breaker.state is CLOSED


def test_few_probes_a_long_time_apart_close_it_too() -> None:
    breaker = opened(probes=3)
    assert [call(breaker, now) for now in (100.0, 200.0, 300.0)] == [True, True, True]
    assert breaker.state is CLOSED


def test_a_crowd_from_before_it_opened_changes_nothing_afterwards() -> None:
    breaker = make(probes=1)
    crowd = [breaker.enter(0.0) for _ in range(10)]
    for entered in crowd[:4]:
        breaker.leave(entered, 1.0, failed=True, slow=False)
    assert breaker.state is OPEN
    probe = breaker.enter(11.0)
    for entered in crowd[4:8]:
        breaker.leave(entered, 11.0, failed=True, slow=True)
    breaker.withdraw(crowd[8])
    assert breaker.enter(11.0) == -1
    breaker.leave(probe, 11.5, failed=False, slow=False)
    assert breaker.state is CLOSED
    breaker.leave(crowd[9], 12.0, failed=True, slow=True)
    assert breaker.window.calls == 0


def test_by_hand_it_opens_and_closes_at_once() -> None:
    breaker = make()
    breaker.trip(5.0)
    assert not call(breaker, 5.0)
    breaker.reset()
    assert call(breaker, 5.0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "ok", "f", "s", "withdraw", "wait", "trip", "reset"])), max_size=80
)


@given(steps=STEPS, probes=st.integers(1, 3))
def test_whatever_happens_no_more_probes_run_than_may_and_it_can_always_close(
    steps: list[tuple[str]], probes: int
) -> None:
    breaker, now = make(probes), 0.0
    running: list[int] = []
    for (step,) in steps:
        if step == "enter":
            entered = breaker.enter(now)
            if entered >= 0:
                running.append(entered)
        elif step == "wait":
            now += 4.0
        elif step in ("trip", "reset"):
            breaker.trip(now) if step == "trip" else breaker.reset()
        elif running:
            entered = running.pop(0)
            if step == "withdraw":
                breaker.withdraw(entered)
            else:
                breaker.leave(entered, now, failed=step == "f", slow=step == "s")
        if breaker.state is HALF_OPEN:
            assert sum(entered == breaker.round for entered in running) <= probes
    now += 1000.0  # and what was seen before is forgotten
    for _ in range(probes):
        assert call(breaker, now) or breaker.state is HALF_OPEN
    now += OPEN_SECONDS
    for _ in range(probes):
        call(breaker, now)
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    "wrong",
    [{"failure_share": 0.0}, {"failure_share": 1.1}, {"slow_share": 0.0}, {"minimum": 0}, {"slow_seconds": 0.0}],
)
def test_thresholds_that_can_not_be_meant_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"share|minimum|slow"):
        BreakerThresholds(**wrong)


@pytest.mark.parametrize(("open_seconds", "probes"), [(0.0, 1), (10.0, 0)])
def test_it_is_open_for_a_time_and_has_a_probe_at_least(open_seconds: float, probes: int) -> None:
    with pytest.raises(ValueError, match="probes"):
        Breaker(BreakerThresholds(), open_seconds, probes)
