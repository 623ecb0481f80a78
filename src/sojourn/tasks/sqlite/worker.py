"""A thread that does all calls that wait, together: a hundred that are made while one is under way cost one fsync."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from sojourn.tasks.sqlite.bell import Bell

__all__ = ["Call", "Worker"]

#: Calls that are done together at most.
_MOST: Final = 1000


class Call:
    """One call, and who waits for it.

    Args:
        function: What to do; first gets the transaction, unless it is plain.
        args: What else it gets.
        future: Gets what comes of it.
        durable: Whether it must have reached the disk before it is answered: None is done outside any transaction.
        first: The same question for who only reads: what it returns is the answer, unless that is None. So who asks for
            work and finds none does not keep others from writing.

    Attributes:
        result: What came of it.
        error: What it raised; None when it did not.
    """

    __slots__ = ("args", "durable", "error", "first", "function", "future", "result")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
        durable: bool | None,
        first: Callable[..., Any] | None = None,
    ) -> None:
        self.function = function
        self.args = args
        self.future = future
        self.durable = durable
        self.first = first
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """In the event loop: tell who waits, if anybody still does."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Worker:
    """The thread. A daemon: a file system that hangs must not keep the process from its end.

    Args:
        name: Of the thread.
        perform: Does calls, and notes what came of each in it; may raise nothing.
        bell: Wakes the event loop that asks most; others are woken as well.
    """

    __slots__ = ("_bell", "_inbox", "_perform", "_thread")

    def __init__(self, name: str, perform: Callable[[Sequence[Call]], None], bell: Bell) -> None:
        self._perform = perform
        self._bell = bell
        self._inbox: SimpleQueue[Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls that have not begun: about."""
        return self._inbox.qsize()

    def ask(self, call: Call) -> None:
        """Do this soon."""
        self._inbox.put(call)

    def stop(self) -> None:
        """End when all that was asked is done."""
        self._inbox.put(None)

    def _run(self) -> None:
        inbox = self._inbox
        going = True
        while going:
            calls: list[Call] = []
            call = inbox.get()
            while call is not None:
                calls.append(call)
                if len(calls) >= _MOST:
                    break
                try:
                    call = inbox.get_nowait()
                except Empty:
                    break
            else:
                going = False
            # Nobody waits for it any more, and it has not begun: it was not done.
            calls = [each for each in calls if not each.future.done()]
            if calls:
                self._perform(calls)
                self._deliver(calls)
            del calls, call

    def _deliver(self, calls: list[Call]) -> None:
        loops = {call.future.get_loop() for call in calls}
        for loop in loops:
            own = calls if len(loops) == 1 else [call for call in calls if call.future.get_loop() is loop]
            if loop is self._bell.loop and self._bell.put(_answer, own):
                continue
            try:
                loop.call_soon_threadsafe(_answer, own)
            except RuntimeError:  # it is closed: nobody waits
                continue
        self._bell.ring()  # hints are in it as well


def _answer(calls: list[Call]) -> None:
    for call in calls:
        call.answer()
