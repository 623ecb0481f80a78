"""A copy of the process that does one thing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.forked import in_child

WORLD = {"answer": 42}
OTHERS: set[str] = set()


def run(coroutine: Coroutine[Any, Any, Any], *, uvloop: bool = False) -> Any:
    if uvloop:
        import uvloop as loops

        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            return runner.run(coroutine)
    return asyncio.run(coroutine)


def children() -> set[str]:
    """The children of this process, dead ones too."""
    lists = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return set(chain.from_iterable(lists))


@pytest.fixture(autouse=True, scope="module")
def others() -> Iterator[None]:
    """Servers that other tests in this process share."""
    OTHERS.update(children())
    yield
    OTHERS.clear()


def ended() -> bool:
    """Whether no child of these tests is left, not even a dead one."""
    return children() <= OTHERS


@pytest.mark.parametrize("uvloop", [False, True])
def test_the_child_sees_the_objects_of_its_parent_and_changes_none(uvloop: bool) -> None:
    def work(world: dict[str, int]) -> bytes:
        world["answer"] += 1
        return str(world["answer"]).encode()

    assert run(in_child(work, WORLD, timeout=10), uvloop=uvloop) == b"43"
    assert WORLD == {"answer": 42}
    assert ended()


def test_a_result_longer_than_a_pipe_holds_arrives_whole() -> None:
    data: bytes = run(in_child(lambda: b"x" * 3_000_000, timeout=10))
    assert len(data) == 3_000_000
    assert set(data) == {ord("x")}


def test_what_the_child_raises_is_told_to_who_asked() -> None:
    def work() -> bytes:
        raise LookupError("nothing there")

    with pytest.raises(ErrandError, match="LookupError: nothing there") as caught:
        run(in_child(work, timeout=10))
    assert (caught.value.status, caught.value.reason) == (500, "child_failed")
    assert ended()


def test_a_child_that_is_killed_is_no_answer() -> None:
    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with pytest.raises(ErrandError, match="signal 9"):
        run(in_child(work, timeout=10))
    assert ended()


def test_a_child_that_is_not_in_time_is_killed() -> None:
    def work() -> bytes:
        time.sleep(30)
        return b""

    start = time.monotonic()
    with pytest.raises(ErrandError) as caught:
        run(in_child(work, timeout=0.2))
    assert caught.value.status == 504
    assert time.monotonic() - start < 5
    until = time.monotonic() + 5
    while not ended() and time.monotonic() < until:
        time.sleep(0.01)
    assert ended()


def test_who_waits_no_more_ends_the_child() -> None:
    def work() -> bytes:
        time.sleep(30)
        return b""

    async def main() -> None:
        task = asyncio.ensure_future(in_child(work, timeout=20))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    until = time.monotonic() + 5
    while not ended() and time.monotonic() < until:
        time.sleep(0.01)
    assert ended()


def test_the_child_ends_by_itself_when_nobody_can_kill_it() -> None:
    def work() -> bytes:
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        return str(left).encode()

    assert 2 < float(run(in_child(work, timeout=3))) <= 4


def test_no_client_waits_for_the_child_to_close_its_connection() -> None:
    def work(ready: int) -> bytes:
        time.sleep(1.0)
        return b"still here"

    async def main() -> None:
        ours, client = socket.socketpair()
        client.settimeout(0.8)
        task = asyncio.ensure_future(in_child(work, 0, timeout=10))
        await asyncio.sleep(0.2)
        ours.close()
        assert client.recv(1) == b""
        assert await task == b"still here"
        client.close()

    run(main())


def test_a_signal_to_the_child_does_not_reach_the_servers_handlers() -> None:
    heard = []

    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return b""

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 1)
        with pytest.raises(ErrandError, match="signal 15"):
            await in_child(work, timeout=10)
        await asyncio.sleep(0.05)

    run(main())
    assert heard == []


def test_the_child_has_one_thread_no_files_and_little_claim_to_the_processor() -> None:
    def work() -> bytes:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return repr((threading.active_count(), len(os.listdir("/proc/self/fd")), os.nice(0), len(blocked))).encode()

    threads, files, nice, blocked = eval(run(in_child(work, timeout=10)))
    assert threads == 1
    assert files == 2  # the pipe, and the folder that is read
    assert nice == min(19, os.nice(0) + 10)
    assert blocked == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
