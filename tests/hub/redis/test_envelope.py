"""What travels through Redis arrives as it was sent."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigError
from sojourn.hub.engine import Present, Publish
from sojourn.hub.publication import Kind
from sojourn.hub.redis import envelope
from sojourn.hub.redis.keys import Keys
from sojourn.hub.rules import History

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
PRESENT = st.builds(
    Present, TEXT, TEXT, st.sampled_from(["normal", "suspect"]), st.dictionaries(TEXT, TEXT | st.none())
)


@given(st.sampled_from(Kind), st.binary(max_size=100), TEXT, st.integers(1, 2**53), st.integers(0, 2**53))
def test_a_publication_arrives_as_it_was_sent(kind: Kind, data: bytes, key: str, seq: int, prev: int) -> None:
    tail = envelope.tail(Publish("c", kind, data, History(), key))
    (kept,) = envelope.page_of("c", "k3f9", [b"%d" % seq, b"%d" % prev, tail])
    heard = envelope.publication_of("c", b"pk3f9 %d %d %b" % (seq, prev, tail))
    for found in (kept, heard):
        assert (found.channel, found.epoch, found.seq, found.prev) == ("c", "k3f9", seq, prev)
        assert (found.kind, found.data, found.key) == (kind, data, key)


@given(st.lists(PRESENT, max_size=3), st.lists(TEXT, max_size=3))
def test_a_change_arrives_as_it_was_sent(came: list[Present], left: list[str]) -> None:
    assert envelope.change_of(envelope.change("0123456789abcdef", came, left)) == ("0123456789abcdef", came, left)
    assert [envelope.present_of(envelope.who(present)) for present in came] == came


@given(st.binary(max_size=60))
def test_bytes_of_others_are_refused_and_raise_nothing_else(data: bytes) -> None:
    for read in (envelope.change_of, envelope.expired_of, envelope.present_of):
        with suppress(ValueError):
            read(data)
    with suppress(ValueError):
        envelope.publication_of("c", b"p" + data)


@pytest.mark.parametrize("prefix", ["", "hub:", "{}:", "{hub}\n:", "{hub} :", "{" + "x" * 70 + "}"])
def test_a_prefix_that_a_cluster_or_a_script_can_not_bear_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="braces"):
        Keys(prefix)


def test_all_keys_are_in_one_slot() -> None:
    keys = Keys("{a}:")
    names = [keys.meta, keys.marks, keys.node("l", "n"), keys.last("l", "c"), keys.stream("l", "c")]
    names += [keys.order("l", "c"), keys.values("l", "c"), keys.id("l", "c", "{x}"), keys.due("l")]
    names += keys.presence("l", "{c}")
    assert len(set(names)) == len(names)
    assert {name.split(b"}")[0] for name in names} == {b"{a"}
