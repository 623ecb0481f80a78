"""Who holds what: one walk from the modules through everything that can be reached. Runs in a forked child.

Source: ``gc.get_referents``; the walk is breadth first, so the way back from an object is a shortest one.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType
from typing import Any, Final

__all__ = ["Walk", "type_name"]

#: Objects visited at most: with their table 500 MB in the child.
MOST: Final = 4_000_000
#: Longest way in words, in steps, and longest key that is shown, in characters.
STEPS: Final = 12
_KEY: Final = 40


class Walk:
    """Everything that is reached from modules and running frames.

    Args:
        ignored: Ids of objects that the walk does not go through: those of the caller.
        most: Objects visited at most.

    Attributes:
        complete: Whether it came to its end.
    """

    def __init__(self, ignored: Iterable[int] = (), most: int = MOST) -> None:
        #: By id: who was the first to be found holding it; None for where the walk began.
        self._holder: dict[int, Any] = {id(self): None}
        self._ignored = frozenset(ignored)
        self._most = most
        self.complete = True

    def objects(self) -> Iterator[Any]:
        """All that is reached, each once, as it is found. To be used up before anything else is asked."""
        queue: deque[Any] = deque(_roots())
        holder, ignored = self._holder, self._ignored
        holder.update((id(root), None) for root in queue)
        while queue:
            thing = queue.popleft()
            yield thing
            for other in gc.get_referents(thing):
                key = id(other)
                if key not in holder and key not in ignored:
                    if len(holder) >= self._most:
                        self.complete = False
                        return
                    holder[key] = thing
                    queue.append(other)

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._holder

    def way(self, thing: object) -> str:
        """The way to an object in words, such as ``shop.cart.CARTS['open'] > list[3] > Cart.items > list``."""
        chain = [thing]
        while (above := self._holder.get(id(chain[-1]))) is not None and len(chain) < 200:
            chain.append(above)
        chain.reverse()
        return in_words(chain)


def _roots() -> list[Any]:
    """Modules first, because they say most; then what runs."""
    roots: list[Any] = list(sys.modules.values())
    frame: FrameType | None = sys._getframe().f_back
    while frame is not None:
        # Not the frames of this walk: they hold what it makes.
        if frame.f_globals.get("__name__") not in (__name__, "sojourn.observe.forked", "sojourn.observe.profiles.heap"):
            roots.append(frame)
        frame = frame.f_back
    return roots


def in_words(chain: list[Any]) -> str:
    """A way from an outermost holder to an object."""
    words: list[str] = []
    index = 0
    while index < len(chain):
        thing = chain[index]
        following = chain[index + 1] if index + 1 < len(chain) else None
        word = thing.__name__ if isinstance(thing, ModuleType) else type_name(type(thing))
        attributes = _dictionary(thing)
        if isinstance(following, dict) and following is attributes and index + 2 < len(chain):
            # What is in the dictionary of an object is an attribute of the object.
            words.append(word + _member(attributes, chain[index + 2], "."))
            index += 2
        else:
            words.append(word + (_place(thing, following) if following is not None else ""))
            index += 1
    if len(words) > STEPS:
        words = [*words[: STEPS - 4], "...", *words[-3:]]
    return " > ".join(words)


def type_name(kind: type) -> str:
    """Qualified name of a type, without ``builtins``."""
    # Past the metaclass, which may be anybody's code.
    module = type.__dict__["__module__"].__get__(kind)
    name = type.__dict__["__qualname__"].__get__(kind)
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)


def _dictionary(thing: object) -> dict[str, Any] | None:
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def _place(holder: Any, held: Any) -> str:
    """Where in its holder something is; "" when that can't be said."""
    kind = type(holder)
    if kind is dict:
        return _member(holder, held, "")
    if kind in (list, tuple, deque):
        return next((f"[{index}]" for index, each in enumerate(holder) if each is held), "")
    if kind is FrameType:
        name = next((name for name, each in holder.f_locals.items() if each is held), "")
        return f" {holder.f_code.co_qualname}() {name}".rstrip()
    attributes = _dictionary(holder)
    if held is attributes:
        return ".__dict__"
    if attributes is not None and (found := _member(attributes, held, ".")):
        return found  # the dictionary is made when somebody asks for it; until then the object holds the values itself
    for base in kind.__mro__:
        for name, slot in vars(base).items():
            if type(slot).__name__ == "member_descriptor":
                try:
                    if slot.__get__(holder) is held:
                        return f".{name}"
                except AttributeError:
                    continue
    return ""


def _member(members: dict[Any, Any], held: Any, dot: str) -> str:
    """The key of a value. Keys that may be anybody's are not shown: they may be secrets."""
    for key, value in members.items():
        if value is held:
            if type(key) is str and key.isidentifier() and len(key) <= _KEY:
                return f"{dot}{key}" if dot else f"[{key!r}]"
            return f"[{key}]" if type(key) is int else "[...]"
        if key is held:
            return "'s key"
    return ""
