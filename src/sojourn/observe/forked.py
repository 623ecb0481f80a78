"""Work that would hold the event loop for too long, done by a copy of the process that lives for just that.

The copy sees every object as it was at the moment of the fork. It has one thread, no connections (their descriptors are
closed first, or a client would not see the end of a connection that the server closes meanwhile), no signal handlers
and little claim to the processor. What it may run is narrow: Python that takes no lock another thread may have held at
the fork, imports nothing and touches no event loop.

What it costs: the event loop stands still while the kernel copies the page tables, 3 to 5 ms at 600,000 objects in
190 MB; and what either process writes meanwhile is copied, in the worst case all of it. When memory runs out, the
kernel is asked to take the copy first.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Final, NoReturn

from sojourn.errors import ErrandError

__all__ = ["in_child"]

#: Longest result, in bytes.
_LONGEST: Final = 64 * 1024 * 1024
_PIECE: Final = 64 * 1024
#: What the copy's result begins with.
_DONE, _FAILED = b"\0", b"\1"
#: Steps down from the priority of the server.
_NICE: Final = 10
#: Seconds by which the copy outlives the patience of who asked, at most: then its own alarm ends it.
_SPARE: Final = 1.0


async def in_child(function: Callable[..., bytes], *arguments: object, timeout: float) -> bytes:
    """Call a function in a forked copy of this process.

    Args:
        function: What to call. The module says what it may do.
        arguments: Given to it as they are; nothing is pickled.
        timeout: Seconds until the copy is killed.

    Returns:
        What the function returned.

    Raises:
        ErrandError: 503 when there can be no copy, 504 when it was not in time, 500 when it raised or was killed.

    Cancel: safe; the copy is killed.
    """
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    try:
        pid = _fork(function, arguments, writing, timeout)
    except OSError as error:
        os.close(reading)
        raise ErrandError(503, "no_child", f"the process can't be forked: {error.strerror}") from error
    finally:
        os.close(writing)  # also in the parent, so that the end of the copy is the end of the pipe
    child = _awaited(pid, reading, loop)
    try:
        async with asyncio.timeout(timeout):
            data, status = await child.result
    except TimeoutError:
        raise ErrandError(504, "no_answer", f"the forked child was not done within {timeout:g} s") from None
    finally:
        child.kill()
    if data[:1] == _DONE:
        return data[1:]
    if data[:1] == _FAILED:
        raise ErrandError(500, "child_failed", data[1:].decode("utf-8", "replace"))
    if len(data) > _LONGEST:
        raise ErrandError(500, "child_failed", f"its result is longer than {_LONGEST >> 20} MiB")
    raise ErrandError(500, "child_failed", f"the forked child ended with {_told(status)}")


class _Child:
    """The parent's view: a thread that reads the result and takes note of the end.

    Args:
        pid: Its process id.
        reading: The end of the pipe that the result comes from; it belongs to this object.
        loop: Where the result is awaited.
    """

    def __init__(self, pid: int, reading: int, loop: asyncio.AbstractEventLoop) -> None:
        self._pid = pid
        self._reading = reading
        self._loop = loop
        self._lock = threading.Lock()
        self._gone = False
        #: What it wrote, and how it ended as waitpid(2) tells it.
        self.result: asyncio.Future[tuple[bytes, int]] = loop.create_future()
        # Its own thread, not one of the executor's, which the application may keep busy. It ends with the copy, which
        # has an alarm.
        threading.Thread(target=self._read, name="sojourn-forked", daemon=True).start()

    def kill(self) -> None:
        """End it, if it has not ended. Calling it twice does nothing."""
        with self._lock:  # so that the number can't have gone to another process
            if not self._gone:
                try:
                    os.kill(self._pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # the application reaped it

    def _read(self) -> None:
        data = bytearray()
        with open(self._reading, "rb", buffering=0) as pipe:
            while piece := pipe.read(_PIECE):
                data += piece
                if len(data) > _LONGEST:
                    self.kill()
                    break
        # Waits without reaping at first: up to the next line the number is still the copy's.
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._gone = True
                _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:  # the application reaps children that are not its own
            with self._lock:
                self._gone = True
            status = 0
        try:
            self._loop.call_soon_threadsafe(self._ended, bytes(data), status)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _ended(self, data: bytes, status: int) -> None:
        if not self.result.done():
            self.result.set_result((data, status))


def _awaited(pid: int, reading: int, loop: asyncio.AbstractEventLoop) -> _Child:
    try:
        return _Child(pid, reading, loop)
    except RuntimeError as error:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise ErrandError(503, "no_child", f"no thread can wait for a forked child: {error}") from error


def _fork(function: Callable[..., bytes], arguments: tuple[object, ...], writing: int, timeout: float) -> int:
    """Returns in the parent only, with the process id of the copy."""
    # A signal to the whole group must not reach the copy while it still has the server's handlers: they would wake the
    # server a second time, through the descriptor that both have.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of locks that other threads hold. The module's docstring is the answer.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _live(function, arguments, writing, timeout)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(function: Callable[..., bytes], arguments: tuple[object, ...], writing: int, timeout: float) -> NoReturn:
    """The whole life of the copy."""
    try:
        gc.disable()  # a collection would run finalizers that belong to the server
        os.closerange(0, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # a signal that the C library keeps to itself
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout + _SPARE)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.nice(_NICE)
        _die_first()
        try:
            result = _DONE + function(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it raised is told to who asked
            result = _FAILED + f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        view = memoryview(result)
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(0)  # nothing of the server's may run: no handlers, no buffers, no finalizers


def _die_first() -> None:
    """Ask the kernel to end this process before any other when memory runs out. Source: proc(5), oom_score_adj."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return  # not Linux, or no /proc
    try:
        os.write(fd, b"1000")
    except OSError:
        pass  # a sandbox forbids it; the copy lives as long as any other process
    finally:
        os.close(fd)


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"code {code} and without a result"
