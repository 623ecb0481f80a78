"""A node's subscription to hints: watched, and made anew when it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from sojourn.errors import DeadlineExceeded
from sojourn.policy.retry import Backoff
from sojourn.scopes.budget import budget
from sojourn.stores.redis import failures
from sojourn.stores.replies import Replies, Wrong, command
from sojourn.tasks.journal import Listener
from sojourn.tasks.redis.server import BUDGET, SECONDS

__all__ = ["hear", "tell"]

_READ: Final = 65_536
#: Seconds of quiet after which Redis is asked whether it is there, and seconds for the answer.
_QUIET: Final = 5.0
_PONG: Final = 2.0
#: Between tries to subscribe.
_AGAIN: Final = Backoff(0.1, 3.0)


async def hear(client: Any, channel: str, listener: Listener) -> None:
    """Tell a listener what is published, until cancelled.

    Args:
        client: A ``redis.asyncio.Redis``.
        channel: Where hints are published.
        listener: Who is told.

    Cancel: gives back the connection.
    """
    tries = 0

    def up() -> None:
        nonlocal tries
        tries = 0
        listener.missed()

    while True:
        try:
            await _listen(client, channel, listener, up)
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
        except failures():
            pass  # told below
        except ValueError:
            pass  # these are no replies of Redis; told below
        listener.away()
        tries += 1
        waiter = asyncio.get_running_loop().create_future()
        await asyncio.wait((waiter,), timeout=_AGAIN.delay(tries, random.random()))


async def _listen(client: Any, channel: str, listener: Listener, up: Callable[[], None]) -> None:
    """Until Redis does not answer any more."""
    connection = client.connection_pool.make_connection()  # beside the pool, which may have room for one
    pulse: _Pulse | None = None
    try:
        async with budget(BUDGET, default=SECONDS):
            await connection.connect()
        # The client's own parser, which waits several times for each message, has nothing to do from here on.
        reader, pulse = connection._reader, _Pulse(connection._writer.transport)
        pulse.ask(command(b"SUBSCRIBE", channel.encode()))
        replies = Replies()
        while data := await reader.read(_READ):
            pulse.chunks += 1
            for reply in replies.feed(data):
                _take(reply, listener, up)
    except RuntimeError as error:  # what uvloop says of a connection that was reset while nobody used it
        raise ConnectionError(str(error)) from error
    finally:
        if pulse is not None:
            pulse.stop()
        await _drop(connection)


def _take(reply: Any, listener: Listener, up: Callable[[], None]) -> None:
    if isinstance(reply, Wrong):
        raise ConnectionError(f"Redis: {reply}")
    if isinstance(reply, list) and len(reply) == 3:
        if reply[0] == b"message":
            tell(listener, reply[2])
        elif reply[0] == b"subscribe":
            up()


async def _drop(connection: Any) -> None:
    """Have the client see that its connection is closed, which it is."""
    try:
        await connection.disconnect(nowait=True)
    except failures():
        pass  # the transport was aborted before


class _Pulse:
    """Ends a connection on which no byte has come, also not after a PING.

    Args:
        transport: The connection's.

    Attributes:
        chunks: How often something has come.
    """

    __slots__ = ("_loop", "_timer", "_transport", "chunks")

    def __init__(self, transport: Any) -> None:
        self.chunks = 0
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, words: bytes) -> None:
        """Send a command; something has to come after it."""
        self._transport.write(words)
        self._timer = self._loop.call_later(_PONG, self._silent, self.chunks, 0)

    def stop(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()

    def _look(self, before: int) -> None:
        if self.chunks == before:
            self.ask(command(b"PING"))
        else:
            self._timer = self._loop.call_later(_QUIET, self._look, self.chunks)

    def _silent(self, before: int, grace: int) -> None:
        """Nothing may have come, or have waited for a loop that was busy itself."""
        if self.chunks != before:
            self._timer = self._loop.call_later(_QUIET, self._look, self.chunks)
        elif not grace:
            self._timer = self._loop.call_later(_PONG / 8, self._silent, before, 1)
        else:
            self._transport.abort()


def tell(listener: Listener, hint: bytes) -> None:
    """Tell what a message says; one that is not ours says nothing."""
    due, _, rest = hint.decode(errors="replace").partition("\n")
    changed, _, cancelled = rest.partition("\n")
    for ident in cancelled.split():
        listener.cancelled(ident)
    for ident in changed.split():
        listener.changed(ident)
    if due == "1":
        listener.due()
