"""Encoders of WebSocket frames: the examples of RFC 6455 section 5.7, every length form, close frames."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ApplicationError
from sojourn.wire.websocket import (
    BINARY,
    CONTINUATION,
    TEXT,
    encode_binary,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
    frame_header,
)
from sojourn.wire.websocket_frames import apply_mask, is_close_code, mask_in_python


def test_the_examples_of_the_rfc() -> None:
    """RFC 6455 section 5.7, as a server sends them."""
    assert encode_text("Hello") == bytes.fromhex("810548656c6c6f")
    assert encode_frame(TEXT, b"Hel", fin=False) == bytes.fromhex("010348656c")
    assert encode_frame(CONTINUATION, b"lo") == bytes.fromhex("80026c6f")
    assert encode_ping(b"Hello") == bytes.fromhex("890548656c6c6f")
    assert encode_pong(b"Hello") == bytes.fromhex("8a0548656c6c6f")
    assert encode_binary(bytes(256))[:4] == bytes.fromhex("827e0100")
    assert encode_binary(bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


@pytest.mark.parametrize(
    ("length", "size", "form"), [(0, 2, 0), (125, 2, 125), (126, 4, 126), (65535, 4, 126), (65536, 10, 127)]
)
def test_lengths_are_written_in_the_shortest_form(length: int, size: int, form: int) -> None:
    """RFC 6455 section 5.2."""
    header = frame_header(BINARY, length)
    assert (len(header), header[0], header[1]) == (size, 0x82, form)
    assert int.from_bytes(header[2:] or header[1:], "big") == length
    assert encode_binary(bytes(length)) == header + bytes(length)
    assert encode_text("x" * length) == frame_header(TEXT, length) + b"x" * length
    assert frame_header(TEXT, length, rsv1=True)[0] == 0xC1
    assert frame_header(CONTINUATION, length, fin=False)[0] == 0x00


def test_a_binary_payload_may_be_any_buffer() -> None:
    for payload in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        frame = encode_binary(payload)
        assert (type(frame), frame) == (bytes, b"\x82\x03abc")


def test_text_with_a_lone_surrogate_is_the_caller_s_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_text("\ud800")


@given(st.text(max_size=80).map(lambda part: part * 4))
def test_a_close_reason_is_cut_between_characters(reason: str) -> None:
    """RFC 6455 sections 5.5 and 5.5.1: a control frame carries 125 bytes, 2 of them the code."""
    frame = encode_close(1000, reason)
    assert frame[:4] == bytes((0x88, len(frame) - 2)) + b"\x03\xe8"
    assert len(frame) <= 127
    sent = frame[4:].decode()
    assert reason.encode("utf-8", "replace").decode().startswith(sent)
    assert sent == reason.encode("utf-8", "replace").decode() or len(frame) > 127 - 4


def test_a_close_without_a_code_is_empty() -> None:
    assert encode_close() == encode_close(1005, "ignored") == b"\x88\x00"


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 70000])
def test_a_code_that_may_not_be_sent_is_refused(code: int) -> None:
    """RFC 6455 section 7.4."""
    assert not is_close_code(code)
    with pytest.raises(ApplicationError, match=str(code)):
        encode_close(code)


@pytest.mark.parametrize("encode", [encode_ping, encode_pong])
def test_a_control_payload_has_at_most_125_bytes(encode: Callable[[bytes], bytes]) -> None:
    """RFC 6455 section 5.5."""
    assert len(encode(b"x" * 125)) == 127
    with pytest.raises(ApplicationError, match="126"):
        encode(b"x" * 126)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.sampled_from([bytes, bytearray]))
def test_the_mask_in_python_equals_the_definition_and_the_one_in_c(
    data: bytes, mask: bytes, kind: Callable[[bytes], bytes]
) -> None:
    """RFC 6455 section 5.3."""
    expected = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert mask_in_python(kind(data), mask) == expected
    assert apply_mask(kind(data), mask) == expected


def test_the_mask_in_c_is_the_one_in_use() -> None:
    assert apply_mask is not mask_in_python


def test_without_the_c_extension_the_mask_in_python_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    spec = importlib.util.find_spec("sojourn.wire.websocket_frames")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.apply_mask is module.mask_in_python
