"""Messages between workers and broker: any split of the bytes gives the same ones, and none is too long."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.hub.engine import Present
from sojourn.hub.local.messages import Enter, Frames, Kept, News, Put, Read, Tell, frame, from_broker, from_worker
from sojourn.hub.publication import Kind, Publication


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 200), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_messages(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    frames, found = Frames(), []
    while data:
        size = cuts.pop() if cuts else len(data)
        found += [bytes(body) for body in frames.feed(data[:size])]
        data = data[size:]
    assert found == bodies


def test_a_message_that_would_be_too_long_is_refused_before_it_comes() -> None:
    frames = Frames(longest=10)
    assert frames.feed(b"\0\0\0\x0a") == []
    with pytest.raises(ValueError, match="at most 10"):
        frames.feed(b"0123456789\0\0\0\x0b")


@pytest.mark.parametrize(
    "message",
    [
        Put(channel="c", kind=Kind.BINARY, data=b"\0", size=1, ttl=2.0, mode="latest", key="k", id="i"),
        Read(wanted=[Kept("c", ("e", 1), 1, 2.0, "stream"), Kept("d", None, 3, 4.0, "latest")], limit=3),
        Enter(channel="c", members=[Present("m", "u", "suspect", {"a": [1]})], ttl=1.5),
        Tell(data=b"word"),
    ],
)
def test_what_a_worker_asks_is_read_as_it_was_written(message: msgspec.Struct) -> None:
    (body,) = Frames().feed(frame(message))
    assert from_worker(body) == message


def test_a_publication_is_the_same_on_the_other_side() -> None:
    made = Publication("c", "e", 5, 3, Kind.TEXT, b"data", "key")
    (body,) = Frames().feed(frame(News.of(made)))
    message = from_broker(body)
    assert isinstance(message, News)
    got = message.publication()
    assert all(
        getattr(got, name) == getattr(made, name) for name in ("channel", "cursor", "prev", "kind", "data", "key")
    )


@pytest.mark.parametrize("body", [b"", b"\xc0", msgspec.msgpack.encode([99, 1]), msgspec.msgpack.encode([2, 1, "no"])])
def test_anything_else_is_no_message(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        from_worker(body)
