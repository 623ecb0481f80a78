"""The PROXY protocol, versions 1 and 2: what a load balancer says about the client before the client's own bytes.

Source: HAProxy's proxy-protocol.txt ("the specification" below).
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple, NoReturn

from sojourn.errors import ProtocolError

__all__ = ["Proxied", "ProxiedTls", "needed", "parse"]

#: First bytes of version 2 (section 2.2).
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

#: Longest line of version 1 with its CRLF, shortest one ("PROXY UNKNOWN\r\n") (section 2.1).
V1_LONGEST, V1_SHORTEST = 107, 15

#: Fixed part of version 2, and how many bytes of addresses and TLVs may follow. The protocol allows 65 535, but means
#: the header to fit the smallest TCP segment (536 bytes); 2 KiB leave room for long names of certificates.
V2_FIXED, V2_LONGEST = 16, 2048

#: Address family (unspecified, IPv4, IPv6, Unix) -> bytes of its address block (section 2.2).
BLOCKS: Final = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}

V1_PREFIXES: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
V1_SO_FAR: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r?|PROXY TCP[46] [0-9A-Fa-f:. ]*\r?")
V1_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
V1_HEX: Final = re.compile(r"[0-9A-Fa-f:.]+")


class ProxiedTls(NamedTuple):
    """The client's TLS connection, which ended at the proxy (PP2_TYPE_SSL).

    Attributes:
        version: Such as ``TLSv1.3``; "" when not told.
        cipher: OpenSSL's name of the cipher suite; "" when not told.
        client_name: Common name of the client's certificate; "" when not told.
        client_cert: Whether the client showed a certificate, on this connection or earlier in its TLS session.
        verified: Whether it was verified.
    """

    version: str
    cipher: str
    client_name: str
    client_cert: bool
    verified: bool


class Proxied(NamedTuple):
    """A PROXY protocol header.

    Attributes:
        source: Address and port of the client; None keeps the address of the connection itself (a health check of the
            proxy, a Unix socket, or a transport it can't name).
        destination: Address and port the client connected to; None like ``source``.
        consumed: Bytes of the header; the client's own begin after them.
        authority: Host name the client asked for (TLS SNI); "" when not told.
        tls: The client's TLS connection; None when there was none or nothing is told.
    """

    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    consumed: int
    authority: str = ""
    tls: ProxiedTls | None = None


def parse(data: bytes) -> Proxied | None:
    """Read the header at the start of ``data``.

    Returns:
        None when more bytes are needed.

    Raises:
        ProtocolError: ``invalid_proxy_header``; raised as soon as no further byte can make it right.
    """
    if data[:1] == SIGNATURE[:1]:
        return _parse_v2(data)
    return _parse_v1(data)


def needed(data: bytes) -> int:
    """How many further bytes certainly belong to the header of which ``data`` is the beginning.

    A reader that takes no more than that never touches the client's bytes. 0 means: up to the next LF (a version 1 line
    has no length).
    """
    if data[:1] == SIGNATURE[:1]:
        if len(data) < V2_FIXED:
            return V2_FIXED - len(data)
        return V2_FIXED + int.from_bytes(data[14:16]) - len(data)
    return max(0, V1_SHORTEST - len(data))


def _refuse(detail: str) -> NoReturn:
    raise ProtocolError(400, "invalid_proxy_header", detail)


# -- version 1: one line of text


def _parse_v1(data: bytes) -> Proxied | None:
    if not any(data.startswith(prefix) or prefix.startswith(data) for prefix in V1_PREFIXES):
        _refuse(f"neither PROXY protocol version: {data[:16]!r}")
    end = data.find(b"\n", 0, V1_LONGEST)
    line = data[:end] if end >= 0 else data[:V1_LONGEST]
    # Section 2.1: exactly CRLF ends the line, a CR or LF alone does not.
    if (len(line) >= len(V1_PREFIXES[2]) and not V1_SO_FAR.fullmatch(line)) or (end >= 0 and line[-1:] != b"\r"):
        _refuse(f"a line of version 1 can't be {line!r}")
    if end < 0:
        if len(data) >= V1_LONGEST:
            _refuse(f"no CRLF in {V1_LONGEST} bytes")
        return None
    if line.startswith(b"PROXY UNKNOWN"):
        return Proxied(None, None, end + 1)  # the rest must be ignored
    words = line[:-1].decode("ascii").split(" ")
    if len(words) != 6:
        _refuse(f"{len(words)} words instead of 6")
    _, family, source, destination, source_port, destination_port = words
    return Proxied(
        (_v1_host(family, source), _v1_port(source_port)),
        (_v1_host(family, destination), _v1_port(destination_port)),
        end + 1,
    )


def _v1_host(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(IPv4Address(text))
        if V1_HEX.fullmatch(text):  # no scope ("%eth0")
            return _v6(IPv6Address(text))
    except AddressValueError:
        pass  # refused below
    _refuse(f"not a {family} address: {text!r}")


def _v1_port(text: str) -> int:
    if not V1_NUMBER.fullmatch(text) or int(text) > 65535:
        _refuse(f"not a port: {text!r}")
    return int(text)


def _v6(address: IPv6Address) -> str:
    """As text; an IPv4 client on an IPv6 socket is the IPv4 client it is."""
    return str(address.ipv4_mapped or address)


# -- version 2: binary


def _parse_v2(data: bytes) -> Proxied | None:
    if not SIGNATURE.startswith(data[:12]):
        _refuse("the signature of version 2 is broken")
    if len(data) > 12 and data[12] >> 4 != 2:
        _refuse(f"version {data[12] >> 4} instead of 2")
    if len(data) > 12 and data[12] & 15 > 1:
        _refuse(f"command {data[12] & 15} is neither LOCAL nor PROXY")
    local = data[12:13] == b"\x20"  # its family must be ignored, whatever it is
    if len(data) > 13 and not local and (data[13] >> 4 not in BLOCKS or data[13] & 15 > 2):
        _refuse(f"unknown family and transport 0x{data[13]:02x}")
    if len(data) < V2_FIXED:
        return None
    family = data[13] >> 4
    length = int.from_bytes(data[14:16])
    if length > V2_LONGEST:
        _refuse(f"{length} bytes announced; {V2_LONGEST} is the limit")
    if not local and length < BLOCKS[family]:
        _refuse(f"{length} bytes are too few for an address of family {family}")
    end = V2_FIXED + length
    if len(data) < end:
        return None
    if local:  # a health check: what follows must be skipped
        return Proxied(None, None, end)
    body = data[V2_FIXED:end]
    source, destination = _v2_addresses(data[13], body)
    authority, tls = _v2_extras(data[:end], V2_FIXED + BLOCKS[family])
    return Proxied(source, destination, end, authority, tls)


def _v2_addresses(kind: int, block: bytes) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    if kind == 0x11:
        ports = int.from_bytes(block[8:10]), int.from_bytes(block[10:12])
        return (str(IPv4Address(block[:4])), ports[0]), (str(IPv4Address(block[4:8])), ports[1])
    if kind == 0x21:
        ports = int.from_bytes(block[32:34]), int.from_bytes(block[34:36])
        return (_v6(IPv6Address(block[:16])), ports[0]), (_v6(IPv6Address(block[16:32])), ports[1])
    return None, None  # a valid combination that is of no use here falls back to UNSPEC


def _v2_extras(header: bytes, start: int) -> tuple[str, ProxiedTls | None]:
    authority, tls = "", None
    for kind, at, value in _tlvs(header, start):
        if kind == 0x02:
            authority = value.decode("utf-8", "replace")
        elif kind == 0x03:
            _check_crc32c(header, at, value)
        elif kind == 0x20:
            tls = _v2_tls(value)
    return authority, tls


def _v2_tls(value: bytes) -> ProxiedTls | None:
    if len(value) < 5:
        _refuse("PP2_TYPE_SSL is too short")
    if not value[0] & 0x01:  # PP2_CLIENT_SSL
        return None
    texts = {kind: text.decode("utf-8", "replace") for kind, _, text in _tlvs(value, 5)}
    shown = bool(value[0] & 0x06)
    verified = shown and value[1:5] == bytes(4)
    return ProxiedTls(texts.get(0x21, ""), texts.get(0x23, ""), texts.get(0x22, ""), shown, verified)


def _tlvs(data: bytes, at: int) -> list[tuple[int, int, bytes]]:
    """Type, position of the value, and value of each TLV from ``at`` to the end."""
    found = []
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 3])
        value = data[at + 3 : at + 3 + length]
        if at + 3 > len(data) or len(value) != length:
            _refuse("a TLV reaches beyond the header")
        found.append((data[at], at + 3, value))
        at += 3 + length
    return found


def _check_crc32c(header: bytes, at: int, value: bytes) -> None:
    """Section 2.2.3: the checksum counts its own field as zeros; a wrong one makes the connection invalid."""
    if len(value) != 4:
        _refuse("PP2_TYPE_CRC32C is not 4 bytes long")
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for byte in header[:at] + bytes(4) + header[at + 4 :]:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    if crc ^ 0xFFFFFFFF != int.from_bytes(value):
        _refuse("the CRC32C checksum is wrong")


@cache
def _crc32c_table() -> tuple[int, ...]:
    """The Castagnoli polynomial, reflected (RFC 4960 appendix B); made when the first checksum comes."""
    rows = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        rows.append(crc)
    return tuple(rows)
