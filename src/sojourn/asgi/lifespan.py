"""The lifespan protocol (ASGI lifespan 2.0): startup before the first connection, shutdown after the last.

The extension ``lifespan.shutdown.notice`` (proposed in asgiref #199 and #588) tells the application that a drain has
begun, while it is still served. It is offered in the scope, and sent only to an application that asks for it with
``lifespan.startup.complete`` and ``"shutdown_notice": True``: others take any message after startup for the shutdown.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, Final, Literal

from sojourn.bus import Bus
from sojourn.errors import ApplicationError, StartupError
from sojourn.events import LifespanFailed
from sojourn.scopes.work import LADDER, Work
from sojourn.typing import ASGIApp, Message

__all__ = ["Lifespan"]

#: Seconds in which the application returns by itself once everything is said, and in which it does when cancelled.
_RETURN: Final = 1.0
_PATIENCE: Final = LADDER[-1] + 1.0
_ANSWERS: Final = frozenset(
    f"lifespan.{phase}.{end}" for phase in ("startup", "shutdown") for end in ("complete", "failed")
)


class Lifespan:
    """Runs an application's lifespan.

    Args:
        app: The application.
        work: Where its task is made.
        bus: Where a failure that stops nothing is reported.
        mode: ``auto`` goes on without lifespan when the application raises on it, as ASGI asks; ``on`` makes that an
            error; ``off`` never asks.
    """

    __slots__ = (
        "_answer",
        "_app",
        "_bus",
        "_inbox",
        "_mode",
        "_received",
        "_running",
        "_task",
        "_wants_notice",
        "_work",
        "state",
    )

    def __init__(self, app: ASGIApp, work: Work, bus: Bus, mode: Literal["auto", "on", "off"]) -> None:
        self._app = app
        self._work = work
        self._bus = bus
        self._mode = mode
        #: Returns what the application raised; None when it returned.
        self._task: asyncio.Task[BaseException | None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        #: Whether the application has read a message.
        self._received = False
        #: The application's answer to the last message.
        self._answer: asyncio.Future[Message] | None = None
        #: Whether startup is complete and shutdown was not asked for.
        self._running = False
        #: Whether the application asked to be told of a drain.
        self._wants_notice = False
        #: Shared with the application; requests get shallow copies.
        self.state: dict[str, Any] = {}

    async def startup(self, timeout: float | None) -> None:
        """Let the application start.

        Args:
            timeout: Seconds it may take; None for no limit.

        Raises:
            StartupError: It failed, took too long, or has no lifespan although the mode is ``on``.

        Cancel: ends the application's task.
        """
        if self._mode == "off":
            return
        self._task = task = self._work.run(self._run(), "lifespan")
        try:
            answer = await self._ask(task, "startup", timeout)
        except TimeoutError:
            raise StartupError(
                f"the application's startup took longer than {timeout:g} s (timeouts.lifespan_startup)"
            ) from None
        if answer is not None and answer["type"] == "lifespan.startup.complete":
            self._running = True
            self._wants_notice = answer.get("shutdown_notice") is True
            return
        error = await self._end(task, "lifespan_startup")
        raised = self._received and error is not None
        if answer is not None or isinstance(error, SystemExit) or (raised and self._mode == "on"):
            raise StartupError(f"the application's startup failed: {_why(answer, error)}") from error
        if self._mode == "on":
            raise StartupError(f"the application does not run a lifespan: {_words(error)}") from error
        if raised and error is not None:
            # ASGI says to go on all the same, but it may well have meant to start: somebody should know.
            problem = f"raised in its startup and is served without lifespan: {_words(error)}"
            self._bus.emit(LifespanFailed("startup", problem, error))

    def notice(self) -> None:
        """A drain has begun; the application, if it asked for it, is told. It does not answer."""
        if self._running and self._wants_notice:
            self._inbox.put_nowait({"type": "lifespan.shutdown.notice"})

    async def shutdown(self, timeout: float | None) -> str | None:
        """Let the application stop, and see its task end.

        Args:
            timeout: Seconds it may take; None for no limit.

        Returns:
            What went wrong, which is also reported; None when nothing did.

        Cancel: ends the application's task.
        """
        task = self._task
        if not self._running or task is None:
            return None
        self._running = False
        try:
            answer = await self._ask(task, "shutdown", timeout)
        except TimeoutError:
            return self._failed(f"took longer than {timeout:g} s to stop (timeouts.lifespan_shutdown)", None)
        error = await self._end(task, "lifespan_shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            return self._failed(f"failed to stop: {_why(answer, error)}", error)
        if error is not None:
            return self._failed(f"raised while it stopped: {_words(error)}", error)
        return None

    async def _ask(self, task: asyncio.Task[Any], what: str, timeout: float | None) -> Message | None:
        """Send a message and wait for its answer; None when the application ends without one.

        Raises:
            TimeoutError: There was none in time, and the task has been ended.
        """
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        try:
            await asyncio.wait((answer, task), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._end(task, f"lifespan_{what}", at_once=True)
            raise
        if answer.done():
            message: Message = answer.result()
            return message
        if not task.done():
            await self._end(task, f"lifespan_{what}", at_once=True)
            raise TimeoutError
        return None

    async def _end(self, task: asyncio.Task[Any], cause: str, *, at_once: bool = False) -> BaseException | None:
        """Let the task return, else cancel it by the ladder. Returns what it raised."""
        await asyncio.wait((task,), timeout=0.0 if at_once else _RETURN)
        if not task.done():
            self._work.cancel(task, cause, "lifespan")
            await asyncio.wait((task,), timeout=_PATIENCE)
        return task.result() if task.done() and not task.cancelled() else None

    def _failed(self, problem: str, error: BaseException | None) -> str:
        self._bus.emit(LifespanFailed("shutdown", problem, error))
        return f"the application {problem}"

    async def _run(self) -> BaseException | None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
            "extensions": {"lifespan.shutdown.notice": {}},
        }
        try:
            await self._app(scope, self._receive, self._send)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whoever waits decides; an exit would end the loop
            if self._running:
                problem = f"raised in its lifespan while it was served: {_words(error)}"
                self._bus.emit(LifespanFailed("serving", problem, error))
                self._running = False
            return error
        return None

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        self._received = True
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] not in _ANSWERS:
            raise ApplicationError(f"{message['type']!r} is no answer to a lifespan message")
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)


def _words(error: BaseException | None) -> str:
    """An error and where it was raised, in one line."""
    if error is None:
        return "it returned without an answer"
    text = str(error).strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{at}"


def _why(answer: Message | None, error: BaseException | None) -> str:
    """The reason of a failure: the error when there is one, else the message, of which a traceback's last line."""
    if error is not None:
        return _words(error)
    lines = str((answer or {}).get("message", "")).strip().splitlines()
    return lines[-1] if lines else "no message"
