"""For development: who of the layers changes what others hold, and where that layer is written."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, Literal

from sojourn.guards.layers.chain import Layer, instrument
from sojourn.guards.layers.journal import Journal, Mutation
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LayerWarning", "guard_layers"]

#: Journal of the request that runs, and the layer that was entered last.
_HERE: Final[ContextVar[tuple[Journal, Layer]]] = ContextVar("sojourn_layers")
#: Different mutations that are told; whoever has more has read enough.
_MOST: Final = 1000


class LayerWarning(UserWarning):
    """A layer of the application changed what other layers hold of the same request.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("error", LayerWarning)  # in tests: such a request fails
    """


def guard_layers(
    app: ASGIApp,
    mode: Literal["report", "snapshot"] = "report",
    *,
    allow: Iterable[str] = (),
    report: Callable[[Mutation], object] | None = None,
) -> ASGIApp:
    """Watch what the layers of an application do to the scopes they share. For development and tests.

    Told is a change of a key, of the headers, of ``state`` or of ``extensions`` that another layer sees and can't
    expect: one around the layer that made it, or one to which it had handed the request on before. New keys are not
    told, nor what routers write. Layers are found in attributes such as ``app``, in closures, in the stacks of
    Starlette and FastAPI and in what their routers mount; what is put between them stays there, so call it once.

    Args:
        app: The outermost application.
        mode: ``report`` lets the layers share what they share. ``snapshot`` gives each a copy of its own, so that a
            change does not travel outwards, and who made it is certain even when layers run in several tasks.
        allow: Keys that layers may change for each other, such as ``state.user``, ``user`` or ``headers``.
        report: Called with each mutation; None warns with :class:`LayerWarning`, once for each layer and key.

    Returns:
        An ASGI application that does the same.

    Raises:
        ValueError: There is no such mode.

    Example:
        >>> import asyncio
        >>> def strips(app):
        ...     async def layer(scope, receive, send):
        ...         scope["path"] = scope["path"].removeprefix("/api")
        ...         await app(scope, receive, send)
        ...
        ...     return layer
        >>> def times(app):
        ...     async def layer(scope, receive, send):
        ...         await app(scope, receive, send)
        ...
        ...     return layer
        >>> async def page(scope, receive, send):
        ...     pass
        >>> app = guard_layers(times(strips(page)), report=lambda found: print(found.key, found.before, found.after))
        >>> asyncio.run(app({"type": "http", "path": "/api/users"}, None, None))
        scope['path'] '/api/users' '/users'
    """
    if mode not in ("report", "snapshot"):
        raise ValueError(f"mode is 'report' or 'snapshot', not {mode!r}")
    guard = _Guard(mode == "snapshot", frozenset(allow), report)
    return instrument(app, lambda inner, layer: _Between(inner, layer, guard))


class _Guard:
    """What all requests have in common.

    Args:
        copies: Whether each layer gets its own copy.
        allowed: Keys that may be changed.
        report: Who is told; None for a warning.
    """

    def __init__(self, copies: bool, allowed: frozenset[str], report: Callable[[Mutation], object] | None) -> None:
        self._copies = copies
        self._allowed = allowed
        self._report = report or self._warn
        self._told: set[tuple[str, str]] = set()

    def journal(self) -> Journal:
        """For a new request."""
        return Journal(copies=self._copies, allowed=self._allowed)

    def tell(self, journal: Journal) -> None:
        """Tell what was found."""
        while journal.found:
            self._report(journal.found.pop(0))

    def _warn(self, mutation: Mutation) -> None:
        signature = (mutation.layer.name, mutation.key)
        if signature in self._told or len(self._told) >= _MOST:
            return
        self._told.add(signature)
        file, _, line = mutation.layer.where.rpartition(":")
        warnings.warn_explicit(str(mutation), LayerWarning, file or "unknown", int(line or 0))


class _Between:
    """Stands in front of one layer.

    Args:
        app: The layer.
        layer: What it is called.
        guard: What all of them share.
    """

    def __init__(self, app: ASGIApp, layer: Layer, guard: _Guard) -> None:
        self.sojourn_layer = layer
        self._inside = app
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        """Who asks a layer for something of its own, such as ``routes``, gets it."""
        return getattr(self.__dict__["_inside"], name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        layer = self.sojourn_layer
        here = _HERE.get(None) if layer.depth else None
        if scope["type"] not in ("http", "websocket") or (layer.depth and here is None):
            await self._inside(scope, receive, send)
            return
        journal, caller = here if here is not None else (self._guard.journal(), None)
        self._look(journal, caller)
        given = journal.enter(scope, layer, caller, asyncio.current_task())
        token = _HERE.set((journal, layer))
        try:
            inwards = self._receiving(receive, journal, caller)
            await self._inside(given, inwards, self._sending(send, journal, caller, (given, scope)))
        finally:
            _HERE.reset(token)
            journal.ran(layer)
            journal.hand_out(given, scope)
            journal.leave(layer)
            self._guard.tell(journal)

    def _look(self, journal: Journal, layer: Layer | None) -> None:
        journal.ran(layer)
        self._guard.tell(journal)

    def _receiving(self, receive: Receive, journal: Journal, caller: Layer | None) -> Receive:
        async def received() -> Message:
            self._look(journal, self.sojourn_layer)
            message = await receive()
            self._look(journal, caller)
            return message

        return received

    def _sending(self, send: Send, journal: Journal, caller: Layer | None, scopes: tuple[Scope, Scope]) -> Send:
        async def sent(message: Message) -> None:
            journal.hand_out(*scopes)
            self._look(journal, self.sojourn_layer)
            await send(message)
            self._look(journal, caller)

        return sent
