"""A client's view of an answer: complete, cut short, or reset, and never one for the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.testing import Outcome, parse_response

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nx-sum: 1\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
ALL = {"length": LENGTH, "chunked": CHUNKED, "close": CLOSE}
framed = pytest.mark.parametrize("data", [LENGTH, CHUNKED], ids=["length", "chunked"])


@framed
def test_a_whole_answer_is_complete_and_leaves_what_follows(data: bytes) -> None:
    answer, rest = parse_response(data + b"HTTP/1.1 204")
    assert (answer.complete, answer.status, answer.reason, answer.body) == (True, 200, "OK", b"hello")
    assert rest == b"HTTP/1.1 204"


@framed
@pytest.mark.parametrize("ended", [Outcome.TRUNCATED, Outcome.RESET, Outcome.UNFINISHED])
def test_every_part_of_an_answer_is_known_to_be_a_part(data: bytes, ended: Outcome) -> None:
    for size in range(1, len(data)):
        assert parse_response(data[:size], ended=ended)[0].outcome is ended


def test_an_answer_without_length_is_complete_at_fin_and_only_then() -> None:
    assert parse_response(CLOSE, ended=Outcome.TRUNCATED)[0].complete
    assert parse_response(CLOSE, ended=Outcome.RESET)[0].outcome is Outcome.RESET
    assert parse_response(CLOSE)[0].outcome is Outcome.UNFINISHED


def test_no_byte_at_all_is_nothing() -> None:
    assert parse_response(b"", ended=Outcome.TRUNCATED)[0].outcome is Outcome.NOTHING
    assert parse_response(b"", ended=Outcome.RESET)[0].outcome is Outcome.RESET


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 101)])
def test_answers_that_have_no_body_have_none(method: str, status: int) -> None:
    data = b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\nrest" % status
    answer, rest = parse_response(data, method=method)
    assert (answer.complete, answer.body, rest) == (True, b"", b"rest")


def test_interim_answers_are_told_apart() -> None:
    answer, _ = parse_response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + LENGTH)
    assert answer.interim == (100, 103)
    assert answer.status == 200


def test_trailers_and_headers_are_read() -> None:
    answer, _ = parse_response(CHUNKED)
    assert answer.header("Transfer-Encoding") == "chunked"
    assert answer.header("x-none") is None
    assert answer.trailers == (("x-sum", "1"),)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
    ],
)
def test_what_is_not_http_is_not_taken_for_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_response(data)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5))
def test_chunks_are_joined(pieces: list[bytes]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    answer, rest = parse_response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
    assert (answer.complete, answer.body, rest) == (True, b"".join(pieces), b"")
