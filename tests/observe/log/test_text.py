"""Text that a stranger sent can neither forge a line nor drive a terminal."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.observe.log.text import (
    apache_time,
    clip,
    clock_time,
    json_gap,
    json_line,
    message,
    quoted,
    raw,
    rfc3339,
    word,
)

PRINTABLE = re.compile(r"[ -~]*")
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", '"': b'"', "\\": b"\\"}

any_text = st.text(st.characters())  # lone surrogates included
nasty_bytes = st.binary() | st.text(st.sampled_from('a \\"\n\r\x1b\x7f\x00')).map(str.encode)


def unescape(text: str) -> bytes:
    """What quoted() and word() wrote, read back."""

    def one(match: re.Match[str]) -> str:
        escape = match[1]
        return chr(int(escape[1:], 16)) if escape[0] == "x" else ESCAPES[escape].decode()

    return re.sub(r'\\(x[0-9a-f]{2}|["nrt\\])', one, text).encode("latin-1")


@given(nasty_bytes)
def test_a_quoted_field_is_printable_and_ends_only_where_it_should(data: bytes) -> None:
    field = quoted(data)
    assert PRINTABLE.fullmatch(field)
    assert re.fullmatch(r'(?:[^"\\]|\\.)*', field), "an unescaped quote or a trailing backslash"


@given(nasty_bytes)
def test_a_word_is_one_printable_word(data: bytes) -> None:
    assert PRINTABLE.fullmatch(word(data))
    assert len(word(data).split()) == 1


@given(nasty_bytes)
def test_escaping_loses_nothing(data: bytes) -> None:
    assert unescape(quoted(data)) == data
    assert unescape(word(data)) == (data or b"-")


@given(
    st.dictionaries(
        st.text("abc_\x7f\xe9\n", min_size=1), any_text | st.integers() | st.none() | st.lists(any_text).map(tuple)
    )
)
def test_a_json_line_is_one_printable_line_with_one_object(record: dict[str, object]) -> None:
    line = json_line(record)
    assert line.endswith(b"\n")
    assert PRINTABLE.fullmatch(line[:-1].decode("ascii"))
    assert isinstance(json.loads(line), dict)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_json_line_loses_no_character(text: str) -> None:
    assert json.loads(json_line({"path": text})) == {"path": text}


@given(any_text)
def test_a_message_is_one_printable_line(text: str) -> None:
    assert message(text).isprintable()


@given(st.text(st.characters() | st.sampled_from("\n\t\r\x85\u2028\x1b")))
def test_further_lines_of_a_message_are_indented(text: str) -> None:
    first, *rest = message(text, lines=True).split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert len(rest) == text.count("\n")


@given(any_text)
def test_any_string_has_bytes(text: str) -> None:
    assert isinstance(raw(text), bytes)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 日本", "größe 日本"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),  # CSI as one C1 character
        ("\u202ecod.exe", "\\u202ecod.exe"),  # right-to-left override
        ("\udc80", "\\udc80"),
    ],
)
def test_a_message_keeps_what_is_printable(text: str, shown: str) -> None:
    assert message(text) == shown


@pytest.mark.parametrize(("size", "kept"), [(9, b"a" * 9), (10, b"a" * 10), (11, b"aaaaaaa...")])
def test_a_field_that_is_too_long_ends_in_three_dots(size: int, kept: bytes) -> None:
    assert clip(b"a" * size, 10) == kept


@pytest.mark.parametrize(
    ("when", "utc", "apache"),
    [
        (0.0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
        (1_700_000_000.1234, "2023-11-14T22:13:20.123Z", "14/Nov/2023:22:13:20 +0000"),
        (1_700_000_000.9996, "2023-11-14T22:13:21.000Z", "14/Nov/2023:22:13:21 +0000"),
        (1_709_164_799.5, "2024-02-28T23:59:59.500Z", "28/Feb/2024:23:59:59 +0000"),
    ],
)
def test_moments_are_written_in_utc(when: float, utc: str, apache: str) -> None:
    assert rfc3339()(when) == utc
    assert apache_time()(when) == apache


def test_a_stamp_follows_the_second_either_way() -> None:
    stamp = rfc3339()
    assert [stamp(when)[17:23] for when in (10.0, 10.5, 11.25, 10.75)] == ["10.000", "10.500", "11.250", "10.750"]


def test_people_get_the_time_of_day() -> None:
    assert re.fullmatch(r"\d\d:\d\d:20\.123", clock_time()(1_700_000_000.1234))


def test_a_gap_is_a_json_line_of_its_own() -> None:
    assert json.loads(json_gap("t", 3, "dropped")) == {
        "time": "t", "level": "warning", "event": "log_lines_lost", "lines": 3, "cause": "dropped",
    }  # fmt: skip
