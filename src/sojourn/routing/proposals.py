"""Which routes of a framework could match a path: a superset, in the order they were defined.

The framework tests each proposal itself, so one too many costs time and one too few would be a bug. Only what a pattern
says for certain is used: the text of its segments, up to the first place that could take a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

__all__ = ["ALWAYS", "Outline", "Proposals", "outline"]

R = TypeVar("R")

_PARAMETER: Final = re.compile(r"{([a-zA-Z_][a-zA-Z0-9_]*)(?::[a-zA-Z_][a-zA-Z0-9_]*)?}")
#: Regular expressions of Starlette's types that match neither a slash nor nothing at all.
_IN_SEGMENT: Final = frozenset(
    {
        "[^/]+",
        "[0-9]+",
        r"[0-9]+(\.[0-9]+)?",
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
    }
)


#: Where a parameter is, in the text of a segment. A pattern that has it as text is only less certain.
_ANY: Final = "{}"


class Outline(NamedTuple):
    """What is certain of the paths that a route matches.

    Attributes:
        segments: Text that must be there, or None for any one segment.
        open: Whether anything may follow.
    """

    segments: tuple[str | None, ...]
    open: bool


#: Of a route that is not understood: it may match any path.
ALWAYS: Final = Outline((), True)


def outline(path: str, regex: re.Pattern[str], types: dict[str, str]) -> Outline:
    """The outline of a pattern of Starlette.

    Args:
        path: The pattern as it was written, with ``/{path:path}`` where it is a mount.
        regex: What it was compiled to; :data:`ALWAYS` when that is not what the pattern says.
        types: The regular expression of each parameter.
    """
    expected, segments, known = "^", [""], True
    texts = _PARAMETER.split(path)
    for text, name in zip(texts[::2], [*texts[1::2], None], strict=True):
        expected += re.escape(text)
        if known:
            first, *more = text.split("/")
            segments[-1] += first
            segments += more
        if name is not None:
            if name not in types:
                return ALWAYS
            if not _whole(types[name]):
                return ALWAYS
            expected += f"(?P<{name}>{types[name]})"
            if known:
                segments[-1] += _ANY
                known = types[name] in _IN_SEGMENT
    if regex.pattern != expected + "$" or regex.flags != re.UNICODE or segments[0]:
        return ALWAYS
    return _trimmed(segments[1:], known)


def _whole(type_: str) -> bool:
    """Whether the regular expression of a type is one by itself, so that it says nothing of what is around it."""
    if type_ in _IN_SEGMENT:
        return True
    try:
        re.compile(type_)
    except re.error:
        return False
    return True


def _trimmed(segments: list[str], closed: bool) -> Outline:
    if not closed:
        segments = segments[:-1]  # the segment that could take a slash
    while segments and not segments[-1]:
        segments = segments[:-1]  # slashes at the end do not count: a redirect adds one or takes them away
    return Outline(tuple(None if _ANY in text else text for text in segments), not closed)


class _Node:
    __slots__ = ("anything", "ends", "opens", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.anything: _Node | None = None
        #: Numbers of the routes that end here, and of those after which anything may follow.
        self.ends: list[int] = []
        self.opens: list[int] = []


class Proposals(Generic[R]):
    """A tree of outlines. It is made once and not changed.

    Args:
        routes: The routes in order, each with its outlines (a route that stands for several others has several).
    """

    __slots__ = ("_depth", "_exact", "_root", "_routes")

    def __init__(self, routes: Iterable[tuple[R, Sequence[Outline]]]) -> None:
        self._routes: list[R] = []
        self._root = _Node()
        self._depth = 1
        fixed: set[str] = set()
        for number, (route, outlines) in enumerate(routes):
            self._routes.append(route)
            for each in outlines:
                self._add(number, each)
                path = "".join(f"/{text}" for text in each.segments)
                if not each.open and None not in each.segments and not path.endswith("\n"):
                    fixed.add(path)
        #: The proposals for each path that some route has as plain text.
        self._exact: dict[str, list[R]] = {path: self._found(path) for path in fixed}

    def _add(self, number: int, outline: Outline) -> None:
        node = self._root
        for text in outline.segments:
            if text is None:
                node.anything = node.anything or _Node()
                node = node.anything
            else:
                node = node.static.setdefault(text, _Node())
        numbers = node.opens if outline.open else node.ends
        if not numbers or numbers[-1] != number:
            numbers.append(number)
        self._depth = max(self._depth, len(outline.segments))

    def of(self, path: str) -> list[R]:
        """The routes that could match a path, or the path with another number of slashes at its end."""
        path = path.rstrip("/")
        found = self._exact.get(path)
        if found is not None:
            return found
        if path[-1:] == "\n":
            # `$` matches before a line break at the end too: what is there without it counts as well.
            bare = path[:-1].rstrip("/")
            return self._ordered(self._numbers(path) | self._numbers(bare))
        return self._found(path)

    def _found(self, path: str) -> list[R]:
        return self._ordered(self._numbers(path))

    def _ordered(self, numbers: set[int]) -> list[R]:
        return [self._routes[number] for number in sorted(numbers)]

    def _numbers(self, path: str) -> set[int]:
        parts = path[1:].split("/", self._depth) if path else []
        found: set[int] = set()
        level = [self._root]
        for part in parts:
            below = []
            for node in level:
                found.update(node.opens)
                child = node.static.get(part)
                if child is not None:
                    below.append(child)
                if node.anything is not None:
                    below.append(node.anything)
            level = below
            if not level:
                return found
        for node in level:
            found.update(node.opens)
            found.update(node.ends)
        return found
