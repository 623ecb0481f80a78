"""Patterns and types of parameters: what is read, what is refused, and values there and back."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import RouteError
from sojourn.routing.converters import BUILT_IN
from sojourn.routing.pattern import Parameter, parse


def test_a_pattern_is_taken_apart_at_its_slashes() -> None:
    pattern = parse("/users/{id:int}/report-{day}.pdf/{rest:path}", BUILT_IN)
    assert pattern.segments == (
        "users",
        Parameter("", "id", "int", ""),
        Parameter("report-", "day", "str", ".pdf"),
        Parameter("", "rest", "path", ""),
    )
    assert pattern.names == ("id", "day", "rest")
    assert pattern.label == "/users/{id}/report-{day}.pdf/{rest}"


def test_two_patterns_of_one_shape_differ_in_names_only() -> None:
    assert parse("/a/{x:int}/{y}", BUILT_IN).shape == parse("/a/{n:int}/{m:str}", BUILT_IN).shape
    assert parse("/a/{x:int}", BUILT_IN).shape != parse("/a/{x}", BUILT_IN).shape
    assert parse("/a/", BUILT_IN).shape != parse("/a", BUILT_IN).shape


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("users", "begins with a slash"),
        ("/a//b", "an empty segment"),
        ("/a/../b", "'..', which clients take away"),
        ("/a?b", "one of [?] # %"),
        ("/a%20b", "compared with the decoded path"),
        ("/{id:number}", "no type 'number'; there are float, int, path, str, uuid"),
        ("/{id", "is no parameter"),
        ("/{}", "is no parameter"),
        ("/{a}{b}", "one in a segment"),
        ("/{2a}", "is no parameter"),
        ("/{a}/{a}", "has a more than once"),
        ("/{rest:path}/edit", "takes all that is left"),
        ("/x{rest:path}", "takes all that is left"),
        ("/a" * 65, "at most 64 segments"),
    ],
)
def test_a_pattern_that_can_not_match_as_it_looks_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(RouteError, match=message):
        parse(pattern, BUILT_IN)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "7", 7),
        ("int", "007", 7),
        ("float", "1.5", 1.5),
        ("float", "2", 2.0),
        ("uuid", "7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f", uuid.UUID("7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f")),
        ("uuid", "7D3F6C2E1C4B4B569D6E0A1B2C3D4E5F", uuid.UUID("7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f")),
        ("str", "ä b", "ä b"),
        ("path", "a/b", "a/b"),
    ],
)
def test_text_becomes_a_value(kind: str, text: str, value: Any) -> None:
    assert BUILT_IN[kind].parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "-1"),
        ("int", "+1"),
        ("int", "1_0"),
        ("int", " 1"),
        ("int", "1\n"),
        ("int", "٣"),  # a digit for Python, not for a path
        ("int", "9" * 65),
        ("float", "1."),
        ("float", "1e5"),
        ("float", "nan"),
        ("float", "9" * 65),
        ("float", "1.5\n"),
        ("uuid", "7d3f6c2e"),
        ("uuid", "{7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f}"),
    ],
)
def test_text_of_another_kind_is_no_match(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"[\s\S]"):
        BUILT_IN[kind].parse(text)


@pytest.mark.parametrize(
    ("pattern", "values", "message"),
    [
        ("/{id:int}", {"id": -1}, "not a whole number"),
        ("/{id:int}", {"id": True}, "not a whole number"),
        ("/{id:int}", {"id": 10**70}, "at most 64 digits"),
        ("/{id:int}", {"id": "x"}, "id of /{id:int} can't be 'x'"),
        ("/{x:float}", {"x": float("inf")}, "not a number"),
        ("/{x:float}", {"x": -0.0}, "not a number"),
        ("/{x:float}", {"x": 1e-300}, "at most 64 digits"),
        ("/{x:uuid}", {"x": "nope"}, "x of /{x:uuid} can't be"),
        ("/{x}", {"x": "a/b"}, "a slash"),
        ("/{x}", {"x": ".."}, "clients take a segment '..' away"),
        ("/{x}", {"x": ""}, "can't be empty"),
        ("/{x}", {}, "needs x, not nothing"),
        ("/{x}", {"x": 1, "y": 2}, "needs x, not x, y"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(pattern: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RouteError, match=message):
        parse(pattern, BUILT_IN).fill(BUILT_IN, values)


VALUES = {
    "int": st.integers(0, 10**63),
    "float": st.floats(0, 1e40, allow_subnormal=False).filter(lambda x: x == 0.0 or x > 1e-30).map(abs),
    "uuid": st.uuids(),
    "str": st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: text not in (".", "..")
    ),
    "path": st.text(st.characters(exclude_categories=["Cs"])),
}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind])))
def test_a_value_comes_back_from_its_text(pair: tuple[str, Any]) -> None:
    kind, value = pair
    path = parse(f"/x/{{v:{kind}}}", BUILT_IN).fill(BUILT_IN, {"v": value})
    assert path.isascii()
    assert "?" not in path
    assert "#" not in path
    assert BUILT_IN[kind].parse(unquote(path)[3:]) == value


@pytest.mark.parametrize("kind", ["int", "float", "uuid"])
def test_no_text_makes_a_parser_slow(kind: str) -> None:
    began = time.thread_time()
    for text in ("9" * 1_000_000, "1." + "9" * 1_000_000, "a-" * 500_000, "9" * 1_000_000 + "x"):
        with pytest.raises(ValueError, match=r"[\s\S]"):
            BUILT_IN[kind].parse(text)
    assert time.thread_time() - began < 1.0
