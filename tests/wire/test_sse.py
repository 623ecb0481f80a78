"""Server-sent events, WHATWG HTML section 9.2."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.wire.sse import EventParser, ReceivedEvent, ServerSentEvent, encode

WRITTEN: list[tuple[ServerSentEvent, bytes]] = [
    (ServerSentEvent("hello"), b"data: hello\n\n"),
    (ServerSentEvent(""), b"data: \n\n"),
    (ServerSentEvent("grüße".encode()), "data: grüße\n\n".encode()),
    (ServerSentEvent("one\ntwo\rthree\r\nfour"), b"data: one\ndata: two\ndata: three\ndata: four\n\n"),
    (ServerSentEvent("end\n"), b"data: end\ndata: \n\n"),
    (ServerSentEvent(" a\x0bb\u2028c"), "data:  a\x0bb\u2028c\n\n".encode()),
    (ServerSentEvent({"a": [1, None, "\n"]}), b'data: {"a":[1,null,"\\n"]}\n\n'),
    (ServerSentEvent(0), b"data: 0\n\n"),
    (ServerSentEvent(False), b"data: false\n\n"),
    (ServerSentEvent("x", event="add", id="7", retry=1500), b"event: add\nid: 7\nretry: 1500\ndata: x\n\n"),
    (ServerSentEvent(id=""), b"id: \n\n"),
    (ServerSentEvent(retry=0), b"retry: 0\n\n"),
    (ServerSentEvent(comment=""), b":\n\n"),
    (ServerSentEvent(comment="one\r\n\rtwo"), b": one\n:\n: two\n\n"),
    (ServerSentEvent(), b"\n"),
]


@pytest.mark.parametrize(("event", "data"), WRITTEN)
def test_an_event_is_written_as_the_standard_reads_it(event: ServerSentEvent, data: bytes) -> None:
    assert encode(event) == data


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"event": "a\nb"}, "the event of an event is one line"),
        ({"event": 7}, "is text"),
        ({"id": "a\rb"}, "the id of an event is one line"),
        ({"id": "a\0b"}, "NUL"),
        ({"id": 7}, "the id of an event is text, not 7"),
        ({"comment": b"x"}, "the comment of an event is text"),
        ({"retry": -1}, "whole number of milliseconds, not -1"),
        ({"retry": 1.5}, "whole number"),
        ({"retry": True}, "whole number"),
        ({"data": b"ok\xff"}, "UTF-8, and byte 2 is not"),
        ({"data": object()}, "can't be written as JSON"),
        ({"data": "\ud800"}, "not Unicode"),
    ],
)
def test_a_field_that_a_client_would_misread_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        encode(ServerSentEvent(**fields))


#: From section 9.2.6 and its examples, and what follows from its grammar.
READ: list[tuple[bytes, list[tuple[str, str, str]]]] = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
    (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
    (b"event: add\ndata: 7\n\ndata: 8\n\n", [("add", "7", ""), ("message", "8", "")]),
    (b"event: lost\n\ndata: x\n\n", [("message", "x", "")]),
    (b"id: 4\n\ndata: x\n\n", [("message", "x", "4")]),
    (b"id: 4\ndata: x\n\nid: 5\0\ndata: y\n\n", [("message", "x", "4"), ("message", "y", "4")]),
    (b"data: a\rdata: b\r\ndata: c\n\r\ndata: d\r\r", [("message", "a\nb\nc", ""), ("message", "d", "")]),
    (b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n", [("message", "x", "")]),
    (b"unknown: x\ndatas: y\n data: z\ndata: \xff\n\n", [("message", "\ufffd", "")]),
    (b"data: x\n", []),
]


@pytest.mark.parametrize(("data", "events"), READ)
def test_a_stream_is_read_as_a_browser_reads_it(data: bytes, events: list[tuple[str, str, str]]) -> None:
    assert EventParser().feed(data) == [ReceivedEvent(*event) for event in events]


@pytest.mark.parametrize(("data", "events"), READ)
def test_byte_by_byte_nothing_is_different(data: bytes, events: list[tuple[str, str, str]]) -> None:
    parser = EventParser()
    received = [event for byte in data for event in parser.feed(bytes((byte,)))]
    assert received == [ReceivedEvent(*event) for event in events]


def test_the_last_event_id_and_retry_are_known_without_an_event() -> None:
    parser = EventParser()
    parser.feed(b"id: 7\n")
    assert parser.last_event_id == ""  # the event is not complete
    parser.feed(b"retry: 250\nretry: 2.5\nretry: -1\nretry: \xc2\xb2\n\n: one\n:two\n")
    assert (parser.last_event_id, parser.retry, parser.comments) == ("7", 250, 2)


@pytest.mark.parametrize("data", [b"data: " + b"x" * 200, b"data: xxxxxxxxx\n" * 20, b": " + b"x" * 200])
def test_an_event_that_never_ends_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        EventParser(limit=100).feed(data)


def test_the_limit_is_for_each_event() -> None:
    assert len(EventParser(limit=100).feed(b"data: xxxxxxxxx\n\n" * 20)) == 20


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("a: \r\n\0\ufeff", max_size=8)
_LINE = _TEXT.map(lambda text: text.replace("\r", "").replace("\n", ""))
_EVENTS = st.builds(
    ServerSentEvent,
    data=st.none() | _TEXT,
    event=st.none() | _LINE,
    id=st.none() | _LINE.map(lambda text: text.replace("\0", "")),
    retry=st.none() | st.integers(0, 10**9),
    comment=st.none() | _TEXT,
)


@given(st.lists(_EVENTS, max_size=6), st.randoms(use_true_random=False))
def test_what_was_written_is_read_however_the_bytes_are_cut(events: list[ServerSentEvent], random: Any) -> None:
    data = b"".join(map(encode, events))
    parser = EventParser()
    received: list[ReceivedEvent] = []
    while data:
        size = random.randint(0, 7)
        received += parser.feed(data[:size])
        data = data[size:]
    expected = []
    last, retry = "", None
    for event in events:
        last = last if event.id is None else event.id
        retry = retry if event.retry is None else event.retry
        if event.data is not None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            expected.append(ReceivedEvent(event.event or "message", text, last))
    assert received == expected
    assert (parser.last_event_id, parser.retry) == (last, retry)


@given(st.binary(max_size=60) | st.text("data:ievnt \r\n\ufeff", max_size=60).map(str.encode), st.data())
def test_any_split_of_any_bytes_gives_the_same(data: bytes, draw: st.DataObject) -> None:
    whole, cut = EventParser(), EventParser()
    place = draw.draw(st.integers(0, len(data)))
    assert cut.feed(data[:place]) + cut.feed(data[place:]) == whole.feed(data)
    for name in ("last_event_id", "retry", "comments"):
        assert getattr(cut, name) == getattr(whole, name)
