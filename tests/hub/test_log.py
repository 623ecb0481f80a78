"""The log: a gap is told exactly when something is missing, and no bound makes a hole that is not told."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.hub.engine import REMEMBERED, Page, Publish, Published, Wanted
from sojourn.hub.log import UNUSED, Log
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.rules import History
from sojourn.wire.hub.cursor import Cursor

KEPT = History(size=3, ttl=10)
LATEST = History(size=3, ttl=10, mode="latest")


def publish(
    log: Log, channel: str, data: bytes = b"x", now: float = 0.0, *, rule: History = KEPT, key: str = "", name: str = ""
) -> Publication:
    publication = log.publish(Publish(channel, Kind.TEXT, data, rule, key, name), now)
    assert isinstance(publication, Publication)
    return publication


def read(
    log: Log, channel: str, since: int | None, now: float = 0.0, *, limit: int = 100, rule: History = KEPT
) -> Page:
    return log.page([Wanted(channel, None if since is None else Cursor("e", since), rule)], limit, now)


def numbers(page: Page) -> list[int]:
    return [publication.seq for publication in page.publications]


def test_one_sequence_counts_over_all_channels_and_each_knows_the_one_before_it() -> None:
    log = Log("e")
    found = [publish(log, channel) for channel in "aabab"]
    assert [(each.seq, each.prev, each.epoch) for each in found] == [
        (1, 0, "e"), (2, 1, "e"), (3, 0, "e"), (4, 2, "e"), (5, 3, "e"),
    ]  # fmt: skip


def test_a_page_is_what_came_after_and_says_where_to_go_on() -> None:
    log = Log("e")
    for channel in "aabaa":
        publish(log, channel, rule=History(size=10))
    page = read(log, "a", 1, limit=2)
    assert (numbers(page), page.gap, page.more, page.position) == ([2, 4], False, True, Cursor("e", 4))
    page = read(log, "a", 4, limit=2)
    assert (numbers(page), page.gap, page.more, page.position) == ([5], False, False, Cursor("e", 5))
    page = read(log, "a", None, limit=1)
    assert (numbers(page), page.gap, page.more, page.position) == ([1], False, True, Cursor("e", 1))


def test_what_the_size_pushes_out_is_a_gap_for_who_has_not_got_it_only() -> None:
    log = Log("e")
    for _ in range(5):
        publish(log, "a")
    assert (numbers(read(log, "a", 1)), read(log, "a", 1).gap) == ([3, 4, 5], True)
    assert (numbers(read(log, "a", 2)), read(log, "a", 2).gap) == ([3, 4, 5], False)
    assert (numbers(read(log, "a", None)), read(log, "a", None).gap) == ([3, 4, 5], False)


def test_what_is_older_than_its_time_is_a_gap() -> None:
    log = Log("e")
    publish(log, "a", now=0.0)
    publish(log, "a", now=5.0)
    assert not read(log, "a", 0, now=9.9).gap
    page = read(log, "a", 0, now=10.0)
    assert (numbers(page), page.gap) == ([2], True)
    assert read(log, "a", 1, now=15.0).gap
    assert not read(log, "a", 2, now=15.0).gap


def test_a_channel_without_history_has_a_gap_after_each_publication() -> None:
    log = Log("e")
    none = History()
    publish(log, "a", rule=none)
    publish(log, "b", rule=none)
    assert read(log, "a", 0, rule=none).gap
    assert not read(log, "a", 1, rule=none).gap
    assert not read(log, "c", 0, rule=none).gap
    assert log.cost == 0


@pytest.mark.parametrize("since", [Cursor("other", 1), Cursor("other", 0), Cursor("e", 3)])
def test_a_place_of_another_life_or_ahead_of_this_one_is_a_gap_and_gets_all(since: Cursor) -> None:
    log = Log("e")
    publish(log, "a")
    publish(log, "a")
    page = log.page([Wanted("a", since, KEPT)], 10, 0.0)
    assert (numbers(page), page.gap) == ([1, 2], True)
    assert log.page([Wanted("empty", since, KEPT)], 10, 0.0).gap


def test_the_latest_of_each_key_has_gaps_in_another_life_only_and_only_when_empty() -> None:
    log = Log("e")
    for key in ("x", "y", "x", "z", "w"):
        publish(log, "a", rule=LATEST, key=key)
    page = read(log, "a", 0, rule=LATEST)
    assert ([each.key for each in page.publications], numbers(page), page.gap) == (["x", "z", "w"], [3, 4, 5], False)
    assert numbers(read(log, "a", 3, rule=LATEST)) == [4, 5]
    assert not log.page([Wanted("a", Cursor("other", 9), LATEST)], 10, 0.0).gap
    assert not read(log, "a", 0, now=99.0, rule=LATEST).gap  # all is too old, in the same life
    assert log.page([Wanted("a", Cursor("other", 9), LATEST)], 10, 99.0).gap
    assert log.page([Wanted("b", Cursor("other", 9), LATEST)], 10, 99.0).gap
    assert not read(log, "b", 0, rule=LATEST).gap


def test_a_repetition_is_given_the_first_number_and_changes_nothing() -> None:
    log = Log("e")
    publish(log, "a", name="one")
    publish(log, "b", name="one")  # an id counts in its channel
    again = log.publish(Publish("a", Kind.TEXT, b"other", KEPT, "", "one"), REMEMBERED - 0.1)
    assert again == Published(Cursor("e", 1), True)
    assert (log.seq, len(read(log, "a", None).publications)) == (2, 1)
    assert publish(log, "a", now=REMEMBERED + 0.1, name="one").seq == 3


def test_no_more_ids_are_remembered_than_the_bound() -> None:
    log = Log("e", ids=3)
    for name in "abcd":
        publish(log, "a", name=name)
    assert publish(log, "a", name="a").seq == 5
    assert isinstance(log.publish(Publish("a", Kind.TEXT, b"", KEPT, "", "d"), 0.0), Published)


def test_a_channel_that_nobody_uses_is_dropped_and_leaves_a_gap_for_who_was_before_it() -> None:
    log = Log("e")
    publish(log, "old", now=0.0)
    publish(log, "used", now=0.0)
    publish(log, "new", now=UNUSED)
    log.sweep(UNUSED, {"used"})
    assert len(log) == 2
    assert log.forgotten_to == 1
    assert read(log, "old", 0, now=UNUSED).gap
    assert not read(log, "old", 1, now=UNUSED).gap
    again = publish(log, "old", now=UNUSED)
    assert again.prev == 0
    assert read(log, "old", 0, now=UNUSED).gap
    page = read(log, "old", 1, now=UNUSED)
    assert (numbers(page), page.gap) == ([4], False)


def test_a_channel_of_which_something_is_kept_is_not_dropped() -> None:
    log = Log("e")
    publish(log, "a", rule=History(size=1, ttl=10 * UNUSED))
    for hour in range(1, 12):
        log.sweep(hour * UNUSED)
        assert len(log) == (1 if hour < 10 else 0)


def test_too_many_channels_drop_the_one_used_least_recently() -> None:
    log = Log("e", channels=2)
    publish(log, "a")
    publish(log, "b")
    read(log, "a", None)
    publish(log, "c")
    assert read(log, "b", 0).gap
    assert numbers(read(log, "a", 0)) == [1]
    assert len(log) == 2


def test_too_many_bytes_take_the_oldest_of_each_channel_in_turn() -> None:
    log = Log("e", size=6000)
    rule = History(size=100)
    for _ in range(4):
        publish(log, "a", bytes(500), rule=rule)
    for _ in range(4):
        publish(log, "b", bytes(500), rule=rule)
    assert log.cost <= 6000
    kept = [len(read(log, channel, None, rule=rule).publications) for channel in "ab"]
    assert sum(kept) == 5
    assert min(kept) >= 2
    assert read(log, "a", 0).gap


def test_a_sweep_lets_go_what_is_too_old_without_anybody_asking() -> None:
    log = Log("e")
    for index in range(50):
        publish(log, f"c{index}", bytes(100))
    log.sweep(9.0)
    assert log.cost > 50 * 100
    log.sweep(10.0)
    assert log.cost == 0


def test_a_rule_that_changes_its_mode_begins_anew_and_tells_the_gap() -> None:
    log = Log("e")
    publish(log, "a")
    publish(log, "a", rule=LATEST, key="k")
    publish(log, "a")
    page = read(log, "a", 0)
    assert (numbers(page), page.gap) == ([3], True)
    assert read(log, "a", 1).gap
    assert not read(log, "a", 2).gap
    publish(log, "a", rule=History())  # and one that keeps nothing any more
    assert (log.cost, read(log, "a", 3).gap) == (0, True)


# --- against everything that was ever published

CHANNELS = "abc"


class Told(NamedTuple):
    seq: int
    channel: str
    key: str
    at: float


class Model:
    """Keeps everything, and finds out what is kept by looking at all of it."""

    def __init__(self) -> None:
        self.all: list[Told] = []

    def kept(self, channel: str, rule: History, now: float) -> list[int]:
        mine = [told for told in self.all if told.channel == channel]
        if rule.mode == "latest":
            newest = {told.key: told for told in mine}
            mine = sorted(newest.values())
        # Whatever was pushed out, by time or by size, was so at the latest when the next one came.
        fresh = [told for told in mine if told.at + rule.ttl > now]
        return [told.seq for told in fresh[-rule.size :]] if rule.size else []

    def missing(self, channel: str, since: int, kept: list[int]) -> bool:
        wanted = {told.seq for told in self.all if told.channel == channel and told.seq > since}
        return bool(wanted - set(kept))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(CHANNELS), st.sampled_from("xyzw")),
        st.tuples(st.just("wait"), st.integers(1, 6)),
        st.tuples(st.just("read"), st.sampled_from(CHANNELS), st.integers(0, 30), st.integers(1, 5)),
        st.tuples(st.just("sweep")),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, size=st.integers(0, 4), ttl=st.integers(1, 12), latest=st.booleans())
def test_a_gap_is_told_exactly_when_something_is_missing(
    steps: list[tuple[object, ...]], size: int, ttl: int, latest: bool
) -> None:
    rule = History(size=max(size, 1) if latest else size, ttl=ttl, mode="latest" if latest else "stream")
    log, model, now = Log("e"), Model(), 0.0
    for step in steps:
        if step[0] == "publish":
            made = publish(log, str(step[1]), now=now, rule=rule, key=str(step[2]))
            before = [told.seq for told in model.all if told.channel == made.channel]
            assert made.prev == (before[-1] if before else 0)
            model.all.append(Told(made.seq, made.channel, made.key, now))
        elif step[0] == "wait":
            now += float(str(step[1]))
        elif step[0] == "sweep":
            log.sweep(now)
        else:
            since = min(int(str(step[2])), log.seq)
            compare(log, model, rule, now, str(step[1]), since, int(str(step[3])))


def compare(log: Log, model: Model, rule: History, now: float, channel: str, since: int, limit: int) -> None:
    page = read(log, channel, since, now, limit=limit, rule=rule)
    kept = model.kept(channel, rule, now)
    behind = [seq for seq in kept if seq > since]
    assert numbers(page) == behind[:limit]
    assert page.more == (len(behind) > limit)
    if rule.mode == "stream":
        assert page.gap == model.missing(channel, since, kept)
    else:
        assert not page.gap
    later = [seq for seq in behind if seq > page.position.seq]
    assert bool(later) == page.more


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, channels=st.integers(1, 3), size=st.integers(600, 4000))
def test_whatever_the_bounds_let_go_nothing_is_missing_in_silence(
    steps: list[tuple[object, ...]], channels: int, size: int
) -> None:
    rule = History(size=4, ttl=5000)
    log, model, now = Log("e", channels=channels, size=size), Model(), 0.0
    for step in steps:
        if step[0] == "publish":
            made = publish(log, str(step[1]), now=now, rule=rule)
            model.all.append(Told(made.seq, made.channel, "", now))
        elif step[0] == "wait":
            now += float(str(step[1])) * 1000
        elif step[0] == "sweep":
            log.sweep(now)
        else:
            since = min(int(str(step[2])), log.seq)
            page = read(log, str(step[1]), since, now, rule=rule)
            assert page.gap or not model.missing(str(step[1]), since, numbers(page))
        assert log.cost <= size
        assert len(log) <= channels
