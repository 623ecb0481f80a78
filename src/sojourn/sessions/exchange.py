"""One request or WebSocket with its session: saved in time, told to the client, ended when the session is."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any, Final

from sojourn.asgi.control import RequestControl
from sojourn.clock import SystemClock
from sojourn.ending import REASONS
from sojourn.errors import AuthenticationError, ClientDisconnected, SessionStoreUnavailable
from sojourn.scopes.shielded import shielded
from sojourn.scopes.work import launch
from sojourn.sessions.answer import Answer, Refusal, refuse
from sojourn.sessions.fields import with_fields
from sojourn.sessions.keeper import Keeper
from sojourn.sessions.live import Live, Mark
from sojourn.sessions.session import Session
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Exchange"]

#: Seconds for which changes are gathered before they are saved, while a WebSocket or stream goes on.
_GATHER: Final = 0.1
#: Seconds between two looks for changes inside of values, which nothing tells of.
_LOOK: Final = 1.0
#: Seconds for the last save, between two tries of it, and after which there is no other: a task that has been cancelled
#: is named when it goes on for three seconds.
_LAST: Final = 2.5
_AGAIN: Final = 0.2
_PATIENCE: Final = 1.5
_monotonic: Final = SystemClock.monotonic


Asgi = tuple[Scope, Receive, Send]


class Exchange:
    """The messages of one request or WebSocket, between the server and the application.

    Args:
        asgi: Scope, ``receive`` and ``send`` of the server.
        keeper: Keeps its session.
        live: Where it is entered as long as it is open.
        mark: Of ``live``, taken before the session was loaded.

    Attributes:
        key: Of the session it is entered with.
        user: Whose that is.
    """

    __slots__ = (
        "_answer",
        "_control",
        "_ended",
        "_entered",
        "_given_up",
        "_keeper",
        "_live",
        "_loaded",
        "_look_at",
        "_receive",
        "_saving",
        "_scope",
        "_send",
        "_swapped",
        "_task",
        "_websocket",
        "key",
        "user",
    )

    def __init__(self, asgi: Asgi, keeper: Keeper, live: Live, mark: Mark | None) -> None:
        scope, self._receive, self._send = asgi
        self._scope = scope
        self._keeper = keeper
        self._live = live
        control = scope.get("extensions", {}).get("sojourn")
        self._control: RequestControl | None = control if isinstance(control, RequestControl) else None
        self._websocket = scope["type"] == "websocket"
        self._answer = Answer()
        self._task: asyncio.Task[Any] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._look_at = 0.0
        #: Whether it is entered as open; whether its client was told something else than the application says; whether
        #: nothing is saved any more.
        self._entered = self._swapped = self._given_up = False
        self._loaded = (keeper.session.key, mark)
        self._ended = ""
        self.key = self.user = ""
        keeper.on_move = self._leave

    @property
    def session(self) -> Session:
        """Its session."""
        return self._keeper.session

    async def run(self, app: ASGIApp) -> None:
        """Run the application.

        Cancel: safe; what has changed is saved.
        """
        self._task = asyncio.current_task()
        if self._websocket:
            self._enter()
        try:
            try:
                await app(self._scope, self.receive, self.send)
            except SessionStoreUnavailable as error:
                if self._websocket or self._answer.begun:
                    raise
                await self._unavailable(error)
            except ClientDisconnected:
                if not self._ended:
                    raise
            await self._returned()
        except asyncio.CancelledError:
            if not await self._cancelled():
                raise
        finally:
            self._task = None
            self._leave()
            self.session.late = True
            if self._saving is not None:
                self._saving.cancel()
            if not self._given_up and self.session.changed() is not None:
                await shielded(self._keep_last(), _LAST, "last save of the session")

    async def receive(self) -> Message:
        """ASGI receive for the application.

        Cancel: safe, as the server's.
        """
        if self._ended and self._control is None:
            if not self._websocket:
                return {"type": "http.disconnect"}
            return {"type": "websocket.disconnect", "code": REASONS[self._ended].ws_code, "reason": self._ended}
        if self._websocket:
            self._watch_changes()
        return await self._receive()

    async def send(self, message: Message) -> None:
        """ASGI send for the application.

        Raises:
            ClientDisconnected: The session is over; and what the server's ``send`` raises.

        Cancel: safe, as the server's.
        """
        if self._ended:
            await self._say_ended()
            raise ClientDisconnected(self._ended)
        if self._swapped:
            return  # the client was told that it failed
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            begun = await self._begin(message)
            if begun is None:
                return
            message = begun
        elif kind == "http.response.body" and message.get("more_body") and not self._entered:
            self._enter()
        elif kind == "websocket.close":
            self.session.late = True
        self._answer.note(message)
        await self._send(message)
        if self._entered:
            self._watch_changes()

    def end(self, reason: str) -> None:
        """The session does not count any more; see Held."""
        if self._ended or self._task is None:
            return
        self._ended = reason
        self._entered = False
        if self._control is not None:
            self._control.dismiss(reason, REASONS[reason].advice)
        else:
            self._task.cancel(reason)

    # The beginning of the answer

    async def _begin(self, message: Message) -> Message | None:
        """The head of the answer, with what the client has to know; None when it was told something else."""
        if self._given_up:
            return message
        overtaking = self._answer.overtaken(message)
        if overtaking is not None:
            await self._unavailable(overtaking)
            return None
        try:
            fields = await self._keeper.keep()
        except SessionStoreUnavailable as error:
            await self._unavailable(error)
            return None
        except (TypeError, ValueError):
            self._given_up = True  # what the application has to say about its error is said
            raise
        session = self.session
        session.late = True
        if self._websocket and message["type"] == "websocket.accept":
            self._enter()
        return {**message, "headers": with_fields(list(message.get("headers", ())), fields, session.accessed)}

    async def _unavailable(self, error: SessionStoreUnavailable) -> None:
        """The client is told that it failed, whatever the application has to say: a login that is not kept is none."""
        self._swapped = self._given_up = True
        self.session.refuse(lambda: error)
        await refuse(self._scope, None, self._send, Refusal.of(error))

    # What is open

    def _enter(self) -> None:
        stored = self.session.stored
        if stored is not None and not self._entered:
            key, mark = self._loaded
            self.key, self.user, self._entered = stored.key, stored.user, True
            self._live.enter(self, stored.left, mark if key == stored.key else None)

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._live.leave(self)

    # Changes on the way

    def _watch_changes(self) -> None:
        """Have what has changed saved soon."""
        if self._saving is not None or self._given_up or not self.session.late:
            return
        if not self.session.modified:
            if self.session.stored is None:
                return
            now = _monotonic()
            if now < self._look_at:
                return
            self._look_at = now + _LOOK
            if self.session.changed() is None:
                return
        self._saving = launch(self._save_soon(), "save the session", copy_context())

    async def _save_soon(self) -> None:
        try:
            waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((waiter,), timeout=_GATHER)
            await self._keeper.keep()
        except SessionStoreUnavailable:
            pass  # it still counts as changed: saved with the next change, and at the end
        except (TypeError, ValueError) as error:
            self._wrong(error)
        finally:
            self._saving = None

    def _wrong(self, error: Exception) -> None:
        """What the session holds can't be kept. The application is told when it changes it again, and at the end."""
        self.session.refuse(lambda: error)

    async def _keep_last(self) -> None:
        """Nobody waits for it, and nobody would try again."""
        until = _monotonic() + _PATIENCE
        while True:
            try:
                await self._keeper.keep()
                return
            except SessionStoreUnavailable:
                if _monotonic() >= until:
                    raise
            await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=_AGAIN)

    # The end

    async def _returned(self) -> None:
        if self._ended:
            if self._control is None and self._task is not None:
                self._task.uncancel()  # it has swallowed that
            await self._say_ended()

    async def _cancelled(self) -> bool:
        """The application was cancelled. Returns whether that was only to end this, and all is said.

        Raises:
            AuthenticationError: The answer is half sent, and another server must not let it look complete.
        """
        if not self._ended:
            return False
        if self._control is not None:  # the server has cancelled it, and has said what can be said from outside
            await self._say_ended()
            return False
        if self._task is None or self._task.uncancel() > 0:
            return False
        await self._say_ended()
        if self._answer.begun and not self._answer.finished:
            raise AuthenticationError(self._ended, REASONS[self._ended].advice)
        return True

    async def _say_ended(self) -> None:
        """Tell the client, as far as the server has not."""
        answer, reason = self._answer, self._ended
        if answer.finished or (self._control is not None and not answer.event_stream):
            return
        row = REASONS[reason]
        if not answer.begun:
            answer.finished = True
            await refuse(self._scope, None, self._send, Refusal(row.status or 401, reason, row.advice))
        elif self._websocket:
            answer.finished = True
            await self._send({"type": "websocket.close", "code": row.ws_code or 1008, "reason": row.advice[:120]})
        elif answer.event_stream:
            answer.finished = True
            try:
                await self._send({"type": "http.response.body", "body": answer.goodbye(reason), "more_body": False})
            except OSError:
                pass  # ClientDisconnected: it has left by itself, and that is reported as its end
