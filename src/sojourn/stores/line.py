"""One connection to Redis for scripts: who asks does not wait for who asked before, and answers come in that order.

The client ``redis`` knows the way: addresses, TLS, passwords, sentinels. What it has connected is taken over, with
replies that are read as they come (`replies`), since its own calls take several times as long as Redis itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from contextvars import Context
from typing import Any, Final

from sojourn.stores.redis import refusal, unknown_script
from sojourn.stores.replies import Replies, Wrong, command

__all__ = ["Line"]

_RESP3: Final = "3"


class Line:
    """Made anew when it was lost: by who asks next.

    Args:
        client: A ``redis.asyncio.Redis``. The connection is beside its pool, which may have room for one.
        silence: Seconds without a byte, while answers are due, after which the connection is given up: about. That
            is for callers who do not wait so long.
    """

    __slots__ = ("_client", "_hashes", "_lock", "_now", "_silence")

    def __init__(self, client: Any, silence: float) -> None:
        self._client = client
        self._silence = silence
        self._now: _Connection | None = None
        self._lock = asyncio.Lock()
        #: Hashes by text, of scripts that were sent whole.
        self._hashes: dict[str, bytes] = {}

    async def run(self, script: str, key: bytes, *values: bytes) -> Any:
        """Run a script.

        Args:
            script: Its text.
            key: Its key.
            values: Its arguments.

        Raises:
            Exception: One of ``failures``, as of the client.

        Cancel: safe; it may have been run. The connection stays, and the answer is thrown away.
        """
        now = self._now
        if now is None or not now.usable:
            now = await self._connected()
        if (sha := self._hashes.get(script)) is not None:
            try:
                return await now.ask(command(b"EVALSHA", sha, b"1", key, *values))
            except unknown_script():
                pass  # Redis was restarted, or is another one now: the whole script brings it back
        answer = await now.ask(command(b"EVAL", script.encode(), b"1", key, *values))
        self._hashes[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()
        return answer

    def at_once(self, script: str, key: bytes, *values: bytes) -> asyncio.Future[Any] | None:
        """Send a script that Redis had before, on the connection that is there; None where there is none.

        Returns:
            Its answer, or one of ``failures``; who waits for it bounds that.
        """
        now, sha = self._now, self._hashes.get(script)
        if sha is None or now is None or not now.usable:
            return None
        return now.ask(command(b"EVALSHA", sha, b"1", key, *values))

    async def _connected(self) -> _Connection:
        async with self._lock:  # those who come meanwhile use the same
            if self._now is None or not self._now.usable:
                self.drop()
                self._now = await _connection(self._client, self._silence)
            return self._now

    @property
    def heard(self) -> int:
        """How often something has come on the present connection."""
        return 0 if self._now is None else self._now.heard

    def doubt(self, heard: int) -> None:
        """An answer has not come in its time: without a sign of life since then the next call has a new connection.

        Args:
            heard: What :attr:`heard` was when it was asked for.
        """
        if self._now is not None and self._now.heard == heard:
            self.drop()

    def drop(self) -> None:
        """Close the connection; who waits for an answer is told that there is none."""
        now, self._now = self._now, None
        if now is not None:
            now.close()


async def _connection(client: Any, silence: float) -> _Connection:
    connection = client.connection_pool.make_connection()
    try:
        await connection.connect()
    except BaseException as error:
        writer, connection._reader, connection._writer = connection._writer, None, None
        if writer is not None:
            writer.transport.abort()
        if isinstance(error, RuntimeError):  # what uvloop says of a connection that was reset while nobody used it
            raise ConnectionError(str(error)) from error
        raise
    taken = _Connection(connection, silence)
    if str(getattr(connection, "protocol", "")) == _RESP3:
        try:
            await taken.ask(command(b"HELLO", b"2"))  # with RESP3 there may be what is no answer
        except BaseException:
            taken.close()
            raise
    return taken


class _Connection(asyncio.Protocol):
    """A connection of the client's, which has connected it and does nothing else with it.

    Attributes:
        heard: How often something has come.
    """

    def __init__(self, connection: Any, silence: float) -> None:
        self.heard = 0
        self._loop = asyncio.get_running_loop()
        self._silence = silence
        self._replies = Replies()
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: Of the timer: not that of whoever has asked first.
        self._context = Context()
        self._error: Exception | None = None
        # For the client it is closed. Its ends are kept, as they close what they are about when they are collected.
        self._kept = (connection, connection._reader, connection._writer)
        connection._reader = connection._writer = None
        self._transport: Any = self._kept[2].transport
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether something can be asked, in this loop."""
        return self._error is None and not self._transport.is_closing() and self._loop is asyncio.get_running_loop()

    def ask(self, words: bytes) -> asyncio.Future[Any]:
        """Send a command. Returns its answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._error is not None or self._transport.is_closing():
            future.set_exception(self._error or ConnectionError("the connection to Redis is closed"))
            return future
        self._asked.append(future)
        self._transport.write(words)
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._look, self.heard, context=self._context)
        return future

    def data_received(self, data: bytes) -> None:
        """Answers have come, or parts of them."""
        self.heard += 1
        asked = self._asked
        try:
            for reply in self._replies.feed(data):
                future = asked.popleft()
                if future.done():
                    continue  # nobody waits any more
                if isinstance(reply, Wrong):
                    future.set_exception(refusal(str(reply)))
                else:
                    future.set_result(reply)
        except (ValueError, IndexError) as error:  # these are no replies of Redis, or to nothing
            self._fail(ConnectionError(f"Redis has answered something else: {error}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self._fail(ConnectionError(f"the connection to Redis was lost: {error}" if error else "Redis has closed it"))

    def close(self) -> None:
        """End it."""
        self._fail(ConnectionError("the connection to Redis was given up"))
        if not self._loop.is_closed():
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, deque()
        for future in asked:
            if not future.done():
                future.set_exception(error)

    def _look(self, heard: int) -> None:
        """Answers that nobody waits for any more must come, too."""
        self._timer = None
        if not self._asked:
            return
        if self.heard == heard:
            self.close()
        else:
            self._timer = self._loop.call_later(self._silence, self._look, self.heard, context=self._context)
