"""The right-most untrusted address is the client, and nothing left of it is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.trust import TrustList
from sojourn.wire.forwarded import Forwarded, forwarded

PROXIES = TrustList(["10.0.0.0/8", "2001:db8:ffff::/48"]).trusts
EVERYONE = TrustList(["*"]).trusts


def read(*lines: str, trusts: object = PROXIES) -> Forwarded:
    pairs = [line.split(": ", 1) for line in lines]
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    return forwarded([(b"host", b"internal"), *headers, (b"accept", b"*/*")], trusts)  # type: ignore[arg-type]


XFF = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], None),
        ([f"{XFF}: 192.0.2.1"], ("192.0.2.1", 0)),
        ([f"{XFF}: 192.0.2.1, 10.0.0.1"], ("192.0.2.1", 0)),
        ([f"{XFF}: 192.0.2.9, 192.0.2.1, 10.0.0.1,10.0.0.2"], ("192.0.2.1", 0)),
        ([f"{XFF}: 192.0.2.9, 192.0.2.1"], ("192.0.2.1", 0)),
        ([f"{XFF}: 192.0.2.9", f"{XFF}: 192.0.2.1", f"{XFF}: 10.0.0.1"], ("192.0.2.1", 0)),
        ([f"{XFF}: 10.0.0.2, 10.0.0.1"], ("10.0.0.2", 0)),
        ([f"{XFF}: 192.0.2.1:56324"], ("192.0.2.1", 56324)),
        ([f"{XFF}: 2001:db8::1"], ("2001:db8::1", 0)),
        ([f"{XFF}: 2001:DB8:0::1"], ("2001:db8::1", 0)),
        ([f"{XFF}: [2001:db8::1]"], ("2001:db8::1", 0)),
        ([f"{XFF}: [2001:db8::1]:56324, 2001:db8:ffff::7"], ("2001:db8::1", 56324)),
        ([f"{XFF}: ::ffff:192.0.2.1, ::ffff:10.0.0.1"], ("192.0.2.1", 0)),
        ([f"{XFF}: unknown"], None),
        ([f"{XFF}: unknown, 10.0.0.1"], ("10.0.0.1", 0)),
        ([f"{XFF}: 192.0.2.1, unknown"], None),
        ([f"{XFF}: 192.0.2.1, , 10.0.0.1"], ("10.0.0.1", 0)),
        ([f"{XFF}: 192.0.2.1, evil.example, 10.0.0.1"], ("10.0.0.1", 0)),
        ([f"{XFF}: 192.0.2.01"], None),
        ([f"{XFF}: 192.0.2.1.5"], None),
        ([f"{XFF}: 192.0.2.1:99999"], None),
        ([f"{XFF}: 192.0.2.1:"], None),
        ([f"{XFF}: [2001:db8::1"], None),
        ([f"{XFF}: 1::2::3"], None),
        ([f"{XFF}: fe80::1%eth0"], None),
        ([f"{XFF}: "], None),
        ([f"{XFF}: \u0661.0.0.1".encode().decode("latin-1")], None),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right(lines: list[str], client: tuple[str, int] | None) -> None:
    assert read(*lines).client == client


@pytest.mark.parametrize(
    ("lines", "client", "scheme", "host"),
    [
        (["Forwarded: for=192.0.2.1"], ("192.0.2.1", 0), None, None),
        (["Forwarded: For=192.0.2.1;PROTO=HTTPS;Host=a.example"], ("192.0.2.1", 0), "https", b"a.example"),
        (['Forwarded: for="192.0.2.1:56324";by=10.0.0.9'], ("192.0.2.1", 56324), None, None),
        (['Forwarded: for="[2001:db8::1]:56324";host="a.example:1"'], ("2001:db8::1", 56324), None, b"a.example:1"),
        (["Forwarded: for=[2001:db8::1];host=a.example:8443"], ("2001:db8::1", 0), None, b"a.example:8443"),
        (['Forwarded: for="192.0.2.1:_x7"'], ("192.0.2.1", 0), None, None),
        (["Forwarded: for=192.0.2.1;proto=https, for=10.0.0.1;proto=http"], ("192.0.2.1", 0), "https", None),
        (["Forwarded: for=192.0.2.1;proto=https;host=a", "Forwarded: for=10.0.0.1"], ("192.0.2.1", 0), "https", b"a"),
        (["Forwarded: for=192.0.2.9;proto=http, for=192.0.2.1;proto=https"], ("192.0.2.1", 0), "https", None),
        (["Forwarded: for=192.0.2.9;host=evil, for=192.0.2.1"], ("192.0.2.1", 0), None, None),
        (["Forwarded: for=192.0.2.9, for=unknown;proto=https"], None, "https", None),
        (["Forwarded: for=192.0.2.9, for=_hidden, for=10.0.0.1"], ("10.0.0.1", 0), None, None),
        (["Forwarded: for=192.0.2.9, proto=https, for=10.0.0.1"], ("10.0.0.1", 0), "https", None),
        (["Forwarded: for=192.0.2.1 ; proto=https ,\tfor=10.0.0.1;"], ("192.0.2.1", 0), "https", None),
        (["Forwarded: for=192.0.2.1, , for=10.0.0.1,"], ("192.0.2.1", 0), None, None),
        (['Forwarded: for=192.0.2.1;ext="a,b;c=d", for=10.0.0.1'], ("192.0.2.1", 0), None, None),
        (["Forwarded: for=192.0.2.9;for=192.0.2.8, for=10.0.0.1"], ("10.0.0.1", 0), None, None),
        (["Forwarded: for = 192.0.2.9, for=10.0.0.1"], ("10.0.0.1", 0), None, None),
        (['Forwarded: for="192.0.2.9\\"", for=10.0.0.1'], ("10.0.0.1", 0), None, None),
        (['Forwarded: for="x"y, for=10.0.0.1'], ("10.0.0.1", 0), None, None),
        (["Forwarded: 192.0.2.9, for=10.0.0.1"], ("10.0.0.1", 0), None, None),
        (["Forwarded: for=2001:db8::1"], None, None, None),
        (["Forwarded: "], None, None, None),
        (["Forwarded: for=192.0.2.1;proto=gopher;host=a b"], None, None, None),
        (["Forwarded: for=192.0.2.1;proto=gopher;host=a<b"], None, None, None),
        (["Forwarded: for=192.0.2.1;proto=wss"], ("192.0.2.1", 0), "https", None),
    ],
)  # fmt: skip
def test_forwarded_is_read_as_rfc_7239_says(
    lines: list[str], client: tuple[str, int] | None, scheme: str | None, host: bytes | None
) -> None:
    assert read(*lines) == Forwarded(client, scheme, host)


@pytest.mark.parametrize("sent", ['for="', 'for=10.0.0.5, for="', 'for=1.2.3.4;x="', '"', "\\", 'for="\\', ",,,", '""'])
@pytest.mark.parametrize("added", ["for=192.0.2.1", 'for="192.0.2.1:7"', 'for=192.0.2.1;proto="https"'])
@pytest.mark.parametrize("separator", [", ", ","])
def test_a_quote_the_client_left_open_does_not_hide_the_client(sent: str, added: str, separator: str) -> None:
    found = read(f"Forwarded: {sent}{separator}{added}").client
    assert found is not None
    assert found[0] == "192.0.2.1"
    assert read(f"Forwarded: {sent}", f"Forwarded: {added}").client == found


@pytest.mark.parametrize(
    ("lines", "scheme", "host"),
    [
        (["X-Forwarded-Proto: https"], "https", None),
        (["X-Forwarded-Proto: HTTPS"], "https", None),
        (["X-Forwarded-Proto: wss"], "https", None),
        (["X-Forwarded-Proto: ws"], "http", None),
        (["X-Forwarded-Proto: javascript"], None, None),
        (["X-Forwarded-Proto: https, http"], "http", None),
        ([f"{XFF}: 192.0.2.1, 10.0.0.1", "X-Forwarded-Proto: https, http"], "https", None),
        ([f"{XFF}: 192.0.2.9, 192.0.2.1", "X-Forwarded-Proto: http, https"], "https", None),
        ([f"{XFF}: 192.0.2.1, 10.0.0.1", "X-Forwarded-Proto: https"], "https", None),
        ([f"{XFF}: 192.0.2.1, 10.0.0.1", "X-Forwarded-Host: a.example, b"], None, b"a.example"),
        (["X-Forwarded-Host: a.example"], None, b"a.example"),
        (["X-Forwarded-Host: [2001:db8::1]:8443"], None, b"[2001:db8::1]:8443"),
        (["X-Forwarded-Host: a.example", "X-Forwarded-Port: 8443"], None, b"a.example:8443"),
        (["X-Forwarded-Host: a.example:1", "X-Forwarded-Port: 8443"], None, b"a.example:1"),
        (["X-Forwarded-Host: a", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"], "https", b"a"),
        (["X-Forwarded-Host: a", "X-Forwarded-Port: 80", "X-Forwarded-Proto: https"], "https", b"a:80"),
        (["X-Forwarded-Host: a", "X-Forwarded-Port: x"], None, b"a"),
        (["X-Forwarded-Port: 8443"], None, None),
        (["X-Forwarded-Host: a b"], None, None),
        (["X-Forwarded-Host: a/b"], None, None),
        (["X-Forwarded-Host: user@a"], None, None),
    ],
)
def test_scheme_and_host_come_from_the_hop_that_saw_the_client(
    lines: list[str], scheme: str | None, host: bytes | None
) -> None:
    found = read(*lines)
    assert (found.scheme, found.host) == (scheme, host)


def test_a_forwarded_header_next_to_the_proxys_own_is_not_believed() -> None:
    found = read("Forwarded: for=10.0.0.5;host=evil;proto=https", f"{XFF}: 192.0.2.1")
    assert found == Forwarded(("192.0.2.1", 0), None, None)


def test_when_everyone_is_trusted_the_first_is_the_client() -> None:
    assert read(f"{XFF}: 192.0.2.9, 192.0.2.1", trusts=EVERYONE).client == ("192.0.2.9", 0)
    assert read("Forwarded: for=192.0.2.9, for=192.0.2.1", trusts=EVERYONE).client == ("192.0.2.9", 0)


def test_without_such_headers_nothing_is_known() -> None:
    assert forwarded([(b"host", b"a"), (b"x-forwarded", b"b")], PROXIES) == Forwarded(None, None, None)


VALUES = st.text(alphabet='for=;,:"[]\\ _.0123456789abproto', max_size=60)


@given(VALUES, st.booleans())
def test_whatever_a_client_sends_its_address_is_the_one_our_proxy_saw(sent: str, quoted: bool) -> None:
    added = 'for="192.0.2.1:56324"' if quoted else "for=192.0.2.1"
    for lines in ([f"Forwarded: {sent}, {added}"], [f"Forwarded: {sent}", f"Forwarded: {added}"]):
        client = read(*lines).client
        assert client is not None
        assert client[0] == "192.0.2.1"
    assert read(f"{XFF}: {sent}, 192.0.2.1").client == ("192.0.2.1", 0)
    assert read(f"{XFF}: {sent}, 192.0.2.1, 10.0.0.1").client == ("192.0.2.1", 0)


@given(st.lists(st.tuples(st.sampled_from(["forwarded", "x-forwarded-for", "x-forwarded-proto"]), VALUES), max_size=4))
def test_nothing_in_these_headers_raises(pairs: list[tuple[str, str]]) -> None:
    found = forwarded([(name.encode(), value.encode("latin-1")) for name, value in pairs], EVERYONE)
    assert found.scheme in (None, "http", "https")
