"""A node's subscriptions to hints: watched, and made anew when they are lost."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Final

from sojourn.errors import DeadlineExceeded
from sojourn.policy.retry import Backoff
from sojourn.scopes.budget import budget
from sojourn.stores.redis import failures
from sojourn.stores.replies import Replies, Wrong, command
from sojourn.tasks.journal import Listener
from sojourn.tasks.redis.server import BUDGET, SECONDS
from sojourn.tasks.redis.shared import CHANGED, DUE, ENDING

__all__ = ["Ears"]

_READ: Final = 65_536
#: Names in one command.
_CHUNK: Final = 512
#: Seconds of quiet after which Redis is asked whether it is there, and seconds for the answer.
_QUIET: Final = 5.0
_PONG: Final = 2.0
#: Between tries to subscribe.
_AGAIN: Final = Backoff(0.1, 3.0)


class Ears:
    """Those of one listener: on what is due and what is to end if it claims, and on each task that is followed.

    Args:
        client: A ``redis.asyncio.Redis``.
        prefix: Begins all names.
        listener: Who is told.
        followed: Tasks that are followed: asked each time that all is subscribed.
    """

    def __init__(self, client: Any, prefix: str, listener: Listener, followed: Collection[str]) -> None:
        self._client = client
        self._due, self._ending, self._changed = (f"{prefix}{name}".encode() for name in (DUE, ENDING, CHANGED))
        self._listener = listener
        self._followed = followed
        self._pulse: _Pulse | None = None
        self._up = False
        self._tries = 0
        #: Done when a name is subscribed, in the order of confirmations.
        self._awaited: deque[asyncio.Future[None]] = deque()

    async def follow(self, id: str) -> None:
        """Hear of one task more. Returns when that is so, or nothing is heard at all now.

        Cancel: safe; it may be followed.
        """
        if self._pulse is not None:  # also while what is followed is being confirmed, which this is no part of
            self._subscribe([self._changed + id.encode()])
            await asyncio.wait((self._awaited[-1],))

    def unfollow(self, id: str) -> None:
        """Hear of it no more."""
        if self._pulse is not None:
            self._pulse.send(command(b"UNSUBSCRIBE", self._changed + id.encode()))

    async def hear(self) -> None:
        """Tell what is published, until cancelled. Cancel: gives back the connection."""
        while True:
            try:
                await self._listen()
            except DeadlineExceeded as error:
                if error.deadline != BUDGET:
                    raise
            except failures():
                pass  # told below
            except ValueError:
                pass  # these are no replies of Redis; told below
            self._listener.away()
            self._tries += 1
            waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((waiter,), timeout=_AGAIN.delay(self._tries, random.random()))

    async def _listen(self) -> None:
        """Until Redis does not answer any more."""
        connection = self._client.connection_pool.make_connection()  # beside the pool, which may have room for one
        try:
            async with budget(BUDGET, default=SECONDS):
                await connection.connect()
            # The client's own parser, which waits several times for each message, has nothing to do from here on.
            reader, self._pulse = connection._reader, _Pulse(connection._writer.transport)
            self._subscribe([self._due, self._ending] if self._listener.claims else [])
            self._subscribe([self._changed + id.encode() for id in self._followed])
            self._pulse.ask()  # it is answered when all that is confirmed
            replies = Replies()
            while data := await reader.read(_READ):
                self._pulse.chunks += 1
                for reply in replies.feed(data):
                    self._take(reply)
        except RuntimeError as error:  # what uvloop says of a connection that was reset while nobody used it
            raise ConnectionError(str(error)) from error
        finally:
            self._lost()
            await _drop(connection)

    def _subscribe(self, names: Sequence[bytes]) -> None:
        assert self._pulse is not None
        self._awaited.extend(asyncio.get_running_loop().create_future() for _ in names)
        for at in range(0, len(names), _CHUNK):
            self._pulse.send(command(b"SUBSCRIBE", *names[at : at + _CHUNK]))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Wrong):
            raise ConnectionError(f"Redis: {reply}")
        what = reply[0] if isinstance(reply, list) and reply else reply
        if what == b"message":
            self._tell(reply[1], reply[2])
        elif what == b"subscribe" and self._awaited:
            self._confirmed()
        elif what in (b"PONG", b"pong") and not self._up:
            self._up, self._tries = True, 0
            self._listener.missed()

    def _tell(self, name: bytes, message: bytes) -> None:
        """Tell what a message says."""
        if name == self._due:
            self._listener.due()
        elif name == self._ending:
            for ident in message.decode(errors="replace").split():
                self._listener.cancelled(ident)
        else:
            self._listener.changed(name.removeprefix(self._changed).decode(errors="replace"))

    def _confirmed(self) -> None:
        future = self._awaited.popleft()
        if not future.done():
            future.set_result(None)

    def _lost(self) -> None:
        pulse, self._pulse, self._up = self._pulse, None, False
        if pulse is not None:
            pulse.stop()
        while self._awaited:
            self._confirmed()


async def _drop(connection: Any) -> None:
    """Have the client see that its connection is closed, which it is."""
    try:
        await connection.disconnect(nowait=True)
    except failures():
        pass  # the transport was aborted before


class _Pulse:
    """Writes to a connection, and ends it when no byte has come, also not after a PING.

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

    def send(self, words: bytes) -> None:
        """Send a command."""
        if not self._transport.is_closing():  # else the reader is about to see its end
            self._transport.write(words)

    def ask(self) -> None:
        """Send a PING; something has to come after it."""
        self.send(command(b"PING"))
        self._timer = self._loop.call_later(_PONG, self._silent, self.chunks, 0)

    def stop(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()

    def _look(self, before: int) -> None:
        if self.chunks == before:
            self.ask()
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
