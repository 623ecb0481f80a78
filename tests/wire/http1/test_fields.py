"""Header lines: what they mean, and what is remembered of them."""

from __future__ import annotations

import pytest

from sojourn.wire.http1.fields import FieldTable, Kind, valid_host
from sojourn.wire.http1.parser import ParserPool
from tests.wire.http1.reading import head, read


@pytest.mark.parametrize(
    "host",
    [
        "a", "a.example", "A.EXAMPLE", "a.example.", "a.example:80", "a.example:", "localhost:8000", "127.0.0.1",
        "127.0.0.1:1", "[::1]", "[::1]:80", "[fe80::1:2]", "[::ffff:1.2.3.4]", "[v1.fe80]", "a_b.example",
        "xn--bcher-kva.example",
        "a%20b", "a~b", "a!b", "a;b=c", "-", "a" * 250 + ":65535",
    ],
)  # fmt: skip
def test_a_host_with_an_optional_port_is_one(host: str) -> None:
    assert valid_host(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "", " ", ":80", "a b", "a,\tb", "a/b", "a?b", "a#b", "a@b", "a:b", "a:1:2", "a:-1", "a:123456", "[::1", "::1",
        "[]", "[::1]a", "[g]", "a[::1]", "a%", "a%2", "a%gg", "a\\b", "a\x00", "a\n", "a\n:80", "ü", "a^b", "a|b",
        "<a>",
        '"a"', "a" * 300,
    ],
)  # fmt: skip
def test_anything_else_is_none(host: str) -> None:
    assert not valid_host(host.encode())


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Host: a", Kind.HOST),
        ("HOST:\ta:80 ", Kind.HOST),
        ("host: a b", Kind.BAD_HOST),
        ("content-length: 5", Kind.CONTENT_LENGTH),
        ("Transfer-Encoding: CHUNKED", Kind.CHUNKED),
        ("Transfer-Encoding: gzip", Kind.OTHER_CODING),
        ("Expect: 100-Continue", Kind.CONTINUE),
        ("Expect: 200", Kind.OTHER_EXPECTATION),
        ("Connection: upgrade", Kind.CONNECTION),
        ("Connection: keep-alive, Upgrade", Kind.CONNECTION),
        ("Connection: Keep-Alive", Kind.KEEP_ALIVE),
        ("Upgrade: websocket", Kind.UPGRADE),
        ("TE: trailers", Kind.TE_TRAILERS),
        ("TE: deflate;q=0.5, Trailers ;q=1", Kind.TE_TRAILERS),
        ("TE: gzip", Kind.ORDINARY),
        ("TE: xtrailers", Kind.ORDINARY),
        ("X-Forwarded-For: 1.2.3.4", Kind.FORWARDED),
        ("Accept: */*", Kind.ORDINARY),
        ("X-Host: a b", Kind.ORDINARY),
    ],
)
def test_a_line_means(line: str, kind: Kind) -> None:
    name, _, value = line.partition(":")
    expected = ((name.lower().encode(), value.strip().encode()), kind)
    table = FieldTable()
    assert table.judge(line.encode()) == expected
    assert table.judge(line.encode()) == expected


SECRETS = [
    "Authorization: Bearer hunter2",
    "Proxy-Authorization: Basic hunter2",
    "Cookie: session=hunter2",
    "cookie: hunter2",
    "X-Api-Key: hunter2",
    "Api-Key: hunter2",
    "X-Auth-Token: hunter2",
    "X-CSRF-Token: hunter2",
    "X-Amz-Security-Token: hunter2",
    "Sec-WebSocket-Protocol: bearer, hunter2",
    "Sec-WebSocket-Key: hunter2",
    "X-Something: hunter2",
    "Referer: https://a.example/?token=hunter2",
]


def test_a_secret_is_never_kept() -> None:
    pool = ParserPool()
    for secret in SECRETS:
        for _ in range(3):
            assert read([head(secret.encode(), b"accept: */*")], pool=pool).verdict is None
    assert pool.fields.lines.keys() == {b"host: a.example", b"accept: */*"}
    assert b"hunter2" not in b"".join(pool.fields.lines)


def test_the_table_is_bounded_whatever_clients_send() -> None:
    pool = ParserPool()
    for start in range(0, 6000, 50):
        lines = [b"accept: %d" % number for number in range(start, start + 50)]
        assert read([head(*lines, b"user-agent: " + b"x" * 1000)], pool=pool).verdict is None
        assert len(pool.fields.lines) <= 1024
    assert max(map(len, pool.fields.lines)) <= 256


def test_a_line_is_judged_again_after_the_table_was_emptied() -> None:
    table = FieldTable()
    before = table.judge(b"host: a.example")
    for number in range(2000):
        table.judge(b"accept: %d" % number)
    assert table.judge(b"host: a.example") == before
