"""permessage-deflate keeps RFC 7692, and a bomb costs no more than its budget."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.errors import ConfigError, WebSocketError
from sojourn.wire.deflate import (
    RATIO_FLOOR,
    DeflateParams,
    Deflater,
    DeflateSettings,
    ExtensionOffer,
    Inflater,
    negotiate,
)
from sojourn.wire.websocket import BINARY, CONTINUATION, PING, TEXT
from tests.wire.websocket_client import MASK, MIB, NO_TAKEOVER, TAKEOVER, chunks, client_frame, feed_all, new_parser


def offer(params: str = "", name: str = "permessage-deflate") -> ExtensionOffer:
    pairs = (param.partition("=") for param in params.split())
    return name, tuple((key, value if equals else None) for key, equals, value in pairs)


NONE = "server_no_context_takeover; client_no_context_takeover; "
# Settings, offered parameters, the answer of the server (RFC 7692 section 7.1).
AGREED = [
    ({}, "", NONE + "server_max_window_bits=12"),
    ({}, "client_max_window_bits", NONE + "server_max_window_bits=12"),
    ({}, "server_no_context_takeover client_no_context_takeover", NONE + "server_max_window_bits=12"),
    ({}, "server_max_window_bits=15", NONE + "server_max_window_bits=12"),
    ({}, "server_max_window_bits=9", NONE + "server_max_window_bits=9"),
    ({}, "client_max_window_bits=10", NONE + "server_max_window_bits=12; client_max_window_bits=10"),
    ({}, "client_max_window_bits=15", NONE + "server_max_window_bits=12"),
    ({}, "client_max_window_bits=8", NONE + "server_max_window_bits=12; client_max_window_bits=8"),
    # Only a client that names client_max_window_bits can be limited (7.1.2.2).
    ({"client_max_window_bits": 11}, "", NONE + "server_max_window_bits=12"),
    (
        {"client_max_window_bits": 11},
        "client_max_window_bits",
        NONE + "server_max_window_bits=12; client_max_window_bits=11",
    ),
    (
        {"client_max_window_bits": 11},
        "client_max_window_bits=9",
        NONE + "server_max_window_bits=12; client_max_window_bits=9",
    ),
    (
        {"client_max_window_bits": 11},
        "client_max_window_bits=14",
        NONE + "server_max_window_bits=12; client_max_window_bits=11",
    ),
    ({"server_takeover": True}, "", "client_no_context_takeover; server_max_window_bits=12"),
    ({"client_takeover": True}, "", "server_no_context_takeover; server_max_window_bits=12"),
    (
        {"server_takeover": True, "client_takeover": True, "server_max_window_bits": 15},
        "client_max_window_bits",
        "server_max_window_bits=15",
    ),
    # What the client asks of us is binding, its hint about itself becomes binding by the answer (7.1.1).
    (
        {"server_takeover": True, "client_takeover": True},
        "server_no_context_takeover",
        "server_no_context_takeover; server_max_window_bits=12",
    ),
    (
        {"server_takeover": True, "client_takeover": True},
        "client_no_context_takeover",
        "client_no_context_takeover; server_max_window_bits=12",
    ),
]


@pytest.mark.parametrize(("wanted", "params", "answer"), AGREED)
def test_an_offer_is_answered(wanted: dict, params: str, answer: str) -> None:
    agreed = negotiate([offer(params)], DeflateSettings(**wanted))
    assert agreed is not None
    assert agreed.header().decode() == ("permessage-deflate; " + answer)


DECLINED = [
    "unknown",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_no_context_takeover server_no_context_takeover",
    "client_max_window_bits client_max_window_bits=10",
    "server_max_window_bits",
    "server_max_window_bits=8",  # zlib can't
    *(f"server_max_window_bits={bad}" for bad in ("7", "16", "0", "010", "1e1", "-9", "")),
    *(f"client_max_window_bits={bad}" for bad in ("7", "16", "08", "x", "")),
]


@pytest.mark.parametrize("params", DECLINED)
def test_a_bad_offer_is_declined_and_the_next_one_taken(params: str) -> None:
    """RFC 7692 sections 5.1 and 7.1."""
    assert negotiate([offer(params)], DeflateSettings()) is None
    agreed = negotiate([offer(name="x-other"), offer(params), offer("server_max_window_bits=10")], DeflateSettings())
    assert agreed is not None
    assert agreed.server_max_window_bits == 10


def test_the_first_good_offer_wins() -> None:
    agreed = negotiate([offer("server_max_window_bits=11"), offer("server_max_window_bits=10")], DeflateSettings())
    assert agreed is not None
    assert agreed.server_max_window_bits == 11
    assert negotiate([], DeflateSettings()) is None
    assert negotiate([offer(name="x-webkit-deflate-frame")], DeflateSettings()) is None


@pytest.mark.parametrize(
    "wrong", [{"server_max_window_bits": 8}, {"client_max_window_bits": 16}, {"level": 10}, {"mem_level": 0}]
)
def test_settings_that_zlib_does_not_take_are_refused_at_once(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DeflateSettings(**wrong)


# RFC 7692 section 7.2.3: payloads of messages that all mean Hello, but the last.
EXAMPLES = {
    "7.2.3.1 one block": ("f248cdc9c90700", "Hello"),
    "7.2.3.3 not compressed": ("000500faff48656c6c6f00", "Hello"),
    "7.2.3.4 BFINAL": ("f348cdc9c9070000", "Hello"),
    "BFINAL without the empty block": ("f348cdc9c90700", "Hello"),
    "7.2.3.5 two blocks": ("f248050000 00ffffcac9c90700", "Hello"),
    "7.2.3.6 empty message": ("00", ""),
}


@pytest.mark.parametrize("agreed", [NO_TAKEOVER, TAKEOVER])
@pytest.mark.parametrize(("payload", "message"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_the_examples_of_the_rfc(payload: str, message: str, agreed: DeflateParams) -> None:
    data = bytes.fromhex(payload)
    whole = client_frame(TEXT, data, rsv1=True)
    fragments = client_frame(TEXT, data[:3], rsv1=True, fin=False) + client_frame(CONTINUATION, data[3:])
    parser, sink = new_parser(deflate=agreed)
    assert feed_all(parser, [whole, fragments, whole + client_frame(TEXT, b"plain")]) is None
    assert feed_all(parser, chunks(whole + client_frame(PING) + fragments, 1)) is None
    assert [call[1] for call in sink.calls] == [message, message, message, "plain", message, b"", message]


def test_a_context_is_taken_over_only_when_agreed() -> None:
    """RFC 7692 section 7.2.3.2: the second Hello refers to the first."""
    first, second = (bytes.fromhex(payload) for payload in ("f248cdc9c90700", "f200110000"))
    reads = [client_frame(TEXT, first, rsv1=True), client_frame(TEXT, second, rsv1=True)]
    parser, sink = new_parser(deflate=TAKEOVER)
    assert feed_all(parser, reads) is None
    assert sink.calls == [("message", "Hello")] * 2
    parser, sink = new_parser(deflate=NO_TAKEOVER)
    assert feed_all(parser, reads) == 1007
    assert sink.calls == [("message", "Hello")]


VIOLATIONS = {
    "RSV1 on a continuation (RFC 7692 6.1)": (
        client_frame(TEXT, b"\xf2", rsv1=True, fin=False) + client_frame(CONTINUATION, b"\x48", rsv1=True),
        1002,
    ),
    "RSV1 on a ping (RFC 7692 6.1)": (client_frame(PING, b"", rsv1=True), 1002),
    "corrupt data": (client_frame(TEXT, b"\xff\xff\xff", rsv1=True), 1007),
    "more after a final block": (client_frame(TEXT, bytes.fromhex("f348cdc9c90700f348cdc9c90700"), rsv1=True), 1007),
    "text that is not UTF-8": (client_frame(TEXT, bytes.fromhex("000100feffff00"), rsv1=True), 1007),
    "fragmented text that is not UTF-8": (
        client_frame(TEXT, bytes.fromhex("000100feffff00"), rsv1=True, fin=False),
        1007,
    ),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
@pytest.mark.parametrize("size", [1, 1000])
def test_a_violation_ends_the_connection(data: bytes, code: int, size: int) -> None:
    parser, sink = new_parser(deflate=NO_TAKEOVER)
    assert feed_all(parser, chunks(data, size)) == code
    assert sink.calls == []


def test_an_endless_run_of_final_blocks_is_refused_at_its_first_block() -> None:
    parser, _ = new_parser(deflate=NO_TAKEOVER)
    frame = client_frame(BINARY, b"\x03\x00" * 50_000, rsv1=True)
    assert feed_all(parser, chunks(frame, 100)) == 1007


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def bomb(size: int) -> bytes:
    """A compressed binary message of ``size`` zeros, a thousandth of it on the wire."""
    return client_frame(BINARY, deflated(bytes(size)), rsv1=True)


@pytest.mark.parametrize("read", [64, 1000, 10**9])
@pytest.mark.parametrize(
    ("size", "limit", "ratio", "code"),
    [
        (RATIO_FLOOR, MIB, 25, None),  # small messages may have any ratio
        (RATIO_FLOOR + 1, MIB, 25, 1009),
        (RATIO_FLOOR + 1, MIB, None, None),
        (RATIO_FLOOR + 1, MIB, 2000, None),
        (RATIO_FLOOR + 1, None, 25, 1009),
        (MIB, MIB, None, None),
        (MIB + 1, MIB, None, 1009),
        (MIB + 1, None, None, None),
        (1001, 1000, 25, 1009),
        (1000, 1000, 25, None),
    ],
)
def test_inflation_stops_at_the_limit_and_at_the_ratio(
    size: int, limit: int | None, ratio: int | None, code: int | None, read: int
) -> None:
    parser, sink = new_parser(max_message=limit, ratio=ratio, deflate=NO_TAKEOVER)
    assert feed_all(parser, chunks(bomb(size), read)) == code
    assert sink.calls == ([("message", bytes(size))] if code is None else [])


def test_the_ratio_counts_all_fragments() -> None:
    noise = random.Random(1).randbytes(8000)
    data = deflated(noise + bytes(150_000) + noise)
    assert RATIO_FLOOR < 166_000 < 25 * len(data)
    frames = client_frame(BINARY, data[:-100], rsv1=True, fin=False) + client_frame(CONTINUATION, data[-100:])
    for read in (1, 500, 10**9):
        parser, sink = new_parser(deflate=NO_TAKEOVER)
        assert feed_all(parser, chunks(frames, read)) is None
        assert sink.calls == [("message", noise + bytes(150_000) + noise)]


def test_what_does_not_compress_may_be_as_long_as_the_limit() -> None:
    noise = random.Random(1).randbytes(MIB)
    for level in (0, 9):
        stream = zlib.compressobj(level, zlib.DEFLATED, -9, 1)
        data = (stream.compress(noise) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(data) > MIB
        parser, sink = new_parser(deflate=NO_TAKEOVER)
        assert feed_all(parser, chunks(client_frame(BINARY, data, rsv1=True), 65536)) is None
        assert sink.calls == [("message", noise)]


def test_a_compressed_frame_that_declares_far_too_much_is_refused_at_its_header() -> None:
    """RFC 6455 section 7.4.1."""
    parser, _ = new_parser(deflate=NO_TAKEOVER)
    with pytest.raises(WebSocketError, match="1009"):
        parser.feed(b"\xc2\xff" + (2 * MIB).to_bytes(8, "big") + MASK)


@pytest.mark.parametrize("read", [1000, 10**9])
@pytest.mark.parametrize("ratio", [25, None])
def test_a_bomb_costs_at_most_its_budget(read: int, ratio: int | None) -> None:
    """100 MB in 100 kB: never more than the limit, its copy as the pieces are joined, and the window."""
    reads = chunks(bomb(100_000_000), read)
    parser, _ = new_parser(ratio=ratio, deflate=NO_TAKEOVER)
    tracemalloc.start()
    try:
        assert feed_all(parser, reads) == 1009
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB
    assert held < 10_000


def test_a_small_bomb_costs_the_floor() -> None:
    data = bomb(MIB)
    parser, _ = new_parser(deflate=NO_TAKEOVER)
    tracemalloc.start()
    try:
        assert feed_all(parser, [data]) == 1009
        assert tracemalloc.get_traced_memory()[1] < 4 * RATIO_FLOOR
    finally:
        tracemalloc.stop()


def test_without_takeover_nothing_is_held_between_messages() -> None:
    inflater = Inflater(NO_TAKEOVER)
    deflater = Deflater(NO_TAKEOVER, DeflateSettings())
    streams = [inflater.begin(), inflater.begin()]
    assert streams[0] is not streams[1]
    first = deflater.deflate(b"abc" * 1000)
    assert first == deflater.deflate(b"abc" * 1000)
    assert (inflater._context, deflater._context) == (None, None)


def test_messages_in_progress_on_two_connections_do_not_mix() -> None:
    """One Inflater serves every connection without takeover."""
    data = {name: deflated(name * 1000) for name in (b"a", b"b")}
    (one, one_sink), (two, two_sink) = new_parser(deflate=NO_TAKEOVER), new_parser(deflate=NO_TAKEOVER)
    two._deflate = one._deflate
    frames = {name: client_frame(BINARY, data[name], rsv1=True) for name in data}
    one.feed(frames[b"a"][:10])
    two.feed(frames[b"b"][:10])
    one.feed(frames[b"a"][10:])
    two.feed(frames[b"b"][10:])
    assert one_sink.calls == [("message", b"a" * 1000)]
    assert two_sink.calls == [("message", b"b" * 1000)]


def test_what_is_short_or_does_not_shrink_goes_as_it_is() -> None:
    deflater = Deflater(NO_TAKEOVER, DeflateSettings(threshold=512))
    assert deflater.deflate(b"a" * 511) is None
    assert deflater.deflate(b"a" * 512) is not None
    assert deflater.deflate(random.Random(1).randbytes(5000)) is None


def test_with_takeover_the_second_message_is_shorter_and_its_peer_follows() -> None:
    settings = DeflateSettings(server_takeover=True, threshold=0)
    deflater, noise = Deflater(TAKEOVER, settings), random.Random(1).randbytes(2000)
    first, second = deflater.deflate(noise), deflater.deflate(noise)
    assert first is not None
    assert second is not None
    assert len(second) < 50 < 2000 < len(first)
    parser, sink = new_parser(deflate=TAKEOVER)
    parser.feed(client_frame(BINARY, first, rsv1=True) + client_frame(BINARY, second, rsv1=True))
    assert sink.calls == [("message", noise)] * 2


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(9, 15), st.integers(8, 15), st.booleans(), st.integers(1, 3000))
def test_what_is_deflated_inflates_again(data: bytes, window: int, peer: int, keep: bool, read: int) -> None:
    window = min(window, max(9, peer))
    agreed = DeflateParams(
        server_takeover=keep, client_takeover=keep, server_max_window_bits=window, client_max_window_bits=peer
    )
    deflater = Deflater(agreed, DeflateSettings(threshold=0))
    parser, sink = new_parser(deflate=agreed)
    for _ in range(2):
        payload = deflater.deflate(data)
        rsv1 = payload is not None
        frame = client_frame(BINARY, data if payload is None else payload, rsv1=rsv1)
        assert feed_all(parser, chunks(frame, read)) is None
    assert sink.calls == [("message", data)] * 2
