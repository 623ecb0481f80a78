"""Questions of a supervisor to a worker, each with a stream of its own for the answer.

A question is one datagram with a file descriptor: the worker's end of a fresh pair of sockets, on which the answer is
written, and whose end is the end of the answer. So answers may be long, several can be under way, and one that nobody
waits for any more is given up at once.
"""

from __future__ import annotations

import asyncio
import socket
from contextvars import Context
from typing import Any, Final

import msgspec

from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers
from sojourn.observe.packing import packed
from sojourn.scopes.work import Work

__all__ = ["Errand", "Errands", "ask", "perform", "socket_pair"]

#: Longest question and longest answer, in bytes.
_QUESTION: Final = 64 * 1024
_ANSWER: Final = 256 * 1024 * 1024
_PIECE: Final = 256 * 1024
#: Questions that a worker works on at the same time.
_AT_ONCE: Final = 8


class Errand(msgspec.Struct, frozen=True):
    """A question.

    Attributes:
        name: What is asked.
        arguments: Plain values.
        seconds: How long the answer may take.
    """

    name: str
    arguments: dict[str, Any]
    seconds: float


class _Outcome(msgspec.Struct, frozen=True):
    """Why there is no answer; all zero and "" before an answer, whose bytes follow."""

    status: int = 0
    reason: str = ""
    detail: str = ""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of the way on which questions go: whole datagrams, in order, none lost."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def perform(loop: asyncio.AbstractEventLoop, answers: Answers, errand: Errand) -> bytes:
    """Answer a question, as MessagePack.

    Raises:
        ErrandError: There is no such question, its arguments are no good, or the time was over.

    Cancel: safe.
    """
    answer = answers.get(errand.name)
    if answer is None:
        raise ErrandError(404, "unknown_errand", f"this worker does not answer {errand.name!r}")
    try:
        async with asyncio.timeout(errand.seconds):
            return await packed(loop, await answer(errand.arguments))
    except TimeoutError:
        raise ErrandError(504, "no_answer", f"there was no answer within {errand.seconds:g} s") from None
    except ErrandError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise ErrandError(400, "bad_argument", f"{type(error).__name__}: {error}") from error


class Errands:
    """The worker's end.

    Args:
        loop: The running loop.
        sock: This end; it belongs to this object from now on.
        answers: What can be asked.
        work: Where tasks are made.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, answers: Answers, work: Work) -> None:
        self._loop = loop
        self._sock = sock
        self._answers = answers
        self._work = work
        #: Questions under way. They are not the server's tasks: a drain does not wait for who looks.
        self._running: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        Context().run(loop.add_reader, sock, self._read)

    def close(self) -> None:
        """Take no more questions, and give up those that are under way. Calling it twice does nothing."""
        for task in self._running:
            task.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _QUESTION, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.close()  # the supervisor is gone, which the channel tells as well
            return
        if not descriptors:
            return  # this process has none left; the kernel has closed the one that came, so who asked is not kept
        reply = socket.socket(fileno=descriptors[0])
        reply.setblocking(False)
        try:
            errand = msgspec.msgpack.decode(data, type=Errand)
        except msgspec.DecodeError:
            reply.close()
            return
        task = self._work.run(self._serve(errand, reply), f"errand {errand.name}")
        self._running.add(task)
        task.add_done_callback(lambda task: self._done(reply, task))
        # Nothing is ever sent this way: it becomes readable when the other end is closed.
        Context().run(self._loop.add_reader, reply, self._left, reply, task)

    def _left(self, reply: socket.socket, task: asyncio.Task[None]) -> None:
        """Who asked waits no more, and a profile would cost for minutes."""
        self._loop.remove_reader(reply)
        task.cancel()

    def _done(self, reply: socket.socket, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._loop.is_closed():
            self._loop.remove_reader(reply)
        reply.close()

    async def _serve(self, errand: Errand, reply: socket.socket) -> None:
        try:
            if len(self._running) > _AT_ONCE:
                raise ErrandError(503, "busy", f"the worker answers {_AT_ONCE} questions already")
            outcome, answer = _Outcome(), await perform(self._loop, self._answers, errand)
        except ErrandError as error:
            outcome, answer = _Outcome(error.status, error.reason, error.detail), b""
        except Exception as error:  # noqa: BLE001 - a bug in one answer is told to who asked
            outcome, answer = _Outcome(500, "internal_error", f"{type(error).__name__}: {error}"), b""
        self._loop.remove_reader(reply)
        try:
            async with asyncio.timeout(errand.seconds):
                await self._loop.sock_sendall(reply, msgspec.json.encode(outcome) + b"\n")
                await self._loop.sock_sendall(reply, answer)
        except (OSError, TimeoutError):
            pass  # who asked waits no more


async def ask(sock: socket.socket, errand: Errand) -> bytes:
    """The supervisor's end: ask, and wait for the whole answer.

    Args:
        sock: The way to the worker.
        errand: The question.

    Returns:
        The answer as MessagePack.

    Raises:
        ErrandError: The worker said why there is none, is too slow (504), or is gone (503).

    Cancel: safe; the worker gives the answer up.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        try:
            socket.send_fds(sock, [msgspec.msgpack.encode(errand)], [theirs.fileno()], socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise ErrandError(503, "busy", "the worker does not take questions: its event loop hangs") from None
        except OSError as error:
            raise ErrandError(503, "gone", f"the worker can't be asked: {error.strerror}") from error
        finally:
            theirs.close()
        data = bytearray()
        try:
            # A little more than the worker allows itself: its own refusal says more.
            async with asyncio.timeout(errand.seconds + 0.5):
                while piece := await loop.sock_recv(ours, _PIECE):
                    data += piece
                    if len(data) > _ANSWER:
                        raise ErrandError(507, "too_long", f"the answer is longer than {_ANSWER >> 20} MiB")
        except TimeoutError:
            raise ErrandError(504, "no_answer", f"the worker did not answer within {errand.seconds:g} s") from None
        except OSError as error:
            raise ErrandError(503, "gone", f"the worker ended while it was asked: {error.strerror}") from error
    finally:
        ours.close()
    head, newline, answer = bytes(data).partition(b"\n")
    if not newline:
        raise ErrandError(503, "gone", "the worker ended while it was asked")
    outcome = msgspec.json.decode(head, type=_Outcome)
    if outcome.status:
        raise ErrandError(outcome.status, outcome.reason, outcome.detail)
    return answer
