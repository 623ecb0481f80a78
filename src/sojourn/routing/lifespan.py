"""Startup and shutdown of a router, with the applications mounted below it that want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias

from sojourn.errors import StartupError
from sojourn.scopes.work import attend
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Context", "live"]

#: What a lifespan function gives; a mapping that it yields goes into the state of every request.
Context: TypeAlias = AbstractAsyncContextManager[Any]

_NAME: Final = "lifespan of a mounted application"


async def live(own: Context | None, apps: Sequence[ASGIApp], scope: Scope, channel: tuple[Receive, Send]) -> None:
    """Run a lifespan: the router's own first, then that of each application; stopped the other way round.

    Args:
        own: The router's; None for none.
        apps: Applications that get a lifespan of their own, with the same state.
        scope: The lifespan scope.
        channel: Where its messages come from and go to.

    Raises:
        Exception: What a startup or shutdown raised, after the server was told.

    Cancel: safe; what was started is stopped.
    """
    receive, send = channel
    await receive()
    phase = "startup"
    try:
        async with AsyncExitStack() as stack:
            if own is not None:
                state = await stack.enter_async_context(own)
                if isinstance(state, Mapping):
                    scope.setdefault("state", {}).update(state)
            for app in apps:
                await stack.enter_async_context(_lived(app, scope))
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            await receive()
    except Exception as error:
        await send({"type": f"lifespan.{phase}.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _lived(app: ASGIApp, scope: Scope) -> AsyncIterator[None]:
    """An application between its startup and its shutdown, in a task beside the caller."""
    below = _Below(app)
    task = attend(below.run(dict(scope)), _NAME)
    try:
        supported = await below.ask("startup")
        yield
        if supported:
            await below.ask("shutdown")
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Below:
    """The server's side of the lifespan protocol, for one application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # One message is under way at a time, and the end of the application.
        self._asked: asyncio.Queue[Message] = asyncio.Queue(2)
        self._told: asyncio.Queue[Message] = asyncio.Queue(8)

    async def run(self, scope: Scope) -> None:
        """The application's task. What it raises before it answered means that it knows no lifespan, as ASGI says."""
        try:
            await self._app(scope, self._asked.get, self._told.put)
        except Exception as error:  # noqa: BLE001 whatever the application raises is one answer
            await self._told.put({"type": "ended", "message": f"{type(error).__name__}: {error}"})
        else:
            await self._told.put({"type": "ended", "message": "it returned"})

    async def ask(self, phase: str) -> bool:
        """Start or stop it.

        Returns:
            False when it knows no lifespan.

        Raises:
            StartupError: It says that it failed, or ended when it was to stop.
        """
        await self._asked.put({"type": f"lifespan.{phase}"})
        answer = await self._told.get()
        if answer["type"] == "ended" and phase == "startup":
            return False
        if answer["type"] != f"lifespan.{phase}.complete":
            raise StartupError(f"the {phase} of a mounted application failed: {answer.get('message', '')}")
        return True
