"""What waits for a member: in order, within its bounds, and no loss without a notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import NEVER
from sojourn.hub.keys import key_of
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.rules import OnFull, Outbox
from sojourn.hub.waiting import Gap, Verdict, Waiting
from sojourn.wire.hub.cursor import Cursor

KEPT, DROPPED, CLOSE, BLOCK = Verdict.KEPT, Verdict.DROPPED, Verdict.CLOSE, Verdict.BLOCK


def published(seq: int, channel: str = "a", key: str = "", data: bytes = b"{}") -> Publication:
    return Publication(channel, "e", seq, seq - 1, Kind.JSON, data, key)


def rule(on_full: OnFull, *, count: int = 3, size: int = 100, age: float = 10.0) -> Outbox:
    return Outbox(max_bytes=size, max_messages=count, max_age=age, on_full=on_full)


def told(items: Sequence[Publication | Gap]) -> list[str]:
    """What was taken: ``a1`` is a publication, ``a?1`` a notice of a gap at 1."""
    return [
        f"{item.channel}?{item.cursor.seq}" if isinstance(item, Gap) else f"{item.channel}{item.seq}" for item in items
    ]


def filled(kind: Outbox, *, up_to: int, channels: str = "a", size: int = 1) -> tuple[Waiting, list[Verdict]]:
    waiting = Waiting()
    verdicts = [
        waiting.push(published(seq, channels[(seq - 1) % len(channels)]), kind, size, 0.0)
        for seq in range(1, up_to + 1)
    ]
    return waiting, verdicts


# One rule at a time


def test_what_waits_comes_out_in_order_over_all_channels() -> None:
    waiting = Waiting()
    first, second = rule("disconnect"), rule("drop_oldest")
    for seq, (channel, kind) in enumerate([("a", first), ("b", second), ("", first), ("a", first)], 1):
        assert waiting.push(published(seq, channel), kind, 10, 0.0) is KEPT
    assert (waiting.bytes, waiting.count) == (40, 4)
    assert told(waiting.take(1000)) == ["a1", "b2", "3", "a4"]
    assert (waiting.bytes, waiting.count, waiting.next_expiry, waiting.oldest) == (0, 0, NEVER, NEVER)


def test_no_more_is_taken_than_there_is_room_for_but_always_one() -> None:
    waiting, _ = filled(rule("disconnect", count=9), up_to=4, size=10)
    assert told(waiting.take(1)) == ["a1"]
    assert told(waiting.take(29)) == ["a2", "a3"]
    assert told(waiting.take(0)) == ["a4"]
    assert waiting.take(100) == []


@pytest.mark.parametrize(("count", "size"), [(3, 100), (100, 3)], ids=["messages", "bytes"])
def test_a_member_that_must_not_miss_anything_is_closed_when_it_is_full(count: int, size: int) -> None:
    waiting, verdicts = filled(rule("disconnect", count=count, size=size), up_to=4)
    assert verdicts == [KEPT, KEPT, KEPT, CLOSE]
    assert told(waiting.take(100)) == ["a1", "a2", "a3"]


@pytest.mark.parametrize(("count", "size"), [(3, 100), (100, 3)], ids=["messages", "bytes"])
def test_the_oldest_is_dropped_and_one_notice_stands_where_it_was(count: int, size: int) -> None:
    waiting, verdicts = filled(rule("drop_oldest", count=count, size=size), up_to=5)
    assert verdicts == [KEPT, KEPT, KEPT, DROPPED, DROPPED]
    assert (waiting.dropped, waiting.bytes, waiting.count) == (2, 3, 4)
    assert told(waiting.take(100)) == ["a?1", "a3", "a4", "a5"]


def test_a_notice_comes_before_everything_behind_what_was_dropped() -> None:
    # A client that is cut off right after the notice resumes from it, and must not miss b2.
    waiting, _ = filled(rule("drop_oldest", count=4), up_to=7, channels="ab")
    assert told(waiting.take(100)) == ["a?1", "b?2", "b4", "a5", "b6", "a7"]


def test_the_newest_is_dropped_and_a_notice_stands_at_the_end() -> None:
    waiting, verdicts = filled(rule("drop_newest"), up_to=5)
    assert verdicts == [KEPT, KEPT, KEPT, DROPPED, DROPPED]
    assert told(waiting.take(1)) == ["a1"]
    assert waiting.push(published(6), rule("drop_newest"), 1, 0.0) is KEPT
    assert told(waiting.take(100)) == ["a2", "a3", "a?4", "a6"]


def test_a_notice_is_told_when_nothing_follows() -> None:
    waiting, _ = filled(rule("drop_newest"), up_to=4)
    assert told(waiting.take(3)) == ["a1", "a2", "a3", "a?4"]
    assert waiting.count == 0


def test_a_loss_after_a_notice_was_taken_is_told_again() -> None:
    kind = rule("drop_newest", size=5)
    waiting = Waiting()
    for seq in (1, 2):
        assert waiting.push(published(seq), kind, 6, 0.0) is DROPPED
        assert told(waiting.take(100)) == [f"a?{seq}"]


def test_of_each_key_only_the_latest_waits_and_it_stands_at_the_end() -> None:
    waiting = Waiting()
    kind = rule("latest")
    for seq, key in enumerate(["x", "y", "x", "z", "y"], 1):
        assert waiting.push(published(seq, key=key), kind, 1, 0.0) is KEPT
    assert (waiting.conflated, waiting.dropped, waiting.bytes) == (2, 0, 3)
    assert told(waiting.take(100)) == ["a3", "a4", "a5"]


def test_with_more_keys_than_bounds_the_oldest_value_is_dropped_with_a_notice() -> None:
    waiting = Waiting()
    kind = rule("latest")
    verdicts = [waiting.push(published(seq, key=str(seq)), kind, 1, 0.0) for seq in range(1, 5)]
    assert verdicts == [KEPT, KEPT, KEPT, DROPPED]
    assert told(waiting.take(100)) == ["a?1", "a2", "a3", "a4"]


def test_the_same_key_in_another_channel_is_another_value() -> None:
    waiting, _ = filled(rule("latest"), up_to=3, channels="abc")
    assert told(waiting.take(100)) == ["a1", "b2", "c3"]


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest", "latest"])
def test_what_is_larger_than_the_bound_is_dropped_and_drives_nothing_out(on_full: OnFull) -> None:
    waiting, _ = filled(rule(on_full, size=10), up_to=1)
    assert waiting.push(published(2), rule(on_full, size=10), 11, 0.0) is DROPPED
    assert told(waiting.take(100)) == ["a1", "a?2"]


def test_publishers_wait_while_a_blocking_rule_is_over_its_bounds() -> None:
    kind = rule("block")
    waiting, verdicts = filled(kind, up_to=3)
    assert verdicts == [KEPT, KEPT, KEPT]
    assert waiting.full(kind)
    # What was on its way meanwhile still finds room, up to twice the bounds.
    assert [waiting.push(published(seq), kind, 1, 0.0) for seq in range(4, 8)] == [BLOCK, BLOCK, BLOCK, CLOSE]
    assert told(waiting.take(4)) == ["a1", "a2", "a3", "a4"]
    assert not waiting.full(kind)
    assert told(waiting.take(4)) == ["a5", "a6"]


def test_a_rule_has_its_own_share_and_the_member_a_total() -> None:
    small, large = rule("drop_oldest", size=10), rule("disconnect", size=30)
    waiting = Waiting()
    for seq in (1, 2):
        assert waiting.push(published(seq, "a"), large, 15, 0.0) is KEPT
    assert waiting.push(published(3, "b"), small, 1, 0.0) is CLOSE
    waiting = Waiting(total=40)
    for seq in (1, 2):
        assert waiting.push(published(seq, "a"), large, 15, 0.0) is KEPT
    assert waiting.push(published(3, "b"), small, 10, 0.0) is KEPT
    assert waiting.push(published(4, "b"), small, 10, 0.0) is DROPPED
    assert told(waiting.take(100)) == ["a1", "a2", "b?3", "b4"]


# Age


def test_what_must_not_be_missed_closes_the_member_when_it_gets_too_old() -> None:
    waiting, _ = filled(rule("disconnect", age=10.0), up_to=1)
    assert waiting.next_expiry == 10.0
    assert waiting.expire(9.9) is KEPT
    assert waiting.expire(10.0) is CLOSE


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest", "latest"])
def test_what_may_be_missed_is_dropped_with_a_notice_when_it_gets_too_old(on_full: OnFull) -> None:
    kind = rule(on_full, age=10.0)
    waiting = Waiting()
    for seq in (1, 2, 3):
        waiting.push(published(seq, key=str(seq)), kind, 1, float(seq))
    assert waiting.expire(12.0) is DROPPED
    assert (waiting.oldest, waiting.next_expiry) == (3.0, 13.0)
    assert told(waiting.take(100)) == ["a?1", "a3"]


def test_a_value_that_is_renewed_does_not_get_old() -> None:
    kind = rule("latest", age=10.0)
    waiting = Waiting()
    for now in range(30):
        assert waiting.expire(float(now)) is KEPT
        waiting.push(published(now + 1, key="x"), kind, 1, float(now))
    assert told(waiting.take(100)) == ["a30"]


# Slow or not


def test_a_member_is_slow_from_the_high_mark_until_the_low_one() -> None:
    kind = Outbox(max_messages=8, low=0.25, high=0.75)
    waiting, _ = filled(kind, up_to=6)
    assert not waiting.slow
    waiting.push(published(7), kind, 1, 0.0)
    assert waiting.slow
    waiting.take(4)
    assert waiting.slow
    waiting.take(1)
    assert not waiting.slow


def test_bytes_and_age_make_a_member_slow_as_well() -> None:
    waiting, _ = filled(Outbox(max_bytes=100), up_to=1, size=76)
    assert waiting.slow
    waiting, _ = filled(Outbox(max_age=10.0), up_to=1)
    assert waiting.expire(7.5) is KEPT
    assert not waiting.slow
    waiting.expire(7.6)
    assert waiting.slow
    waiting.take(1)
    assert not waiting.slow


# Notices from outside, leaving


def test_a_gap_that_others_found_is_told_once_in_its_place() -> None:
    waiting, _ = filled(rule("disconnect", count=9), up_to=2)
    waiting.tell_gap("a", Cursor("e", 5))
    waiting.tell_gap("a", Cursor("e", 6))
    waiting.push(published(7), rule("disconnect"), 1, 0.0)
    waiting.tell_gap("a", Cursor("e", 8))
    assert waiting.count == 5
    assert told(waiting.take(100)) == ["a1", "a2", "a?5", "a7", "a?8"]


def test_nothing_of_a_channel_that_was_left_is_sent_or_missed() -> None:
    waiting, _ = filled(rule("drop_oldest", count=4), up_to=6, channels="ab")
    waiting.forget("a")
    waiting.forget("never joined")
    assert (waiting.bytes, waiting.count) == (2, 3)
    assert told(waiting.take(100)) == ["b?2", "b4", "b6"]
    assert waiting.push(published(7), rule("drop_oldest"), 1, 0.0) is KEPT


def test_nothing_is_left_after_clearing() -> None:
    waiting, _ = filled(rule("drop_oldest"), up_to=6)
    waiting.clear()
    assert (waiting.bytes, waiting.count, waiting.take(100), waiting.next_expiry) == (0, 0, [], NEVER)
    assert waiting.push(published(7), rule("drop_oldest"), 1, 0.0) is KEPT


def test_what_waited_at_a_mark_has_passed_when_none_of_it_is_left() -> None:
    waiting, _ = filled(rule("drop_oldest", count=4), up_to=4, channels="ab")
    mark = waiting.mark
    assert not waiting.passed(mark)
    for seq in (5, 6):  # drops a1 and b2, whose notices still stand before the mark
        waiting.push(published(seq, "ab"[seq % 2]), rule("drop_oldest", count=4), 1, 0.0)
    waiting.take(1)
    assert not waiting.passed(mark)
    waiting.forget("b")
    waiting.forget("a")
    assert waiting.passed(mark)
    waiting.push(published(7), rule("drop_oldest"), 1, 0.0)
    assert waiting.passed(mark)
    assert not waiting.passed(waiting.mark)
    waiting.clear()
    assert waiting.passed(waiting.mark)


def test_a_value_that_took_the_place_of_another_is_not_waited_for() -> None:
    kind = rule("latest")
    waiting = Waiting()
    waiting.push(published(1, key="x"), kind, 1, 0.0)
    mark = waiting.mark
    waiting.push(published(2, key="x"), kind, 1, 0.0)
    assert waiting.passed(mark)


# Keys


@pytest.mark.parametrize(
    ("data", "kind", "same"),
    [
        (b'{"sym":"EUR","p":2}', Kind.JSON, True),
        (b'{"p":[{"sym":1}], "sym" : "EUR"}', Kind.JSON, True),
        (b'{"sym":"USD"}', Kind.JSON, False),
        (b'{"p":1}', Kind.JSON, False),
        (b'["EUR"]', Kind.JSON, False),
        (b'{"sym":"EUR"}', Kind.TEXT, False),
        (b'{"sym":"EUR"', Kind.JSON, False),
    ],
)
def test_the_key_is_a_field_of_a_json_object(data: bytes, kind: Kind, same: bool) -> None:
    one = key_of(published(1, data=b'{"sym":"EUR"}'), "sym")
    assert (key_of(Publication("a", "e", 2, 1, kind, data, '"EUR"'), "sym") == one) is same


def test_without_the_field_the_key_it_was_published_with_counts() -> None:
    assert key_of(published(1, key="x"), "sym") == key_of(published(2, key="x"), "sym")
    assert key_of(published(1, key="x"), "sym") != key_of(published(2, key="y"), "sym")
    assert key_of(published(1, key="x"), None) == key_of(published(2, key="x", data=b"7"), None)


def test_the_payload_is_read_once_however_many_members_it_waits_for() -> None:
    publication = published(1, data=b'{"sym":"EUR"}')
    assert key_of(publication, "sym") is key_of(publication, "sym")


# Against a model that is too simple to be wrong


class Stands(NamedTuple):
    item: Publication | Gap
    on_full: OnFull
    size: int
    at: float


RULES: dict[str, Outbox] = {
    "a": rule("drop_oldest", count=3, size=12, age=5.0),
    "b": rule("drop_newest", count=3, size=12, age=5.0),
    "c": rule("latest", count=2, size=12, age=5.0),
    "d": rule("disconnect", count=8, size=60, age=20.0),
    "e": rule("block", count=4, size=20, age=20.0),
}
RULES["A"], RULES["B"], RULES["C"], RULES[""] = RULES["a"], RULES["b"], RULES["c"], RULES["d"]


class Model:
    """The same, with one list and no thought for speed."""

    def __init__(self) -> None:
        self.line: list[Stands] = []
        self.dropped = self.conflated = 0

    def share(self, on_full: OnFull) -> list[Stands]:
        return [each for each in self.line if each.on_full == on_full and isinstance(each.item, Publication)]

    def fits(self, kind: Outbox, size: int, times: int = 1) -> bool:
        share = self.share(kind.on_full)
        return (
            len(share) < kind.max_messages * times and sum(each.size for each in share) + size <= kind.max_bytes * times
        )

    def drop_oldest(self, kind: Outbox) -> None:
        oldest = self.share(kind.on_full)[0]
        assert isinstance(oldest.item, Publication)
        self.dropped += 1
        notice = Gap(oldest.item.channel, oldest.item.cursor)
        self.line[self.line.index(oldest)] = oldest._replace(item=notice, size=0)
        self.merge()

    def tell_gap(self, channel: str, cursor: Cursor) -> None:
        self.line.append(Stands(Gap(channel, cursor), RULES[channel].on_full, 0, 0.0))
        self.merge()

    def merge(self) -> None:
        told: dict[str, bool] = {}
        kept = []
        for each in self.line:
            gap = isinstance(each.item, Gap)
            if not (gap and told.get(each.item.channel)):
                kept.append(each)
            told[each.item.channel] = gap
        self.line = kept

    def push(self, publication: Publication, kind: Outbox, size: int, now: float) -> Verdict:
        verdict = KEPT
        if kind.on_full == "latest" and size <= kind.max_bytes:
            for each in self.share("latest"):
                item = each.item
                assert isinstance(item, Publication)
                if (item.channel, item.key) == (publication.channel, publication.key):
                    self.line.remove(each)
                    self.conflated += 1
                    self.merge()
        if not self.fits(kind, size):
            if kind.on_full == "disconnect" or (kind.on_full == "block" and not self.fits(kind, size, 2)):
                return CLOSE
            verdict = BLOCK if kind.on_full == "block" else DROPPED
            if kind.on_full in ("drop_oldest", "latest") and size <= kind.max_bytes:
                while not self.fits(kind, size):
                    self.drop_oldest(kind)
            elif kind.on_full != "block":
                self.dropped += 1
                self.tell_gap(publication.channel, publication.cursor)
                return DROPPED
        if sum(each.size for each in self.line) + size > 80:
            return CLOSE
        self.line.append(Stands(publication, kind.on_full, size, now))
        return verdict

    def take(self, room: int) -> list[Publication | Gap]:
        taken: list[Publication | Gap] = []
        while self.line and (not taken or self.line[0].size <= room):
            room -= self.line[0].size
            taken.append(self.line.pop(0).item)
        return taken

    def expire(self, now: float) -> Verdict:
        verdict = KEPT
        for kind in RULES.values():
            while (share := self.share(kind.on_full)) and share[0].at + kind.max_age <= now:
                if kind.on_full in ("disconnect", "block"):
                    return CLOSE
                self.drop_oldest(kind)
                verdict = DROPPED
        return verdict

    def forget(self, channel: str) -> None:
        self.line = [each for each in self.line if each.item.channel != channel]


CHANNEL = st.sampled_from(sorted(RULES))
PUSH = st.tuples(st.just("push"), CHANNEL, st.sampled_from([1, 2, 5, 13]), st.sampled_from("xy"))
STEP = st.one_of(
    PUSH,
    PUSH,
    PUSH,
    st.tuples(st.just("take"), st.integers(0, 20)),
    st.tuples(st.just("later"), st.sampled_from([0.5, 3.0])),
    st.tuples(st.just("forget"), CHANNEL),
    st.tuples(st.just("gap"), CHANNEL),
)


@given(st.lists(STEP, min_size=5, max_size=80))
def test_it_behaves_as_one_list_would(steps: list[tuple[str, object]]) -> None:
    waiting, model, now = Waiting(total=80), Model(), 0.0
    last_sent = 0
    for seq, (what, *details) in enumerate(steps, 1):
        match what, details:
            case "push", [str(channel), int(size), str(key)]:
                publication, kind = published(seq, channel, key), RULES[channel]
                verdict = waiting.push(publication, kind, size, now)
                assert verdict is model.push(publication, kind, size, now)
                if verdict is CLOSE:
                    return
            case "take", [int(room)]:
                taken = waiting.take(room)
                assert told(taken) == told(model.take(room))
                for item in taken:
                    place = item.cursor.seq
                    assert (
                        place > last_sent
                    )  # whoever is cut off here resumes from it, and all behind it is still to come
                    last_sent = place
            case "later", [float(seconds)]:
                now += seconds
                verdict = waiting.expire(now)
                assert (verdict is CLOSE) is (model.expire(now) is CLOSE)
                if verdict is CLOSE:
                    return
                assert waiting.next_expiry > now
            case "forget", [str(channel)]:
                waiting.forget(channel)
                model.forget(channel)
            case "gap", [str(channel)]:
                waiting.tell_gap(channel, Cursor("e", seq))
                model.tell_gap(channel, Cursor("e", seq))
        assert (waiting.bytes, waiting.count) == (sum(each.size for each in model.line), len(model.line))
        assert (waiting.dropped, waiting.conflated) == (model.dropped, model.conflated)
        for kind in RULES.values():
            assert waiting.full(kind) is not model.fits(kind, 1)
    assert told(waiting.take(1000)) == told(model.take(1000))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6)), max_size=60), st.sampled_from(["a", "b"]))
def test_between_two_publications_there_is_one_notice_exactly_when_something_is_missing(
    sizes: list[tuple[str, int]], policy: str
) -> None:
    waiting = Waiting()
    for seq, (channel, size) in enumerate(sizes, 1):
        waiting.push(published(seq, channel), RULES[policy], size, 0.0)
    taken = waiting.take(10_000)
    for channel in "ab":
        mine = [seq for seq, (other, _) in enumerate(sizes, 1) if other == channel]
        expected, missing = [], False
        got = {item.seq for item in taken if isinstance(item, Publication)}
        for seq in mine:
            if seq in got:
                expected.append(seq)
                missing = False
            elif not missing:
                expected.append(-seq)
                missing = True
        found = [-item.cursor.seq if isinstance(item, Gap) else item.seq for item in taken if item.channel == channel]
        assert found == expected


# Memory


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest", "latest"])
def test_a_reader_that_has_stalled_for_good_costs_no_more_than_its_bounds(on_full: OnFull) -> None:
    waiting = Waiting()
    kind = rule(on_full, count=10)
    for seq in range(1, 5001):
        size = 200 if seq % 7 == 0 else 1
        waiting.push(published(seq, "ab"[seq % 2], key=str(seq % 3)), kind, size, float(seq))
        waiting.expire(float(seq) - 9.5)
        assert waiting.count <= 22
        assert len(waiting._line._entries) <= 100
        assert all(len(share.line._entries) <= 100 for share in waiting._shares.values())
