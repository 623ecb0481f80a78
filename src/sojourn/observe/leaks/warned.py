"""Coroutines that nobody awaited and resources that nobody closed: Python warns when the collector takes them."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.profiles.model import Frame

__all__ = ["Warned"]

_NEVER_AWAITED: Final = re.compile(r"coroutine '(.*)' was never awaited")
#: Warnings shown once each are remembered up to this many.
_SHOWN: Final = 1000


class Warned:
    """Counts the warnings of the interpreter, and passes them on as they would have been shown without it.

    The hook is the function behind ``warnings.showwarning``: it is called also when the application replaces that, and
    it gets the object itself. With ``-W error`` a warning inside a finalizer can't be raised; Python hands it to
    ``sys.unraisablehook``, which is chained too.

    Args:
        ledger: Gets what was found.
        origins: Whether each coroutine notes where it was made, at 50 ns each.
    """

    def __init__(self, ledger: Ledger, *, origins: bool = False) -> None:
        self._ledger = ledger
        self._closed = False
        self._shown: set[tuple[str, str, int]] = set()
        self._show = _hook(self._warned)
        self._unraisable = sys.unraisablehook
        self._hooked: Callable[[Any], object] = self._not_raised
        sys.unraisablehook = self._hooked
        #: Filters that were added: Python shows an unawaited coroutine once for each place, and no unclosed resource.
        self._filters: list[Any] = []
        self._add_filters()
        self._depth: int | None = None
        if origins and sys.get_coroutine_origin_tracking_depth() < 1:
            self._depth = sys.get_coroutine_origin_tracking_depth()
            sys.set_coroutine_origin_tracking_depth(1)

    def close(self) -> None:
        """Take back what can be; a hook that somebody stands in front of lets everything pass. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if getattr(warnings, "_showwarnmsg", None) is self._show.ours:
            warnings._showwarnmsg = self._show.before  # type: ignore[attr-defined]
        if sys.unraisablehook is self._hooked:
            sys.unraisablehook = self._unraisable
        for each in self._filters:
            if each in warnings.filters:
                warnings.filters.remove(each)  # type: ignore[attr-defined]
        _filters_changed()
        if self._depth is not None:
            sys.set_coroutine_origin_tracking_depth(self._depth)

    def _add_filters(self) -> None:
        """See every one of them, wherever nobody has asked for anything else.

        What the user asked for stands before Python's own default, and stays before ours.
        """
        filters: list[Any] = warnings.filters  # type: ignore[assignment]
        default = next((at for at, each in enumerate(filters) if each[:3] == ("ignore", None, ResourceWarning)), None)
        if default is not None:
            resource = ("always", None, ResourceWarning, None, 0)
            filters.insert(default, resource)
            self._filters.append(resource)
        coroutine = ("always", _NEVER_AWAITED, RuntimeWarning, None, 0)
        if coroutine not in filters:
            filters.append(coroutine)
            self._filters.append(coroutine)
        _filters_changed()

    def _warned(self, message: Any) -> bool:
        """A warning is to be shown. Returns whether it would be without us."""
        if self._closed:
            return True
        category, text = message.category, str(message.message)
        self._count(category, text, message.source, message.filename, message.lineno)
        if not self._is_ours(category, text):
            return True
        if issubclass(category, ResourceWarning):
            return False
        key = (text, message.filename, message.lineno)
        if key in self._shown:
            return False
        if len(self._shown) < _SHOWN:
            self._shown.add(key)
        return True

    def _is_ours(self, category: type[Warning], text: str) -> bool:
        """Whether the first filter that fits is one that we added."""
        for each in warnings.filters:
            _, pattern, kind, module, _ = each
            if issubclass(category, kind) and module is None and (pattern is None or _matches(pattern, text)):
                return any(each is added for added in self._filters)
        return False

    def _not_raised(self, unraisable: Any) -> None:
        """Something could not be raised: with ``-W error`` it may be one of our warnings."""
        error = unraisable.exc_value
        if not self._closed and isinstance(error, (RuntimeWarning, ResourceWarning)):
            # Called from where it was dropped: the traceback knows only the function that makes the warning.
            frame = sys._getframe(1)
            self._count(type(error), str(error), unraisable.object, frame.f_code.co_filename, frame.f_lineno)
        self._unraisable(unraisable)

    def _count(self, category: type[Warning], text: str, source: Any, file: str, line: int) -> None:
        """One more.

        Args:
            category: Of the warning.
            text: What it says.
            source: The object; None when the warning does not say.
            file: Where it was dropped.
            line: Where in it.
        """
        dropped = f"{file}:{line}"
        if issubclass(category, ResourceWarning):
            # The address of an object makes no difference between two leaks.
            self._ledger.add(Signature("resource", _kind_of(text), "", dropped), alive=False)
        elif found := _NEVER_AWAITED.match(text):
            code = getattr(source, "cr_code", None)
            stack = [Frame(code.co_qualname, code.co_filename, code.co_firstlineno)] if code is not None else []
            origin = getattr(source, "cr_origin", None)
            # A call that stands alone, the usual mistake, is dropped in the line that makes it.
            created, waiting = ("{}:{} in {}".format(*origin[0]), dropped) if origin else (dropped, "")
            self._ledger.add(Signature("coroutine", found[1], created, waiting), stack=stack, alive=False)


def _matches(pattern: Any, text: str) -> bool:
    return bool(pattern.match(text)) if hasattr(pattern, "match") else pattern == text


def _kind_of(text: str) -> str:
    """The kind of thing that a ResourceWarning names, without its descriptor, address and ports."""
    head, _, rest = text.partition("<")
    words = rest.split()
    named = next((word for word in words if word.startswith(("name=", "raddr="))), "")
    thing = words[0].rstrip(">") if words else ""
    return f"{head}{thing} {named}".strip().rstrip(">,(") if thing else text


class _Hook:
    """A hook in place, and what was there before."""

    __slots__ = ("before", "ours")

    def __init__(self, before: Callable[[Any], None], ours: Callable[[Any], None]) -> None:
        self.before = before
        self.ours = ours


def _hook(warned: Callable[[Any], bool]) -> _Hook:
    before: Callable[[Any], None] = warnings._showwarnmsg  # type: ignore[attr-defined]

    def show(message: Any) -> None:
        if warned(message):
            before(message)

    warnings._showwarnmsg = show  # type: ignore[attr-defined]
    return _Hook(before, show)


def _filters_changed() -> None:
    """Forget which warnings each module has shown already."""
    mutated = getattr(warnings, "_filters_mutated", None)
    if mutated is not None:
        mutated()
