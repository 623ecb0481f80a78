"""What a request may not be: each with its status and reason, however its bytes are cut (RFC 9110, RFC 9112)."""

from __future__ import annotations

import pytest

from sojourn.config import Limits
from tests.wire.http1.reading import Read, head, pieces, read

POST = b"POST / HTTP/1.1"
LINE, HEADERS, BODY = "invalid_request_line", "invalid_request_headers", "invalid_request_body"
VERSION, METHOD, CODING = "unsupported_version", "unsupported_method", "unsupported_transfer_coding"


def with_line(line: bytes) -> bytes:
    return head(line=line)


def with_body(*lines: bytes, body: bytes = b"") -> bytes:
    return head(*lines, line=POST) + body


def chunked(body: bytes) -> bytes:
    return with_body(b"transfer-encoding: chunked", body=body)


# title: (bytes, status, reason)
REQUEST_LINES: dict[str, tuple[bytes, int, str]] = {
    "two spaces before the target": (with_line(b"GET  / HTTP/1.1"), 400, LINE),
    "two spaces before the version": (with_line(b"GET /  HTTP/1.1"), 400, LINE),
    "a space at the end": (with_line(b"GET / HTTP/1.1 "), 400, LINE),
    "a space at the front": (with_line(b" GET / HTTP/1.1"), 400, LINE),
    "a tab instead of a space": (with_line(b"GET\t/ HTTP/1.1"), 400, LINE),
    "a space in the target": (with_line(b"GET /a b HTTP/1.1"), 400, LINE),
    "no target": (with_line(b"GET HTTP/1.1"), 400, LINE),
    "an empty target": (with_line(b"GET  HTTP/1.1"), 400, LINE),
    "no version (HTTP/0.9)": (b"GET /\r\n\r\n", 400, LINE),
    "no version, one word": (b"GET\r\n\r\n", 400, LINE),
    "HTTP/0.9 by name": (with_line(b"GET / HTTP/0.9"), 505, VERSION),
    "HTTP/1.2": (with_line(b"GET / HTTP/1.2"), 505, VERSION),
    "HTTP/2.0": (with_line(b"GET / HTTP/2.0"), 505, VERSION),
    "HTTP/3.0": (with_line(b"GET / HTTP/3.0"), 505, VERSION),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, VERSION),
    "HTTP/2 without a minor version": (with_line(b"GET / HTTP/2"), 400, LINE),
    "HTTP/1.10": (with_line(b"GET / HTTP/1.10"), 400, LINE),
    "HTTP/01.1": (with_line(b"GET / HTTP/01.1"), 400, LINE),
    "http/1.1 in lower case": (with_line(b"GET / http/1.1"), 400, LINE),
    "HTTP/1,1": (with_line(b"GET / HTTP/1,1"), 505, VERSION),
    "RTSP": (with_line(b"OPTIONS * RTSP/1.0"), 400, LINE),
    "RTSP with one of its methods": (with_line(b"DESCRIBE rtsp://a.example/ RTSP/1.0"), 400, LINE),
    "an RTSP method in HTTP": (with_line(b"DESCRIBE / HTTP/1.1"), 501, METHOD),
    "ICE": (with_line(b"SOURCE / ICE/1.0"), 400, LINE),
    "ICE with GET": (with_line(b"GET / ICE/1.0"), 400, LINE),
    "a vertical tab in the version": (with_line(b"GET / HTTP/1.1\x0b"), 400, LINE),
    "a bare LF after the request line": (b"GET / HTTP/1.1\nhost: a.example\r\n\r\n", 400, LINE),
    "bare LFs everywhere": (b"GET / HTTP/1.1\nhost: a.example\n\n", 400, LINE),
    "a bare CR after the request line": (b"GET / HTTP/1.1\rhost: a.example\r\n\r\n", 400, LINE),
    "a bare CR in the target": (with_line(b"GET /\ra HTTP/1.1"), 400, LINE),
    "a bare CR in front of it": (b"\r" + head(), 400, LINE),
    "a bare CR and a letter in front of it": (b"\rX" + head(), 400, LINE),
    "a bare LF in front of it": (b"\n" + head(), 400, LINE),
    "CRLF and a bare LF in front of it": (b"\r\n\n" + head(), 400, LINE),
    "too many empty lines in front of it": (b"\r\n" * 5 + head(), 400, LINE),
    "empty lines for ever": (b"\r\n" * 50, 400, LINE),
    "a NUL in front of it": (b"\0" + head(), 400, LINE),
    "a byte order mark in front of it": (b"\xef\xbb\xbf" + head(), 400, LINE),
    "a NUL in the target": (with_line(b"GET /\0 HTTP/1.1"), 400, LINE),
    "DEL in the target": (with_line(b"GET /\x7f HTTP/1.1"), 400, LINE),
    "a tab in the target": (with_line(b"GET /\t HTTP/1.1"), 400, LINE),
    "a bare LF and a header in the target": (with_line(b"GET /\nx:1 HTTP/1.1"), 400, LINE),
    "a bare LF and a header in the query": (with_line(b"GET /?\nx:1 HTTP/1.1"), 400, LINE),
    "a bare LF and a header in absolute-form": (with_line(b"GET http://a.example/\nx:1 HTTP/1.1"), 400, LINE),
    "a bare LF in the target": (with_line(b"GET /a\nb HTTP/1.1"), 400, LINE),
    "a bare LF in the method": (with_line(b"G\nET / HTTP/1.1"), 400, LINE),
    "UTF-8 in the target": (with_line("GET /ü HTTP/1.1".encode()), 400, LINE),
    "a lower-case method": (with_line(b"get / HTTP/1.1"), 501, METHOD),
    "a method nobody knows": (with_line(b"FROB / HTTP/1.1"), 501, METHOD),
    "a method nobody knows, with a hyphen": (with_line(b"FROB-IT / HTTP/1.1"), 501, METHOD),
    "a method that begins like one": (with_line(b"GETS / HTTP/1.1"), 501, METHOD),
    "a method that is no token": (with_line(b"GE(T / HTTP/1.1"), 400, LINE),
    "a method with UTF-8": (with_line("GÉT / HTTP/1.1".encode()), 400, LINE),
    "CONNECT": (with_line(b"CONNECT a.example:443 HTTP/1.1"), 501, METHOD),
    "CONNECT with a path": (with_line(b"CONNECT / HTTP/1.1"), 501, METHOD),
    "a TLS ClientHello": (bytes.fromhex("1603010200010001fc0303") + bytes(600), 400, LINE),
    "a binary protocol": (b"\x00\x00\x00\x2aHELO", 400, LINE),
    "an authority as target": (with_line(b"GET a.example:80 HTTP/1.1"), 400, LINE),
    "a relative path as target": (with_line(b"GET index.html HTTP/1.1"), 400, LINE),
}

HEADER_LINES: dict[str, tuple[bytes, int, str]] = {
    "no Host": (head(host=None), 400, HEADERS),
    "no Host with absolute-form": (head(line=b"GET http://a.example/ HTTP/1.1", host=None), 400, HEADERS),
    "two equal Hosts": (head(b"host: a.example"), 400, HEADERS),
    "two Hosts": (head(b"Host: b.example"), 400, HEADERS),
    "two Hosts in HTTP/1.0": (head(b"host: b.example", line=b"GET / HTTP/1.0"), 400, HEADERS),
    "an empty Host": (head(host=b"host:"), 400, HEADERS),
    "a blank Host": (head(host=b"host:  "), 400, HEADERS),
    "a Host with a path": (head(host=b"host: a.example/b"), 400, HEADERS),
    "a Host with a user": (head(host=b"host: me@a.example"), 400, HEADERS),
    "a Host with a query": (head(host=b"host: a.example?b"), 400, HEADERS),
    "a Host with a scheme": (head(host=b"host: http://a.example"), 400, HEADERS),
    "a list as Host": (head(host=b"host: a.example, b.example"), 400, HEADERS),
    "a Host with a space": (head(host=b"host: a b"), 400, HEADERS),
    "a Host with a port in letters": (head(host=b"host: a:http"), 400, HEADERS),
    "a Host with two ports": (head(host=b"host: a:1:2"), 400, HEADERS),
    "a Host of brackets that are no address": (head(host=b"host: [a.example]"), 400, HEADERS),
    "a Host with half a bracket": (head(host=b"host: [::1"), 400, HEADERS),
    "a Host with a bad escape": (head(host=b"host: a%zz"), 400, HEADERS),
    "a Host with UTF-8": (head(host="host: ü.example".encode()), 400, HEADERS),
    "a Host of 300 bytes": (head(host=b"host: " + b"a" * 300), 400, HEADERS),
    "a space before the colon": (head(b"x : 1"), 400, HEADERS),
    "a tab before the colon": (head(b"x\t: 1"), 400, HEADERS),
    "a space before the colon of Content-Length": (with_body(b"content-length : 3", body=b"abc"), 400, HEADERS),
    "a space before the colon of Transfer-Encoding": (with_body(b"transfer-encoding : chunked"), 400, HEADERS),
    "obs-fold": (head(b"x: 1", b" 2"), 400, HEADERS),
    "obs-fold with a tab": (head(b"x: 1", b"\t2"), 400, HEADERS),
    "obs-fold of nothing": (head(b"x: 1", b" "), 400, HEADERS),
    "obs-fold of Transfer-Encoding": (with_body(b"transfer-encoding:", b" chunked"), 400, HEADERS),
    "a space before the first header": (b"GET / HTTP/1.1\r\n host: a.example\r\n\r\n", 400, HEADERS),
    "a bare LF between headers": (b"GET / HTTP/1.1\r\nhost: a.example\nx: 1\r\n\r\n", 400, HEADERS),
    "a bare LF at the end of the head": (b"GET / HTTP/1.1\r\nhost: a.example\r\n\n\r\n\r\n", 400, HEADERS),
    "a bare LF in a value": (head(b"x: 1\n2"), 400, HEADERS),
    "a bare CR in a value": (head(b"x: 1\r2"), 400, HEADERS),
    "a bare CR in a name": (head(b"x\ry: 2"), 400, HEADERS),
    "CR CR LF": (head(b"x: 1\r"), 400, HEADERS),
    "a NUL in a value": (head(b"x: 1\x002"), 400, HEADERS),
    "a NUL in a name": (head(b"x\x00: 1"), 400, HEADERS),
    "a vertical tab in a value": (head(b"x: 1\x0b2"), 400, HEADERS),
    "a form feed in a value": (head(b"x: 1\x0c"), 400, HEADERS),
    "ESC in a value": (head(b"x: \x1b[0m"), 400, HEADERS),
    "DEL in a value": (head(b"x: \x7f"), 400, HEADERS),
    "no colon": (head(b"x"), 400, HEADERS),
    "an empty name": (head(b": 1"), 400, HEADERS),
    "a name with a space": (head(b"x y: 1"), 400, HEADERS),
    "a name with parentheses": (head(b"x(y): 1"), 400, HEADERS),
    "a name with UTF-8": (head("ü: 1".encode()), 400, HEADERS),
    "a name with a quote": (head(b'"x": 1'), 400, HEADERS),
    "another expectation": (head(b"expect: 200-ok"), 417, "expectation_failed"),
    "two expectations": (head(b"expect: 100-continue, x"), 417, "expectation_failed"),
}

LENGTHS: dict[str, tuple[bytes, int, str]] = {
    f"Content-Length {value.decode('latin-1')!r}": (
        with_body(b"content-length: " + value, body=b"abc"),
        400,
        HEADERS,
    )
    for value in (
        b"", b"-1", b"+3", b"0x3", b"3.0", b"3,3", b"3, 3", b"3 3", b"3;", b"3_0", b"abc", b"3a", b'"3"',
        b"18446744073709551616", b"99999999999999999999999999", "\uff13".encode(),
    )
}  # fmt: skip

FRAMING: dict[str, tuple[bytes, int, str]] = {
    **LENGTHS,
    "two equal Content-Lengths": (with_body(b"content-length: 3", b"content-length: 3", body=b"abc"), 400, HEADERS),
    "two Content-Lengths": (with_body(b"content-length: 3", b"Content-Length: 4", body=b"abcd"), 400, HEADERS),
    "Content-Length, then chunked": (
        with_body(b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
        400,
        HEADERS,
    ),
    "chunked, then Content-Length": (
        with_body(b"transfer-encoding: chunked", b"content-length: 5", body=b"0\r\n\r\n"),
        400,
        HEADERS,
    ),
    "Content-Length and an unknown coding": (
        with_body(b"content-length: 3", b"transfer-encoding: xchunked", body=b"abc"),
        400,
        HEADERS,
    ),
    "an unknown coding and Content-Length": (
        with_body(b"transfer-encoding: xchunked", b"content-length: 3", body=b"abc"),
        400,
        HEADERS,
    ),
    "chunked twice in one line": (with_body(b"transfer-encoding: chunked, chunked"), 400, HEADERS),
    "chunked twice in two lines": (
        with_body(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
        400,
        HEADERS,
    ),
    "chunked, then identity": (
        with_body(b"transfer-encoding: chunked", b"transfer-encoding: identity", body=b"0\r\n\r\n"),
        400,
        HEADERS,
    ),
    "chunked not last": (with_body(b"transfer-encoding: chunked, gzip"), 400, HEADERS),
    "identity": (with_body(b"transfer-encoding: identity"), 501, CODING),
    "identity, then chunked": (
        with_body(b"transfer-encoding: identity", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
        501,
        CODING,
    ),
    "gzip": (with_body(b"transfer-encoding: gzip"), 501, CODING),
    "gzip, chunked": (with_body(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), 501, CODING),
    "xchunked": (with_body(b"transfer-encoding: xchunked"), 501, CODING),
    "chunked with a parameter": (with_body(b"transfer-encoding: chunked;a=b"), 501, CODING),
    "chunked in quotes": (with_body(b'transfer-encoding: "chunked"'), 501, CODING),
    "an empty coding": (with_body(b"transfer-encoding:"), 501, CODING),
    "a comma before chunked": (with_body(b"transfer-encoding: ,chunked", body=b"0\r\n\r\n"), 501, CODING),
    "a vertical tab before chunked": (with_body(b"transfer-encoding: \x0bchunked"), 400, HEADERS),
    "chunked in HTTP/1.0": (
        head(b"transfer-encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
        400,
        HEADERS,
    ),
    "an unknown coding in HTTP/1.0": (head(b"transfer-encoding: gzip", line=b"POST / HTTP/1.0"), 400, HEADERS),
}

CHUNKS: dict[str, tuple[bytes, int, str]] = {
    title: (chunked(body), 400, BODY)
    for title, body in {
        "an empty chunk size": b"\r\n\r\n",
        "a chunk size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
        "a negative chunk size": b"-5\r\nhello\r\n0\r\n\r\n",
        "a chunk size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
        "a chunk size with an underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
        "a chunk size that is no number": b"xyz\r\nhello\r\n0\r\n\r\n",
        "a space before the chunk size": b" 5\r\nhello\r\n0\r\n\r\n",
        "a space after the chunk size": b"5 \r\nhello\r\n0\r\n\r\n",
        "a space before the extension": b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
        "a chunk size of 68 bits": b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "a chunk size of 2**64": b"10000000000000000\r\nhello\r\n0\r\n\r\n",
        "a bare LF after the chunk size": b"5\nhello\r\n0\r\n\r\n",
        "a bare CR after the chunk size": b"5\rhello\r\n0\r\n\r\n",
        "a bare LF after the last chunk": b"5\r\nhello\r\n0\n\r\n",
        "a bare LF after the chunk": b"5\r\nhello\n0\r\n\r\n",
        "bare LFs around the chunk": b"5\nhello\n0\n\n",
        "a bare LF at the end": b"5\r\nhello\r\n0\r\n\n",
        "a chunk longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
        "a chunk shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
        "a bare LF in an extension": b"5;a\nhello\r\n0\r\n\r\n",
        "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        "a control byte in an extension": b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
        "a bare LF in a quoted extension": b'5;a="\n"\r\nhello\r\n0\r\n\r\n',
        "a trailer without a colon": b"0\r\nabc\r\n\r\n",
        "a trailer with a space before the colon": b"0\r\na : b\r\n\r\n",
        "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
        "a trailer that begins with a space": b"0\r\n a: b\r\n\r\n",
        "a bare LF after a trailer": b"0\r\na: b\n\r\n",
        "a NUL in a trailer": b"0\r\na: \0\r\n\r\n",
        "Content-Length as trailer": b"0\r\ncontent-length: 5\r\n\r\n",
        "Transfer-Encoding as trailer": b"0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "endless trailers": b"0\r\n" + b"a: b\r\n" * 7000,
        "an endless extension": b"5;" + b"a" * 70_000,
        "extensions that outweigh the body": (b"1;" + b"a" * 500 + b"\r\nx\r\n") * 100,
    }.items()
}

SIZES: dict[str, tuple[bytes, int, str]] = {
    "a target over the limit": (with_line(b"GET /" + b"a" * 8192 + b" HTTP/1.1"), 414, "uri_too_long"),
    "an endless request line": (b"GET /" + b"a" * 40_000, 414, "uri_too_long"),
    "an endless method": (b"A" * 40_000, 414, "uri_too_long"),
    "a header over the limit": (head(b"x: " + b"a" * 33_000), 431, "header_too_large"),
    "an endless header": (head()[:-2] + b"x: " + b"a" * 33_000, 431, "header_too_large"),
    "an endless name": (head()[:-2] + b"x" * 33_000, 431, "header_too_large"),
    "headers over the limit together": (head(*[b"x: " + b"a" * 1000] * 40), 431, "header_too_large"),
    "too many headers": (head(*[b"x: 1"] * 100), 431, "header_too_large"),
    "a megabyte of headers": (head(b"x: " + b"a" * 1_000_000), 431, "header_too_large"),
}

ALL = {**REQUEST_LINES, **HEADER_LINES, **FRAMING, **CHUNKS, **SIZES}


@pytest.mark.parametrize("title", ALL)
def test_is_refused_with_its_status_and_reason(title: str) -> None:
    data, status, reason = ALL[title]
    assert read([data]).verdict == (status, reason)


def _near_line_ends(data: bytes) -> list[int]:
    """Places where cutting may make a difference: in what is short all, else those around line ends."""
    if len(data) <= 400:
        return list(range(1, len(data)))
    places = {1, 2, 3, len(data) // 2, len(data) - 1, len(data) - 2, len(data) - 3}
    at = data.find(b"\r\n")
    while at >= 0 and len(places) < 60:
        places.update(range(at, at + 4))
        at = data.find(b"\r\n", at + 1)
    return sorted(place for place in places if 0 < place < len(data))


@pytest.mark.parametrize("title", ALL)
def test_is_refused_the_same_wherever_its_bytes_are_cut(title: str) -> None:
    data, status, reason = ALL[title]
    whole = read([data])
    for place in _near_line_ends(data):
        parts = read([data[:place], data[place:]])
        assert parts.verdict == (status, reason), place
        assert _heads(parts) == _heads(whole), place


@pytest.mark.parametrize("title", ALL)
def test_is_refused_the_same_byte_by_byte(title: str) -> None:
    data, status, reason = ALL[title]
    step = 1 if len(data) < 50_000 else 1000
    parts = read(pieces(data, range(0, len(data), step)))
    assert parts.verdict == (status, reason)
    assert _heads(parts) == _heads(read([data]))


@pytest.mark.parametrize("title", ALL)
def test_is_refused_behind_a_good_request_and_the_good_one_is_heard(title: str) -> None:
    data, status, reason = ALL[title]
    good = head(b"content-length: 3", line=POST) + b"abc"
    for late in (False, True):
        outcome = read([good + data], late=late)
        assert outcome.verdict == (status, reason)
        assert outcome.requests[0].body == b"abc"
        assert outcome.requests[0].complete


@pytest.mark.parametrize("title", {**REQUEST_LINES, **HEADER_LINES, **FRAMING, **SIZES})
def test_the_sink_is_not_told_of_a_head_that_is_refused(title: str) -> None:
    assert read([ALL[title][0]]).requests == ()


@pytest.mark.parametrize("title", CHUNKS)
def test_a_body_with_broken_framing_is_never_complete(title: str) -> None:
    (request,) = read([ALL[title][0]]).requests
    assert not request.complete


@pytest.mark.parametrize("spare", [0, 1])
def test_limits_mean_what_they_say(spare: int) -> None:
    limits = Limits(header_bytes=1000, headers=10, target=200)
    line = b"GET /" + b"a" * (199 + spare) + b" HTTP/1.1"
    assert read([head(line=line)], limits=limits).verdict == ((414, "uri_too_long") if spare else None)
    lines = [b"x: 1"] * (9 + spare)
    assert read([head(*lines)], limits=limits).verdict == ((431, "header_too_large") if spare else None)
    size = len(head(b"x: "))
    assert read([head(b"x: " + b"a" * (1000 - size + spare))], limits=limits).verdict == (
        (431, "header_too_large") if spare else None
    )


def _heads(outcome: Read) -> list[tuple[bytes, bytes]]:
    return [(request.method, request.target) for request in outcome.requests]
