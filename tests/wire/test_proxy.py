"""PROXY protocol headers: what they say, where they end, and how early a broken one is refused."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.ending import REASONS
from sojourn.errors import ProtocolError
from sojourn.wire.proxy import SIGNATURE, V2_LONGEST, Proxied, ProxiedTls, needed, parse

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


def v2(kind: int, body: bytes, *, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if length is None else length) + body


def inet(source: str = "192.0.2.1", destination: str = "198.51.100.2", ports: tuple[int, int] = (56324, 443)) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", *ports)


def inet6(source: str = "2001:db8::1", destination: str = "2001:db8::2") -> bytes:
    pair = (socket.inet_pton(socket.AF_INET6, each) for each in (source, destination))
    return b"".join(pair) + struct.pack("!HH", 56324, 443)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def signed(body: bytes) -> bytes:
    """A header whose last TLV is its checksum."""
    blank = v2(0x11, body + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


TLS = tlv(
    0x20,
    b"\x07" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, "Jürgen".encode()) + tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
)
A, B = ("192.0.2.1", 56324), ("198.51.100.2", 443)
A6, B6 = ("2001:db8::1", 56324), ("2001:db8::2", 443)

GOOD = [
    (V1, A, B, "", None),
    (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", ("255.255.255.255", 65535), ("0.0.0.0", 0), "", None),
    (b"PROXY TCP6 2001:DB8::1 2001:0db8:0:0:0:0:0:2 56324 443\r\n", A6, B6, "", None),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 443\r\n", A, ("::1", 443), "", None),
    (b"PROXY TCP6 :: :: 1 1\r\n", ("::", 1), ("::", 1), "", None),
    (b"PROXY UNKNOWN\r\n", None, None, "", None),
    (b"PROXY UNKNOWN ffff:f \xff whatever\r\n", None, None, "", None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, None, "", None),
    (v2(0x11, inet()), A, B, "", None),
    (v2(0x21, inet6()), A6, B6, "", None),
    (v2(0x21, inet6("::ffff:192.0.2.1")), A, B6, "", None),
    (v2(0x00, b"", command=0x20), None, None, "", None),
    (v2(0xFF, b"anything", command=0x20), None, None, "", None),
    (v2(0x00, b""), None, None, "", None),
    (v2(0x00, tlv(0x02, b"a.example")), None, None, "a.example", None),
    (v2(0x31, bytes(216)), None, None, "", None),
    (v2(0x12, inet()), None, None, "", None),
    (v2(0x11, inet() + tlv(0x04, b"") + tlv(0xEA, b"\1\2") + tlv(0x02, b"a.example")), A, B, "a.example", None),
    (v2(0x11, inet() + TLS), A, B, "", ProxiedTls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "Jürgen", True, True)),
    (v2(0x11, inet() + tlv(0x20, b"\x01\0\0\0\1" + tlv(0x21, b"TLSv1.2"))), A, B, "",
     ProxiedTls("TLSv1.2", "", "", False, False)),
    (v2(0x11, inet() + tlv(0x20, b"\x03\0\0\0\1")), A, B, "", ProxiedTls("", "", "", True, False)),
    (v2(0x11, inet() + tlv(0x20, b"\0\0\0\0\0")), A, B, "", None),
    (signed(inet() + tlv(0x02, b"a.example")), A, B, "a.example", None),
    (v2(0x11, inet() + tlv(0x04, bytes(V2_LONGEST - 15))), A, B, "", None),
]  # fmt: skip


@pytest.mark.parametrize(("header", "source", "destination", "authority", "tls"), GOOD)
def test_any_split_of_a_header_reads_the_same_and_leaves_the_request(
    header: bytes,
    source: tuple[str, int] | None,
    destination: tuple[str, int] | None,
    authority: str,
    tls: ProxiedTls | None,
) -> None:
    for size in range(len(header)):
        assert parse(header[:size]) is None, header[:size]
    expected = Proxied(source, destination, len(header), authority, tls)
    assert parse(header) == expected
    assert parse(header + REQUEST) == expected
    assert parse(header + header) == expected


@pytest.mark.parametrize("header", [row[0] for row in GOOD])
def test_a_reader_that_takes_what_is_needed_ends_exactly_behind_the_header(header: bytes) -> None:
    data, rest, steps = b"", header + REQUEST, 0
    while parse(data) is None:
        size = needed(data) or rest.find(b"\n") + 1
        data, rest, steps = data + rest[:size], rest[size:], steps + 1
    assert (data, rest) == (header, REQUEST)
    assert steps <= 3


BAD = [
    (b"G", "neither"),
    (b"GET / HTTP/1.1\r\n", "neither"),
    (b"\x16\x03\x01", "neither"),
    (b"proxy TCP4 ", "neither"),
    (b"PROXY TCP5", "neither"),
    (b"PROXY UDP4", "neither"),
    (b"PROXY  TCP4", "neither"),
    (b"PROXY TCP4 192.0.2.1 x", "can't be"),
    (b"PROXY TCP4 192.0.2.1\n", "can't be"),
    (b"PROXY TCP4 192.0.2.1\r1", "can't be"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n", "can't be"),
    (b"PROXY TCP4 192.0.2.1\t198", "can't be"),
    (b"PROXY UNKNOWNX", "can't be"),
    (b"PROXY UNKNOWN\n", "can't be"),
    (b"PROXY UNKNOWN a\rb", "can't be"),
    (b"PROXY UNKNOWN " + b"x" * 93, "no CRLF in 107 bytes"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", "5 words"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n", "7 words"),
    (b"PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n", "7 words"),
    (b"PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n", "TCP4 address"),
    (b"PROXY TCP4 192.0.2.256 198.51.100.2 56324 443\r\n", "TCP4 address"),
    (b"PROXY TCP4 192.0.2 198.51.100.2 56324 443\r\n", "TCP4 address"),
    (b"PROXY TCP4 ::1 198.51.100.2 56324 443\r\n", "TCP4 address"),
    (b"PROXY TCP6 192.0.2.1 ::1 56324 443\r\n", "TCP6 address"),
    (b"PROXY TCP6 1::2::3 ::1 56324 443\r\n", "TCP6 address"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", "port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 00 443\r\n", "port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 A 443\r\n", "port"),
    (b"\r\n\r\n\0\r\nQUIX", "signature"),
    (b"\r\nGET", "signature"),
    (SIGNATURE + b"\x11", "version 1"),
    (SIGNATURE + b"\x22", "command 2"),
    (SIGNATURE + b"\x21\x41", "0x41"),
    (SIGNATURE + b"\x21\x13", "0x13"),
    (v2(0x11, b"", length=V2_LONGEST + 1), "limit"),
    (v2(0x11, b"", length=11), "too few"),
    (v2(0x21, b"", length=35), "too few"),
    (v2(0x31, b"", length=215), "too few"),
    (v2(0x11, inet() + b"\x02"), "beyond"),
    (v2(0x11, inet() + b"\x02\0\x05abcd"), "beyond"),
    (v2(0x11, inet() + tlv(0x20, b"\1\0\0\0")), "too short"),
    (v2(0x11, inet() + tlv(0x20, b"\1\0\0\0\0\x21\0\x09x")), "beyond"),
    (v2(0x11, inet() + tlv(0x03, b"\0\0\0")), "not 4 bytes"),
    (signed(inet())[:-1] + b"\xee", "CRC32C"),
]


@pytest.mark.parametrize(("data", "detail"), BAD)
def test_a_broken_header_is_refused_at_its_first_broken_byte(data: bytes, detail: str) -> None:
    with pytest.raises(ProtocolError, match=detail) as caught:
        parse(data)
    assert caught.value.reason == "invalid_proxy_header"
    assert caught.value.reason in REASONS
    if detail in ("neither", "can't be", "signature", "version 1", "command 2", "0x41", "0x13"):
        shortest = next(size for size in range(len(data) + 1) if refused(data[:size]))
        assert shortest <= len(data)
        assert parse(data[: shortest - 1]) is None


def refused(data: bytes) -> bool:
    try:
        parse(data)
    except ProtocolError:
        return True
    return False


def test_the_checksum_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: SIGNATURE + b"\x21\x11\0\x14" + tail))
@example(b"")
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    if refused(data):
        return
    proxied = parse(data)
    if proxied is None:
        assert needed(data) >= 0
    else:
        assert proxied.consumed <= len(data)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535))
def test_version_1_and_2_say_the_same(source: object, destination: object, port: int, other: int) -> None:
    first = parse(f"PROXY TCP4 {source} {destination} {port} {other}\r\n".encode())
    second = parse(v2(0x11, inet(str(source), str(destination), (port, other))))
    assert first is not None
    assert second is not None
    assert first[:2] == second[:2] == ((str(source), port), (str(destination), other))
