"""Wire forms: each client gets what docs/reference/hub-wire.md says, encoded once."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.hub.engine import Present
from sojourn.hub.forms import (
    EVENT_CHUNKS,
    EVENTS,
    LINE_EVENT_CHUNKS,
    LINE_EVENTS,
    PLAIN,
    PLAIN_MESSAGES,
    STAMPED,
    STAMPED_MESSAGES,
    V1,
    V1_MESSAGES,
    Form,
    Forms,
)
from sojourn.hub.publication import Kind, Publication
from sojourn.wire import hub as wire
from sojourn.wire.deflate import DeflateParams, DeflateSettings
from sojourn.wire.hub.cursor import Cursor
from sojourn.wire.sse import EventParser, ReceivedEvent
from tests.wire.websocket_client import NO_TAKEOVER, TAKEOVER

FRAMES = [PLAIN, STAMPED, V1]
MESSAGES = [PLAIN_MESSAGES, STAMPED_MESSAGES, V1_MESSAGES]
CURSOR = Cursor("k3f9", 1041)
HELLO = wire.Hello("n-1", "k3f9.1040", 25, 8, (500, 8000), 65536, "ada")
BYE = wire.Bye(1012, "service restart", (500, 8000))


def published(kind: Kind, data: bytes, channel: str = "chat:1", seq: int = 1041, key: str = "") -> Publication:
    return Publication(channel, "k3f9" if seq else "", seq, 1039, kind, data, key)


OBJECT = published(Kind.JSON, b'{"a":1}')
EMPTY = published(Kind.JSON, b"{}")
SPACED = published(Kind.JSON, b' {\n "a": "\\n" }')
LIST = published(Kind.JSON, b"[1]")
TEXT = published(Kind.TEXT, "grüße\nund\r\nmehr".encode())
BINARY = published(Kind.BINARY, b"\0\xff")
KEYED = published(Kind.JSON, b"1", 'odd"\\', key="EUR")
UNICAST = published(Kind.JSON, b'{"a":1}', "", 0)
UNICAST_BINARY = published(Kind.BINARY, b"\0\xff", "", 0)
AWAY = published(Kind.JSON, b'{"a":1}', seq=0)


def frames(data: bytes, params: DeflateParams | None = None) -> list[str | bytes]:
    """The messages in frames of a server."""
    found: list[str | bytes] = []
    while data:
        first, length, start = data[0], data[1], 2
        if length > 125:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        payload, data = data[start : start + length], data[start + length :]
        assert len(payload) == length
        if first & 0x40:
            assert params is not None
            payload = zlib.decompress(payload + b"\0\0\xff\xff\x03\0", -params.server_max_window_bits)
        assert first & 0xB0 == 0x80  # whole messages
        found.append(payload.decode() if first & 0x0F == 1 else payload)
    return found


def chunks(data: bytes) -> bytes:
    """The body in chunks of HTTP/1.1."""
    found = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        assert length, "an empty chunk ends the body"
        assert rest[length : length + 2] == b"\r\n"
        found += rest[:length]
        data = rest[length + 2 :]
    return found


# What is published, and the message of each WebSocket form.
WEBSOCKET: list[tuple[Publication, str | bytes, str | bytes, str]] = [
    (OBJECT, '{"a":1}', '{"_id":"k3f9.1041","a":1}', '{"ch":"chat:1","p":1041,"d":{"a":1}}'),
    (EMPTY, "{}", '{"_id":"k3f9.1041"}', '{"ch":"chat:1","p":1041,"d":{}}'),
    (
        SPACED,
        ' {\n "a": "\\n" }',
        '{"_id":"k3f9.1041","a": "\\n" }',
        '{"ch":"chat:1","p":1041,"d": {  "a": "\\n" }}',
    ),
    (LIST, "[1]", "[1]", '{"ch":"chat:1","p":1041,"d":[1]}'),
    (TEXT, "grüße\nund\r\nmehr", "grüße\nund\r\nmehr", '{"ch":"chat:1","p":1041,"d":"grüße\\nund\\r\\nmehr"}'),
    (BINARY, b"\0\xff", b"\0\xff", '{"ch":"chat:1","p":1041,"b":"AP8="}'),
    (KEYED, "1", "1", '{"ch":"odd\\"\\\\","p":1041,"k":"EUR","d":1}'),
    (UNICAST, '{"a":1}', '{"a":1}', '{"msg":{"a":1}}'),
    (UNICAST_BINARY, b"\0\xff", b"\0\xff", '{"bin":"AP8="}'),
    (AWAY, '{"a":1}', '{"a":1}', '{"ch":"chat:1","d":{"a":1}}'),
]


@pytest.mark.parametrize(("publication", "plain", "stamped", "line"), WEBSOCKET, ids=lambda value: repr(value)[:40])
def test_a_websocket_gets_its_form(
    publication: Publication, plain: str | bytes, stamped: str | bytes, line: str
) -> None:
    for frame, message, expected in zip(FRAMES, MESSAGES, (plain, stamped, line), strict=True):
        assert frames(frame.of(publication)) == [expected]
        assert message.messages([message.of(publication)]) == [expected]
    assert wire.decode_object(line) is not None


def test_an_event_stream_gets_its_form() -> None:
    parser = EventParser()
    seen = []
    for publication in (OBJECT, SPACED, TEXT, BINARY, UNICAST):
        seen += parser.feed(EVENTS.of(publication))
    last = "k3f9.1041"
    assert seen == [
        ReceivedEvent("message", '{"a":1}', last),
        ReceivedEvent("message", ' {  "a": "\\n" }', last),
        ReceivedEvent("message", "grüße\nund\nmehr", last),
        ReceivedEvent("binary", "AP8=", last),
        ReceivedEvent("message", '{"a":1}', last),
    ]
    lines = EventParser()
    for publication, _, _, line in WEBSOCKET:
        (event,) = lines.feed(LINE_EVENTS.of(publication))
        assert (event.event, event.data, event.id) == ("message", line, last)


@pytest.mark.parametrize(("whole", "chunked"), [(EVENTS, EVENT_CHUNKS), (LINE_EVENTS, LINE_EVENT_CHUNKS)])
def test_chunks_hold_the_same_events(whole: Form, chunked: Form) -> None:
    assert chunks(b"".join(chunked.of(each) for each, *_ in WEBSOCKET)) == b"".join(
        whole.of(each) for each, *_ in WEBSOCKET
    )
    gap, chunk = whole.gap("chat:1", CURSOR), chunked.gap("chat:1", CURSOR)
    assert gap is not None
    assert chunk is not None
    assert chunks(chunk) == gap


def test_a_publication_is_encoded_once_for_each_form() -> None:
    publication = published(Kind.JSON, b"{}")
    for form in (*FRAMES, *MESSAGES, EVENTS, EVENT_CHUNKS, LINE_EVENTS, LINE_EVENT_CHUNKS):
        assert form.of(publication) is form.of(publication)
    assert len(publication.forms) == 10


# What is said beside publications


def test_a_gap_is_told_in_each_form_that_can() -> None:
    assert PLAIN.gap("chat:1", CURSOR) is None
    assert frames(STAMPED.gap("chat:1", CURSOR) or b"") == ['{"_gap":"chat:1","_id":"k3f9.1041"}']
    assert frames(V1.gap("chat:1", CURSOR) or b"") == ['{"gap":{"ch":"chat:1","pos":"k3f9.1041"}}']
    assert EVENTS.gap("chat:1", CURSOR) == b"event: gap\nid: k3f9.1041\ndata: chat:1\n\n"
    assert LINE_EVENTS.gap("chat:1", CURSOR) == (b'id: k3f9.1041\ndata: {"gap":{"ch":"chat:1","pos":"k3f9.1041"}}\n\n')


def test_a_gap_without_a_place_leaves_an_event_stream_the_one_it_has() -> None:
    for form in (EVENTS, LINE_EVENTS):
        assert b"id:" not in (form.gap("", Cursor("", 0)) or b"id:")


def test_the_state_after_a_gap_is_told_in_each_form() -> None:
    state = published(Kind.JSON, b'{"all":[]}', seq=0)
    assert frames(PLAIN.snapshot(state, CURSOR)) == ['{"all":[]}']
    assert frames(STAMPED.snapshot(state, CURSOR)) == ['{"_gap":"chat:1","_id":"k3f9.1041","all":[]}']
    assert frames(STAMPED.snapshot(TEXT, CURSOR)) == [TEXT.data.decode()]
    assert frames(STAMPED.snapshot(LIST, CURSOR)) == ["[1]"]
    assert frames(V1.snapshot(state, CURSOR)) == ['{"snap":{"ch":"chat:1","pos":"k3f9.1041","d":{"all":[]}}}']
    assert frames(V1.snapshot(BINARY, CURSOR)) == ['{"snap":{"ch":"chat:1","pos":"k3f9.1041","b":"AP8="}}']
    assert EVENTS.snapshot(state, CURSOR) == b'event: snapshot\nid: k3f9.1041\ndata: {"all":[]}\n\n'
    assert LINE_EVENTS.snapshot(state, CURSOR).startswith(b'id: k3f9.1041\ndata: {"snap":')


def test_the_first_thing_said_carries_the_position() -> None:
    assert PLAIN.hello(HELLO, 700) is None
    assert frames(STAMPED.hello(HELLO, 700) or b"") == ['{"_id":"k3f9.1040"}']
    (line,) = frames(V1.hello(HELLO, 700) or b"")
    assert isinstance(line, str)
    assert wire.decode_object(line) == HELLO
    for form in (EVENTS, LINE_EVENTS):
        parser = EventParser()
        events = parser.feed(form.hello(HELLO, 700) or b"")
        assert (parser.last_event_id, parser.retry) == ("k3f9.1040", 700)
        assert [event.data for event in events] == ([] if form is EVENTS else [line])


def test_the_last_thing_said_tells_when_to_come_back() -> None:
    assert PLAIN.bye(BYE, 700) is None
    assert STAMPED.bye(BYE, 700) is None
    assert frames(V1.bye(BYE, 700) or b"") == [wire.encode_object(BYE).decode()]
    parser = EventParser()
    assert parser.feed(EVENTS.bye(BYE, 700) or b"") == [ReceivedEvent("bye", "service restart", "")]
    assert parser.retry == 700
    parser = EventParser()
    (event,) = parser.feed(LINE_EVENTS.bye(BYE, 700) or b"")
    assert wire.decode_object(event.data) == BYE
    assert parser.retry == 700
    never = wire.Bye(4503, "a\nb", None)
    assert EVENTS.bye(never, 0) == b"event: bye\ndata: a\ndata: b\n\n"
    assert b"retry:" not in (LINE_EVENTS.bye(never, 0) or b"retry:")


def test_a_ping_is_a_line_or_a_comment_and_nothing_where_the_server_pings() -> None:
    assert (PLAIN.ping(), STAMPED.ping(), PLAIN_MESSAGES.ping()) == (None, None, None)
    assert V1.ping() == b"\x81\x02{}"
    assert V1_MESSAGES.ping() == b"{}"
    assert EVENTS.ping() == b":\n\n"
    assert EVENT_CHUNKS.ping() == b"3\r\n:\n\n\r\n"
    assert LINE_EVENTS.ping() is not None


def test_presence_and_answers_are_for_those_who_speak_lines() -> None:
    came = [Present("n-1", "ada", "suspect", {"a": "\n"})]
    line = wire.encode_object(
        wire.Pres("chat:1", [wire.Member("n-1", "ada", "suspect", {"a": "\n"})], ["n-2"])
    ).decode()
    answer = wire.Refused(3, "limit", "too many")
    for form in (PLAIN, STAMPED, EVENTS):
        assert form.presence("chat:1", came, ["n-2"]) is None
        assert form.say(answer) is None
    assert frames(V1.presence("chat:1", came, ["n-2"]) or b"") == [line]
    assert frames(V1.say(answer) or b"") == [wire.encode_object(answer).decode()]
    assert LINE_EVENTS.presence("chat:1", came, ["n-2"]) == f"data: {line}\n\n".encode()


def test_a_server_that_frames_by_itself_gets_as_few_messages_as_possible() -> None:
    written = [V1_MESSAGES.of(OBJECT), V1_MESSAGES.gap("chat:1", CURSOR) or b"", V1_MESSAGES.of(BINARY)]
    (message,) = V1_MESSAGES.messages(written)
    assert wire.lines(message) == [each.decode() for each in written]
    assert PLAIN_MESSAGES.messages([PLAIN_MESSAGES.of(each) for each in (OBJECT, BINARY)]) == ['{"a":1}', b"\0\xff"]
    assert V1_MESSAGES.messages([]) == []
    assert EVENTS.messages([b"data: 1\n\n"]) == [b"data: 1\n\n"]


# Compression

LONG = b'{"text":"' + b"all work and no play " * 50 + b'"}'


@pytest.mark.parametrize("base", FRAMES)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_deflated_form_says_the_same_in_less(base: Form, kind: Kind) -> None:
    form = Forms(DeflateSettings()).frames(base, NO_TAKEOVER)
    publication = published(kind, LONG)
    assert len(form.of(publication)) < len(base.of(publication)) / 2
    assert frames(form.of(publication), NO_TAKEOVER) == frames(base.of(publication))


def test_what_does_not_shrink_goes_as_it_is_and_is_kept_once() -> None:
    form = Forms(DeflateSettings()).frames(V1, NO_TAKEOVER)
    assert form.of(OBJECT) is V1.of(OBJECT)
    assert form.gap("chat:1", CURSOR) == V1.gap("chat:1", CURSOR)
    assert form.ping() == V1.ping()


def test_connections_with_the_same_parameters_share_a_form() -> None:
    forms = Forms(DeflateSettings())
    narrow = DeflateParams(
        server_takeover=False, client_takeover=True, server_max_window_bits=12, client_max_window_bits=9
    )
    assert forms.frames(V1, NO_TAKEOVER) is forms.frames(V1, narrow)  # what the client sends is another matter
    assert forms.frames(V1, NO_TAKEOVER) is not forms.frames(PLAIN, NO_TAKEOVER)
    assert forms.frames(V1, None) is V1


def test_a_connection_that_keeps_its_compressor_gets_shared_frames_without_compression() -> None:
    assert Forms(DeflateSettings()).frames(V1, TAKEOVER) is V1


# Any payload

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.sampled_from([None, 2]))
def test_any_json_arrives_as_it_was_meant(value: object, indent: int | None) -> None:
    publication = published(Kind.JSON, json.dumps(value, indent=indent).encode())
    (line,) = frames(V1.of(publication))
    assert isinstance(line, str)
    assert wire.lines(line) == [line]
    assert json.loads(line)["d"] == value
    (event,) = EventParser().feed(EVENTS.of(publication))
    assert json.loads(event.data) == value
    (stamped,) = frames(STAMPED.of(publication))
    if isinstance(value, dict) and "_id" not in value:
        assert json.loads(stamped) == {"_id": "k3f9.1041", **value}


@given(st.text())
def test_any_text_arrives_as_it_was_meant(text: str) -> None:
    publication = published(Kind.TEXT, text.encode("utf-8", "replace"))
    meant = publication.data.decode()
    (line,) = frames(V1.of(publication))
    assert json.loads(line)["d"] == meant
    (event,) = EventParser().feed(EVENTS.of(publication))
    assert event.data == meant.replace("\r\n", "\n").replace("\r", "\n")
