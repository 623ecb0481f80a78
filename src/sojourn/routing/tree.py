"""The radix tree: from a path and a method to who answers, in time that the number of routes does not change.

One node is one segment of a path. At each, text comes before parameters and parameters before what takes the rest of
the path; where a branch leads nowhere the next one is tried. Every node of the tree is reached by one way only, so a
lookup looks at each at most once, whatever the path is, and goes no deeper than the deepest pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from sojourn.routing.converters import REST, Converter
from sojourn.routing.pattern import Parameter, Pattern

__all__ = ["WEBSOCKET", "Tree"]

E = TypeVar("E")

#: Stands where HTTP has a method; no token (RFC 9110 section 5.6.2), so no client can send it as one.
WEBSOCKET: Final = "(websocket)"


class _Leaf(Generic[E]):
    """What answers at one place, by method."""

    __slots__ = ("by_method", "other")

    def __init__(self) -> None:
        self.by_method: dict[str, E] = {}
        #: Takes every method of HTTP that nobody else has.
        self.other: E | None = None

    def entry(self, method: str) -> E | None:
        found = self.by_method.get(method)
        if found is None and self.other is not None and method != WEBSOCKET:
            return self.other
        return found

    def put(self, methods: Iterable[str] | None, entry: E) -> None:
        if methods is None:
            self.other = entry
        else:
            for method in methods:
                self.by_method[method] = entry

    def head_is_get(self) -> None:
        """HEAD is answered by who answers GET, unless it has somebody of its own (RFC 9110 section 9.3.2)."""
        if "GET" in self.by_method:
            self.by_method.setdefault("HEAD", self.by_method["GET"])


class _Edge(Generic[E]):
    """A parameter on the way to a node."""

    __slots__ = ("kind", "least", "node", "order", "parse", "prefix", "suffix")

    def __init__(self, parameter: Parameter, converter: Converter) -> None:
        self.prefix, self.suffix = parameter.prefix, parameter.suffix
        self.kind = parameter.kind
        #: What is asked first: the most text around the value, then the narrowest type.
        self.order = (-len(self.prefix) - len(self.suffix), converter.rank, parameter.kind, self.prefix, self.suffix)
        #: Characters a segment must have: the value is never empty.
        self.least = len(self.prefix) + len(self.suffix) + 1
        #: None for text, which needs no parsing.
        self.parse = None if parameter.kind == "str" else converter.parse
        self.node: _Node[E] = _Node()

    def cut(self, part: str) -> str:
        """The value in a segment; "" when the text around it is not there."""
        if len(part) < self.least or not (part.startswith(self.prefix) and part.endswith(self.suffix)):
            return ""
        return part[len(self.prefix) : len(part) - len(self.suffix)]


class _Node(Generic[E]):
    __slots__ = ("edges", "forks", "leaf", "rest", "static")

    def __init__(self) -> None:
        #: Whether there is more than one way on: parameters, or a rest.
        self.forks = False
        self.static: dict[str, _Node[E]] = {}
        self.edges: list[_Edge[E]] = []
        self.leaf: _Leaf[E] | None = None
        #: What takes all that is left of the path.
        self.rest: _Leaf[E] | None = None

    def edge(self, parameter: Parameter, converter: Converter) -> _Edge[E]:
        for known in self.edges:
            if (known.prefix, known.kind, known.suffix) == (parameter.prefix, parameter.kind, parameter.suffix):
                return known
        made: _Edge[E] = _Edge(parameter, converter)
        self.forks = True
        self.edges.append(made)
        self.edges.sort(key=lambda edge: edge.order)
        return made


class Tree(Generic[E]):
    """A tree, made once of all routes and not changed afterwards.

    Args:
        routes: Pattern, methods (None for every method of HTTP) and entry. Two entries for one method of one shape
            are the caller's mistake: the later one counts.
        converters: The types of parameters.
    """

    __slots__ = ("_depth", "_exact", "_root")

    def __init__(
        self, routes: Iterable[tuple[Pattern, Iterable[str] | None, E]], converters: Mapping[str, Converter]
    ) -> None:
        self._root: _Node[E] = _Node()
        #: Paths without a parameter, as they are asked for.
        self._exact: dict[str, _Leaf[E]] = {}
        self._depth = 1
        leaves = []
        for pattern, methods, entry in routes:
            leaf = self._leaf(pattern, converters)
            leaf.put(methods, entry)
            leaves.append(leaf)
            self._depth = max(self._depth, len(pattern.segments))
        for leaf in leaves:
            leaf.head_is_get()

    def _leaf(self, pattern: Pattern, converters: Mapping[str, Converter]) -> _Leaf[E]:
        """The leaf of a pattern, made when it is not there."""
        node = self._root
        for part in pattern.segments:
            if isinstance(part, str):
                node = node.static.setdefault(part, _Node())
            elif part.kind == REST:
                node.rest = node.rest or _Leaf()
                node.forks = True
                return node.rest
            else:
                node = node.edge(part, converters[part.kind]).node
        node.leaf = node.leaf or _Leaf()
        if not pattern.names:
            self._exact[pattern.text] = node.leaf
        return node.leaf

    def find(self, method: str, path: str) -> tuple[E, list[Any]] | None:
        """The entry for a request, and the values of its parameters in order.

        Args:
            method: The method, or :data:`WEBSOCKET`.
            path: The decoded path, without the query.

        Returns:
            None when nothing matches, or nothing for this method.
        """
        leaf = self._exact.get(path)
        if leaf is not None:
            entry = leaf.entry(method)
            if entry is not None:
                return entry, []
        values: list[Any] = []
        found = _walk(self._root, self._split(path), 0, method, values)
        return None if found is None else (found, values)

    def _split(self, path: str) -> list[str]:
        # What is deeper than every pattern stays in one piece: it can only be taken as a rest.
        return path[1:].split("/", self._depth) if path[:1] == "/" else []

    def allowed(self, path: str) -> set[str]:
        """The methods that some entry takes at this path, :data:`WEBSOCKET` among them; none when nothing matches."""
        return {method for leaf in _leaves(self._root, self._split(path), 0) for method in leaf.by_method}

    def methods(self) -> set[str]:
        """The methods of all entries."""
        found: set[str] = set()
        nodes = [self._root]
        for node in nodes:
            nodes.extend(node.static.values())
            nodes.extend(edge.node for edge in node.edges)
            for leaf in (node.leaf, node.rest):
                found.update(leaf.by_method if leaf is not None else ())
        return found


def _walk(node: _Node[E], parts: list[str], at: int, method: str, values: list[Any]) -> E | None:
    """The first entry below a node, by precedence; `values` holds the parameters on the way to it."""
    end = len(parts)
    while at < end and not node.forks:
        below = node.static.get(parts[at])
        if below is None:
            return None
        node, at = below, at + 1
    if at == end:
        return node.leaf.entry(method) if node.leaf is not None else None
    part = parts[at]
    child = node.static.get(part)
    if child is not None:
        found = _walk(child, parts, at + 1, method, values)
        if found is not None:
            return found
    for edge in node.edges:
        value: Any = edge.cut(part)
        if value == "":
            continue
        if edge.parse is not None:
            try:
                value = edge.parse(value)
            except ValueError:
                continue
        values.append(value)
        found = _walk(edge.node, parts, at + 1, method, values)
        if found is not None:
            return found
        values.pop()
    if node.rest is not None:
        found = node.rest.entry(method)
        if found is not None:
            values.append("/".join(parts[at:]))
            return found
    return None


def _leaves(node: _Node[E], parts: list[str], at: int) -> Iterator[_Leaf[E]]:
    """Every leaf that a path leads to, by precedence."""
    if at == len(parts):
        if node.leaf is not None:
            yield node.leaf
        return
    part = parts[at]
    if part in node.static:
        yield from _leaves(node.static[part], parts, at + 1)
    for edge in node.edges:
        value = edge.cut(part)
        if value and _parses(edge, value):
            yield from _leaves(edge.node, parts, at + 1)
    if node.rest is not None:
        yield node.rest


def _parses(edge: _Edge[E], value: str) -> bool:
    try:
        if edge.parse is not None:
            edge.parse(value)
    except ValueError:
        return False
    return True
