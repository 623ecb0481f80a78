"""A process that does one call after the other for a thread, and can be killed in the middle of one.

It is a fresh interpreter, not a fork: it shares no socket, lock or thread with the server. What goes in and out is
pickled. It ends when the server does, however that ends.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from sojourn.errors import WorkerDied
from sojourn.scopes.snapshot import Snapshot

__all__ = ["Child", "answer", "serve"]

#: Seconds for an idle one to end by itself.
_FAREWELL: Final = 1.0
_READY: Final = b"ready"


class Child:
    """A process, as the thread that uses it sees it. Making one blocks until it is ready.

    Args:
        name: Of the process.

    Raises:
        WorkerDied: It ended before it was ready.
    """

    __slots__ = ("_connection", "_process")

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name=name, daemon=True)
        self._process.start()
        atexit.register(self.kill)  # it heeds no SIGTERM, which is what multiprocessing sends then
        theirs.close()
        self._exchange(None)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    def call(self, payload: bytes) -> Any:
        """Let it do one call.

        Args:
            payload: A snapshot, a function and its arguments, pickled.

        Raises:
            WorkerDied: It ended meanwhile; it can't be used any more.
            Exception: What the function raised.
        """
        good, result = pickle.loads(self._exchange(payload))
        if good:
            return result
        raise result

    def _exchange(self, payload: bytes | None) -> bytes:
        try:
            if payload is not None:
                self._connection.send_bytes(payload)
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            self._gone()
            code = self._process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            began = "before it was ready" if payload is None else "in the middle of a call"
            raise WorkerDied(f"process {self.pid} ended {how} {began}") from None

    def kill(self) -> None:
        """End it now; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """It is not needed any more."""
        self._gone()
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_FAREWELL)

    def _gone(self) -> None:
        self._connection.close()
        self._process.join(_FAREWELL)
        atexit.unregister(self.kill)


def serve(connection: Connection) -> None:
    """The life of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # often sent to all; they are for the server, which says when to end
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    connection.send_bytes(_READY)
    while True:
        try:
            payload = connection.recv_bytes()
        except (EOFError, OSError):  # the server does not need it any more
            return
        connection.send_bytes(answer(payload))


def _follow_parent() -> None:
    """End with the server, also in the middle of a call."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def answer(payload: bytes) -> bytes:
    """Do one call. Returns whether it went well, and what it returned or raised, pickled."""
    try:
        taken: Snapshot
        function: Callable[..., Any]
        taken, function, args = pickle.loads(payload)
        return pickle.dumps((True, taken.run(function, *args)))
    except BaseException as error:  # noqa: BLE001 - whatever the function raises is the caller's
        error.add_note(f"in the process that ran it:\n{''.join(traceback.format_exception(error))}")
        try:
            data = pickle.dumps((False, error))
            pickle.loads(data)
        except Exception:  # noqa: BLE001 - an error that can't travel is told in words
            wrong = RuntimeError(f"{type(error).__name__}: {error}")
            for note in error.__notes__:
                wrong.add_note(note)
            return pickle.dumps((False, wrong))
        return data
