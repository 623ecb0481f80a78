"""The client of a hub: the machine, with a real connection, a real clock and real waiters."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Raw, Struct
from websockets.exceptions import ConnectionClosed

from sojourn.clients.clamp import clamped
from sojourn.clients.hub.actions import (
    Action,
    Answer,
    Became,
    Connect,
    Deliver,
    Direct,
    Drop,
    Entered,
    Fail,
    Refuse,
    Renew,
    Send,
)
from sojourn.clients.hub.channel import HubChannel, json_of
from sojourn.clients.hub.commands import Command
from sojourn.clients.hub.events import Ended, Gap, HubState, Message
from sojourn.clients.hub.inbox import Inbox
from sojourn.clients.hub.link import FAILURES, Link, Loss, open_link
from sojourn.clients.hub.machine import Machine
from sojourn.clients.hub.rules import ClientRules
from sojourn.clock import NEVER, SystemClock
from sojourn.errors import ConfigError, DeadlineExceeded, HubGone
from sojourn.scopes.deadline import deadline, free
from sojourn.scopes.shielded import shielded
from sojourn.scopes.work import attend, launch
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

__all__ = ["HubClient", "Messages", "Token"]

R = TypeVar("R", bound=Struct)

#: A credential, or what gets one; it is called before each connection, and when the one in use ends.
Token = str | Callable[[], Awaitable[str]]

_now: Final = SystemClock.monotonic
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
#: Seconds between two looks at the clock at least: loops keep time in milliseconds.
_LEAST: Final = 0.001
#: Seconds for the last connection to end, beside its closing handshake.
_END: Final = 2.0
#: Its server speaks something else: no later try will find what is looked for.
_UNKNOWN_PROTOCOL: Final = 1002


class Messages:
    """Messages to this user or connection alone; iterate over it, in one task at a time.

    Nobody has to: then the newest are kept, and who begins to read begins with a Gap.
    """

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox[Message]) -> None:
        self._inbox = inbox

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message | Gap:
        return await self._inbox.next()


class HubClient:
    """A connection to a hub that comes back by itself, and loses nothing without saying so.

    Use it with ``async with``, from one event loop. All that waits for the hub is bounded by ``rules`` and the ambient
    deadline. What comes waits in a buffer for each channel; when one that is read is full, nothing is read from the
    connection until there is room, so that the hub's own rule for slow members holds for this one.

    Args:
        url: Such as ``wss://example.org/hub``; ``https`` is as good.
        token: The credential, sent as ``Authorization: Bearer``, or a function that gets one: before each connection,
            and before the one in use ends. None for none.
        rules: How long it waits and how much it keeps.
        on_give_up: Called once when it will not come back, with the reason.
        on_state: Called with each new state.
        options: More arguments of ``websockets.asyncio.client.connect``, such as ``ssl``, ``origin`` and ``proxy``.

    Attributes:
        messages: What is sent to this user or connection alone.

    Raises:
        ConfigError: The URL is none of a WebSocket.

    Example:
        >>> async def chat():
        ...     async with HubClient("wss://example.org/hub", token="t-ada") as client:
        ...         room = await client.join("chat:1")
        ...         await room.publish({"text": "hello"})
        ...         async for event in room:
        ...             ...
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        rules: ClientRules | None = None,
        on_give_up: Callable[[Ended], object] | None = None,
        on_state: Callable[[HubState], object] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigError(f"no address of a hub: {url!r}; one looks like 'wss://example.org/hub'")
        self._url = parts._replace(scheme=_SCHEMES[parts.scheme]).geturl()
        self._token = token
        self._rules = rules or ClientRules()
        self._on_give_up = on_give_up
        self._on_state = on_state
        self._options = dict(options or {})
        self._machine = Machine(self._rules, random.random, renewable=callable(token))
        self._rooms: dict[str, HubChannel] = {}
        self._answers: dict[int, asyncio.Future[Raw]] = {}
        self._uid, self._uids = secrets.token_urlsafe(9), 0
        self._context: Context | None = None
        self._applying = False
        self._timer: asyncio.TimerHandle | None = None
        #: When it rings.
        self._rings = NEVER
        #: The one task that makes and reads a connection, the number of that, and of the next one.
        self._task: asyncio.Task[None] | None = None
        self._number = self._next = 0
        self._link: Link | None = None
        #: Close code for the present connection; 0: without a handshake.
        self._farewell = 0
        #: Inboxes that are full, and who waits for room in them.
        self._full: set[Inbox[Any]] = set()
        self._gate: asyncio.Future[None] | None = None
        self._inbox: Inbox[Message] = Inbox("", self._rules, self._changed)
        self.messages = Messages(self._inbox)

    # For the application

    @property
    def state(self) -> HubState:
        """How it stands."""
        return self._machine.state

    @property
    def ended(self) -> Ended | None:
        """Why it is not connected, as far as that is known; None while it is."""
        return self._machine.ended

    @property
    def user(self) -> str:
        """Who the hub takes it for; "" for nobody in particular, or before the first connection."""
        return self._machine.user

    async def __aenter__(self) -> HubClient:
        if self._context is not None:
            raise RuntimeError("a client is entered once; make another one")
        # What it does bounds nobody, and nothing that is around here bounds it.
        self._context = copy_context()
        self._context.run(free)
        self._machine.start(_now())
        self._apply()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close it: with a closing handshake, for which there is ``rules.close``.

        Raises:
            DeadlineExceeded: The function that gets tokens does not end although it was cancelled.

        Cancel: safe; it is closed first.
        """
        self._machine.stop()
        self._apply()
        task = self._task
        if task is not None:
            await shielded(_over(task), self._rules.close + _END, "hub.close")

    async def join(self, channel: str, *, info: Any = None, since: str | None = None) -> HubChannel:
        """Join a channel, and stay in it through all cuts until it is left.

        Args:
            channel: Its name.
            info: What others are shown by presence; anything that JSON can express.
            since: A cursor to resume from, such as :attr:`HubChannel.position` of an earlier run. None: from now on.

        Returns:
            The channel; the same one if it is joined already.

        Raises:
            HubRefused: The hub does not let it in.
            HubGone: The client is closed, or has given up.
            DeadlineExceeded: No answer in time; the channel is left then.
            ValueError: ``channel`` is no name of a channel, ``since`` no cursor, or ``info`` not JSON.

        Cancel: safe; the channel is left then, unless somebody else has joined it, too.
        """
        room = self._rooms.get(channel) or self._enter(channel, info, since)
        room.waiting += 1
        try:
            async with clamped("hub", self._rules.reply):
                await asyncio.wait((room.entered,))
                room.entered.result()
        except DeadlineExceeded as error:
            self._explain(error)
            raise
        finally:
            room.waiting -= 1
            if not room.waiting and not room.entered.done():
                self.forsake(room)
        return room

    async def send(self, data: Any) -> None:
        """Say something to the hub's application, and wait until it is there.

        It is not repeated: if the connection is lost before the answer, nobody can say whether it arrived.

        Args:
            data: Anything that JSON can express.

        Raises:
            HubGone: The connection was lost before the answer; or the client is closed, or has given up.
            HubRefused: The hub does not want it, it is too large, or too many wait already.
            DeadlineExceeded: No answer in time; it may have arrived.
            ValueError: It can't be written as JSON.

        Cancel: safe; it may arrive.
        """
        await self.ask(Command("msg", json_of(data), repeat=False), wire.Done)

    # For its channels

    def new_uid(self) -> str:
        """An id for a publication."""
        self._uids += 1
        return f"{self._uid}-{self._uids}"

    async def ask(self, command: Command, kind: type[R]) -> R:
        """Have a command carried out, and wait for its result.

        Raises:
            HubGone, HubRefused, DeadlineExceeded: It was not carried out, or nobody knows.

        Cancel: safe; it may be carried out.
        """
        if self._context is None:
            raise RuntimeError("the client is not entered: use it with 'async with'")
        try:
            async with clamped("hub", self._rules.reply):
                return wire.decode_result(await self._answer(command), kind)
        except DeadlineExceeded as error:
            self._explain(error)
            raise

    async def _answer(self, command: Command) -> Raw:
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        number = self._machine.ask(command, _now())
        self._answers[number] = answer
        try:
            self._apply()
            self._open_gate()  # the answer comes behind what is not read yet
            return await answer
        finally:
            if self._answers.pop(number, None) is not None:
                self._machine.forget(number, _now())
                self._apply()

    def _explain(self, error: DeadlineExceeded) -> None:
        """Say why there was no answer, as far as that is known."""
        state, ended = self.state, self.ended
        if state is not HubState.OPEN:
            why = "" if ended is None else f": {ended.reason} ({ended.code})"
            error.add_note(f"the hub is not connected ({state.value}){why}")

    def forsake(self, room: HubChannel) -> None:
        """Leave a channel."""
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            self._machine.leave(room.name, _now())
            self._apply()
        room.over(None)

    def _enter(self, channel: str, info: Any, since: str | None) -> HubChannel:
        if self._context is None:
            raise RuntimeError("the client is not entered: use it with 'async with'")
        place = None if since is None else Cursor.parse(since)
        if since is not None and place is None:
            raise ValueError(f"no cursor: {since!r}")
        if not 0 < len(channel) < 256 or not all("!" <= letter <= "~" for letter in channel):
            raise ValueError(f"no name of a channel: {channel!r}; it has 1 to 255 visible ASCII characters")
        json_of(info)
        if self.state in (HubState.STOPPED, HubState.GIVEN_UP):
            raise self._machine.gone()
        room = self._rooms[channel] = HubChannel(self, channel, Inbox(channel, self._rules, self._changed))
        self._machine.join(channel, info, place, _now())
        self._apply()
        return room

    # What the machine wants

    def _apply(self) -> None:
        """Do what the machine wants, and ring when it is due."""
        if self._applying:
            return  # a callback called: what it wants is done behind what is being done
        self._applying = True
        try:
            while actions := self._machine.take():
                for action in actions:
                    _DO[type(action)](self, action)
        finally:
            self._applying = False
        self._arm()

    def _arm(self) -> None:
        due = self._machine.due
        if self._timer is not None and (due < self._rings or due == NEVER):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due < NEVER:
            loop = asyncio.get_running_loop()
            self._rings = due
            self._timer = loop.call_later(max(_LEAST, due - _now()), self._ring, context=self._context)

    def _ring(self) -> None:
        self._timer = None
        self._machine.tick(_now())
        self._apply()

    def _connect(self, action: Connect) -> None:
        self._next = action.number
        if self._task is None:
            self._begin()

    def _send(self, action: Send) -> None:
        if self._link is not None:
            self._link.send(action.line)

    def _drop(self, action: Drop) -> None:
        if self._next == action.number:
            self._next = 0
        elif self._task is not None and self._number == action.number:
            self._farewell = action.code
            self._task.cancel()

    def _delivered(self, action: Deliver) -> None:
        room = self._rooms.get(action.channel)
        if room is not None:
            room.put(action.event, action.size)

    def _direct(self, action: Direct) -> None:
        self._inbox.put(action.message, action.size)

    def _entered(self, action: Entered) -> None:
        room = self._rooms.get(action.channel)
        if room is not None and not room.entered.done():
            room.entered.set_result(None)

    def _refused(self, action: Refuse) -> None:
        room = self._rooms.pop(action.channel, None)
        if room is not None:
            room.over(action.error)

    def _answered(self, action: Answer) -> None:
        answer = self._answers.pop(action.number, None)
        if answer is not None and not answer.done():
            answer.set_result(action.result)

    def _failed(self, action: Fail) -> None:
        answer = self._answers.pop(action.number, None)
        if answer is not None and not answer.done():
            answer.set_exception(action.error)

    def _renew(self, action: Renew) -> None:
        # Beside the task that reads, and no longer than it. If it fails the hub says when the old one is over.
        attend(self._get_another(), "hub token")

    def _became(self, action: Became) -> None:
        final = action.state in (HubState.STOPPED, HubState.GIVEN_UP)
        if final:
            error = None if action.ended is None else HubGone(action.ended.reason, action.ended.code)
            rooms, self._rooms = self._rooms, {}
            for room in rooms.values():
                room.over(error)
            self._inbox.end(error)
        if self._on_state is not None:
            self._call(self._on_state, action.state)
        if action.ended is not None and final and self._on_give_up is not None:
            self._call(self._on_give_up, action.ended)

    def _call(self, callback: Callable[[Any], object], value: Any) -> None:
        try:
            callback(value)
        except Exception as error:  # noqa: BLE001 - the application's own, and must not stop the client
            text = f"{callback!r} of a HubClient failed"
            asyncio.get_running_loop().call_exception_handler({"message": text, "exception": error})

    # The connection

    def _begin(self) -> None:
        assert self._context is not None
        self._number, self._next, self._farewell = self._next, 0, 0
        self._task = launch(self._connection(self._number), "hub connection", self._context.copy())
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            text = "a connection of a HubClient failed in a way that was not expected"
            task.get_loop().call_exception_handler({"message": text, "exception": error, "task": task})
        if self._next:
            self._begin()
        else:  # nothing happens when the machine has heard of its end
            self._lose(self._number, Loss(0, "cancelled" if error is None else repr(error)))

    def _lose(self, number: int, loss: Loss) -> None:
        self._machine.lost(number, loss.code, loss.reason, _now(), loss.least)
        self._apply()

    async def _connection(self, number: int) -> None:
        """Make a connection and read it to its end. Cancel: it is closed."""
        try:
            link = await open_link(self._url, await self._credential(), self._rules, self._options)
        except FAILURES as error:  # a deadline that passed is an OSError, too
            self._lose(number, Loss.of(error))
            return
        writer = attend(link.write(), "hub writer")
        try:
            if not link.speaks:
                self._lose(number, Loss(_UNKNOWN_PROTOCOL, "the server does not speak sojourn.v1"))
                return
            self._link = link
            self._machine.opened(number, _now())
            self._apply()
            await self._read(number, link)
        except ConnectionClosed as closed:
            self._lose(number, Loss.of(closed))
        finally:
            self._link = None
            await link.close(self._farewell, writer)

    async def _read(self, number: int, link: Link) -> None:
        while True:
            frame = await link.read()
            self._machine.received(number, frame, _now())
            self._apply()
            while self._behind():
                self._machine.hold()
                self._gate = asyncio.get_running_loop().create_future()
                try:
                    await self._gate
                finally:
                    self._gate = None
                    self._machine.release(_now())

    async def _credential(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            async with deadline(self._rules.connect, "hub.token"):
                return await self._token()
        except Exception as error:
            raise ConnectionError(f"no token: {error!r}") from error

    async def _get_another(self) -> None:
        token = await self._credential()
        if token is not None:
            self._machine.renew(token, _now())
            self._apply()

    # The application is behind

    def _behind(self) -> bool:
        """Whether nothing may be read: too much waits, and no answer that is awaited stands behind it."""
        if not self._full:
            return False
        return not self._machine.asking or any(inbox.brimming for inbox in self._full)

    def _changed(self, inbox: Inbox[Any]) -> None:
        if inbox.full:
            self._full.add(inbox)
        else:
            self._full.discard(inbox)
        self._open_gate()

    def _open_gate(self) -> None:
        if self._gate is not None and not self._gate.done() and not self._behind():
            self._gate.set_result(None)


async def _over(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))


_DO: Final[dict[type[Action], Callable[[HubClient, Any], None]]] = {
    Connect: HubClient._connect,
    Send: HubClient._send,
    Drop: HubClient._drop,
    Deliver: HubClient._delivered,
    Direct: HubClient._direct,
    Entered: HubClient._entered,
    Refuse: HubClient._refused,
    Answer: HubClient._answered,
    Fail: HubClient._failed,
    Renew: HubClient._renew,
    Became: HubClient._became,
}
