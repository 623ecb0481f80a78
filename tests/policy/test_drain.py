"""The drain's plan: phases end in order and in time, closes are spread, nobody is cut too early or too late."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import NEVER
from sojourn.config import Drain
from sojourn.policy.drain import DrainPhase, DrainPlan, Kind, Step, Times, quick, spread

TIMES = Times(farewell=1.0, handshake=5.0, patience=4.0)
FIXED = Drain(delay=5, requests=30, streams=20, sockets=25, total=60, persist=10, close_rate=10)


class Play:
    """A plan asked the way it wants to be asked: at its own wake times, and when a number becomes 0."""

    def __init__(self, drain: Drain = FIXED, *, delay: float | None = None, seed: int = 1) -> None:
        self.now = 100.0
        self.plan = DrainPlan(drain, self.now, TIMES, random.Random(seed).random, delay=delay)
        self.connections = self.tasks = self.busy = 0
        self.steps: list[tuple[float, Step]] = []
        self.wake = self.now

    def ask(self) -> Step:
        step = self.plan.decide(self.now, self.connections, self.tasks, self.busy)
        self.steps.append((self.now - 100.0, step))
        self.wake = step.wake
        return step

    def until(self, moment: float) -> None:
        """Ask at every wake up to this moment (seconds after the beginning)."""
        for _ in range(100_000):
            if self.wake > 100.0 + moment:
                break
            self.now = max(self.now, self.wake)
            self.ask()
        else:
            raise AssertionError("it asks to be asked for ever")
        self.now = 100.0 + moment

    def finish(self, sockets: int = 0) -> None:
        """Go to the phase finish, with so many WebSockets among the connections."""
        while self.ask().phase is DrainPhase.NOTICE:
            assert self.wake < NEVER, "it waits for a participant"
            self.now = self.wake
        self.plan.sockets(sockets, self.now)

    @property
    def phases(self) -> list[tuple[float, DrainPhase]]:
        """When each phase was first seen."""
        seen: dict[DrainPhase, float] = {}
        for moment, step in self.steps:
            seen.setdefault(step.phase, moment)
        return [(moment, phase) for phase, moment in seen.items()]

    def when(self, kind: Kind) -> list[float]:
        return [moment for moment, step in self.steps if kind in step.cut]


def test_with_nobody_there_it_takes_the_notice_and_no_longer() -> None:
    play = Play()
    play.until(200)
    assert play.phases == [
        (0.0, DrainPhase.NOTICE),
        (5.0, DrainPhase.FINISH),
        (5.0, DrainPhase.PERSIST),
        (5.0, DrainPhase.STOP),
    ]


def test_each_kind_has_its_own_time_after_the_notice() -> None:
    play = Play()
    play.connections = 4
    play.until(200)
    assert (play.when(Kind.STREAMS), play.when(Kind.SOCKETS), play.when(Kind.REQUESTS)) == ([25.0], [30.0], [35.0])
    assert play.when(Kind.IDLE) == [35.0]
    assert [moment for moment, step in play.steps if step.abort] == [65.0]


def test_until_idle_nobody_is_cut_before_the_total() -> None:
    play = Play(Drain(strategy="until_idle", delay=0, requests=1, streams=1, sockets=1, total=60))
    play.connections = 1
    play.until(200)
    assert {moment for moment, step in play.steps if step.cut} == {59.0}


def test_with_the_strategy_none_everybody_is_cut_at_once() -> None:
    play = Play(Drain(strategy="none", delay=0))
    play.connections = 1
    play.until(0)
    assert {kind for _, step in play.steps for kind in step.cut} == set(Kind)


def test_a_total_shorter_than_a_kinds_time_leaves_a_moment_for_the_farewell() -> None:
    play = Play(Drain(delay=0, total=10))
    play.connections = 1
    play.until(50)
    assert [moment for moment, step in play.steps if step.cut] == [9.0]
    assert [moment for moment, step in play.steps if step.abort] == [10.0]


def test_the_phase_ends_with_the_last_connection_task_and_participant() -> None:
    play = Play(delay=0)
    play.finish()
    play.connections = play.tasks = play.busy = 1
    for number in ("connections", "tasks", "busy"):
        play.now += 1.0
        assert play.ask().phase is DrainPhase.FINISH
        setattr(play, number, 0)
    assert play.ask().phase is DrainPhase.PERSIST


def test_tasks_left_behind_have_the_time_of_requests_then_their_patience() -> None:
    play = Play(delay=0)
    play.tasks = 1
    play.until(200)
    assert [moment for moment, step in play.steps if step.cut_tasks] == [30.0]
    assert (34.0, DrainPhase.PERSIST) in play.phases


def test_tasks_of_requests_that_were_cut_are_cut_once_the_last_connection_is_gone() -> None:
    play = Play(delay=0)
    play.connections = play.tasks = 1
    play.until(32)
    play.connections = 0
    assert play.ask().cut_tasks
    play.until(35)
    assert play.plan.phase is DrainPhase.FINISH
    play.until(36)
    assert play.plan.phase is DrainPhase.STOP


def test_the_notice_waits_for_its_participants_and_so_does_persist() -> None:
    play = Play()
    play.busy = 1
    play.until(20)
    assert play.plan.phase is DrainPhase.NOTICE
    play.busy = 0
    play.finish()
    assert play.ask().phase is DrainPhase.PERSIST
    play.busy = 1
    play.until(29)
    assert play.plan.phase is DrainPhase.PERSIST
    play.until(40)
    last = play.steps[-1]
    assert (last[0], last[1].phase, last[1].give_up) == (30.0, DrainPhase.STOP, True)


def test_each_hurry_goes_one_phase_on() -> None:
    play = Play()
    play.connections, play.busy = 3, 1
    play.ask()
    play.plan.hurry()
    step = play.ask()
    assert (step.phase, step.give_up, step.cut) == (DrainPhase.FINISH, True, ())
    play.plan.sockets(2, play.now)
    play.plan.hurry()
    step = play.ask()
    assert (set(step.cut), step.close, step.abort, step.wake) == (set(Kind), 2, False, 101.0)
    play.plan.hurry()
    assert play.ask().abort
    play.connections = play.busy = 0
    assert play.ask().phase is DrainPhase.PERSIST
    play.busy = 1
    play.plan.hurry()
    assert play.ask().phase is DrainPhase.STOP


def test_closes_keep_to_the_rate_and_are_done_before_the_handshake_would_be_too_late() -> None:
    for count, last in ((100, 10.0), (1000, 20.0)):
        play = Play(delay=0)
        play.connections = count
        play.finish(count)
        play.until(30)
        closes = [(moment, step.close) for moment, step in play.steps if step.close]
        assert sum(number for _, number in closes) == count
        assert last * 0.95 <= closes[-1][0] <= last


def test_without_a_rate_all_are_closed_at_once() -> None:
    play = Play(Drain(delay=0, close_rate=None))
    play.connections = 500
    play.finish(500)
    assert play.ask().close == 500


@given(st.integers(0, 3000), st.floats(0, 1000), st.floats(0, 100), st.integers())
def test_a_spread_is_even(count: int, now: float, window: float, seed: int) -> None:
    moments = spread(count, now, window, random.Random(seed).random)
    assert len(moments) == count
    assert moments == sorted(moments)
    assert all(now <= moment <= now + window + 1e-6 for moment in moments)
    if count >= 20 and window >= 0.1:
        tenths = [0] * 11
        for moment in moments:
            tenths[min(10, int((moment - now) / window * 10 + 1e-9))] += 1
        assert max(tenths) <= 0.2 * count


events = st.lists(
    st.tuples(
        st.sampled_from(["wait", "hurry", "connections", "tasks", "busy"]), st.floats(0.01, 40), st.integers(0, 3)
    ),
    max_size=25,
)


@given(
    events,
    st.sampled_from(["fixed", "until_idle", "none"]),
    st.floats(0, 10),
    st.floats(0.1, 50),
    st.integers(0, 50),
)
def test_whatever_happens_the_phases_go_forward_and_everything_is_cut_in_time(
    happens: list[tuple[str, float, int]], strategy: str, delay: float, total: float, sockets: int
) -> None:
    play = Play(Drain(strategy=strategy, delay=delay, total=total, close_rate=3))  # type: ignore[arg-type]
    play.connections = sockets + 1
    order = list(DrainPhase)
    seen, cut, closed, spoken = [DrainPhase.NOTICE], set(), 0, False
    for what, seconds, number in happens:
        if what == "wait":
            end = play.now + seconds
            while play.wake <= end:
                play.now = max(play.now, play.wake)
                before = play.plan.phase
                play.ask()
                if play.plan.phase is DrainPhase.FINISH and not spoken:
                    spoken = True
                    play.plan.sockets(sockets, play.now)
                assert play.wake > play.now or play.plan.phase is not before, "it asks to be asked for ever"
            play.now = end
        elif what == "hurry":
            play.plan.hurry()
            play.wake = play.now
        else:
            # Nobody new comes once the drain has begun.
            setattr(play, what, min(number, getattr(play, what)) if what == "connections" else number)
            play.wake = play.now
    for _, step in play.steps:
        seen.append(step.phase)
        assert not (set(step.cut) & cut), "a kind is cut once"
        cut |= set(step.cut)
        closed += step.close
    assert [order.index(phase) for phase in seen] == sorted(order.index(phase) for phase in seen)
    assert closed <= sockets
    aborted = [moment for moment, step in play.steps if step.abort]
    if play.plan.phase is DrainPhase.FINISH and play.now > play.plan.ends and play.wake > play.plan.ends:
        assert aborted


@pytest.mark.parametrize("name", ["delay", "requests", "streams", "sockets"])
def test_on_a_terminal_only_what_was_not_set_is_quick(name: str) -> None:
    assert getattr(quick(Drain()), name) <= 3.0
    assert getattr(quick(Drain(**{name: 7.0})), name) == 7.0  # type: ignore[arg-type]
