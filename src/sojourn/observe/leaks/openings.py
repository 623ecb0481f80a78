"""Where files and sockets were opened, once somebody wants to know."""

from __future__ import annotations

import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sojourn.observe.leaks.places import Noted, noted

__all__ = ["Opening", "Openings"]

#: Sockets and paths remembered; the oldest are forgotten first.
_MOST: Final = 5000
#: Frames between the opening and the first of the application, and some more of it.
_DEPTH: Final = 24


class Opening(NamedTuple):
    """A socket or file that was opened while this was on.

    Attributes:
        what: ``socket`` or ``file``.
        at: When, in served time.
        stack: Who did it.
    """

    what: str
    at: float
    stack: Noted


class Openings:
    """Listens to the interpreter's audit events ``open`` and ``socket.__new__``.

    An audit hook can't be taken away again, and is called for every event of every kind. So there is none before the
    first :meth:`begin`, and afterwards it does nothing but look at a name while it is off. Source: PEP 578.
    """

    def __init__(self) -> None:
        self._on = self._hooked = False
        self._now = 0.0
        self._sockets: OrderedDict[int, tuple[weakref.ref[Any], Opening]] = OrderedDict()
        self._files: OrderedDict[str, Opening] = OrderedDict()

    @property
    def on(self) -> bool:
        """Whether openings are noted."""
        return self._on

    def begin(self) -> None:
        """Note them from now on."""
        self._on = True
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(_hook(weakref.ref(self)))

    def end(self) -> None:
        """Note none any more, and forget those that were."""
        self._on = False
        self._sockets.clear()
        self._files.clear()

    def tell_time(self, now: float) -> None:
        """The time, in seconds, that openings are stamped with."""
        self._now = now

    def noted(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by the hook, in whichever thread."""
        if event == "socket.__new__":
            sock = arguments[0]
            self._sockets[id(sock)] = (weakref.ref(sock), Opening("socket", self._now, noted(3, _DEPTH)))
            if len(self._sockets) > _MOST:
                self._sockets.popitem(last=False)
        elif event == "open":
            path = arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)):
                self._files[os.path.abspath(os.fsdecode(path))] = Opening("file", self._now, noted(3, _DEPTH))
                if len(self._files) > _MOST:
                    self._files.popitem(last=False)

    def sockets(self) -> Iterator[tuple[int, Opening]]:
        """Noted sockets that are open, by descriptor. A socket that was detached has none."""
        for key, (reference, opening) in list(self._sockets.items()):
            sock = reference()
            fd = sock.fileno() if sock is not None else -1
            if fd >= 0:
                yield fd, opening
            elif sock is None:
                self._sockets.pop(key, None)

    def file(self, path: str) -> Opening | None:
        """The latest noted opening of a file; None when there was none."""
        return self._files.get(path)


def _hook(openings: weakref.ref[Openings]) -> Any:
    # A dictionary, because both words and nothing else must be found as fast as can be.
    wanted = {"open": True, "socket.__new__": True}.get

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if wanted(event):
            target = openings()
            if target is not None and target._on:
                try:
                    target.noted(event, arguments)
                except Exception:  # noqa: BLE001 - what an audit hook raises breaks the application's own call
                    target._on = False

    return hook
