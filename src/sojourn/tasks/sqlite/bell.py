"""How a thread wakes an event loop: by the same call that gives the interpreter away, which the loop needs at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Bell"]


class Bell:
    """Runs functions of a thread in an event loop.

    ``call_soon_threadsafe`` wakes the loop while the thread has the interpreter: the loop wakes, waits for it, and has
    to be woken once more. Here the loop has it at once, and a thread that is asked something new meanwhile need not
    sleep. Made in the loop. Linux has eventfd; elsewhere nothing can be rung.

    Args:
        loop: That is woken.

    Attributes:
        loop: That is woken.
    """

    __slots__ = ("_closing", "_fd", "_left", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: What is to be done in the loop; bounded by those who wait for it, who have each asked once.
        self._left: deque[tuple[Callable[[Any], None], Any]] = deque()
        #: A number that was closed may already be another file's, and nobody may write to it.
        self._closing = threading.Lock()
        self._fd = -1
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            loop.add_reader(self._fd, self._rung)

    def put(self, function: Callable[[Any], None], what: Any) -> bool:
        """Have a function called in the loop, when it is rung. Any thread.

        Returns:
            Whether it will be; False where there is no bell, or no more.
        """
        if self._fd < 0:
            return False
        self._left.append((function, what))
        return True

    def ring(self) -> None:
        """Wake the loop, if anything was put. Any thread."""
        if self._left:
            with self._closing:
                if self._fd >= 0:
                    os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        """Ring no more; what was put is done now. In the loop."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            if not self.loop.is_closed():  # else it is one of an earlier asyncio.run
                self.loop.remove_reader(fd)
            os.close(fd)
            self._all()

    def _rung(self) -> None:
        if self._fd < 0:
            return
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:  # it has been read, and all that was rung before is done
            return
        self._all()

    def _all(self) -> None:
        left = self._left
        while left:
            function, what = left.popleft()
            function(what)
