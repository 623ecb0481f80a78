"""The tree is what a slow, obvious matcher is; and no path makes it slow."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sojourn.routing.converters import BUILT_IN
from sojourn.routing.pattern import Parameter, Pattern, parse
from sojourn.routing.tree import WEBSOCKET, Tree

TEXTS = {
    "str": r"[^/]+",
    "int": r"[0-9]{1,64}",
    "float": r"(?=.{1,64}$)[0-9]+(?:\.[0-9]+)?",
    "uuid": r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}",
}
ID = "7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f"


def trees(*routes: tuple[str, str | None]) -> Tree[str]:
    return Tree(
        [
            (parse(pattern, BUILT_IN), None if methods is None else methods.split(), pattern)
            for pattern, methods in routes
        ],
        BUILT_IN,
    )


def by_hand(routes: list[tuple[Pattern, tuple[str, ...]]], method: str, path: str) -> tuple[str, list[Any]] | None:
    """Every route is tried; of those that match, the first in precedence, segment by segment."""
    found = []
    for pattern, methods in routes:
        if method in methods or (method == "HEAD" and "GET" in methods):
            values = _values(pattern, path)
            if values is not None:
                found.append((_precedence(pattern), pattern.text, values))
    return min(found, key=lambda each: each[0])[1:] if found else None


def _values(pattern: Pattern, path: str) -> list[Any] | None:
    regex, kinds = "", []
    for part in pattern.segments:
        if isinstance(part, str):
            regex += "/" + re.escape(part)
        elif part.kind == "path":
            regex += "/((?s:.*))"
            kinds.append("path")
        else:
            regex += "/" + re.escape(part.prefix) + "([^/]+)" + re.escape(part.suffix)
            kinds.append(part.kind)
    match = re.fullmatch(regex, path)
    if match is None:
        return None
    texts = match.groups()
    for kind, text in zip(kinds, texts, strict=True):
        if kind != "path" and re.fullmatch(TEXTS[kind], text) is None:
            return None
    return [BUILT_IN[kind].parse(text) for kind, text in zip(kinds, texts, strict=True)]


def _precedence(pattern: Pattern) -> list[Any]:
    keys: list[Any] = []
    for part in pattern.segments:
        if isinstance(part, str):
            keys.append((0,))
        elif part.kind == "path":
            keys.append((2,))
        else:
            keys.append((1, -len(part.prefix + part.suffix), BUILT_IN[part.kind].rank, part.prefix, part.suffix))
    return keys


_WORDS = ["a", "b", "ab", "1", "12", "1.5", "a-1", "b.x", ID, "ä", "a\n"]
_SEGMENTS = st.sampled_from(
    ["a", "b", "ab", "1", "{%s}", "{%s:int}", "{%s:float}", "{%s:uuid}", "a-{%s}", "{%s}.x", "b{%s:int}"]
)


@st.composite
def tables(draw: Any) -> list[tuple[Pattern, tuple[str, ...]]]:
    """Routes of random shapes, no two of one shape and method."""
    routes, seen = [], set()
    for _ in range(draw(st.integers(1, 12))):
        parts = draw(st.lists(_SEGMENTS, max_size=4))
        parts += draw(st.sampled_from([[], [], [], [""], ["{%s:path}"]]))
        text = "".join("/" + (part.replace("%s", f"p{at}")) for at, part in enumerate(parts)) or "/"
        pattern = parse(text, BUILT_IN)
        methods = tuple(
            method
            for method in draw(st.sampled_from([("GET",), ("POST",), ("GET", "POST"), ("HEAD",), (WEBSOCKET,)]))
            if (pattern.shape, method) not in seen
        )
        seen.update((pattern.shape, method) for method in methods)
        if methods:
            routes.append((pattern, methods))
    return routes


PATHS = st.lists(st.sampled_from([*_WORDS, ""]), max_size=6).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=400, deadline=None)
@given(tables(), st.lists(PATHS, min_size=1, max_size=8), st.sampled_from(["GET", "POST", "HEAD", WEBSOCKET]))
def test_the_tree_finds_what_a_naive_matcher_finds(
    routes: list[tuple[Pattern, tuple[str, ...]]], paths: list[str], method: str
) -> None:
    # HEAD of its own comes before that of GET at the same place; by hand it has to be one or the other.
    shapes = {pattern.shape for pattern, methods in routes if "HEAD" in methods}
    tree: Tree[str] = Tree([(pattern, methods, pattern.text) for pattern, methods in routes], BUILT_IN)
    for path in [*paths, *(pattern.text for pattern, _ in routes)]:
        if method == "HEAD" and shapes:
            continue
        found = tree.find(method, path)
        assert found == by_hand(routes, method, path)
        if found is not None:
            assert (method if method != "HEAD" else "GET") in tree.allowed(path)


@given(tables(), PATHS)
@example([], "/")
def test_what_is_allowed_is_what_is_found(routes: list[tuple[Pattern, tuple[str, ...]]], path: str) -> None:
    tree: Tree[str] = Tree([(pattern, methods, pattern.text) for pattern, methods in routes], BUILT_IN)
    allowed = tree.allowed(path)
    for method in ("GET", "POST", "HEAD", "PUT", WEBSOCKET):
        assert (tree.find(method, path) is not None) == (method in allowed)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/users/me", ("/users/me", [])),
        ("/users/7", ("/users/{id:int}", [7])),
        ("/users/bob", ("/users/{name}", ["bob"])),
        ("/users/report-7.pdf", ("/users/report-{day}.pdf", ["7"])),
        ("/users/report-.pdf", ("/users/{name}", ["report-.pdf"])),
        ("/users/me/friends", ("/users/{name}/friends", ["me"])),  # back from the text "me"
        ("/users/7/other", ("/users/{rest:path}", ["7/other"])),
        ("/users/7/x/y/z", ("/users/{rest:path}", ["7/x/y/z"])),
        ("/users/", ("/users/{rest:path}", [""])),
        ("/users//", ("/users/{rest:path}", ["/"])),
        ("/users", None),
        ("/", None),
        ("", None),
        ("users/me", None),
    ],
)
def test_text_comes_before_parameters_and_those_before_the_rest(path: str, found: Any) -> None:
    tree = trees(
        ("/users/{rest:path}", "GET"),
        ("/users/{name}", "GET"),
        ("/users/report-{day}.pdf", "GET"),
        ("/users/{id:int}", "GET"),
        ("/users/me", "GET"),
        ("/users/{name}/friends", "GET"),
        ("/users/me/settings", "GET"),
    )
    assert tree.find("GET", path) == found


def test_a_method_that_is_not_there_is_looked_for_further_on() -> None:
    tree = trees(("/users/me", "POST"), ("/users/{name}", "GET"), ("/{rest:path}", None))
    assert tree.find("POST", "/users/me") == ("/users/me", [])
    assert tree.find("GET", "/users/me") == ("/users/{name}", ["me"])
    assert tree.find("PURGE", "/users/me") == ("/{rest:path}", ["users/me"])
    assert tree.find(WEBSOCKET, "/users/me") is None


def test_get_answers_head_unless_head_has_its_own() -> None:
    tree = trees(("/a", "GET"), ("/b", "GET"), ("/{x}", "HEAD"))
    assert tree.find("HEAD", "/a") == ("/a", [])
    tree = Tree([(parse("/a", BUILT_IN), ["HEAD"], "own"), (parse("/a", BUILT_IN), ["GET"], "get")], BUILT_IN)
    assert tree.find("HEAD", "/a") == ("own", [])


def test_a_lookup_looks_at_each_node_once_whatever_the_path_is() -> None:
    """Each level may be text or a parameter: the worst that a table can be for a matcher that goes back."""
    depth = 9
    patterns = [
        "".join("/a" if bits >> at & 1 else f"/{{p{at}}}" for at in range(depth)) + "/end" for bits in range(2**depth)
    ]
    tree = trees(*((pattern, "GET") for pattern in patterns))
    began = time.thread_time()
    assert tree.find("GET", "/a" * depth + "/nowhere") is None
    assert time.thread_time() - began < 0.1
    began = time.thread_time()
    for path in ("/a" * 100_000, "/" * 200_000, "/a" * depth + "/" + "x" * 200_000):
        assert tree.find("GET", path) is None
        assert tree.allowed(path) == set()
    assert time.thread_time() - began < 0.5


def test_the_deepest_pattern_bounds_how_far_a_path_is_cut() -> None:
    tree = trees(("/a/{x}/{rest:path}", "GET"), ("/b/{x}", "GET"))
    assert tree.find("GET", "/a/1/" + "y/" * 5000) == ("/a/{x}/{rest:path}", ["1", "y/" * 5000])
    assert tree.find("GET", "/b/1/2/3/4") is None


def test_all_methods_of_a_tree_are_known() -> None:
    tree = trees(("/a", "GET"), ("/b/{x}/{y:path}", "POST PURGE"), ("/c/{x}", None))
    assert tree.methods() == {"GET", "HEAD", "POST", "PURGE"}


def test_parameters_of_one_kind_share_their_node() -> None:
    tree = trees(("/{a:int}/x", "GET"), ("/{b:int}/y", "GET"))
    assert len(tree._root.edges) == 1
    assert isinstance(parse("/{a:int}", BUILT_IN).segments[0], Parameter)
