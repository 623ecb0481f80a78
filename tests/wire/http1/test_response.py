"""Response heads, chunks and trailers: what an application may say, and what it can't smuggle in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ApplicationError
from sojourn.wire.http1.response import CONTINUE, ResponseRenderer, chunk, interim, last_chunk, status_line

BAD_NAMES: list[Any] = [
    b"", b" ", b"x y", b"x:", b"x\r\ny", b"x\n", b"x\0", b"\xc3\xbc", b"x(", b"x ", b":x", "text",
    None, 7, bytearray(b"x"),
]  # fmt: skip
BAD_VALUES: list[Any] = [
    b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b", b"\r\n\r\n<html>", b"a\r\n", b"\n", "text", None, 7,
]  # fmt: skip


def render(status: Any, *headers: Any) -> bytes:
    return ResponseRenderer().render(status, headers).data


def test_a_head_is_the_status_line_and_the_headers_in_their_order() -> None:
    cookies = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]
    data = render(200, (b"X-B", b"1"), (b"x-a", b""), (b"x-b", b"\xc3\xbc\t2"), *cookies)
    assert data == (
        b"HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: \r\nx-b: \xc3\xbc\t2\r\nset-cookie: a\r\nset-cookie: b\r\n"
    )  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_token_is_refused(name: Any) -> None:
    renderer = ResponseRenderer()
    for _ in range(2):  # also when it has been seen before
        with pytest.raises(ApplicationError):
            renderer.render(200, [(b"x-good", b"1"), (name, b"1")])
    with pytest.raises(ApplicationError):
        interim(103, [(name, b"1")])
    with pytest.raises(ApplicationError):
        last_chunk([(name, b"1")])


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize(
    "name", [b"x", b"content-type", b"content-length", b"connection", b"date", b"transfer-encoding"]
)
def test_no_value_can_end_its_line(name: bytes, value: Any) -> None:
    try:
        data = render(200, (name, value), (b"x-after", b"1"))
    except ApplicationError:
        return
    # What the server leaves out may hold anything.
    assert name in (b"connection", b"transfer-encoding")
    assert data == b"HTTP/1.1 200 OK\r\nx-after: 1\r\n"


@pytest.mark.parametrize("value", BAD_VALUES)
def test_no_value_of_a_trailer_or_an_interim_response_can_end_its_line(value: Any) -> None:
    with pytest.raises(ApplicationError):
        interim(103, [(b"link", value)])
    with pytest.raises(ApplicationError):
        last_chunk([(b"x", value)])


@given(
    name=st.binary(max_size=6) | st.sampled_from([b"x", b"date"]),
    value=st.binary(max_size=12) | st.text("ab\r\n\0 :", max_size=8).map(str.encode),
)
def test_whatever_an_application_sends_is_one_header_line_or_refused(name: bytes, value: bytes) -> None:
    try:
        head = ResponseRenderer().render(200, [(b"x-before", b"1"), (name, value), (b"x-after", b"2")])
    except ApplicationError:
        return
    data = head.data
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
    assert data.count(b"\n") in (3, 4)
    if not any((byte < 32 and byte != 9) or byte == 127 for byte in value):  # h11 takes no control bytes
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        client.receive_data(data + (b"" if head.content_length is not None else b"content-length: 0\r\n") + b"\r\n")
        event = client.next_event()
        assert isinstance(event, h11.Response)
        names = [name for name, _ in event.headers if name not in (b"content-length",)]
        assert names[0] == b"x-before"
        assert names[-1] == b"x-after"


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1 ", b" 1", b"1.0", b"0x1", b"1,1", b"1\r\n", "\uff11".encode(), b"9" * 5000]
)
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(ApplicationError):
        render(200, (b"content-length", value))


def test_there_is_one_content_length() -> None:
    head = ResponseRenderer().render(200, [(b"content-length", b"5"), (b"Content-Length", b"05")])
    assert head.data == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
    assert head.content_length == 5
    with pytest.raises(ApplicationError):
        render(200, (b"content-length", b"5"), (b"content-length", b"6"))


def test_framing_and_connection_are_the_servers() -> None:
    head = ResponseRenderer().render(
        200, [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"gzip"), (b"Connection", b"keep-alive")]
    )
    assert head.data == b"HTTP/1.1 200 OK\r\n"
    assert not head.close


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close"])
def test_an_application_may_ask_for_close(value: bytes) -> None:
    head = ResponseRenderer().render(200, [(b"connection", value)])
    assert head.close
    assert b"lose" not in head.data


def test_204_has_no_length_and_304_may_have_one() -> None:
    no_content = ResponseRenderer().render(204, [(b"content-length", b"0")])
    assert no_content.data == b"HTTP/1.1 204 No Content\r\n"
    assert no_content.content_length is None
    not_modified = ResponseRenderer().render(304, [(b"content-length", b"12")])
    assert not_modified.data == b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n"
    assert not_modified.content_length == 12


def test_a_date_of_the_application_is_kept() -> None:
    head = ResponseRenderer().render(200, [(b"DATE", b"Thu, 01 Jan 1970 00:00:00 GMT")])
    assert head.date
    assert head.data.endswith(b"DATE: Thu, 01 Jan 1970 00:00:00 GMT\r\n")


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"200 OK"), (299, b"299 "), (418, b"418 I'm a Teapot"), (999, b"999 ")]
)
def test_a_status_line_has_a_phrase_or_none(status: int, line: bytes) -> None:
    assert status_line(status) == b"HTTP/1.1 " + line + b"\r\n"
    assert status_line(HTTPStatus.NOT_FOUND) == b"HTTP/1.1 404 Not Found\r\n"


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 1000, -200, "200", b"200", None, True, 200.5])
def test_a_status_that_is_no_final_one_is_refused(status: Any) -> None:
    with pytest.raises(ApplicationError):
        render(status)


@pytest.mark.parametrize("headers", [None, 5, [(b"x",)], [(b"x", b"y", b"z")], [b"x"], ["x: y"], [None], {b"x": b"y"}])
def test_headers_that_are_no_pairs_are_refused(headers: Any) -> None:
    with pytest.raises(ApplicationError):
        ResponseRenderer().render(200, headers)


def test_header_names_are_remembered_up_to_a_bound() -> None:
    renderer = ResponseRenderer()
    for number in range(5000):
        renderer.render(200, [(b"x-%d" % number, b"1")])
    assert len(renderer._names) <= 512


def test_heads_that_come_again_are_remembered_up_to_a_bound_and_hold_no_secret() -> None:
    renderer = ResponseRenderer()
    for number in range(2000):
        head = renderer.render(200, [(b"content-length", b"%d" % number)])
        assert head.content_length == number
        renderer.render(200, [(b"content-type", b"text/plain"), (b"set-cookie", b"hunter2")])
        renderer.render(200, [(b"content-type", b"x" * 2000)])
    assert len(renderer._heads) <= 512
    assert all(len(head.data) <= 1024 and b"hunter2" not in head.data for head in renderer._heads.values())


def test_a_remembered_head_is_the_same_as_a_new_one() -> None:
    renderer = ResponseRenderer()
    for status in (200, 204, 304):
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        assert renderer.render(status, headers) == renderer.render(status, iter(headers))
        assert renderer.render(status, headers) == ResponseRenderer().render(status, headers)


def test_a_chunk_has_its_size_and_no_data_is_no_chunk() -> None:
    assert chunk(b"hello") == b"5\r\nhello\r\n"
    assert chunk(b"x" * 4096)[:6] == b"1000\r\n"
    assert chunk(b"") == b""


def test_the_last_chunk_carries_the_trailers() -> None:
    assert last_chunk([]) == b"0\r\n\r\n"
    assert last_chunk([(b"x-sum", b"1"), (b"y", b"")]) == b"0\r\nx-sum: 1\r\ny: \r\n\r\n"


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"connection"])
def test_what_frames_a_message_is_no_trailer(name: bytes) -> None:
    with pytest.raises(ApplicationError):
        last_chunk([(name, b"5")])


def test_interim_responses_are_complete() -> None:
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert interim(103, [(b"link", b"</a.css>; rel=preload")]) == (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    )
