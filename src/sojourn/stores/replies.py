"""Replies of Redis, read from bytes (RESP2, and the pushes of RESP3). Pure.

The client's own parser waits several times for each message; what others publish comes in thousands, and is read here
as many at a time as have come.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Replies", "Wrong", "command"]

_SIMPLE, _ERROR, _INTEGER, _BULK, _ARRAY, _PUSH, _NULL = b"+-:$*>_"
#: Elements of an array, and how deep arrays are in one another: what is asked for here has few.
_MOST: Final = 1_000_000
_DEEPEST: Final = 8


class Wrong(Exception):
    """What Redis answers to a command that it refuses."""


class _Incomplete(Exception):
    def __init__(self, needed: int) -> None:
        self.needed = needed


class Replies:
    """Bytes in, replies out, however the bytes were cut.

    Example:
        >>> replies = Replies()
        >>> replies.feed(b"*2\\r\\n$4\\r\\npong\\r\\n$0\\r\\n\\r\\n:4")
        [[b'pong', b'']]
        >>> replies.feed(b"2\\r\\n")
        [42]
    """

    __slots__ = ("_held", "_needed", "_parts")

    def __init__(self) -> None:
        #: What has come of a reply that is not complete, its length, and the length it has at least.
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, data: bytes) -> list[Any]:
        """Take what has come.

        Returns:
            What is complete: bytes, int, None, a list of these, or :class:`Wrong`.

        Raises:
            ValueError: These are no replies of Redis.
        """
        if self._held:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._parts)
        found: list[Any] = []
        at, end = 0, len(data)
        self._parts, self._held, self._needed = [], 0, 0
        try:
            while at < end:
                value, at = _read(data, at, 0)
                found.append(value)
        except _Incomplete as error:
            rest = data[at:]
            self._parts, self._held, self._needed = [rest], len(rest), error.needed - at
        return found


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    line = data.find(b"\r\n", at)
    if line < 0:
        raise _Incomplete(len(data) + 1)
    kind, after = data[at], line + 2
    if kind == _BULK:
        size = int(data[at + 1 : line])
        if size < 0:
            return None, after
        end = after + size
        if end + 2 > len(data):
            raise _Incomplete(end + 2)
        return data[after:end], end + 2
    if kind in (_ARRAY, _PUSH):
        count = int(data[at + 1 : line])
        if count > _MOST or depth == _DEEPEST:
            raise ValueError(f"an array of {count} in {depth} others")
        values = []
        for _ in range(count):
            value, after = _read(data, after, depth + 1)
            values.append(value)
        return None if count < 0 else values, after
    if kind == _INTEGER:
        return int(data[at + 1 : line]), after
    if kind == _SIMPLE:
        return data[at + 1 : line], after
    if kind == _ERROR:
        return Wrong(data[at + 1 : line].decode("utf-8", "replace")), after
    if kind == _NULL:
        return None, after
    raise ValueError(f"no reply of Redis: {data[at : at + 20]!r}")


def command(*words: bytes) -> bytes:
    """A command as it is sent.

    Example:
        >>> command(b"PING")
        b'*1\\r\\n$4\\r\\nPING\\r\\n'
    """
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)
