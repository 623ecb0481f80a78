"""The lifespan protocol (ASGI lifespan 2.0): startup before the first connection, shutdown after the last."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from sojourn.errors import StartupError
from sojourn.scopes.work import Work
from sojourn.typing import ASGIApp, Message

__all__ = ["Lifespan"]


class Lifespan:
    """Runs an application's lifespan.

    Args:
        app: The application.
        work: Where its task is made.
        mode: ``auto`` goes on without lifespan when the application raises on it; ``on`` makes that an error; ``off``
            never asks.
    """

    __slots__ = ("_app", "_error", "_failed", "_incoming", "_mode", "_outgoing", "_task", "_work", "state", "supported")

    def __init__(self, app: ASGIApp, work: Work, mode: Literal["auto", "on", "off"]) -> None:
        self._app = app
        self._work = work
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._error: BaseException | None = None
        self._failed = ""
        #: Shared with the application; requests get shallow copies.
        self.state: dict[str, Any] = {}
        #: Whether the application runs a lifespan; None before startup.
        self.supported: bool | None = False if mode == "off" else None

    async def startup(self, timeout: float | None) -> None:
        """Let the application start.

        Args:
            timeout: Seconds it may take; None for no limit.

        Raises:
            StartupError: It failed, took too long, or has no lifespan although the mode is ``on``.
        """
        if self.supported is False:
            return
        self._task = self._work.spawn(self._run(), "lifespan")
        self._incoming.put_nowait({"type": "lifespan.startup"})
        try:
            async with asyncio.timeout(timeout):
                answer = await self._outgoing.get()
        except TimeoutError:
            self._work.cancel(self._task, "lifespan_startup", "lifespan")
            raise StartupError(
                f"the application's startup took longer than {timeout:g} s (timeouts.lifespan_startup)"
            ) from None
        if answer == "lifespan.startup.complete":
            self.supported = True
        elif answer == "lifespan.startup.failed":
            raise StartupError(f"the application's startup failed: {self._failed or 'no message'}") from self._error
        elif self._mode == "on":
            raise StartupError(f"the application does not run a lifespan: {self._error!r}") from self._error
        else:
            self.supported = False

    async def shutdown(self, timeout: float | None) -> str | None:
        """Let the application stop.

        Args:
            timeout: Seconds it may take; None for no limit.

        Returns:
            What went wrong; None when nothing did.
        """
        if not self.supported or self._task is None or self._task.done():
            return None
        self._incoming.put_nowait({"type": "lifespan.shutdown"})
        try:
            async with asyncio.timeout(timeout):
                answer = await self._outgoing.get()
        except TimeoutError:
            self._work.cancel(self._task, "lifespan_shutdown", "lifespan")
            return f"the application's shutdown took longer than {timeout:g} s (timeouts.lifespan_shutdown)"
        if answer == "lifespan.shutdown.failed":
            return f"the application's shutdown failed: {self._failed or 'no message'}"
        if answer == "" and self._error is not None:
            return f"the application's shutdown raised {self._error!r}"
        return None

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._incoming.get, self._send)
        except Exception as error:
            # Before startup.complete: an application without lifespan, or one that can't start. Later: a shutdown
            # that failed. Whoever waits decides.
            self._error = error
        finally:
            self._outgoing.put_nowait("")

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind.endswith(".failed"):
            self._failed = message.get("message", "")
        self._outgoing.put_nowait(kind)
