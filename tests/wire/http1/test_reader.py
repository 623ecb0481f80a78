"""A RequestReader: one request at a time, in order, bounded, and with nothing of one in the next."""

from __future__ import annotations

import pytest

from sojourn.config import Limits
from sojourn.errors import ProtocolError
from sojourn.wire.http1.parser import ParserPool
from sojourn.wire.http1.reader import RequestReader
from tests.wire.http1.reading import Sink, head, pieces, read

POST = b"POST / HTTP/1.1"
CHUNKED = head(b"transfer-encoding: chunked", line=POST)


def reader_of(sink: Sink | None = None, pool: ParserPool | None = None) -> RequestReader:
    return RequestReader(sink or Sink(), pool or ParserPool(), Limits())


# One at a time


def test_what_follows_a_request_is_not_read_before_its_turn() -> None:
    sink = Sink()
    reader = reader_of(sink)
    second = head(line=b"GET /2 HTTP/1.1")
    reader.feed(head(line=b"GET /1 HTTP/1.1") + second[:20])
    reader.feed(second[20:] + b"garbage")
    assert [heard.target for heard in sink.heard] == [b"/1"]
    assert reader.busy
    assert reader.rest == second + b"garbage"
    reader.next()
    assert [heard.target for heard in sink.heard] == [b"/1", b"/2"]
    assert reader.busy
    reader.next()
    assert not reader.busy
    assert reader.in_head
    assert reader.rest == b"garbage"


def test_a_thousand_pipelined_requests_are_read_in_order_and_without_recursion() -> None:
    data = b"".join(
        head(b"content-length: 2", line=b"POST /%d HTTP/1.1" % number) + b"ab"
        if number % 3
        else head(b"transfer-encoding: chunked", line=b"POST /%d HTTP/1.1" % number) + b"2\r\nab\r\n0\r\n\r\n"
        for number in range(1000)
    )
    outcome = read([data])
    assert [heard.target for heard in outcome.requests] == [b"/%d" % number for number in range(1000)]
    assert {heard.body for heard in outcome.requests} == {b"ab"}
    assert outcome.rest == b""


def test_a_sink_may_ask_for_the_next_request_at_the_end_of_one() -> None:
    """The handler does, when an answer was complete before its request was."""

    class Eager(Sink):
        def request_ended(self) -> None:
            super().request_ended()
            reader.next()

    for first in (
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        head(b"content-length: 5", line=POST) + b"hello",
        CHUNKED + b"5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    ):
        data = first + head(line=b"GET /2 HTTP/1.1") + first
        for cut in range(1, len(data)):
            sink = Eager()
            reader = reader_of(sink)
            reader.feed(data[:cut])
            reader.feed(data[cut:])
            assert [heard.target for heard in sink.heard] == [b"/", b"/2", b"/"]
            assert all(heard.complete for heard in sink.heard)


def test_empty_lines_in_front_of_a_request_are_ignored_however_they_come() -> None:
    for count in range(1, 5):
        data = b"\r\n" * count + head()
        for parts in ([data], pieces(data, None), [data[:1], data[1:]], [data[: count * 2 - 1], data[count * 2 - 1 :]]):
            outcome = read(parts)
            assert outcome.verdict is None
            assert len(outcome.requests) == 1


def test_an_empty_line_is_no_beginning_of_a_head() -> None:
    reader = reader_of()
    for data, begun in ((b"\r", False), (b"\n", False), (b"\r\n", False), (b"G", True)):
        reader.feed(data)
        assert reader.in_head is begun


# Early refusal


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"\0", 400),
        (b"<", 400),
        (b"{", 400),
        (b" ", 400),
        (b"\n", 400),
        (b"\rG", 400),
        (b"\r\n" * 5, 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"hello\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\n", 400),
        (b"GET /" + b"a" * 8300, 414),
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 32768, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5500, 431),
    ],
)
def test_what_cannot_become_a_head_is_refused_before_it_is_complete(begin: bytes, status: int) -> None:
    for parts in ([begin], pieces(begin, None) if len(begin) < 1000 else pieces(begin, range(0, len(begin), 500))):
        refusal = read(parts).refusal
        assert refusal is not None
        assert refusal.status == status


@pytest.mark.parametrize(
    "begin", [b"G", b"GET", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nhost:"]
)
def test_what_can_become_a_head_is_waited_for(begin: bytes) -> None:
    outcome = read([begin])
    assert outcome == ((), None, begin)


def test_a_head_that_comes_byte_by_byte_costs_no_more_than_its_limit() -> None:
    reader = reader_of()
    begin = b"GET / HTTP/1.1\r\nx: "

    def endless() -> None:
        for _ in range(40_000):
            reader.feed(begin[len(reader.rest) : len(reader.rest) + 1] or b"a")

    with pytest.raises(ProtocolError, match="431"):
        endless()
    assert len(reader.rest) <= Limits().header_bytes + 1


# Bodies


def test_a_body_is_handed_on_as_it_comes() -> None:
    sink = Sink()
    reader = reader_of(sink)
    reader.feed(head(b"content-length: 6", line=POST))
    for number in range(1, 6):
        reader.feed(b"x")
        assert sink.heard[0].body == b"x" * number
        assert not sink.heard[0].complete
        assert reader.in_body
    reader.feed(b"x")
    assert sink.heard[0].complete
    assert not reader.in_body


@pytest.mark.parametrize("framing", [b"content-length: 5", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("connection", [b"upgrade", b"Upgrade, close", b"keep-alive, upgrade"])
def test_the_body_of_a_request_that_asks_for_an_upgrade_is_read_as_its_body(framing: bytes, connection: bytes) -> None:
    body = b"hello" if framing.startswith(b"content") else b"5\r\nhello\r\n0\r\n\r\n"
    data = head(b"connection: " + connection, b"upgrade: h2c", framing, line=POST) + body
    follows = head(line=b"GET /2 HTTP/1.1")
    pool = ParserPool()
    for cut in range(1, len(data)):
        first, *second = read([data[:cut], data[cut:] + follows], pool=pool).requests
        assert first.body == b"hello"
        assert first.complete
        assert not first.upgrade
        assert first.headers[1][0] == b"connection"
        assert [heard.target for heard in second] == ([] if b"close" in connection else [b"/2"])


def test_what_follows_an_upgrade_without_body_is_left_alone() -> None:
    data = head(b"connection: Upgrade", b"upgrade: websocket") + b"\x81\x80\0\0\0\0"
    for cut in range(len(data) - 6, len(data)):
        sink = Sink()
        reader = reader_of(sink)
        reader.feed(data[:cut])
        reader.feed(data[cut:])
        assert sink.heard[0].upgrade
        assert sink.heard[0].complete
        assert bytes(reader.rest) == b"\x81\x80\0\0\0\0"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_any_method_may_have_a_body(method: bytes) -> None:
    data = head(b"content-length: 5", line=method + b" / HTTP/1.1") + b"hello" + head(line=b"GET /2 HTTP/1.1")
    assert [(heard.target, heard.body) for heard in read([data]).requests] == [(b"/", b"hello"), (b"/2", b"")]


def test_trailers_are_read_and_change_nothing() -> None:
    for trailer in (
        b"x: y", b"host: b.example", b"connection: close", b"connection: upgrade\r\nupgrade: x",
        b"expect: 100-continue", b"authorization: me", b"te: trailers",
    ):  # fmt: skip
        data = CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"
        outcome = read([data + data])
        assert [heard.body for heard in outcome.requests] == [b"hello", b"hello"]
        assert all(heard.complete and heard.keep_alive and len(heard.headers) == 2 for heard in outcome.requests)


def test_a_body_full_of_line_ends_is_read_and_the_next_request_found() -> None:
    text = b"\r\n\r\n" * 800
    data = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text) + head(line=b"GET /2 HTTP/1.1")
    first, second = read([data]).requests
    assert first.body == text
    assert second.target == b"/2"


def test_a_request_behind_a_body_of_nothing_but_line_ends_is_not_served_rather_than_misread() -> None:
    text = b"\r\n\r\n" * 5000
    data = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text) + head(line=b"GET /2 HTTP/1.1")
    sink = Sink()
    reader = reader_of(sink)
    reader.feed(data)
    (first,) = sink.heard
    assert first.body == text
    assert first.complete
    assert reader.exhausted
    assert reader.rest == b""


def test_many_small_chunks_are_no_attack() -> None:
    data = CHUNKED + b"1;a=b\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    outcome = read(pieces(data, range(0, len(data), 5000)))
    assert outcome.verdict is None
    assert outcome.requests[0].body == b"x" * 20_000


# Parsers are shared


BEFORE = {
    "HTTP/1.0": head(line=b"GET / HTTP/1.0"),
    "HTTP/1.0 with a body": head(b"content-length: 3", line=b"POST / HTTP/1.0") + b"abc",
    "close": head(b"connection: close"),
    "close with a body": head(b"connection: close", b"content-length: 3", line=POST) + b"abc",
    "close with a chunked body": head(b"connection: close", b"transfer-encoding: chunked", line=POST) + b"0\r\n\r\n",
    "a chunked body": CHUNKED + b"1\r\na\r\n0\r\nx: y\r\n\r\n",
    "trailers that ask for an upgrade": CHUNKED + b"0\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "an upgrade": head(b"connection: upgrade", b"upgrade: x"),
    "an upgrade with a body": head(b"connection: upgrade", b"upgrade: x", b"content-length: 3", line=POST) + b"abc",
    "an upgrade with a chunked body": head(
        b"connection: upgrade", b"upgrade: x", b"transfer-encoding: chunked", line=POST
    )
    + b"0\r\n\r\n",
    "HEAD": head(line=b"HEAD / HTTP/1.1"),
    "every flag": head(b"te: trailers", b"expect: 100-continue", b"content-length: 1", b"x-forwarded-for: a", line=POST)
    + b"a",
    "a refused head": head(b"x : y"),
    "a refused Host": head(b"host: b"),
    "a refused body": CHUNKED + b"zzz\r\n",
    "half a head": head()[:30],
    "half a body": head(b"content-length: 3", line=POST) + b"a",
    "half a chunk": CHUNKED + b"5\r\nhel",
    "a target that is too long": head(line=b"GET /" + b"a" * 8200 + b" HTTP/1.1"),
    "too many headers": head(*[b"x: y"] * 101),
    "CONNECT": head(line=b"CONNECT a:1 HTTP/1.1"),
}


@pytest.mark.parametrize("before", BEFORE)
def test_nothing_of_a_request_is_left_for_the_next_connection(before: str) -> None:
    for after in BEFORE.values():
        pool = ParserPool()
        for _ in range(2):
            read([BEFORE[before]], pool=pool)
        assert read([after], pool=pool) == read([after])
        assert read(pieces(after, range(0, len(after), 7)), pool=pool) == read(pieces(after, range(0, len(after), 7)))


def test_an_idle_connection_owns_no_parser() -> None:
    pool = ParserPool()
    readers = [reader_of(pool=pool) for _ in range(50)]
    for reader in readers:
        reader.feed(head())
        reader.next()
        reader.feed(b"GET / HT")
    assert len(pool.idle) == 1


# What a head says


@pytest.mark.parametrize(
    ("line", "lines", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.1", ["connection: close"], False),
        ("1.1", ["connection: Close"], False),
        ("1.1", ["connection: keep-alive, close"], False),
        ("1.1", ["connection: close", "connection: keep-alive"], False),
        ("1.1", ["connection: keep-alive", "connection: close"], False),
        ("1.1", ["connection: x, y"], True),
        ("1.1", ["connection: xclose"], True),
        ("1.0", [], False),
        ("1.0", ["connection: keep-alive"], True),
        ("1.0", ["connection: x, Keep-Alive"], True),
        ("1.0", ["connection: keep-alive", "connection: close"], False),
        ("1.0", ["connection: close", "connection: keep-alive"], False),
        ("1.0", ["connection: close, keep-alive"], False),
        ("1.0", ["connection: x"], False),
        ("1.0", ["connection:"], False),
    ],
)
def test_close_is_close_whatever_else_is_said(line: str, lines: list[str], keep_alive: bool) -> None:
    (heard,) = read([head(*[each.encode() for each in lines], line=f"GET / HTTP/{line}".encode())]).requests
    assert heard.keep_alive is keep_alive


def test_http_1_0_needs_no_host_and_waits_for_no_100() -> None:
    data = head(b"expect: 100-continue", b"content-length: 0", line=b"POST / HTTP/1.0", host=None)
    reader = reader_of()
    seen: list[bool] = []

    class Asking(Sink):
        def request_received(self, head: object) -> None:
            seen.append(head.expect_continue)  # type: ignore[attr-defined]

        def request_ended(self) -> None:
            pass

    reader = reader_of(Asking())
    reader.feed(data)
    assert seen == [False]


def test_headers_keep_their_order_and_doubles_and_their_bytes() -> None:
    lines = [b"X-B: 1", b"x-a:  2\t", b"X-b:\xc3\xbc\x80", b"x-empty:", b"x_under: 3", b"cookie: a=b", b"cookie: c=d"]
    (heard,) = read([head(*lines)]).requests
    assert heard.headers[1:] == (
        (b"x-b", b"1"),
        (b"x-a", b"2"),
        (b"x-b", b"\xc3\xbc\x80"),
        (b"x-empty", b""),
        (b"x_under", b"3"),
        (b"cookie", b"a=b"),
        (b"cookie", b"c=d"),
    )


@pytest.mark.parametrize("length", [b"0", b"5", b"005", b"00000000000000000000000005"])
def test_leading_zeros_of_a_length_mean_nothing(length: bytes) -> None:
    body = b"x" * int(length)
    first, second = read([head(b"content-length: " + length, line=POST) + body + head()]).requests
    assert first.body == body
    assert second.method == b"GET"
