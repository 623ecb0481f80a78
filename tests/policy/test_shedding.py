"""Slots that adapt: every request runs once, waits in bounds, or is told no."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sojourn.clock import NEVER
from sojourn.ending import REASONS
from sojourn.policy.codel import Line, Waits
from sojourn.policy.shedding import AdaptiveSlots

WAITS = Waits(longest=1.0, patience=0.1, standing=0.1)
HIGH, NORMAL, LOW = 0, 1, 2


def test_a_line_that_empties_now_and_then_is_served_oldest_first() -> None:
    line: Line[str] = Line(WAITS)
    for moment, ticket in ((0.0, "a"), (0.01, "b"), (0.02, "c")):
        line.add(moment, ticket)
    assert [line.take(0.05)[0] for _ in range(3)] == ["a", "b", "c"]
    line.add(0.3, "d")
    assert not line.stands(0.35)


def test_a_line_that_stands_is_served_newest_first_and_lets_nobody_wait_for_long() -> None:
    line: Line[str] = Line(WAITS)
    for number in range(10):
        line.add(number * 0.02, str(number))
    assert line.stands(0.18)
    assert line.expired(0.18) == ["0", "1", "2", "3", "4"][: len("01234")]
    assert line.take(0.18) == ("9", 0.0)
    assert line.take(0.18)[0] == "8"


def test_a_line_in_which_some_always_wait_but_nobody_for_long_does_not_stand() -> None:
    line: Line[int] = Line(WAITS)
    for number in range(500):
        line.add(number * 0.001, number)
        if number >= 30:
            assert line.take(number * 0.001) == (number - 30, pytest.approx(0.03))
    assert line.expired(0.5) == []


def test_where_the_limit_is_low_those_who_would_have_run_may_wait() -> None:
    slots: AdaptiveSlots[int] = AdaptiveSlots(2, 1, WAITS, maximum=5)
    verdicts = [slots.enter(0.0, number, NORMAL) for number in range(7)]
    assert verdicts == ["run", "run", "queued", "queued", "queued", "queued", "queue_full"]


def test_before_it_stands_the_longer_wait_counts() -> None:
    line: Line[str] = Line(Waits(longest=0.05, patience=9.0, standing=10.0))
    line.add(0.0, "a")
    assert line.next_expiry == 0.05
    assert line.expired(0.04) == []
    assert line.expired(0.05) == ["a"]
    assert line.next_expiry == NEVER


def test_a_free_slot_is_taken_without_a_question_while_nobody_waits() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(2, 10, WAITS)
    assert slots.room == 2
    assert [slots.enter(0.0, ticket, NORMAL) for ticket in "abc"] == ["run", "run", "queued"]
    assert slots.room == 0
    slots.running -= 1
    assert slots.next(0.0) == "c"
    assert slots.room == 2
    assert slots.last_wait == 0.0
    assert slots.next(0.0) is None


def test_nobody_overtakes_those_who_wait() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(1, 10, WAITS)
    slots.enter(0.0, "a", NORMAL)
    slots.enter(0.0, "b", NORMAL)
    slots.running -= 1
    assert slots.enter(0.0, "c", HIGH) == "queued"


def test_when_pressed_every_request_is_asked() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(5, 10, WAITS)
    slots.closed = True
    assert slots.room == 0
    assert slots.enter(0.0, "a", NORMAL) == "run"
    slots.closed = False
    assert slots.room == 5


def test_a_full_queue_makes_way_for_who_is_worth_more() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(1, 2, WAITS, running=1)
    assert slots.enter(0.0, "low", LOW) == "queued"
    assert slots.enter(0.01, "normal", NORMAL) == "queued"
    assert slots.enter(0.02, "low2", LOW) == "queue_full"
    assert slots.enter(0.03, "high", HIGH) == "queued"
    assert slots.dropped == [("low", "shed")]
    assert slots.enter(0.04, "high2", HIGH) == "queued"
    assert slots.dropped[1:] == [("normal", "shed")]
    assert slots.enter(0.05, "high3", HIGH) == "queue_full"


def test_under_overload_the_oldest_makes_way_for_the_newest() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(1, 2, Waits(10.0, 0.19, 0.1), running=1)
    slots.enter(0.06, "a", NORMAL)
    slots.enter(0.1, "b", NORMAL)
    assert slots.stands(0.2)
    assert slots.enter(0.2, "c", NORMAL) == "queued"
    assert slots.dropped == [("a", "shed")]
    slots.running -= 1
    assert slots.next(0.2) == "c"


def test_without_a_queue_the_limit_itself_refuses() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(1, 0, WAITS)
    assert slots.enter(0.0, "a", HIGH) == "run"
    assert slots.enter(0.0, "b", HIGH) == "concurrency_limit"


def test_a_raised_limit_lets_several_go_on() -> None:
    slots: AdaptiveSlots[str] = AdaptiveSlots(1, 10, WAITS)
    for ticket in "abcd":
        slots.enter(0.0, ticket, NORMAL)
    slots.limit = 3
    assert [slots.next(0.0), slots.next(0.0), slots.next(0.0)] == ["b", "c", None]
    assert slots.forget("d")
    assert not slots.forget("d")
    assert slots.room == 3


class Traffic(RuleBasedStateMachine):
    """Requests come, run, leave and lose patience, under limits that change."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.slots: AdaptiveSlots[int] = AdaptiveSlots(2, 5, WAITS, maximum=6)
        self.came = 0
        self.waiting: dict[int, float] = {}
        self.running: set[int] = set()
        self.gone: set[int] = set()

    def clear(self) -> None:
        for ticket, word in self.slots.dropped:
            assert word in REASONS
            waited = self.now - self.waiting.pop(ticket)
            assert word == "shed" or waited >= WAITS.longest
            self.gone.add(ticket)
        self.slots.dropped.clear()

    @rule(rank=st.integers(0, 2))
    def come(self, rank: int) -> None:
        self.came += 1
        verdict = self.slots.enter(self.now, self.came, rank)
        self.clear()
        if verdict == "run":
            assert not self.waiting
            self.running.add(self.came)
        elif verdict == "queued":
            self.waiting[self.came] = self.now
        else:
            assert verdict in REASONS
            self.gone.add(self.came)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(ticket)
        self.gone.add(ticket)
        self.slots.running -= 1
        self.go_on()

    def go_on(self) -> None:
        while (ticket := self.slots.next(self.now)) is not None:
            self.clear()
            assert ticket in self.waiting
            del self.waiting[ticket]
            self.running.add(ticket)
        self.clear()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def lose_patience(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.slots.forget(ticket)
        del self.waiting[ticket]
        self.gone.add(ticket)

    @rule(limit=st.integers(1, 6))
    def adapt(self, limit: int) -> None:
        self.slots.limit = limit
        self.go_on()

    @rule(seconds=st.floats(0.001, 0.6))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def everybody_is_known(self) -> None:
        slots = self.slots
        assert slots.running == len(self.running)
        assert slots.waits == len(self.waiting) <= 10
        assert len(self.running) + len(self.waiting) + len(self.gone) == self.came
        assert slots.room == (0 if self.waiting else slots.limit)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert not self.waiting or len(self.running) >= self.slots.limit


TestTraffic = Traffic.TestCase
