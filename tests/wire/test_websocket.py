"""The frame parser keeps RFC 6455: what it delivers, what it refuses, and what it costs at most."""

from __future__ import annotations

import tracemalloc

import pytest

from sojourn.errors import WebSocketError
from sojourn.wire import websocket_message
from sojourn.wire.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.wire.websocket_client import MASK, MIB, NO_TAKEOVER, Recorder, chunks, client_frame, feed_all, new_parser

HELLO = client_frame(TEXT, b"Hello")

# Promise: bytes, close code, where the RFC says so.
VIOLATIONS = {
    "RSV1 without an extension (5.2)": (client_frame(TEXT, b"a", rsv1=True), 1002),
    "RSV2 (5.2)": (b"\xa1\x80" + MASK, 1002),
    "RSV3 (5.2)": (b"\x91\x80" + MASK, 1002),
    "RSV1 on a control frame (5.2)": (b"\xc9\x80" + MASK, 1002),
    **{f"reserved data opcode {op} (5.2)": (client_frame(op), 1002) for op in range(3, 8)},
    **{f"reserved control opcode {op} (5.2)": (client_frame(op), 1002) for op in range(11, 16)},
    "reserved opcode inside a message (5.2)": (client_frame(TEXT, b"a", fin=False) + client_frame(3), 1002),
    "unmasked text (5.1)": (b"\x81\x05Hello", 1002),
    "unmasked empty frame (5.1)": (b"\x81\x00", 1002),
    "unmasked ping (5.1)": (b"\x89\x00", 1002),
    "fragmented ping (5.5)": (client_frame(PING, b"a", fin=False), 1002),
    "fragmented close (5.5)": (client_frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "ping of 126 bytes (5.5)": (client_frame(PING, b"a" * 126), 1002),
    "close of 126 bytes (5.5)": (client_frame(CLOSE, b"\x03\xe8" + b"a" * 124), 1002),
    "ping with a 64 bit length (5.5)": (client_frame(PING, b"a" * 65536), 1002),
    "continuation without a start (5.4)": (client_frame(CONTINUATION, b"a"), 1002),
    "continuation after a whole message (5.4)": (HELLO + client_frame(CONTINUATION, b"a"), 1002),
    "text inside a fragmented message (5.4)": (client_frame(TEXT, b"a", fin=False) + HELLO, 1002),
    "binary inside a fragmented message (5.4)": (client_frame(TEXT, b"a", fin=False) + client_frame(BINARY), 1002),
    "text inside a fragmented binary message (5.4)": (client_frame(BINARY, b"", fin=False) + HELLO, 1002),
    "64 bit length with its top bit set (5.2)": (b"\x82\xff\x80" + bytes(7) + MASK, 1002),
    "16 bit length for 125 bytes (5.2)": (b"\x82\xfe\x00\x7d" + MASK + b"a" * 125, 1002),
    "16 bit length for nothing (5.2)": (b"\x82\xfe\x00\x00" + MASK, 1002),
    "64 bit length for 65535 bytes (5.2)": (b"\x82\xff" + (65535).to_bytes(8, "big") + MASK, 1002),
    "64 bit length for 5 bytes (5.2)": (b"\x81\xff" + (5).to_bytes(8, "big") + MASK + b"Hello", 1002),
    "close with one byte (5.5.1)": (client_frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code} (7.4)": (client_frame(CLOSE, code.to_bytes(2, "big")), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "close reason that is not UTF-8 (5.5.1)": (client_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "close reason that ends inside a character (5.5.1)": (client_frame(CLOSE, b"\x03\xe8\xe2\x82"), 1007),
    "text that is not UTF-8 (8.1)": (client_frame(TEXT, b"\xff"), 1007),
    "text that ends inside a character (8.1)": (client_frame(TEXT, b"a\xe2\x82"), 1007),
    "text with a surrogate (8.1)": (client_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text with an overlong form (8.1)": (client_frame(TEXT, b"\xc0\xaf"), 1007),
    "text above U+10FFFF (8.1)": (client_frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "long text that is not UTF-8 (8.1)": (client_frame(TEXT, b"a" * 200 + b"\xff"), 1007),
    "fragmented text that ends inside a character (8.1)": (
        client_frame(TEXT, b"a\xe2", fin=False) + client_frame(CONTINUATION, b"\x82"),
        1007,
    ),
    "message of max_message + 1 (7.4.1)": (client_frame(BINARY, b"a" * (MIB + 1)), 1009),
    "fragments of max_message + 1 together (7.4.1)": (
        client_frame(BINARY, b"a" * MIB, fin=False) + client_frame(CONTINUATION, b"a"),
        1009,
    ),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
@pytest.mark.parametrize(
    "before", [b"", HELLO, client_frame(PING, b"?")], ids=["at once", "after text", "after a ping"]
)
def test_a_violation_ends_the_connection_with_its_close_code(data: bytes, code: int, before: bytes) -> None:
    for reads in ([before + data], [before, data], chunks(before + data, 7 if len(data) < 1000 else 65536)):
        parser, sink = new_parser()
        assert feed_all(parser, reads) == code
        assert len(sink.calls) == (before != b"") + data.startswith(HELLO)
        parser.feed(HELLO)  # ignored (7.1.7)
        assert len(sink.calls) == (before != b"") + data.startswith(HELLO)
        assert parser.buffered == 0


@pytest.mark.parametrize(("data", "code"), [v for v in VIOLATIONS.values() if len(v[0]) < 1000])
def test_a_violation_is_found_byte_by_byte_too(data: bytes, code: int) -> None:
    parser, _ = new_parser()
    assert feed_all(parser, chunks(data, 1)) == code


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_code_of_the_registry_is_delivered(code: int) -> None:
    parser, sink = new_parser()
    parser.feed(client_frame(CLOSE, code.to_bytes(2, "big") + "tschüß".encode()))
    assert sink.calls == [("close", code, "tschüß")]


def test_a_close_frame_without_a_code_is_1005_and_ends_the_input() -> None:
    """RFC 6455 sections 7.1.5 and 5.5.1."""
    parser, sink = new_parser()
    parser.feed(HELLO + client_frame(CLOSE) + HELLO + b"\xff\xff")
    parser.feed(b"\xff" * 20)
    parser.feed(HELLO)
    parser.resume()
    assert sink.calls == [("message", "Hello"), ("close", 1005, "")]
    assert parser.buffered == 0


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 128, 65535, 65536, 65537, MIB])
def test_a_message_of_any_length_form_is_delivered(opcode: int, size: int) -> None:
    payload = b"x" * size
    expected = ("message", payload.decode() if opcode == TEXT else payload)
    frame = client_frame(opcode, payload)
    for reads in ([frame], [frame + frame], [frame[:1], frame[1:]], chunks(frame, max(1, size // 3))):
        parser, sink = new_parser()
        assert feed_all(parser, reads) is None
        assert sink.calls == [expected] * (2 if reads == [frame + frame] else 1)


def test_control_frames_pass_between_fragments_in_order() -> None:
    """RFC 6455 section 5.4."""
    parser, sink = new_parser()
    parser.feed(
        client_frame(TEXT, b"gr", fin=False)
        + client_frame(PING, b"1")
        + client_frame(CONTINUATION, "ü".encode()[:1], fin=False)
        + client_frame(PONG, b"2")
        + client_frame(CONTINUATION, b"", fin=False)
        + client_frame(CONTINUATION, "ü".encode()[1:] + b"n")
        + client_frame(CLOSE, b"\x03\xe8")
    )
    assert sink.calls == [("ping", b"1"), ("pong", b"2"), ("message", "grün"), ("close", 1000, "")]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("κόσμε".encode(), b"\xf4\x90"),
        (b"", b"\xff"),
        (b"a", b"\xc0"),
        (b"a" * 200, b"\x80"),
        ("ß".encode(), b"\xed\xa0"),
        (b"a", b"\xe0\x80"),
        (b"a", b"\xf0\x80"),
        (b"a", b"\xe2\x82a"),
        (b"a", b"\xf1\x80\x80\xc3"),
    ],
)
def test_text_is_refused_at_the_first_byte_that_cannot_be_utf8(good: bytes, bad: bytes) -> None:
    """RFC 6455 section 8.1, Autobahn 6.4: in a fragment, and in a piece of a frame, before the rest has arrived."""
    fragments = [client_frame(TEXT, good, fin=False), client_frame(CONTINUATION, bad, fin=False)]
    parser, sink = new_parser()
    parser.feed(fragments[0])
    with pytest.raises(WebSocketError, match="1007"):
        parser.feed(fragments[1])

    frame = client_frame(TEXT, good + bad + b"x" * 300)
    until = frame.index(MASK) + 4 + len(good + bad)
    parser, sink = new_parser()
    for byte in chunks(frame[: until - 1], 1):
        parser.feed(byte)
    with pytest.raises(WebSocketError, match="1007"):
        parser.feed(frame[until - 1 : until])
    assert sink.calls == []


@pytest.mark.parametrize("limit", [0, 1, 100, 125, 126, 1000, 65535, 65536, MIB])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_is_exact(limit: int, opcode: int) -> None:
    for size, code in ((limit, None), (limit + 1, 1009)):
        frame = client_frame(opcode, b"x" * size)
        for reads in ([frame], [frame[:5], frame[5:]], [client_frame(PING) + frame]):
            parser, sink = new_parser(max_message=limit)
            assert feed_all(parser, reads) == code
            assert ("message" in [call[0] for call in sink.calls]) == (code is None)


def test_without_a_limit_every_message_passes() -> None:
    parser, sink = new_parser(max_message=None)
    assert feed_all(parser, chunks(client_frame(BINARY, bytes(3 * MIB)), 65536)) is None
    assert sink.calls == [("message", bytes(3 * MIB))]


def test_too_much_is_refused_at_the_header_before_any_payload() -> None:
    """RFC 6455 section 7.4.1: 1009 needs no more than the length."""
    parser, _ = new_parser()
    with pytest.raises(WebSocketError, match="1009"):
        parser.feed(b"\x82\xff" + (MIB + 1).to_bytes(8, "big"))

    parser, _ = new_parser(max_message=1000)
    parser.feed(client_frame(BINARY, b"a" * 900, fin=False))
    with pytest.raises(WebSocketError, match="1009"):
        parser.feed(b"\x80\xe5")  # 101 bytes more


def test_a_declared_length_reserves_nothing() -> None:
    header = b"\x82\xff" + MIB.to_bytes(8, "big") + MASK
    tracemalloc.start()
    try:
        parsers = [new_parser()[0] for _ in range(100)]
        for parser in parsers:
            parser.feed(header)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert [parser.buffered for parser in parsers] == [0] * 100


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_memory_of_a_partial_message_is_bounded(opcode: int) -> None:
    """At most max_message, the step by which a bytearray grows, and one read."""
    read = 65536
    reads = chunks(client_frame(opcode, b"x" * MIB), read)[:-1]
    tracemalloc.start()
    try:
        parser, _ = new_parser()
        for data in reads:
            parser.feed(data)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.buffered > 0.9 * MIB
    assert held < MIB * 9 / 8 + read
    assert peak < MIB * 9 / 8 + 3 * read


def test_an_idle_parser_holds_no_buffer() -> None:
    parser, sink = new_parser(deflate=NO_TAKEOVER)
    for data in (HELLO, HELLO + HELLO, HELLO[:3], HELLO[3:], HELLO[:9], HELLO[9:] + HELLO):
        parser.feed(data)
    assert len(sink.calls) == 6
    assert parser.buffered == 0
    assert parser._buffer is None
    assert parser._message is None


@pytest.mark.parametrize("payload", [b"x" * 60_000, "€".encode() * 20_000])
def test_each_byte_of_a_message_is_looked_at_once_however_it_is_cut(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: 60 000 reads of one byte cost as many masked and checked bytes as one read."""
    masked = checked = 0
    real_mask, real_check = websocket_message.apply_mask, websocket_message.utf_8_decode

    def count_mask(data: bytes, mask: bytes) -> bytes:
        nonlocal masked
        masked += len(data)
        return real_mask(data, mask)

    def count_check(data: bytes, errors: str, final: bool) -> tuple[str, int]:
        nonlocal checked
        checked += len(data)
        return real_check(data, errors, final)

    monkeypatch.setattr(websocket_message, "apply_mask", count_mask)
    monkeypatch.setattr(websocket_message, "utf_8_decode", count_check)
    parser, sink = new_parser()
    frame = client_frame(TEXT, payload)
    parser.feed(frame[:8])
    kept = parser._message.data if parser._message is not None else None
    for byte in chunks(frame[8:-1], 1):
        parser.feed(byte)
        assert parser._message is not None
        assert parser._message.data is kept
    parser.feed(frame[-1:])
    assert sink.calls == [("message", payload.decode())]
    assert masked == len(payload)
    # An open character of 3 bytes is looked at again with each of its bytes.
    assert checked <= 2 * len(payload)


def test_a_paused_parser_delivers_nothing_until_it_is_resumed() -> None:
    parser, sink = new_parser(Recorder(pause_after=[1, 2]))
    parser.feed(HELLO + client_frame(PING, b"?") + client_frame(CLOSE))
    assert sink.calls == [("message", "Hello")]
    parser.resume()
    assert sink.calls == [("message", "Hello"), ("ping", b"?")]
    parser.feed(HELLO)
    assert len(sink.calls) == 2
    parser.resume()
    assert sink.calls == [("message", "Hello"), ("ping", b"?"), ("close", 1005, "")]


@pytest.mark.parametrize("split", range(1, 11))
def test_what_arrives_while_paused_waits_in_order(split: int) -> None:
    frame = client_frame(BINARY, b"late!")
    parser, sink = new_parser(Recorder(pause_after=[1]))
    parser.feed(HELLO)
    assert parser.paused
    for part in (frame[:split], frame[split:], frame, frame[:split]):
        parser.feed(part)
    assert len(sink.calls) == 1
    assert parser.buffered == 2 * len(frame) + split
    parser.resume()
    assert sink.calls == [("message", "Hello"), ("message", b"late!"), ("message", b"late!")]
    parser.feed(frame[split:])
    assert len(sink.calls) == 4
    assert parser.buffered == 0


def test_a_pause_inside_a_read_keeps_the_order_of_later_reads() -> None:
    frames = [client_frame(BINARY, bytes([number])) for number in range(7)]
    parser, sink = new_parser(Recorder(pause_after=[1, 3]))
    parser.feed(b"".join(frames[:3]))
    for frame in frames[3:5]:
        parser.feed(frame)
    parser.resume()
    for frame in frames[5:]:
        parser.feed(frame)
    assert len(sink.calls) == 3
    parser.resume()
    assert sink.calls == [("message", bytes([number])) for number in range(7)]


def test_a_whole_frame_waits_like_any_other_while_paused() -> None:
    parser, sink = new_parser(Recorder(pause_after=[1]))
    parser.feed(HELLO)
    parser.feed(client_frame(TEXT, b"1"))
    assert len(sink.calls) == 1
    parser.paused = False  # not by resume(): the next read comes behind what waits all the same
    parser.feed(client_frame(TEXT, b"2"))
    assert sink.calls == [("message", word) for word in ("Hello", "1", "2")]


def test_a_violation_behind_a_pause_is_raised_by_resume() -> None:
    parser, sink = new_parser(Recorder(pause_after=[1]))
    parser.feed(HELLO + b"\x81\x05Hello")
    with pytest.raises(WebSocketError, match="1002"):
        parser.resume()
    parser.resume()
    assert sink.calls == [("message", "Hello")]


def test_a_pause_at_every_message_of_a_read_copies_no_more_than_two_reads() -> None:
    """Counted: the rest is cut off anew only after more than half of it was consumed."""
    count = 5000
    read = client_frame(BINARY, b"ab") * count
    parser, sink = new_parser(Recorder(pause_after=range(1, count + 1)))
    parser.feed(read)
    copied, kept = 0, parser._buffer
    for done in range(2, count + 1):
        parser.resume()
        assert len(sink.calls) == done
        if parser._buffer is not kept:
            kept = parser._buffer
            copied += len(kept or b"")
        assert len(kept or b"") <= 2 * parser.buffered
    assert copied <= 2 * len(read)
    assert parser.buffered == 0


def test_a_sink_that_resumes_inside_its_call_goes_on_in_order() -> None:
    class Eager(Recorder):
        def message_received(self, data: str | bytes) -> None:
            super().message_received(data)
            assert self.parser is not None
            self.parser.paused = True
            self.parser.resume()

    parser, sink = new_parser(Eager())
    parser.feed(b"".join(client_frame(BINARY, bytes([i])) for i in range(5)))
    assert sink.calls == [("message", bytes([i])) for i in range(5)]


def test_an_error_of_the_sink_is_not_taken_for_one_of_the_peer() -> None:
    class Broken(Recorder):
        def message_received(self, data: str | bytes) -> None:
            b"\xff".decode()

    for data in (HELLO, HELLO + HELLO, client_frame(TEXT, b"a", fin=False) + client_frame(CONTINUATION, b"b")):
        parser, _ = new_parser(Broken())
        with pytest.raises(UnicodeDecodeError):
            parser.feed(data)
