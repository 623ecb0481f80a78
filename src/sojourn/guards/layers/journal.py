"""What the layers of one request hold of its scope, and which of them changed it. Pure: it only compares.

Watched are the scope itself and what a shallow copy of it still shares: headers, state, extensions. Each has holders,
the layers whose own it is too. The rules are those of the ASGI specification: who wants another scope inside passes a
copy, and nobody changes what others hold. A key that is new does no harm and is how frameworks hand things on.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sojourn.guards.layers.chain import Layer
from sojourn.typing import Scope

__all__ = ["Journal", "Mutation"]

#: Parts of a scope that a shallow copy shares.
_PARTS: Final = ("headers", "state", "extensions")
#: What routers write into the scope they were given, and others are meant to read.
ROUTING: Final = frozenset(
    "app app_root_path endpoint path_params path_template root_path route route_handler router".split()
)
#: What of it is read further out, also by servers.
_HANDED_OUT: Final = ROUTING - {"app", "app_root_path", "root_path"}
#: Keys that belong to a framework alone.
_PRIVATE: Final = ("starlette", "fastapi", "litestar", "_", "sojourn")
_SECRET: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"))
_ABSENT: Final = object()
_LONGEST: Final = 120
#: Types whose comparison costs little and can't fail.
_PLAIN: Final = (str, bytes, int, float, bool, tuple, list, type(None))


class Mutation(NamedTuple):
    """A layer changed what other layers hold.

    Attributes:
        layer: Who did it.
        key: What was changed, such as ``scope['path']``, ``headers`` or ``state['user']``.
        before: What it was, as text.
        after: What it is, as text; ``deleted`` when it is gone.
        seen_by: Another layer that sees the change and can't expect it.
        late: Whether that one is further in: the request was handed on to it before.
        certain: Whether no other task of the request ran at that time, which could have done it as well.
    """

    layer: Layer
    key: str
    before: str
    after: str
    seen_by: Layer
    late: bool
    certain: bool

    def __str__(self) -> str:
        who = f"{self.layer.name} ({self.layer.where})" if self.layer.where else self.layer.name
        doubt = "" if self.certain else ", or a layer that ran beside it,"
        when = "after it handed the request on to" if self.late else "in place; it is shared with"
        where = f" ({self.seen_by.where})" if self.seen_by.where else ""
        return (
            f"{who}{doubt} changed {self.key} from {self.before} to {self.after} {when} {self.seen_by.name}{where}:"
            " pass a changed copy of the scope inside instead"
        )


class _Watched:
    """One object that layers hold.

    Attributes:
        value: The object.
        part: "" for a scope, else which part of a scope it is.
        content: What it was when it was looked at last.
        holders: The layers whose own it is, or would be without copies.
        owner: The one that alone can change it, because it has a copy; None when it is shared.
        writers: Who wrote a key last, of those that were written since.
    """

    __slots__ = ("content", "holders", "owner", "part", "value", "writers")

    def __init__(self, value: Any, part: str, holders: set[Layer], owner: Layer | None) -> None:
        self.value = value
        self.part = part
        self.holders = holders
        self.owner = owner
        self.content = value.copy()
        self.writers: dict[str, Layer | None] = {}


class Journal:
    """The layers of one request.

    Args:
        copies: Whether each layer gets its own copy.
        allowed: Keys that layers may change for each other, such as ``state.user``.
    """

    __slots__ = ("_allowed", "_copies", "_watched", "active", "found")

    def __init__(self, *, copies: bool, allowed: frozenset[str]) -> None:
        self._copies = copies
        self._allowed = allowed
        self._watched: list[_Watched] = []
        #: Layers that run, and the task of each.
        self.active: dict[Layer, object] = {}
        #: What was found and not told yet.
        self.found: list[Mutation] = []

    def enter(self, scope: Scope, layer: Layer, caller: Layer | None, task: object) -> Scope:
        """A layer is called.

        Args:
            scope: What its caller passed.
            layer: Who is called.
            caller: Who calls; None for the server.
            task: The task it runs in.

        Returns:
            The scope that the layer gets.
        """
        self.active[layer] = task
        passed = {"": scope} | {part: scope[part] for part in _PARTS if isinstance(scope.get(part), list | dict)}
        if not self._copies:
            for part, value in passed.items():
                self._watch(value, part, caller).holders.add(layer)
            return scope
        parts = {part: value.copy() for part, value in passed.items() if part}
        given = {**scope, **parts}
        for part, value in passed.items():
            shared = self._watch(value, part, caller)
            own = parts[part] if part else given
            self._watched.append(_Watched(own, part, {*shared.holders, layer}, layer))
            shared.holders.add(layer)
        return given

    def leave(self, layer: Layer) -> None:
        """A layer has returned."""
        self.active.pop(layer, None)

    def hand_out(self, given: Scope, scope: Scope) -> None:
        """What routers wrote travels outwards also from a copy: servers and layers read it."""
        if given is not scope:
            scope.update({key: given[key] for key in _HANDED_OUT & given.keys()})

    def ran(self, layer: Layer | None) -> None:
        """Look at everything: the code of this layer has run since the last look. None for the server."""
        before = len(self._watched)
        for watched in self._watched:  # it may grow meanwhile
            by = watched.owner or layer
            if watched.part == "headers":
                self._compare_headers(watched, by)
            else:
                self._compare_keys(watched, by)
        if len(self._watched) > before:
            self._forget_replaced()

    # Looking

    def _watch(self, value: Any, part: str, holder: Layer | None) -> _Watched:
        for watched in self._watched:
            if watched.value is value:
                return watched
        found = _Watched(value, part, set() if holder is None else {holder}, holder if self._copies else None)
        self._watched.append(found)
        return found

    def _forget_replaced(self) -> None:
        """Parts that no scope has any more: a WebSocket lives long, and each message may bring another one."""
        scopes = [each.value for each in self._watched if not each.part]
        self._watched = [
            each for each in self._watched if not each.part or any(s.get(each.part) is each.value for s in scopes)
        ]

    def _compare_keys(self, watched: _Watched, by: Layer | None) -> None:
        """Of a scope, its state or its extensions: keys that have another value, and keys that are gone."""
        before, now = watched.content, watched.value
        if len(before) == len(now) and all(now.get(key, _ABSENT) is value for key, value in before.items()):
            return
        watched.content = now.copy()
        for key in now.keys() - before.keys():
            watched.writers[key] = by
        for key, value in before.items():
            after = now.get(key, _ABSENT)
            if after is value:
                continue
            if not watched.part and key in _PARTS:
                self._part_replaced(watched, key, value, after, by)
            elif not _same(value, after):
                own = watched.writers.get(key, _ABSENT) == by
                watched.writers[key] = by
                if not own and self._matters(watched.part, key):
                    self._note(watched, by, f"{watched.part or 'scope'}[{key!r}]", (_text(value), _text(after)))

    def _part_replaced(self, scope: _Watched, part: str, before: Any, after: Any, by: Layer | None) -> None:
        """A scope holds another object as its headers, state or extensions."""
        known = next((each for each in self._watched if each.value is before), None)
        content = known.content if known is not None else before
        if isinstance(after, list | dict) and type(after) is type(content):
            new = _Watched(after, part, set(scope.holders), scope.owner)
            new.content = content
            self._watched.append(new)  # compared in its turn, as if it were the old one
        elif not _same(content, after):
            self._note(scope, by, f"scope[{part!r}]", (_text(content), _text(after)))

    def _compare_headers(self, watched: _Watched, by: Layer | None) -> None:
        before, now = watched.content, watched.value
        if before == now:
            return
        watched.content = now.copy()
        if "headers" not in self._allowed:
            gone = [pair for pair in before if pair not in now]
            new = [pair for pair in now if pair not in before]
            self._note(watched, by, "headers", (_pairs(gone or before), _pairs(new or now)))

    def _matters(self, part: str, key: str) -> bool:
        if not part and (key in ROUTING or key.startswith(_PRIVATE)):
            return False
        return (f"{part}.{key}" if part else key) not in self._allowed

    def _note(self, watched: _Watched, by: Layer | None, key: str, change: tuple[str, str]) -> None:
        """A change counts when another layer sees it."""
        if by is None:
            return
        others = [each for each in watched.holders if each != by and each in self.active]
        if not others:
            return
        outer = [each for each in others if each.depth < by.depth]
        seen_by = max(outer or others, key=lambda each: each.depth)
        certain = watched.owner is not None or len(set(map(id, self.active.values()))) == 1
        self.found.append(Mutation(by, key, *change, seen_by, not outer, certain))


def _same(before: Any, after: Any) -> bool:
    """Whether two values are equal; of types nobody knows only identity counts."""
    return before is after or (isinstance(before, _PLAIN) and type(before) is type(after) and before == after)


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "deleted"
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - an application's own __repr__ may raise anything
        text = f"<{type(value).__name__}, whose repr() raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _pairs(headers: list[Any]) -> str:
    """Headers as text, without what is secret."""
    shown = [(name, b"..." if bytes(name).lower() in _SECRET else value) for name, value in headers]
    return _text(shown)
