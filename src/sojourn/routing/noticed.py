"""A list of routes that tells when it changes, in place of the list of a framework's router."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeVar

__all__ = ["Changes", "Noticed"]

R = TypeVar("R")


class Changes:
    """How often the lists that an application is made of have changed."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Noticed(list[R]):
    """A list like any other, and everything that changes it is counted.

    Attributes:
        watchers: Who counts.
    """

    __slots__ = ("watchers",)

    def __init__(self, items: Iterable[R], watchers: Iterable[Changes]) -> None:
        super().__init__(items)
        self.watchers = list(watchers)

    def _changed(self) -> None:
        for changes in self.watchers:
            changes.number += 1

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return list, (list(self),)  # a copy is a list as it was before

    def append(self, item: R, /) -> None:
        super().append(item)
        self._changed()

    def extend(self, items: Iterable[R], /) -> None:
        super().extend(items)
        self._changed()

    def insert(self, at: SupportsIndex, item: R, /) -> None:
        super().insert(at, item)
        self._changed()

    def remove(self, item: R, /) -> None:
        super().remove(item)
        self._changed()

    def pop(self, at: SupportsIndex = -1, /) -> R:
        item = super().pop(at)
        self._changed()
        return item

    def clear(self) -> None:
        super().clear()
        self._changed()

    def sort(self, **how: Any) -> None:
        super().sort(**how)
        self._changed()

    def reverse(self) -> None:
        super().reverse()
        self._changed()

    def __setitem__(self, at: Any, item: Any, /) -> None:
        super().__setitem__(at, item)
        self._changed()

    def __delitem__(self, at: SupportsIndex | slice, /) -> None:
        super().__delitem__(at)
        self._changed()

    def __iadd__(self, items: Iterable[R], /) -> Noticed[R]:  # type: ignore[override,misc] # list says Self
        super().__iadd__(items)
        self._changed()
        return self

    def __imul__(self, times: SupportsIndex, /) -> Noticed[R]:
        super().__imul__(times)
        self._changed()
        return self
