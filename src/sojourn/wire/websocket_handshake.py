"""The WebSocket opening handshake, seen from the server (RFC 6455 section 4.2).

``check_handshake`` reads the request head, ``origin_allowed`` says whether the page may connect, ``accept_response``
writes the 101. Refusals are a ``HandshakeError`` with the status and the headers of the answer.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1

from sojourn.errors import HandshakeError
from sojourn.wire.deflate import ExtensionOffer

__all__ = ["Handshake", "accept_key", "accept_response", "check_handshake", "origin_allowed"]

Headers = Sequence[tuple[bytes, bytes]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
# 16 bytes in base64 (RFC 6455 section 4.1).
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch
# RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# A quoted value must be a token once unquoted (RFC 6455 section 9.1).
_PARAM = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:=[ \t]*(\"?)([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\2[ \t]*)?"
).fullmatch
# RFC 9110 section 15.5.22: a 426 names the protocol to upgrade to.
_UPGRADE_HEADERS = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
# The headers of which a request holds one line at most (RFC 6455 section 11.3, RFC 6454 section 7.3).
_SINGLE = frozenset({b"sec-websocket-key", b"sec-websocket-version", b"origin", b"host"})


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the client asked for.

    Args:
        key: ``Sec-WebSocket-Key``, for ``accept_response``.
        subprotocols: In the client's order of preference; the answer may name one of them.
        extensions: Offers in the client's order of preference, for ``deflate.negotiate``.
        origin: The page that connects; None when the client is no browser.
        host: The ``Host`` header; None when absent.
    """

    key: bytes
    subprotocols: tuple[str, ...]
    extensions: tuple[ExtensionOffer, ...]
    origin: bytes | None
    host: bytes | None


def check_handshake(method: str, http_version: str, headers: Headers) -> Handshake:
    """Check the head of a request that asks for a WebSocket.

    Args:
        method: Request method.
        http_version: Such as ``1.1``.
        headers: Names in lower case, one entry per header line.

    Raises:
        HandshakeError: 405 not GET; 426 no upgrade to websocket or a version that is not 13; 400 all else.

    Source: RFC 6455 section 4.2.1; a list may come in several lines (RFC 9110 section 5.3).
    """
    if method != "GET":
        raise HandshakeError(405, f"a WebSocket begins with GET, not {method}", [(b"allow", b"GET")])
    if http_version in ("0.9", "1.0"):
        raise HandshakeError(400, f"a WebSocket needs HTTP/1.1, not HTTP/{http_version}")
    single: dict[bytes, bytes] = {}
    lists: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _SINGLE:
            if name in single:
                raise HandshakeError(400, f"more than one {name.decode()}")
            single[name] = value.strip(b" \t")
        elif name in (b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions"):
            lists.setdefault(name, []).append(value)
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t") != b"0"):
            # The bytes behind the head would be read as frames by one side and as a body by the other.
            raise HandshakeError(400, "a WebSocket handshake has no body")
    if b"websocket" not in _items(lists, b"upgrade", lower=True):
        raise HandshakeError(426, "Upgrade does not name websocket", _UPGRADE_HEADERS)
    if b"upgrade" not in _items(lists, b"connection", lower=True):
        raise HandshakeError(426, "Connection does not name Upgrade", _UPGRADE_HEADERS)
    if single.get(b"sec-websocket-version") != _VERSION:
        raise HandshakeError(
            426, "Sec-WebSocket-Version is not 13", ((b"sec-websocket-version", _VERSION), *_UPGRADE_HEADERS)
        )
    key = single.get(b"sec-websocket-key", b"")
    if not _KEY(key):
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    subprotocols = _items(lists, b"sec-websocket-protocol")
    if not all(map(_TOKEN, subprotocols)):
        raise HandshakeError(400, "Sec-WebSocket-Protocol is not a list of tokens")
    return Handshake(
        key,
        tuple(name.decode() for name in dict.fromkeys(subprotocols)),
        tuple(map(_offer, _items(lists, b"sec-websocket-extensions"))),
        single.get(b"origin"),
        single.get(b"host"),
    )


def _items(lists: dict[bytes, list[bytes]], name: bytes, lower: bool = False) -> list[bytes]:
    """The elements of a list header over all its lines, empty ones left out (RFC 9110 section 5.6.1.2)."""
    lines = lists.get(name)
    if lines is None:
        return []
    joined = b",".join(lines)
    return [item for item in (part.strip(b" \t") for part in (joined.lower() if lower else joined).split(b",")) if item]


def _offer(item: bytes) -> ExtensionOffer:
    name, *params = item.split(b";")
    name = name.strip(b" \t")
    found = [_PARAM(param) for param in params]
    if not _TOKEN(name) or None in found:
        raise HandshakeError(400, "Sec-WebSocket-Extensions is malformed")
    return name.decode(), tuple((m[1].decode(), m[3].decode() if m[3] else None) for m in found if m is not None)


def accept_key(key: bytes) -> bytes:
    """The value of ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 section 4.2.2)."""
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def accept_response(
    key: bytes,
    subprotocol: str | None = None,
    extension: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The 101 that opens the WebSocket.

    Args:
        key: ``Handshake.key``.
        subprotocol: One of ``Handshake.subprotocols``; None names none.
        extension: ``DeflateParams.header()``; None when there is no extension.
        headers: The application's own; the caller has checked that no name or value holds a line break, and that
            none is one of the headers written here.
    """
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept_key(key),
    ]
    if subprotocol is not None:
        lines += (b"\r\nSec-WebSocket-Protocol: ", subprotocol.encode("ascii"))
    if extension is not None:
        lines += (b"\r\nSec-WebSocket-Extensions: ", extension)
    for name, value in headers:
        lines += (b"\r\n", name, b": ", value)
    lines.append(b"\r\n\r\n")
    return b"".join(lines)


def origin_allowed(origin: bytes | None, allowed: tuple[str, ...] | None, host: bytes | None) -> bool:
    """Whether a page of this origin may connect: the guard against cross-site WebSocket hijacking.

    Args:
        origin: The ``Origin`` header. None passes: browsers always send it, and other clients can send anything.
        allowed: Origins as ``https://example.com``, ``*`` for any, ``same-origin`` for the page's own host and port;
            None asks nothing. An opaque origin, ``null``, passes only by ``*`` or ``null``.
        host: The ``Host`` header, for ``same-origin``; behind a proxy, the one the client sent.

    Source: RFC 6455 sections 4.2.2 and 10.2; the scheme is not compared, since a proxy may end TLS.
    """
    if allowed is None or origin is None or "*" in allowed:
        return True
    own = origin.strip(b" \t").lower()
    if any(own == entry.lower().encode() for entry in allowed if entry != "same-origin"):
        return True
    if "same-origin" not in allowed or host is None:
        return False
    scheme, separator, authority = own.partition(b"://")
    if not separator or not authority:
        return False
    port = _DEFAULT_PORTS.get(scheme, b"")
    return _with_port(authority, port) == _with_port(host.strip(b" \t").lower(), port)


def _with_port(authority: bytes, port: bytes) -> bytes:
    # An IPv6 address has colons of its own, inside brackets.
    return authority if b":" in authority.rpartition(b"]")[2] else authority + b":" + port
