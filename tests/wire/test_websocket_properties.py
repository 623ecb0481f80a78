"""Any split of bytes gives the same messages, and the same as the Sans-I/O protocols of ``websockets`` give."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from sojourn.wire.deflate import DeflateParams, Deflater, DeflateSettings
from sojourn.wire.websocket import (
    BINARY,
    TEXT,
    encode_binary,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
)
from tests.wire.websocket_client import MIB, Recorder, client_frame, feed_all, new_parser

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.sampled_from(["ab" * 70_000, "€" * 900])
binary = st.binary(max_size=300) | st.sampled_from([bytes(70_000), bytes(range(256)) * 5])
control = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
# A message: opcode, payload, where to cut it into fragments, a control frame between two of them, compressed or not.
message = st.tuples(
    st.tuples(st.just(Opcode.TEXT), text.map(str.encode)) | st.tuples(st.just(Opcode.BINARY), binary),
    st.lists(st.integers(0, 400), max_size=3),
    st.none() | control,
    st.booleans(),
)
close = st.none() | st.tuples(st.sampled_from([1000, 1001, 3000, 4999]), st.text(max_size=20).filter(str.isprintable))
cuts = st.lists(st.integers(0, 2000), max_size=30) | st.just(list(range(2000)))
takeover = st.none() | st.booleans()


def params(keep: bool | None) -> DeflateParams | None:
    if keep is None:
        return None
    return DeflateParams(
        server_takeover=keep, client_takeover=keep, server_max_window_bits=11, client_max_window_bits=12
    )


def peer(protocol: Protocol, keep: bool | None) -> Protocol:
    """Give an oracle the extension that ``params`` stands for."""
    if keep is not None:
        bits = (11, 12) if isinstance(protocol, ClientProtocol) else (12, 11)
        protocol.extensions = [PerMessageDeflate(not keep, not keep, *bits)]
    return protocol


def split(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in at if cut < len(data))})
    return [data[start:stop] for start, stop in pairwise(edges)]


def from_client(messages: list, closing: tuple[int, str] | None, keep: bool | None) -> bytes:
    """What a ``websockets`` client sends."""
    plain = ClientProtocol(parse_uri("ws://test"), state=State.OPEN)
    protocol = peer(ClientProtocol(parse_uri("ws://test"), state=State.OPEN), keep)
    sent = b""
    for (opcode, payload), fragments, between, compressed in messages:
        pieces = split(payload, fragments) or [b""]
        extensions = (protocol if compressed else plain).extensions
        for number, piece in enumerate(pieces):
            frame = Frame(Opcode.CONT if number else opcode, piece, fin=number == len(pieces) - 1)
            sent += frame.serialize(mask=True, extensions=extensions)
            if between is not None:
                sent += Frame(*between).serialize(mask=True)
    if closing is not None:
        sent += Frame(Opcode.CLOSE, Close(*closing).serialize()).serialize(mask=True)
    return sent


def received_by(protocol: Protocol, data: bytes) -> list[tuple[object, ...]]:
    """What an oracle makes of ``data``, in the form of a Recorder's calls."""
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    calls: list[tuple[object, ...]] = []
    joined, kind = b"", Opcode.CONT
    for frame in protocol.events_received():
        if frame.opcode is Opcode.CLOSE:
            closing = Close.parse(bytes(frame.data))
            calls.append(("close", closing.code, closing.reason))
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            calls.append((frame.opcode.name.lower(), bytes(frame.data)))
        else:
            kind = kind if frame.opcode is Opcode.CONT else frame.opcode
            joined += frame.data
            if frame.fin:
                calls.append(("message", joined.decode() if kind is Opcode.TEXT else joined))
                joined = b""
    return calls


@settings(deadline=None)
@given(st.lists(message, max_size=4), close, takeover, cuts)
def test_the_parser_delivers_what_websockets_delivers(
    messages: list, closing: tuple[int, str] | None, keep: bool | None, at: list[int]
) -> None:
    data = from_client(messages, closing, keep)
    expected = received_by(peer(ServerProtocol(state=State.OPEN, max_size=MIB), keep), data)
    parser, sink = new_parser(deflate=params(keep), ratio=None)
    assert feed_all(parser, split(data, at)) is None
    assert sink.calls == expected
    assert parser.buffered == 0


@settings(deadline=None)
@given(st.lists(message, max_size=5), cuts, st.sets(st.integers(1, 20)), st.lists(st.booleans()))
def test_pauses_change_nothing_but_the_moment(
    messages: list, at: list[int], pauses: set[int], resumes: list[bool]
) -> None:
    data = from_client(messages, (1000, ""), None)
    whole, reference = new_parser()
    whole.feed(data)
    parser, sink = new_parser(Recorder(pauses))
    for read in split(data, at):
        held = len(sink.calls) if parser.paused else None
        parser.feed(read)
        assert held is None or len(sink.calls) == held
        if resumes and resumes.pop():
            parser.resume()
    while parser.paused:
        parser.resume()
    assert sink.calls == reference.calls


frames = st.builds(
    client_frame,
    st.integers(0, 15),
    st.binary(max_size=140) | st.sampled_from(["grün €".encode(), "€".encode()[:2], b"\x80", b"\x03\xe8", b"\x03"]),
    fin=st.booleans(),
    rsv1=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(frames | st.binary(max_size=20), max_size=8).map(b"".join), cuts)
@example(client_frame(TEXT, b"a" * 130, fin=False) + b"\x80\xfe\x00\x05", list(range(200)))
def test_any_split_of_any_bytes_gives_the_same_calls_and_the_same_close_code(data: bytes, at: list[int]) -> None:
    whole, expected = new_parser(max_message=200)
    code = feed_all(whole, [data])
    parser, sink = new_parser(max_message=200)
    assert feed_all(parser, split(data, at)) == code
    assert sink.calls == expected.calls
    assert parser.buffered <= 200 + 131


Outgoing = tuple[Callable[..., bytes], tuple[object, ...], tuple[object, ...]]
outgoing = st.one_of(
    text.map(lambda value: (encode_text, (value,), ("message", value))),
    binary.map(lambda value: (encode_binary, (value,), ("message", value))),
    st.binary(max_size=125).map(lambda value: (encode_ping, (value,), ("ping", value))),
    st.binary(max_size=125).map(lambda value: (encode_pong, (value,), ("pong", value))),
)


@settings(deadline=None)
@given(st.lists(outgoing, max_size=6), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_websockets_decodes_what_the_encoders_make(items: list[Outgoing], reason: str) -> None:
    data = b"".join(encode(*args) for encode, args, _ in items) + encode_close(1000, reason)
    calls = received_by(ClientProtocol(parse_uri("ws://test"), state=State.OPEN), data)
    assert calls == [*(expected for _, _, expected in items), ("close", 1000, reason)]


@settings(deadline=None)
@given(st.lists(text | binary, max_size=6), st.booleans())
def test_websockets_inflates_what_the_deflater_makes(payloads: list[str | bytes], keep: bool) -> None:
    agreed = params(keep)
    assert agreed is not None
    deflater = Deflater(agreed, DeflateSettings(threshold=20))
    data = b""
    for payload in payloads:
        opcode, raw = (TEXT, payload.encode()) if isinstance(payload, str) else (BINARY, payload)
        small = deflater.deflate(raw)
        data += encode_frame(opcode, raw) if small is None else encode_frame(opcode, small, rsv1=True)
    client = peer(ClientProtocol(parse_uri("ws://test"), state=State.OPEN), keep)
    assert received_by(client, data) == [("message", payload) for payload in payloads]
