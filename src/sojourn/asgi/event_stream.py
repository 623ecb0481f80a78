"""A stream of server-sent events with heartbeats while it is quiet, and a goodbye when the server wants it to end.

The source runs in one task of its own from its first step to its close, beside the request's task: waiting for it can
be interrupted for a heartbeat or a goodbye without cancelling anything, and timeouts and task groups inside it work.
The two meet at every event, so the source is never ahead of its client.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final

from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.site import CURRENT
from sojourn.net.ticker import Call, Ticker
from sojourn.scopes.work import attend
from sojourn.wire.sse import ServerSentEvent, encode

__all__ = ["event_stream"]

#: A comment without text: it goes through every proxy and wakes nobody.
_COMMENT: Final = encode(ServerSentEvent(comment=""))


def event_stream(
    source: AsyncIterable[Any],
    *,
    heartbeat: float | None = 15.0,
    retry: tuple[float, float] | None = (1.0, 5.0),
    goodbye: ServerSentEvent | None = None,
) -> AsyncGenerator[bytes, None]:
    """The body of an answer of type ``text/event-stream``, for StreamingResponse of any framework and for plain ASGI.

    It begins with a comment, so that the client gets the head of the answer at once. When the server drains, or the
    connection has its age (``timeouts.lifetime``), it sends ``goodbye`` and a random ``retry``, so that clients do not
    all come back together, and ends. Under another server it never says goodbye; the rest is the same.

    Args:
        source: Gives the events: :class:`ServerSentEvent`, or just their data as text, bytes or anything that JSON can
            express. It is closed (``aclose``) in the end, however that comes.
        heartbeat: Seconds of quiet after which a comment is sent; None sends none.
        retry: Range of seconds for the ``retry`` of the goodbye; None sends none.
        goodbye: A last event for the client.

    Raises:
        TypeError: The source is no async iterable.
        ValueError: A number makes no sense. While it runs: an event can't be encoded.

    Cancel: safe; the source is cancelled where it stands and closed.
    """
    if not isinstance(source, AsyncIterable):
        raise TypeError(f"the source of an event stream is an async iterable, not {type(source).__name__}")
    if heartbeat is not None and not heartbeat > 0:
        raise ValueError(f"heartbeat must be above zero, not {heartbeat!r}")
    if retry is not None and not 0 <= retry[0] <= retry[1]:
        raise ValueError(f"retry is a range of seconds, such as (1.0, 5.0), not {retry!r}")
    return _stream(_Feed(source), heartbeat, retry, goodbye)


async def _stream(
    feed: _Feed, heartbeat: float | None, retry: tuple[float, float] | None, goodbye: ServerSentEvent | None
) -> AsyncGenerator[bytes, None]:
    request = CURRENT.get(None)
    cycle = request if isinstance(request, HttpCycle) else None
    try:
        if cycle is not None:
            cycle.on_goodbye = feed.say_goodbye
            feed.goodbye = cycle.draining.is_set()
        yield _COMMENT
        if not feed.goodbye:
            feed.start(cycle, heartbeat)
        while not feed.goodbye:
            try:
                async with asyncio.timeout(heartbeat if cycle is None else None):
                    await feed.news.wait()
            except TimeoutError:
                feed.quiet = True
            feed.news.clear()
            if feed.event is not None:
                yield feed.take()
                feed.wanted.set()
            elif feed.over:
                feed.result()
                return
            elif feed.quiet and not feed.goodbye:
                feed.quiet = False
                yield _COMMENT
        if goodbye is not None:
            yield encode(goodbye)
        wait = None if retry is None else round(random.uniform(*retry) * 1000)
        yield encode(ServerSentEvent(retry=wait, comment="the server ends this stream"))
    finally:
        await feed.close()


class _Feed:
    """Where the source's task and the request's task meet. What is new is told by flags, so nothing new is missed.

    Args:
        source: Gives the events.

    Attributes:
        news: Set with each flag, and with each event.
        event: The event to send next, encoded; None while there is none.
        wanted: Set when it has been sent.
        over: Whether the source has come to its end.
        quiet: Whether a heartbeat is due.
        goodbye: Whether the server wants the stream to end.
    """

    __slots__ = (
        "_beat",
        "_began",
        "_heartbeat",
        "_last",
        "_source",
        "_task",
        "_ticker",
        "event",
        "goodbye",
        "news",
        "over",
        "quiet",
        "wanted",
    )

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._began = False
        #: The server's time, the moment of the last event, and the next look at it.
        self._ticker: Ticker | None = None
        self._heartbeat = self._last = 0.0
        self._beat: Call | None = None
        self.news = asyncio.Event()
        self.event: bytes | None = None
        self.wanted = asyncio.Event()
        self.over = self.quiet = self.goodbye = False

    def start(self, cycle: HttpCycle | None, heartbeat: float | None) -> None:
        """Begin to read the source.

        Args:
            cycle: The request; None under another server, and then the heartbeat is the caller's.
            heartbeat: Seconds of quiet; None for no heartbeat.
        """
        name = "event source"
        self._task = cycle.attend(self._read(), name) if cycle is not None else attend(self._read(), name)
        self._task.add_done_callback(self._ended)
        if cycle is not None and heartbeat is not None:
            self._ticker = cycle.connection.runtime.ticker
            self._heartbeat, self._last = heartbeat, self._ticker.now
            self._beat = self._ticker.call_later(heartbeat, self._look)

    def take(self) -> bytes:
        """The event to send."""
        event, self.event = self.event, None
        assert event is not None
        self.quiet = False
        if self._ticker is not None:
            self._last = self._ticker.now
        return event

    def say_goodbye(self) -> None:
        """The server wants the stream to end."""
        self.goodbye = True
        self.news.set()

    def result(self) -> None:
        """Raise what the source raised, its own cancellation too."""
        if self._task is not None:
            self._task.result()

    async def close(self) -> None:
        """End the source, wherever it is.

        Raises:
            Exception: What the source raised.

        Cancel: safe; the source ends by itself, or is cancelled again when the request's task has ended.
        """
        if self._beat is not None:
            self._beat.cancel()
        # The request's task may keep this frame's caller in its traceback, and the source's task keeps the request's.
        task, self._task = self._task, None
        if task is not None:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        if not self._began:
            await _close(self._source)

    async def _read(self) -> None:
        """The task of the source."""
        self._began = True
        events = aiter(self._source)
        try:
            async for item in events:
                self.event = encode(item if isinstance(item, ServerSentEvent) else ServerSentEvent(item))
                self.news.set()
                await self.wanted.wait()
                self.wanted.clear()
        finally:
            await _close(events)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.over = True
        self.news.set()

    def _look(self) -> None:
        """Look whether it is time for a heartbeat; an event moves nothing, what it did is seen here."""
        if self._ticker is None or self.over:
            return
        now = self._ticker.now
        if now - self._last >= self._heartbeat:
            self._last = now
            self.quiet = True
            self.news.set()
        self._beat = self._ticker.call_later(self._last + self._heartbeat - now, self._look)


async def _close(source: AsyncIterable[Any]) -> None:
    """Close a generator; other iterables may have something like it."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
