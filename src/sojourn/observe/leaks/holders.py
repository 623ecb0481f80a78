"""Who holds an object: the shortest path of references to it, from a place that a name can be given.

Runs in a forked child, because each step of the search looks at every object of the process.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterable, Sequence
from types import FrameType, ModuleType
from typing import Any, Final

import msgspec

__all__ = ["Held", "path_to", "search"]

#: Steps from the object upwards, and objects looked at in each: every one of them is compared with every reference.
_STEPS, _WIDTH = 24, 40
#: Letters of a key or a name in a path.
_LETTERS: Final = 40


class Held(msgspec.Struct, frozen=True):
    """What holds an object.

    Attributes:
        path: References from the root to the object; "" when there is none: then the collector will take it.
        module: The module in a variable of which the path begins; "" when it begins elsewhere.
        variable: That variable.
    """

    path: str = ""
    module: str = ""
    variable: str = ""


def search(references: Sequence[weakref.ref[Any]]) -> bytes:
    """What holds the first of some objects that something holds: a :class:`Held` as MessagePack.

    Not in a process that goes on: it thaws what the collector had frozen, or that would not be seen.
    """
    gc.unfreeze()
    held = Held()
    for reference in references:
        target = reference()
        if target is not None:
            held = path_to(target, hidden=(id(references),))
            if held.path:
                break
    return msgspec.msgpack.encode(held)


def path_to(target: Any, hidden: Iterable[int] = ()) -> Held:
    """The shortest path to an object.

    Args:
        target: The object.
        hidden: Ids of objects that hold it because of the search itself.
    """
    loaded: list[Any] = list(sys.modules.values())  # a program may put anything there
    modules = {id(vars(module)): module for module in loaded if isinstance(module, ModuleType)}
    above: dict[int, Any] = {}  # id of an object -> the one that it holds, towards the target
    objects: dict[int, Any] = {id(target): target}
    skipped = {*hidden, id(modules), id(above), id(objects)}
    frame: FrameType | None = sys._getframe()
    while frame is not None:  # whoever runs here holds it only to look for it
        skipped.add(id(frame))
        frame = frame.f_back
    level = [target]
    for _ in range(_STEPS):
        skipped.add(id(level))
        found = gc.get_referrers(*level)
        skipped.add(id(found))
        wanted = {id(each): each for each in level}
        skipped.add(id(wanted))
        following: list[Any] = []
        skipped.add(id(following))
        for holder in found:
            if id(holder) in skipped or id(holder) in objects or isinstance(holder, weakref.ref):
                continue
            child = next((wanted[id(each)] for each in gc.get_referents(holder) if id(each) in wanted), None)
            if child is None:
                continue
            objects[id(holder)], above[id(holder)] = holder, child
            root = _root(holder, child, modules)
            if root is not None:
                return _told(root, holder, target, above)
            if len(following) < _WIDTH:
                following.append(holder)
        if not following:
            return Held()
        level = following
    return Held()


class _Root(msgspec.Struct):
    """Where a path begins."""

    text: str
    module: str = ""
    variable: str = ""


def _root(holder: Any, child: Any, modules: dict[int, ModuleType]) -> _Root | None:
    """What to call a place where paths begin; None for any other object."""
    if isinstance(holder, dict) and (module := modules.get(id(holder))) is not None:
        name = _key(holder, child)
        return _Root(f"{module.__name__}.{name}", module.__name__, name)
    if isinstance(holder, type):
        return _Root(f"class {holder.__module__}.{holder.__qualname__}")
    # A frame is no root: those of running code hold nothing that the collector sees, and the others have ended and are
    # held by somebody, such as an exception that is garbage itself. Nor is a task that has ended: no loop holds it.
    for kind in ("cr", "gi", "ag"):
        code = getattr(holder, f"{kind}_code", None)
        standing = getattr(holder, f"{kind}_frame", None)
        if code is not None and standing is not None:
            names = [name for name, value in standing.f_locals.items() if value is child]
            what = f"variable {names[0]!r}" if names else "a variable"
            return _Root(f"{what} of {code.co_qualname}, which waits at {code.co_filename}:{standing.f_lineno}")
    if isinstance(holder, asyncio.Task) and not holder.done():
        return _Root(f"task {holder.get_name()!r}")
    return None


def _told(root: _Root, holder: Any, target: Any, above: dict[int, Any]) -> Held:
    """The path in words."""
    steps = [root.text]
    holder = above[id(holder)]
    while holder is not target:
        child = above[id(holder)]
        step = _step(holder, child, target)
        if step:
            steps.append(step)
        holder = child
    steps.append(type(target).__qualname__)
    return Held(" -> ".join(steps), root.module, root.variable)


def _step(holder: Any, child: Any, target: Any) -> str:
    if isinstance(holder, dict):
        return f"dict[{_key(holder, child)!r}]"
    if isinstance(holder, (list, tuple)):
        return type(holder).__name__  # its index would make two paths of one
    if isinstance(holder, FrameType):
        return f"a variable of {holder.f_code.co_qualname} at {holder.f_code.co_filename}:{holder.f_lineno}"
    named = _attribute(holder, child)
    return f"{type(holder).__qualname__}.{named}" if named else type(holder).__qualname__


def _key(holder: dict[Any, Any], child: Any) -> str:
    for key, value in list(holder.items()):
        if value is child:
            return str(key)[:_LETTERS] if isinstance(key, str) else type(key).__name__
    return "a key"


def _attribute(holder: Any, child: Any) -> str:
    """The slot in which an object holds another; "" when it is none."""
    for kind in type(holder).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            descriptor: Any = kind.__dict__.get(slot)
            if type(descriptor).__name__ != "member_descriptor":
                continue
            try:
                if descriptor.__get__(holder) is child:
                    return str(slot)
            except AttributeError:
                continue  # not set
    return ""
