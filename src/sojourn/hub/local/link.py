"""A worker's side of the socket: questions with answers, each within its time, and what the broker says by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import msgspec

from sojourn.errors import EngineUnavailable
from sojourn.hub.local.messages import (
    Change,
    Frames,
    News,
    Refusal,
    Reply,
    Request,
    Told,
    Where,
    Word,
    frame,
    from_broker,
)
from sojourn.hub.local.serving import same_user

__all__ = ["Link", "Listener"]

#: Questions that may wait for their answers, and bytes that may wait to be sent.
_MOST_ASKED: Final = 50_000
_MOST_WAITING: Final = 64 * 1024 * 1024


class Listener(Protocol):
    """Who is told what the broker says by itself."""

    def told(self, message: News | Word | Change) -> None:
        """Something came."""


class Link(asyncio.Protocol):
    """A connection to the broker.

    A question whose answer does not come in time ends the connection: then the broker stands still, or nothing of what
    it says can be relied on. Time in which this process stood still does not count.

    Args:
        listener: Who is told.
        within: Seconds for an answer.
        now: Reads the clock.

    Attributes:
        over: Done with the reason when the connection has ended.
    """

    def __init__(self, listener: Listener, *, within: float, now: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[str] = self._loop.create_future()
        self._listener = listener
        self._within = within
        self._step = within / 4
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._out: list[bytes] = []
        self._waiting = 0
        self._number = 0
        #: Who waits for which answer, and since when; the oldest first.
        self._asked: dict[int, tuple[asyncio.Future[msgspec.Raw], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Seconds that this process was there, when that was looked at, and when something came.
        self._served = 0.0
        self._looked = 0.0
        self._heard = 0.0

    @property
    def open(self) -> bool:
        """Whether something can be asked."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._looked = self._now()
        self._timer = self._loop.call_later(self._step, self._look)
        if not same_user(transport.get_extra_info("socket")):
            self.end("the broker belongs to another user")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection to the broker was lost{f': {exc}' if exc is not None else ''}")

    def ask(self, request: Request) -> asyncio.Future[msgspec.Raw]:
        """Ask.

        Returns:
            The answer. It raises EngineUnavailable when none came, or it was a refusal.

        Raises:
            EngineUnavailable: The connection has ended, or too much waits for answers.
            ValueError: The question is too long, or can't be written.
        """
        if self._transport is None:
            raise EngineUnavailable("the connection to the broker was lost")
        if len(self._asked) >= _MOST_ASKED or self._waiting > _MOST_WAITING:
            raise EngineUnavailable("too much waits for the broker")
        self._number = request.number = self._number + 1
        data = frame(request)
        answer: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self._asked[self._number] = (answer, self._served)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._waiting += len(data)
        return answer

    def say(self, request: Request) -> None:
        """Ask, and wait for no answer. Without a connection nothing happens."""
        if self._transport is not None:
            self.ask(request).add_done_callback(_read)

    def end(self, why: str) -> None:
        """Close at once; who waits for an answer gets none. Calling it again does nothing."""
        transport, self._transport = self._transport, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if transport is not None:
            transport.abort()
        if not self.over.done():
            self.over.set_result(why)
        asked, self._asked = self._asked, {}
        for answer, _ in asked.values():
            if not answer.done():
                answer.set_exception(EngineUnavailable(why))

    def leave(self, request: Request) -> None:
        """Say a last thing, and close in order."""
        self.say(request)
        self._flush()
        transport = self._transport
        if transport is not None:
            transport.close()  # sends what is written
            self._transport = None
        self.end("closed")

    def data_received(self, data: bytes) -> None:
        self._heard = self._served
        try:
            messages: list[Told] = [from_broker(body) for body in self._frames.feed(data)]
        except (msgspec.MsgspecError, ValueError) as error:
            self.end(f"the broker speaks another language: {error}")
            return
        for message in messages:
            if self._transport is None:
                return
            if isinstance(message, Reply):
                answer, _ = self._asked.pop(message.number, (None, 0.0))
                if answer is not None and not answer.done():  # who asked may wait no more
                    answer.set_result(message.value)
            elif isinstance(message, Refusal):
                answer, _ = self._asked.pop(message.number, (None, 0.0))
                if answer is not None and not answer.done():
                    answer.set_exception(EngineUnavailable(message.text))
            else:
                self._listener.told(message)

    def _flush(self) -> None:
        out, transport = self._out, self._transport
        if transport is None or not out:
            return
        self._out = []
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._waiting = transport.get_write_buffer_size()

    def _look(self) -> None:
        """See whether answers are late, and ask whether anybody is there when it has been quiet."""
        now = self._now()
        self._served += min(now - self._looked, 2 * self._step)
        self._looked = now
        for _, since in self._asked.values():
            if self._served - since > self._within:
                self.end(f"the broker gave no answer within {self._within:g} s")
                return
            break  # the others were asked later
        self._timer = self._loop.call_later(self._step, self._look)
        if not self._asked and self._served - self._heard > self._within:
            self.say(Where())


def _read(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for it; an error in it is told by the end of the connection."""
    if not answer.cancelled():
        answer.exception()
