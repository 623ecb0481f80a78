"""The access log's formats, line by line; nothing a client sends changes their shape."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.ending import REASONS, Ending, How, Phase
from sojourn.events import RequestEnded
from sojourn.observe.log.access import AccessForm, Line
from sojourn.observe.log.formats import Combined, Human, Json
from tests.observe.log.samples import CONNECTION, LEFT, OLD, OPENED, REQUEST, SCANNER, WHEN

CLF = re.compile(
    r"(?P<host>\S+) - - \[(?P<time>[^]]+)\] "
    r'"(?P<asked>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-) '
    r'"(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)" '
    r"(?P<duration>\d+\.\d{3}) (?P<code>[-A-Za-z]{2}) (?P<reason>\w+) (?P<connection>\d+) (?P<trace>\S+)\n"
)

nasty = st.binary() | st.text(st.sampled_from('a? "\\\n\r\x1b\x7f\x9b[]')).map(str.encode)
nasty_text = st.text(st.characters()) | st.text(st.sampled_from('a "\\\n\r\x1b\x7f\x9b\u2028\udc80'))
endings = st.builds(
    Ending, st.sampled_from(sorted(REASONS)), st.sampled_from(Phase), st.none() | st.sampled_from(How), nasty_text
)
requests = st.builds(
    REQUEST.__class__,
    connection=st.integers(0, 2**40),
    client=st.tuples(nasty_text, st.integers(0, 65535)) | st.none(),
    method=nasty_text,
    target=nasty,
    version=nasty_text,
    status=st.integers(100, 599),
    ending=endings,
    duration=st.floats(0, 1e6),
    bytes_in=st.integers(0, 2**40),
    bytes_out=st.integers(0, 2**40),
    headers=st.builds(lambda agent, referer: [(b"user-agent", agent), (b"referer", referer)], nasty, nasty),
    trace_id=nasty_text,
)
lines = st.one_of(
    requests,
    st.builds(CONNECTION._replace, peer=nasty_text, path=nasty_text, ending=endings, long=st.just(True)),
    st.builds(OPENED._replace, peer=nasty_text, target=nasty, subprotocol=st.none() | nasty_text),
    st.builds(OLD._replace, peer=nasty_text, path=nasty_text),
)


@given(lines)
def test_json_is_one_object_on_one_line_whatever_a_client_sends(event: Line) -> None:
    line = Json().line(WHEN, event)
    assert re.fullmatch(rb"[ -~]+\n", line)
    assert json.loads(line)["connection"] == event.connection


@given(lines)
def test_combined_is_one_line_with_its_fields_whatever_a_client_sends(event: Line) -> None:
    line = Combined().line(WHEN, event)
    assert not line or CLF.fullmatch(line.decode("ascii"))


@given(lines, st.booleans())
def test_human_is_one_printable_line_whatever_a_client_sends(event: Line, terminal: bool) -> None:
    line = Human(terminal=terminal).line(WHEN, event)
    assert re.fullmatch(rb"[ -~]+\n", line)


@given(lines)
def test_the_only_terminal_escapes_are_our_own(event: Line) -> None:
    line = Human(terminal=True, colour=True).line(WHEN, event)
    assert re.fullmatch(rb"[ -~]+\n", re.sub(rb"\x1b\[3[1236]m([ -~]*?)\x1b\[0m", rb"\1", line))


@given(requests)
def test_a_client_cannot_make_its_line_look_like_another_result(event: RequestEnded) -> None:
    line = Human().line(WHEN, event).decode("ascii")
    assert line.split()[3:5] == ["->", str(event.status)]


def test_json_names_every_value_of_a_request() -> None:
    assert json.loads(Json().line(WHEN, REQUEST)) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "event": "request",
        "connection": 12,
        "peer": "203.0.113.9:51234",
        "method": "GET",
        "path": "/items/42",
        "query": "expand=owner",
        "version": "1.1",
        "kind": "http",
        "status": 200,
        "duration": 0.012346,
        "bytes_in": 0,
        "bytes_out": 532,
        "term": "--",
        "reason": "completed",
        "who": "none",
        "phase": "response",
        "how": None,
        "fault": "none",
        "user_agent": "curl/8.5",
        "referer": "https://example.org/",
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            REQUEST._replace(ending=LEFT._replace(detail="of 12 bytes")),
            {"term": "CD", "reason": "client_closed_mid_response", "who": "client", "phase": "response", "how": "rst",
             "fault": "client", "detail": "of 12 bytes"},
        ),
        (REQUEST._replace(trace_id="ab" * 16), {"trace_id": "ab" * 16}),
        (REQUEST._replace(kind="event_stream", route="/items/{id}"), {"kind": "event_stream", "route": "/items/{id}"}),
        (REQUEST._replace(headers=[]), {"user_agent": None, "referer": None}),
        (REQUEST._replace(target=b"/"), {"path": "/", "query": ""}),
        (REQUEST._replace(target="/größe?q=é\n".encode() + b"\xff"), {"path": "/größe", "query": "q=é\n\\xff"}),
        (
            CONNECTION._replace(long=True, ws_sent=1001, ws_received=1000, unsent=9),
            {"event": "connection_ended", "peer": "[2001:db8::1]:51234", "protocol": "http", "path": "/items",
             "duration": 75.5, "unsent": 9, "requests": 3, "ws_sent": 1001, "ws_received": 1000, "term": "--"},
        ),
        (SCANNER, {"protocol": None, "path": None, "term": "cR", "who": "client_silent", "how": "timeout"}),
        (OPENED, {"event": "websocket_opened", "path": "/chat", "query": "room=1", "subprotocol": "v2.chat"}),
        (OLD, {"event": "connection_open", "protocol": "http", "path": "/events", "age": 60.01, "bytes_out": 1234}),
    ],
)  # fmt: skip
def test_json_tells(event: Line, expected: dict[str, Any]) -> None:
    record = json.loads(Json().line(WHEN, event))
    assert {key: record[key] for key in expected} == expected


def test_json_does_not_carry_one_ending_over_to_the_next_line() -> None:
    form = Json()
    reasons = [json.loads(form.line(WHEN, REQUEST._replace(ending=e)))["term"] for e in (LEFT, REQUEST.ending, LEFT)]
    assert reasons == ["CD", "--", "CD"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            REQUEST,
            (
                '203.0.113.9 - - [14/Nov/2023:22:13:20 +0000] "GET /items/42?expand=owner HTTP/1.1" 200 532 '
                '"https://example.org/" "curl/8.5" 0.012 -- completed 12 -'
            ),
        ),
        (
            REQUEST._replace(client=("::1", 80), target=b'/"\x1b', bytes_out=0, headers=[], ending=LEFT),
            (
                '::1 - - [14/Nov/2023:22:13:20 +0000] "GET /\\"\\x1b HTTP/1.1" 200 - "-" "-" 0.012 CD '
                "client_closed_mid_response 12 -"
            ),
        ),
        (
            REQUEST._replace(method="WEBSOCKET", target=b"/ws", status=101, client=None, headers=REQUEST.headers[:1]),
            'unix - - [14/Nov/2023:22:13:20 +0000] "GET /ws HTTP/1.1" 101 532 "-" "curl/8.5" 0.012 -- completed 12 -',
        ),
        (
            SCANNER,
            '2001:db8::1 - - [14/Nov/2023:22:13:20 +0000] "-" 408 2000 "-" "-" 75.500 cR request_headers_timeout 12 -',
        ),
        (
            SCANNER._replace(ending=Ending("plain_on_tls", Phase.TLS), bytes_out=0, peer=""),
            '- - - [14/Nov/2023:22:13:20 +0000] "-" 000 - "-" "-" 75.500 PT plain_on_tls 12 -',
        ),
    ],
)
def test_combined_is_apaches_line_and_five_fields(event: Line, line: str) -> None:
    assert Combined().line(WHEN, event) == f"{line}\n".encode()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (REQUEST, "GET /items/42?expand=owner -> 200 12.3ms 532B #12"),
        (
            REQUEST._replace(ending=LEFT._replace(detail="at 1 of 2"), duration=2.5, bytes_out=1_234_567),
            'GET /items/42?expand=owner -> 200 2.50s 1.2MB client_closed_mid_response CD rst "at 1 of 2" #12',
        ),
        (REQUEST._replace(target=b"/a -> 200"), "GET /a\\x20->\\x20200 -> 200 12.3ms 532B #12"),
        (SCANNER, "connection - #12 [2001:db8::1]:51234 -> end 75.50s 2.0kB request_headers_timeout cR timeout"),
        (CONNECTION._replace(long=True, duration=7200.0, bytes_out=3 * 10**9),
         "http /items #12 [2001:db8::1]:51234 -> end 120min 3.0GB"),
        (OPENED, "websocket /chat?room=1 #7 203.0.113.9:51234 -> open v2.chat"),
        (OPENED._replace(subprotocol=None), "websocket /chat?room=1 #7 203.0.113.9:51234 -> open"),
        (OLD, "http /events #7 203.0.113.9:51234 -> still open 60.01s in 90B out 1.2kB"),
    ],
)  # fmt: skip
def test_human_is_short(event: Line, line: str) -> None:
    time, _, rest = Human().line(WHEN, event).decode().partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:20\.123", time)
    assert rest == f"{line}\n"


def test_human_is_aligned_on_a_terminal() -> None:
    form = Human(terminal=True)
    events = [REQUEST, REQUEST._replace(target=b"/", duration=75.0, bytes_out=12_345)]
    assert len({len(form.line(WHEN, event)) for event in events}) == 1


@pytest.mark.parametrize(("status", "paint"), [(200, b"32"), (304, b"36"), (404, b"33"), (500, b"31")])
def test_human_colours_the_status(status: int, paint: bytes) -> None:
    line = Human(colour=True).line(WHEN, REQUEST._replace(status=status))
    assert b"\x1b[%bm%d\x1b[0m" % (paint, status) in line


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (Json(), b'"level":"warning","event":"log_lines_lost","lines":3,"cause":"dropped"}\n'),
        (Combined(), b"# [14/Nov/2023:22:13:20 +0000] 3 lines lost (dropped)\n"),
        (Human(), b" 3 lines lost (dropped)\n"),
    ],
)
def test_every_format_can_say_that_lines_are_missing(form: AccessForm, line: bytes) -> None:
    assert form.gap(WHEN, 3, "dropped").endswith(line)


@pytest.mark.parametrize("form", [Json(), Combined(), Human()])
def test_a_line_of_ordinary_text_is_written_to_a_pipe_in_one_piece(form: AccessForm) -> None:
    long = b"x" * 30_000
    assert (
        len(form.line(WHEN, REQUEST._replace(target=long, headers=[(b"user-agent", long), (b"referer", long)]))) <= 4096
    )


@pytest.mark.parametrize("form", [Json(), Combined(), Human()])
@pytest.mark.parametrize("word", sorted(REASONS))
def test_every_reason_can_be_written(form: AccessForm, word: str) -> None:
    assert word.encode() in form.line(WHEN, REQUEST._replace(ending=Ending(word, Phase.HANDLER))) or word == "completed"


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLED = REQUEST._replace(headers=[(b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())])


@pytest.mark.parametrize("form", [Json(), Combined(), Human()])
def test_every_line_of_a_request_has_its_connection_and_its_trace(form: AccessForm) -> None:
    assert TRACE in form.line(WHEN, CALLED).decode()
    assert re.search(r"\b12\b", form.line(WHEN, CALLED).decode())
    own = form.line(WHEN, CALLED._replace(trace_id="ab" * 16)).decode()
    assert "ab" * 16 in own
    assert TRACE not in own


@pytest.mark.parametrize("form", [Json(), Combined(), Human()])
def test_a_traceparent_that_is_not_valid_is_no_trace(form: AccessForm) -> None:
    bad = REQUEST._replace(headers=[(b"traceparent", b'00-" forged-01')])
    assert b"forged" not in form.line(WHEN, bad)


def test_what_was_written_before_does_not_reach_the_next_line() -> None:
    """Texts are kept by what they were made of: each line says what its own request said."""
    form = Json()
    events = [
        REQUEST,
        REQUEST._replace(target=b"/b", kind="event_stream", client=None),
        REQUEST._replace(method="POST", route="/items/{id}", headers=[]),
        REQUEST._replace(headers=REQUEST.headers[:1], client=("203.0.113.9", 1)),
    ]
    fresh = [Json().line(WHEN, event) for event in events]
    assert [form.line(WHEN, event) for event in events + events] == fresh + fresh


def test_a_scanner_that_never_asks_twice_for_the_same_costs_no_memory() -> None:
    form = Json()
    for number in range(5000):
        form.line(WHEN, REQUEST._replace(target=b"/%d" % number, client=("203.0.113.9", number)))
        form.line(WHEN, REQUEST._replace(target=b"/" + b"x" * 500 + b"%d" % number))
    assert len(form._asked) <= 1024
    assert len(form._clients) <= 1024
    assert max(map(len, form._asked.values())) <= 400
