"""The wheel: never early, at most a tick late, nobody lost, nobody looked at more often than needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sojourn.clock import NEVER
from sojourn.policy.wheel import Wheel

TICK, SLOTS = 0.1, 8


class Sample:
    """A member that counts how often the wheel came by."""

    def __init__(self, due: float = NEVER) -> None:
        self.looked_at = NEVER
        self.due = due
        self.passes = 0

    def passed_by(self, now: float) -> float:
        self.passes += 1
        return self.due


def wheel_with(*dues: float) -> tuple[Wheel[Sample], list[Sample]]:
    wheel: Wheel[Sample] = Wheel(0.0, TICK, SLOTS)
    members = [Sample(due) for due in dues]
    for member in members:
        wheel.add(member, member.due)
    return wheel, members


def found_at(wheel: Wheel[Sample], member: Sample, until: float) -> float:
    """The moment at which a member is found, with a wheel turned every tick."""
    for number in range(round(until / TICK) + 1):
        if member in wheel.advance(number * TICK):
            return number * TICK
    return NEVER


@pytest.mark.parametrize("due", [0.0, 0.01, 0.1, 0.15, 0.2, 0.79, 0.8, 0.81, 1.0, 3.14, 8.0, 100.05])
def test_a_deadline_is_noticed_at_most_a_tick_late_and_never_early(due: float) -> None:
    wheel, (member,) = wheel_with(due)
    found = found_at(wheel, member, due + 1.0)
    assert due <= found < due + 2 * TICK  # the wheel is a tick late, and is turned once a tick


def test_a_member_without_deadline_is_never_found_and_never_lost() -> None:
    wheel, (member,) = wheel_with(NEVER)
    assert found_at(wheel, member, 10 * SLOTS * TICK) == NEVER
    assert len(wheel) == 1


def test_a_lap_looks_at_each_member_once() -> None:
    wheel, members = wheel_with(*[NEVER] * 50, *[1000.0] * 50)
    for number in range(1, 3 * SLOTS + 1):
        assert wheel.advance(number * TICK) == []
    assert {member.passes for member in members} <= {2, 3}  # three laps, less the one that was under way


def test_a_deadline_that_moved_later_is_not_found_at_its_old_moment() -> None:
    wheel, (member,) = wheel_with(0.3)
    member.due = 0.6  # an assignment, and the wheel is not told
    assert found_at(wheel, member, 2.0) == pytest.approx(0.6, abs=TICK)
    assert member.passes <= 2


def test_a_deadline_that_moved_earlier_is_found_when_the_wheel_is_told() -> None:
    wheel, (member,) = wheel_with(0.7)
    member.due = 0.2
    assert member.due < member.looked_at
    wheel.sooner(member, member.due)
    assert found_at(wheel, member, 2.0) == pytest.approx(0.2, abs=TICK)
    assert len(wheel) == 0


def test_adding_a_member_twice_keeps_one() -> None:
    wheel, (member,) = wheel_with(0.7)
    wheel.add(member, 0.2)
    wheel.add(member, 0.5)
    assert len(wheel) == 1
    wheel.remove(member)
    assert len(wheel) == 0
    assert member.looked_at == NEVER


def test_removing_a_stranger_does_nothing() -> None:
    wheel, _ = wheel_with(0.7)
    wheel.remove(Sample())
    assert len(wheel) == 1


def test_a_deadline_in_the_past_is_found_at_the_next_tick() -> None:
    wheel: Wheel[Sample] = Wheel(0.0, TICK, SLOTS)
    wheel.advance(5.0)
    member = Sample(1.0)
    wheel.add(member, member.due)
    assert wheel.advance(5.0) == []  # this tick is over
    assert wheel.advance(5.1 + 1e-9) == [member]


def test_a_jump_over_many_laps_finds_everyone_once() -> None:
    wheel, members = wheel_with(*[index * 0.07 for index in range(100)], NEVER)
    due = wheel.advance(3600.0)
    assert sorted(map(id, due)) == sorted(map(id, members[:-1]))
    assert len(wheel) == 1


@pytest.mark.parametrize("start", [0.0, 1e3, 86400.0 * 365 * 3])
def test_a_machine_that_has_run_for_years_is_served_like_a_new_one(start: float) -> None:
    wheel: Wheel[Sample] = Wheel(start, TICK, SLOTS)
    for number in range(200):
        now = start + number * TICK
        member = Sample(now + 0.25)
        wheel.add(member, member.due)
        assert member.looked_at - member.due < TICK + 1e-6
        wheel.remove(member)
        assert len(wheel) == 0


class WheelMachine(RuleBasedStateMachine):
    """Any sequence of arming, re-arming, removing and turning, held against a plain list."""

    members = Bundle("members")

    @initialize(start=st.sampled_from([0.0, 12345.678, 1e8]))
    def begin(self, start: float) -> None:
        self.now = start
        self.wheel: Wheel[Sample] = Wheel(start, TICK, SLOTS)
        self.held: dict[Sample, None] = {}
        self.turned = start

    @rule(target=members, seconds=st.floats(0.0, 3.0) | st.just(NEVER))
    def arm(self, seconds: float) -> Sample:
        member = Sample(self.now + seconds)
        self.wheel.add(member, member.due)
        self.held[member] = None
        return member

    @rule(member=members, seconds=st.floats(0.0, 3.0) | st.just(NEVER))
    def rearm(self, member: Sample, seconds: float) -> None:
        if member in self.held:
            member.due = self.now + seconds
            if member.due < member.looked_at:
                self.wheel.sooner(member, member.due)

    @rule(member=members, seconds=st.floats(0.0, 3.0))
    def add_again(self, member: Sample, seconds: float) -> None:
        member.due = self.now + seconds
        self.wheel.add(member, member.due)
        self.held[member] = None

    @rule(member=members)
    def remove(self, member: Sample) -> None:
        self.wheel.remove(member)
        self.held.pop(member, None)

    @rule(seconds=st.floats(0.0, 0.3) | st.floats(0.0, 20.0), handle=st.sampled_from(["drop", "keep", "later"]))
    def advance(self, seconds: float, handle: str) -> None:
        self.now += seconds
        due = self.wheel.advance(self.now)
        self.turned = self.now
        assert len(set(due)) == len(due)
        for member in due:
            assert member.due <= self.now, "found early"
            assert member in self.held, "found although it was removed"
            if handle == "drop":
                del self.held[member]
            else:
                member.due = self.now if handle == "keep" else self.now + 1.0
                self.wheel.add(member, member.due)

    @invariant()
    def nobody_is_lost_or_doubled(self) -> None:
        assert len(self.wheel) == len(self.held)
        for member in self.held:
            assert member.looked_at != NEVER

    @invariant()
    def nobody_waits_longer_than_a_tick_or_a_lap(self) -> None:
        for member in self.held:
            latest = max(min(member.due, self.turned + SLOTS * TICK), self.turned) + 2 * TICK
            assert member.looked_at <= latest + 1e-4


TestAnySequence: Callable[..., None] = WheelMachine.TestCase
TestAnySequence.settings = settings(  # type: ignore[attr-defined]
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
