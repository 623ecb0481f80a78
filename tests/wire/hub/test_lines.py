"""A frame of ``sojourn.v1`` is lines, and no line costs more than its bytes."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import Decoder

from sojourn.wire.hub.lines import DEEPEST, HubWireError, decoded, lines

ANY: Final[Decoder[Any]] = Decoder()


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        ("", []),
        ("{}", ["{}"]),
        ("{}\n", ["{}"]),
        ("{}\n\n  \n{}", ["{}", "{}"]),
        (b'{"id":1}\n{}', ['{"id":1}', "{}"]),
        ("{}\r\n{}", ["{}\r", "{}"]),  # a CR is white space of JSON
        ("\u2028", ["\u2028"]),  # ends a line of JavaScript, not one of this
    ],
)
def test_a_frame_is_its_lines(frame: str | bytes, found: list[str]) -> None:
    assert lines(frame) == found


def test_bytes_that_are_not_utf8_are_refused_before_anything_is_passed_on() -> None:
    with pytest.raises(HubWireError, match="byte 4 is not UTF-8") as caught:
        lines(b'"abc\xff"')
    assert caught.value.code == "bad_request"
    assert caught.value.id == 0


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "line",
    [
        nested(DEEPEST),
        '{"a":' * DEEPEST + "1" + "}" * DEEPEST,
        "[" + ",".join(["[]"] * 1000) + "]",
        json.dumps("[{" * 1000),
        json.dumps(['"[\\' * 200] * 3),
    ],
)
def test_many_brackets_are_all_right_as_long_as_they_are_not_deep(line: str) -> None:
    assert decoded(ANY, line) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [nested(DEEPEST + 1), "[" + nested(3) + "," + nested(DEEPEST) + "]", nested(60_000), '{"a":' * 60_000],
    ids=["one", "inside", "all", "open"],
)
def test_a_line_that_is_nested_too_deep_is_refused(line: str) -> None:
    with pytest.raises(HubWireError, match="nested more than 64 deep"):
        decoded(ANY, line)


@given(st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=60))
def test_depth_is_counted_as_a_parser_would(value: Any) -> None:
    def depth(value: Any) -> int:
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    # Deep enough to be on both sides of the bound.
    for _ in range(DEEPEST - 3):
        value = [value, "[]{}"]
    line = json.dumps(value)
    if depth(value) > DEEPEST:
        with pytest.raises(HubWireError):
            decoded(ANY, line)
    else:
        assert decoded(ANY, line) == value


@given(st.text() | st.text(alphabet='{}[]":,01e\\ \n'))
def test_nothing_but_its_own_error_comes_out_of_any_text(text: str) -> None:
    for line in lines(text):
        with contextlib.suppress(HubWireError):
            decoded(ANY, line)
