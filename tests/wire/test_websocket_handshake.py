"""The opening handshake of RFC 6455 section 4.2: who gets in, and what the others are told."""

from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.protocol import State
from websockets.uri import parse_uri

from sojourn.errors import HandshakeError
from sojourn.wire.deflate import DeflateSettings, negotiate
from sojourn.wire.websocket_handshake import accept_key, accept_response, check_handshake, origin_allowed

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = [
    (b"host", b"server.example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]


def headers(**changed: bytes | list[bytes] | None) -> list[tuple[bytes, bytes]]:
    """The headers of a good handshake, some of them replaced, removed (None) or repeated (a list)."""
    result = list(HEADERS)
    for word, value in changed.items():
        name = word.replace("_", "-").encode()
        result = [header for header in result if header[0] != name]
        values = value if isinstance(value, list) else [] if value is None else [value]
        result += [(name, line) for line in values]
    return result


def test_the_example_of_the_rfc() -> None:
    """RFC 6455 section 1.3."""
    request = headers(origin=b"http://example.com", sec_websocket_protocol=b"chat, superchat")
    handshake = check_handshake("GET", "1.1", request)
    assert handshake.key == KEY
    assert handshake.subprotocols == ("chat", "superchat")
    assert handshake.extensions == ()
    assert (handshake.origin, handshake.host) == (b"http://example.com", b"server.example.com")
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_response(KEY, "chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )


GOOD = {
    "Firefox sends keep-alive too": headers(connection=b"keep-alive, Upgrade"),
    "the token may be anywhere, in any case": headers(connection=b"a,UPGRADE ,b"),
    "Connection in two lines (RFC 9110 5.3)": headers(connection=[b"keep-alive", b"upgrade"]),
    "Upgrade in any case": headers(upgrade=b"WebSocket"),
    "Upgrade as a list": headers(upgrade=[b"h2c", b"websocket, foo"]),
    "empty list elements (RFC 9110 5.6.1.2)": headers(connection=b", ,upgrade,"),
    "an empty body that is announced": headers(content_length=b"0"),
    "spaces around values": headers(sec_websocket_version=b" 13\t", sec_websocket_key=b" " + KEY),
    "no Host: the HTTP codec's business": headers(host=None),
}


@pytest.mark.parametrize("request_headers", GOOD.values(), ids=GOOD.keys())
def test_an_acceptable_handshake(request_headers: list[tuple[bytes, bytes]]) -> None:
    assert check_handshake("GET", "1.1", request_headers).key == KEY


BAD = {
    "no Upgrade": (headers(upgrade=None), 426),
    "another protocol": (headers(upgrade=b"h2c"), 426),
    "no Connection": (headers(connection=None), 426),
    "Connection without upgrade": (headers(connection=b"keep-alive"), 426),
    "upgrade as a part of a token": (headers(connection=b"no-upgrade"), 426),
    "no version (4.4)": (headers(sec_websocket_version=None), 426),
    "version 8 (4.4)": (headers(sec_websocket_version=b"8"), 426),
    "a list of versions (4.4)": (headers(sec_websocket_version=b"8, 13"), 426),
    "two versions (11.3.5)": (headers(sec_websocket_version=[b"13", b"13"]), 400),
    "no key (4.2.1)": (headers(sec_websocket_key=None), 400),
    "two keys (11.3.1)": (headers(sec_websocket_key=[KEY, KEY]), 400),
    "a key of 15 bytes": (headers(sec_websocket_key=b"dGhlIHNhbXBsZSBub25j"), 400),
    "a key of 17 bytes": (headers(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZXM="), 400),
    "a key without padding": (headers(sec_websocket_key=KEY.rstrip(b"=")), 400),
    "a key that is not base64": (headers(sec_websocket_key=b"dGhlIHNhbXBsZSBub25j!Q=="), 400),
    "two origins": (headers(origin=[b"http://a", b"http://b"]), 400),
    "two hosts": (headers(host=[b"a", b"b"]), 400),
    "a body": (headers(content_length=b"5"), 400),
    "a chunked body": (headers(transfer_encoding=b"chunked"), 400),
    "a subprotocol that is no token (11.3.4)": (headers(sec_websocket_protocol=b"chat, super chat"), 400),
    "an extension that is no token (9.1)": (headers(sec_websocket_extensions=b"a b"), 400),
    "a parameter that is no token (9.1)": (headers(sec_websocket_extensions=b"a; b c"), 400),
    "a parameter without its value (9.1)": (headers(sec_websocket_extensions=b"a; b="), 400),
    "a parameter without a name (9.1)": (headers(sec_websocket_extensions=b"a;"), 400),
    "an open quote (9.1)": (headers(sec_websocket_extensions=b'a; b="1'), 400),
    "parameters without an extension (9.1)": (headers(sec_websocket_extensions=b"; b=1"), 400),
}


@pytest.mark.parametrize(("request_headers", "status"), BAD.values(), ids=BAD.keys())
def test_a_refused_handshake(request_headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        check_handshake("GET", "1.1", request_headers)
    assert caught.value.status == status
    assert ((b"upgrade", b"websocket") in caught.value.headers) == (status == 426)


def test_a_wrong_version_is_told_the_right_one() -> None:
    """RFC 6455 section 4.4."""
    with pytest.raises(HandshakeError) as caught:
        check_handshake("GET", "1.1", headers(sec_websocket_version=b"14"))
    assert (b"sec-websocket-version", b"13") in caught.value.headers


@pytest.mark.parametrize("method", ["POST", "HEAD", "get", "CONNECT"])
def test_only_get(method: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        check_handshake(method, "1.1", HEADERS)
    assert (caught.value.status, caught.value.headers) == (405, ((b"allow", b"GET"),))


@pytest.mark.parametrize("version", ["1.0", "0.9"])
def test_only_http_1_1(version: str) -> None:
    with pytest.raises(HandshakeError, match="400"):
        check_handshake("GET", version, HEADERS)


def test_subprotocols_keep_their_order_and_come_once() -> None:
    request = headers(sec_websocket_protocol=[b"b,a ", b"", b"c, a"])
    assert check_handshake("GET", "1.1", request).subprotocols == ("b", "a", "c")


def test_extension_offers_keep_their_order_and_parameters() -> None:
    """RFC 6455 section 9.1."""
    lines = [b'permessage-deflate ; client_max_window_bits; server_max_window_bits="10",x', b"y;a = 1;a=2 , z"]
    assert check_handshake("GET", "1.1", headers(sec_websocket_extensions=lines)).extensions == (
        ("permessage-deflate", (("client_max_window_bits", None), ("server_max_window_bits", "10"))),
        ("x", ()),
        ("y", (("a", "1"), ("a", "2"))),
        ("z", ()),
    )


def test_a_websockets_client_accepts_the_answer() -> None:
    client = ClientProtocol(
        parse_uri("ws://server/path"),
        extensions=[ClientPerMessageDeflateFactory(server_max_window_bits=11, client_max_window_bits=True)],
        subprotocols=["chat.v2", "chat.v1"],
    )
    request = client.connect()
    lines = [(name.lower().encode(), value.encode()) for name, value in request.headers.raw_items()]
    handshake = check_handshake("GET", "1.1", lines)
    agreed = negotiate(handshake.extensions, DeflateSettings(client_max_window_bits=10))
    assert agreed is not None
    client.send_request(request)
    client.receive_data(
        accept_response(handshake.key, handshake.subprotocols[1], agreed.header(), [(b"set-cookie", b"a=b")])
    )
    assert client.handshake_exc is None
    assert (client.state, client.subprotocol) == (State.OPEN, "chat.v1")
    assert [extension.name for extension in client.extensions] == ["permessage-deflate"]
    assert client.events_received()[0].headers["set-cookie"] == "a=b"


ORIGINS = [
    # Origin, allowed, Host, answer.
    (b"https://evil.example", None, b"a.example", True),
    (None, ("https://a.example",), b"a.example", True),
    (b"https://evil.example", (), b"a.example", False),
    (b"https://evil.example", ("*",), None, True),
    (b"null", ("*",), None, True),
    (b"null", ("same-origin", "https://a.example"), b"null", False),
    (b"null", ("null",), None, True),
    (b"https://a.example", ("https://a.example",), None, True),
    (b"HTTPS://A.example", ("https://a.EXAMPLE",), None, True),
    (b"https://a.example:8443", ("https://a.example",), None, False),
    (b"http://a.example", ("https://a.example",), None, False),
    (b"https://a.example.evil", ("https://a.example",), None, False),
    (b"https://x.a.example", ("https://a.example",), None, False),
    (b"https://b.example", ("https://a.example", "https://b.example"), None, True),
    (b"https://a.example", ("same-origin",), b"a.example", True),
    (b"https://A.EXAMPLE", ("same-origin",), b"a.example", True),
    (b"https://a.example", ("same-origin",), b"a.example:443", True),
    (b"http://a.example", ("same-origin",), b"a.example:80", True),
    (b"http://a.example:80", ("same-origin",), b"a.example", True),
    (b"http://a.example:8000", ("same-origin",), b"a.example:8000", True),
    (b"http://a.example:8000", ("same-origin",), b"a.example:8001", False),
    (b"http://a.example", ("same-origin",), b"a.example:8000", False),
    (b"http://[::1]:8000", ("same-origin",), b"[::1]:8000", True),
    (b"http://[::1]", ("same-origin",), b"[::1]:80", True),
    (b"http://[::1]", ("same-origin",), b"[::2]", False),
    (b"https://evil.example", ("same-origin",), b"a.example", False),
    (b"https://a.example", ("same-origin",), None, False),
    (b"same-origin", ("same-origin",), b"same-origin", False),
    (b"a.example", ("same-origin",), b"a.example", False),
    (b"https://", ("same-origin",), b"", False),
    (b"https://b.example", ("same-origin", "https://b.example"), b"a.example", True),
]


@pytest.mark.parametrize(("origin", "allowed", "host", "answer"), ORIGINS)
def test_origins(origin: bytes | None, allowed: tuple[str, ...] | None, host: bytes | None, answer: bool) -> None:
    """RFC 6455 section 10.2."""
    assert origin_allowed(origin, allowed, host) is answer
