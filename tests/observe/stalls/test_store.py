"""The last stalls."""

from __future__ import annotations

from sojourn.observe.profiles.model import Frame
from sojourn.observe.stalls.store import KEPT, StallInfo, StallStore

SLOW = (Frame("slow", "/app/views.py", 12), Frame("view", "/app/views.py", 30))
OTHER = (Frame("other", "/app/views.py", 50),)


def stall(seconds: float, stack: tuple[Frame, ...] = SLOW, *, cause: str = "code", at: float = 100.0) -> StallInfo:
    return StallInfo(cause, "app.slow /app/views.py:12", "", 1, seconds, seconds, 0.25, 0.0, at, at, stack)


def test_stalls_with_the_same_stack_are_one_row_with_count_sum_longest_and_both_moments() -> None:
    store = StallStore()
    store.add(stall(1.0, at=100.0))
    store.add(stall(3.0, at=200.0))
    (row,) = store.known()
    assert (row.known, row.seconds, row.longest) == (2, 4.0, 3.0)
    assert (row.first_seen, row.last_seen, row.processor) == (100.0, 200.0, 0.5)


def test_another_stack_or_another_cause_is_another_row_and_the_costliest_comes_first() -> None:
    store = StallStore()
    store.add(stall(1.0))
    store.add(stall(5.0, OTHER))
    store.add(stall(2.0, cause="gc"))
    assert [(row.seconds, row.cause) for row in store.known()] == [(5.0, "code"), (2.0, "gc"), (1.0, "code")]


def test_only_the_last_hundred_are_kept_and_all_are_counted() -> None:
    store = StallStore()
    store.add(stall(9.0, OTHER))
    for _ in range(KEPT):
        store.add(stall(0.5))
    assert [(row.known, row.stack) for row in store.known()] == [(KEPT, SLOW)]
    assert (store.count, store.seconds) == (KEPT + 1, 9.0 + KEPT * 0.5)


def test_a_stack_of_a_thousand_frames_is_cut() -> None:
    store = StallStore()
    store.add(stall(1.0, SLOW * 500))
    assert len(store.known()[0].stack) == 64


def test_the_profile_has_count_and_nanoseconds_and_says_what_it_cost() -> None:
    store = StallStore()
    store.add(stall(1.5, at=100.0))
    store.add(stall(0.5, at=130.0))
    store.add(stall(0.25, OTHER)._replace(thread="pool-0"))
    profile = store.profile(160.0)
    assert (profile.name, profile.default, profile.seconds) == ("stall", 1, 60.0)
    assert [kind.unit for kind in profile.kinds] == ["count", "nanoseconds"]
    assert [(sample.stack, sample.values) for sample in profile.samples] == [
        (SLOW, (2, 2_000_000_000)),
        (OTHER, (1, 250_000_000)),
    ]
    assert profile.samples[1].labels == (("cause", "code"), ("thread", "pool-0"))
    assert "3 of 3 stalls, 2.25 s" in profile.comments[0]
    assert "0.1 %" in profile.comments[1]


def test_a_profile_without_stalls_is_empty() -> None:
    assert StallStore().profile(5.0).samples == []
