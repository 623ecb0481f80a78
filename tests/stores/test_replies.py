"""Replies of Redis, however they arrive."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.stores.replies import Replies, Wrong, command

VALUES = st.recursive(
    st.none() | st.integers(-(2**62), 2**62) | st.binary(max_size=200),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def written(value: Any) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n%b" % (len(value), b"".join(map(written, value)))


@given(st.lists(VALUES, max_size=6), st.data())
def test_any_split_of_bytes_gives_the_same_replies(values: list[Any], data: st.DataObject) -> None:
    stream = b"".join(map(written, values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    replies, found = Replies(), []
    for start, end in pairwise([0, *cuts, len(stream)]):
        found += replies.feed(stream[start:end])
    assert found == values


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b"_\r\n", None),
        (b"*-1\r\n", None),
        (b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n", [b"message", b"c", b"\r\n"]),
    ],
)
def test_each_kind_of_reply_is_read(data: bytes, value: Any) -> None:
    assert Replies().feed(data) == [value]


def test_an_error_is_a_value_among_others() -> None:
    wrong, pong = Replies().feed(b"-NOPERM no\r\n+PONG\r\n")
    assert isinstance(wrong, Wrong)
    assert str(wrong) == "NOPERM no"
    assert pong == b"PONG"


@pytest.mark.parametrize("data", [b"?\r\n", b"$x\r\n", b":\r\n", b"*1\r\n" * 20, b"*99999999\r\n"])
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is Python's in some of them
        Replies().feed(data)


def test_a_large_reply_in_small_pieces_is_put_together_once() -> None:
    replies, found = Replies(), []
    stream = written(b"x" * 1_000_000)
    for at in range(0, len(stream), 100):
        found += replies.feed(stream[at : at + 100])
    assert found == [b"x" * 1_000_000]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_command_is_an_array_of_strings(words: list[bytes]) -> None:
    assert Replies().feed(command(*words)) == [words]
