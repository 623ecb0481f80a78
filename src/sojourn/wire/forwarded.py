"""Who the client is, as proxies in front of us tell: Forwarded (RFC 7239) and X-Forwarded-*.

Each proxy appends to what it received, so only the right end is the word of someone trusted, and everything left of the
first untrusted address may be the client's invention. The walk therefore goes from right to left and stops there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

__all__ = ["Forwarded", "forwarded"]

Node = tuple[str, int]

OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
PORT: Final = r"(?::([0-9]{1,5})|:_[A-Za-z0-9._-]+)?"  # RFC 7239 section 6.3: a port may be obfuscated
IPV4: Final = re.compile(rf"({OCTET}\.{OCTET}\.{OCTET}\.{OCTET}){PORT}")
IPV6: Final = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{PORT}")
BARE_IPV6: Final = re.compile(r"[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*")

#: One parameter of a Forwarded element: a token or a quoted string (RFC 7239 section 4). Addresses whose quotes the
#: proxy forgot pass. Backslashes do not: no address or host needs one, so an element with one counts as malformed.
PAIR: Final = re.compile(rb"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"([^"\\]*)"|([!#$%&'*+.^_`|~0-9A-Za-z:[\]-]+))""")

#: A Host value: a name or address with an optional port (RFC 9110 section 7.2), in the characters that names have.
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

#: What proxies write for a WebSocket is the scheme of its handshake.
SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
DEFAULT_PORTS: Final = {"http": b"80", "https": b"443"}

_NAMES: Final = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
)


class Forwarded(NamedTuple):
    """What is known of the client's side of the outermost trusted proxy.

    Attributes:
        client: Address and port of the client, port 0 when it is not told; None keeps the peer of the connection.
        scheme: ``http`` or ``https``; None keeps that of the connection.
        host: Host, with its port, that the client asked for; None keeps the Host header.
    """

    client: Node | None
    scheme: str | None
    host: bytes | None


NOTHING: Final = Forwarded(None, None, None)


def forwarded(headers: list[tuple[bytes, bytes]], trusts: Callable[[str], bool]) -> Forwarded:
    """Read the forwarding headers of a request whose peer is trusted; without one it costs a look at each name.

    X-Forwarded-* go before Forwarded when both came: nearly every proxy sets the former, and passes on a Forwarded
    header that the client made up.

    Args:
        headers: As received, names in lower case.
        trusts: Whether an address (as text, IPv4 in its short form) is a trusted proxy.
    """
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _NAMES:
            lines.setdefault(name, []).append(value)
    if not lines:
        return NOTHING
    standard = lines.pop(b"forwarded", None)
    if lines:
        return _legacy(lines, trusts)
    return _standard(standard or [], trusts)


def _legacy(lines: dict[bytes, list[bytes]], trusts: Callable[[str], bool]) -> Forwarded:
    hops = _items(lines.get(b"x-forwarded-for"))
    client, at = None, len(hops) - 1
    for index in range(len(hops) - 1, -1, -1):
        at = index
        node = _node(hops[index])
        if node is None:
            break
        client = node
        if not trusts(node[0]):
            break
    scheme = SCHEMES.get(_beside(_items(lines.get(b"x-forwarded-proto")), at, len(hops)).lower())
    host: bytes | None = _beside(_items(lines.get(b"x-forwarded-host")), at, len(hops))
    valid = HOST.fullmatch(host or b"")
    if valid is None:
        return Forwarded(client, scheme, None)
    port = _beside(_items(lines.get(b"x-forwarded-port")), at, len(hops))
    if valid[1] is None and port.isdigit() and len(port) <= 5 and port != DEFAULT_PORTS.get(scheme or ""):
        host = valid[0] + b":" + port
    return Forwarded(client, scheme, host)


def _items(lines: list[bytes] | None) -> list[bytes]:
    return [item.strip(b" \t") for line in lines for item in line.split(b",")] if lines else []


def _beside(items: list[bytes], at: int, hops: int) -> bytes:
    """The item for hop ``at`` when each hop added one; else the last, which is our own peer's word."""
    if not items:
        return b""
    return items[at] if len(items) == hops else items[-1]


def _standard(lines: list[bytes], trusts: Callable[[str], bool]) -> Forwarded:
    client: Node | None = None
    scheme: str | None = None
    host: bytes | None = None
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            comma = _last_comma(line, end)
            pairs = _pairs(line[comma + 1 : end]) if comma is not None else None
            if comma is None or pairs is None:
                return Forwarded(client, scheme, host)
            end = comma
            if not pairs:  # an empty list element (RFC 9110 section 5.6.1)
                continue
            # A trusted hop wrote this element, so its word on scheme and host counts whatever it says of the client.
            scheme = SCHEMES.get(pairs.get(b"proto", b"").lower(), scheme)
            told = pairs.get(b"host", b"")
            host = told if HOST.fullmatch(told) else host
            node = _node(pairs.get(b"for", b""), standard=True)
            client = node or client
            if node is None or not trusts(node[0]):
                return Forwarded(client, scheme, host)
    return Forwarded(client, scheme, host)


def _last_comma(line: bytes, end: int) -> int | None:
    """Where the last element before ``end`` begins, less one; None when its quotes don't pair up.

    Quotes are paired from the right as well: an unpaired one that a client sent stays within the client's part.
    """
    position, comma = end, line.rfind(b",", 0, end)
    while True:
        quote = line.rfind(b'"', 0, position)
        if quote <= comma:
            return comma
        position = line.rfind(b'"', 0, quote)
        if position < 0:
            return None
        if comma > position:  # it was inside the quotes
            comma = line.rfind(b",", 0, position)


def _pairs(element: bytes) -> dict[bytes, bytes] | None:
    """Parameters of an element by lower-case name; None when it is malformed, empty when it is blank."""
    pairs: dict[bytes, bytes] = {}
    at, end = 0, len(element)
    while at < end:
        if element[at] in b" \t;":
            at += 1
            continue
        match = PAIR.match(element, at)
        if match is None:
            return None
        at = match.end()
        name = match[1].lower()
        if name in pairs or (at < end and element[at] not in b" \t;"):
            return None  # section 4: each parameter once
        pairs[name] = match[2] if match[2] is not None else match[3]
    return pairs


def _node(value: bytes, standard: bool = False) -> Node | None:
    """Address and port of a node; None for ``unknown``, obfuscated names (RFC 7239 section 6) and what is malformed."""
    text = value.decode("latin-1")
    match = IPV4.fullmatch(text)
    if match is not None:
        return _with_port(match[1], match[2])
    match = IPV6.fullmatch(text)
    if match is None and (standard or not BARE_IPV6.fullmatch(text)):
        return None
    try:
        address = IPv6Address(match[1] if match is not None else text)
    except AddressValueError:
        return None
    return _with_port(str(address.ipv4_mapped or address), match[2] if match is not None else None)


def _with_port(host: str, port: str | None) -> Node | None:
    number = int(port or 0)
    return (host, number) if number <= 65535 else None
