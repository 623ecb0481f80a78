"""Any split of the bytes gives the same requests, and the same as h11 gives."""

from __future__ import annotations

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sojourn.wire.http1.parser import ParserPool
from tests.wire.http1.reading import Heard, pieces, read

#: One for all examples: what one connection leaves in a parser must not be seen by the next.
POOL = ParserPool()

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
FRAMING = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"}

names = st.text(TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in FRAMING)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20) | st.just("a b\tc")
fields = st.tuples(names, st.sampled_from([": ", ":", ":\t ", ": \t"]), values, st.sampled_from(["", " ", "\t "]))
methods = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH"])
targets = st.text("abcXYZ0189-._~!$&'()*+,;=:@/%?", max_size=30).map(lambda text: "/" + text) | st.sampled_from(
    ["*", "http://a.example/b?c", "/%C3%BC", "/" + "a" * 2000]
)
hosts = st.sampled_from(["a.example", "a.example:8000", "[::1]:80", "127.0.0.1", "xn--bcher-kva.example", "A_b"])

#: Bodies that hold what ends a chunked body, or a request, or half of it.
traps = st.sampled_from(
    [
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"\r\n",
        b"\n\r\n",
        b"\r",
        b"0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n" * 9,
    ]
)
bodies = st.none() | st.lists(st.binary(min_size=1, max_size=20) | traps, max_size=5)
extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";x=y;z"])
trailers = st.lists(st.tuples(names, st.sampled_from(["", "x", "0"])), max_size=2)
connections = st.sampled_from([None] * 8 + ["keep-alive", "close", "Keep-Alive, x", "x, Close"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request."""
    http10 = draw(st.integers(0, 9)) == 0
    lines = [f"{draw(methods)} {draw(targets)} HTTP/1.{0 if http10 else 1}"]
    head = [f"Host: {draw(hosts)}", *("".join(parts[:3]) + parts[3] for parts in draw(st.lists(fields, max_size=4)))]
    if (option := draw(connections)) is not None:
        head.append(f"Connection: {option}")
    body = b""
    parts = draw(bodies)
    if parts is not None and (http10 or draw(st.booleans())):
        body = b"".join(parts)
        head.append(f"Content-Length: {len(body)}")
    elif parts is not None:
        head.append(draw(st.sampled_from(["Transfer-Encoding: chunked", "transfer-encoding:\tChunked "])))
        zeros = draw(st.sampled_from([b"", b"", b"000"]))
        for part in parts:
            body += zeros + b"%x%b\r\n%b\r\n" % (len(part), draw(extensions), part)
        body += b"0" + draw(extensions) + b"\r\n"
        for name, value in draw(trailers):
            body += f"{name}: {value}\r\n".encode()
        body += b"\r\n"
    order = draw(st.permutations(head))
    return "\r\n".join([*lines, *order, "", ""]).encode("latin-1") + body


def by_h11(data: bytes) -> list[Heard]:
    """What h11 makes of it, up to the first request after which the connection must close."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    heard: list[Heard] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            heard.append(
                Heard(
                    event.method,
                    event.target,
                    event.http_version == b"1.0",
                    tuple(event.headers),
                    keep_alive=True,
                    upgrade=False,
                    body=b"",
                    complete=False,
                )
            )
        elif isinstance(event, h11.Data):
            heard[-1] = heard[-1]._replace(body=heard[-1].body + bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            stays = connection.our_state is not h11.MUST_CLOSE
            heard[-1] = heard[-1]._replace(complete=True, keep_alive=stays)
            if not stays:
                return heard
            connection.start_next_cycle()
        else:
            return heard


cuts = st.lists(st.integers(0, 3000), max_size=30) | st.none()


def as_h11(heard: Heard) -> Heard:
    """h11 never keeps HTTP/1.0 alive, and writes Transfer-Encoding in lower case."""
    headers = tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in heard.headers)
    return heard._replace(headers=headers, keep_alive=heard.keep_alive and not heard.http10)


@settings(max_examples=250, deadline=None)
@given(sequence=st.lists(requests(), min_size=1, max_size=4), cuts=cuts)
def test_any_split_of_valid_requests_is_read_as_h11_reads_it(sequence: list[bytes], cuts: list[int] | None) -> None:
    data = b"".join(sequence)
    whole = read([data], pool=POOL)
    assert whole.refusal is None
    oracle = by_h11(data)
    assert [as_h11(heard) for heard in whole.requests][: len(oracle)] == oracle
    assert read(pieces(data, cuts), pool=POOL) == whole
    assert read(pieces(data, cuts), pool=POOL, late=True).requests == whole.requests


@settings(max_examples=250, deadline=None)
@given(
    good=st.lists(requests(), max_size=2),
    data=requests(),
    at=st.integers(0, 400),
    byte=st.sampled_from([b"\0", b"\r", b"\n", b" ", b"\t", b":", b"\x7f", b"\xff", b"\x0b", b",", b"0", b"\r\n", b""]),
    erase=st.booleans(),
    cuts=cuts,
)
@example([], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, b"\r", False, [])
def test_any_split_of_a_damaged_request_has_the_outcome_of_the_whole(
    good: list[bytes], data: bytes, at: int, byte: bytes, erase: bool, cuts: list[int] | None
) -> None:
    at = min(at, len(data))
    damaged = b"".join(good) + data[:at] + byte + data[at + erase :]
    whole = read([damaged], pool=POOL)
    parts = read(pieces(damaged, cuts), pool=POOL)
    assert [heard[:6] for heard in parts.requests] == [heard[:6] for heard in whole.requests]
    assert [heard.complete for heard in parts.requests] == [heard.complete for heard in whole.requests]
    assert (parts.refusal is None) == (whole.refusal is None)
    if parts.refusal is not None and whole.refusal is not None:
        assert parts.refusal.status == whole.refusal.status
        assert parts.refusal.reason == whole.refusal.reason
    else:
        assert parts.rest == whole.rest
        if not whole.rest and all(heard.complete and not heard.upgrade for heard in whole.requests):
            assert taken_by_h11(damaged)


def taken_by_h11(data: bytes) -> bool:
    """Whether h11 accepts it; an empty line between requests, which it does not ignore, is none of its refusals."""
    try:
        by_h11(data)
    except h11.RemoteProtocolError as error:
        return str(error) == "no request line received"
    return True


@settings(max_examples=60, deadline=None)
@given(data=requests(), trap=st.integers(0, 60))
def test_a_chunked_body_ends_at_the_same_byte_at_every_cut(data: bytes, trap: int) -> None:
    first = (
        b"POST /first HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n" % (trap * 2 + 4, b"\r\n" * trap + b"\r\n\r\n")
    ) + b"0\r\nx: y\r\n\r\n"
    both = first + data
    whole = read([both], pool=POOL)
    assert whole.requests[0].body == b"\r\n" * trap + b"\r\n\r\n"
    for place in range(len(first) - 40, min(len(both), len(first) + 40)):
        assert read([both[:place], both[place:]], pool=POOL) == whole


lines = st.one_of(
    st.builds(lambda method, target: f"{method} {target} HTTP/1.1", methods, targets),
    st.sampled_from(
        ["GET / HTTP/1.0", "GET / HTTP/2.0", "GET  / HTTP/1.1", "get / HTTP/1.1", "GET /\n HTTP/1.1",
         "GET /\nx:y HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /ü HTTP/1.1", "CONNECT / HTTP/1.1", "GET a HTTP/1.1",
         "GET /#a HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /" + "a" * 9000 + " HTTP/1.1", "GET /\t HTTP/1.1"]
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    fields=st.lists(fields.map("".join), max_size=3),
    special=st.sampled_from(
        ["", "connection: keep-alive", "content-length: 0", "te: trailers", "expect: 100-continue"]
    ),
    lines=st.lists(lines, min_size=3, max_size=6),
)
def test_a_request_with_the_header_lines_of_the_one_before_is_read_as_on_its_own(
    fields: list[str], special: str, lines: list[str]
) -> None:
    block = "\r\n".join(["", "Host: a.example", *fields, *([special] if special else []), "", ""])
    alone = [read([(line + block).encode("latin-1")]) for line in lines]
    upto = next(
        (index for index, each in enumerate(alone) if each.refusal or not each.requests[0].keep_alive), len(alone)
    )
    expected = [each.requests[0] for each in alone[: upto + 1] if each.requests]
    together = read([(line + block).encode("latin-1") for line in lines], pool=POOL)
    assert list(together.requests) == expected
    assert together.refusal == (alone[upto].refusal if upto < len(alone) else None)
