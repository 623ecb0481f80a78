"""Work in threads and processes: bounded, with the context of its caller, and none of it orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop

from sojourn.config import Drain
from sojourn.errors import AccessDenied, DeadlineExceeded, OffloadFull, SecurityContextError, WorkerDied
from sojourn.events import TaskSurvived
from sojourn.observe.metrics.families import TABLE
from sojourn.scopes import hands as hands_module
from sojourn.scopes.alarms import alarms
from sojourn.scopes.context import SecurityContext, acting_as, security
from sojourn.scopes.deadline import deadline, remaining
from sojourn.scopes.offload import Offload, offload
from tests.scopes import elsewhere
from tests.server.serving import both_loops, serving, until

ALICE = SecurityContext("alice", roles=frozenset({"reader"}), claims={"token": "secret"})
VALUE: ContextVar[str] = ContextVar("VALUE", default="none")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Gate:
    """Holds threads until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.entered = 0

    def wait(self) -> str:
        self.entered += 1
        assert self._open.wait(10)
        return "through"

    def open(self) -> None:
        self._open.set()


@contextlib.asynccontextmanager
async def pool(**options: Any) -> Any:
    made = Offload(**options)
    try:
        yield made
    finally:
        await made.close(5.0)
        assert made.busy == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was looked for, or while
        return False


# Threads


def test_a_function_runs_in_a_thread_with_the_context_of_its_caller(run: Any) -> None:
    def look() -> tuple[str, str, bool, int]:
        VALUE.set("changed")
        return security().principal, VALUE.get(), remaining() is not None, threading.get_ident()

    async def main() -> None:
        VALUE.set("mine")
        async with pool(threads=2) as own:
            with acting_as(ALICE):
                async with deadline(5.0):
                    who, _, bounded, thread = await own.run(look)
            assert (who, bounded) == ("alice", True)
            assert thread != threading.get_ident()
            assert VALUE.get() == "mine"
            with pytest.raises(SecurityContextError):
                await own.run(look)

    run(main())


def test_what_it_raises_is_the_callers(run: Any) -> None:
    def fail(error: BaseException) -> None:
        raise error

    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            await offload(fail, KeyError("mine"))
        for error in (StopIteration(), SystemExit(3), KeyboardInterrupt()):
            with pytest.raises(RuntimeError, match=f"raised {type(error).__name__}"):
                await offload(fail, error)

    run(main())


def test_only_so_many_run_and_only_so_many_wait(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with pool(threads=2, queue=3) as own:
            calls = [asyncio.get_running_loop().create_task(own.run(gate.wait)) for _ in range(5)]
            await until(lambda: gate.entered == 2)
            assert (own.busy, own.waiting) == (2, 3)
            with pytest.raises(OffloadFull, match="3 calls wait for a thread") as caught:
                await own.run(gate.wait)
            assert (caught.value.pool, caught.value.waiting) == ("thread", 3)
            gate.open()
            assert await asyncio.gather(*calls) == ["through"] * 5
            assert (own.busy, own.waiting) == (0, 0)

    run(main())


def test_waiting_for_a_turn_counts_and_what_is_late_is_never_begun(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        begun: list[int] = []
        async with pool(threads=1) as own:
            first = asyncio.get_running_loop().create_task(own.run(gate.wait))
            await until(lambda: gate.entered)
            with pytest.raises(DeadlineExceeded) as caught:
                await own.run(begun.append, 1, deadline=0.03, name="resize")
            assert caught.value.deadline == "resize"
            assert own.waiting == 0  # withdrawn
            gate.open()
            await first

            async def late() -> None:
                async with deadline(0.01, "around"):
                    time.sleep(0.02)  # noqa: ASYNC251 - it is over, and no alarm could say so yet
                    await own.run(begun.append, 2)

            with pytest.raises(DeadlineExceeded, match="around"):
                await late()
            assert begun == []

    run(main())


def test_what_waited_too_long_is_refused_when_its_turn_comes(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        begun: list[int] = []
        async with pool(threads=1) as own:
            loop = asyncio.get_running_loop()
            first = loop.create_task(own.run(gate.wait))
            await until(lambda: gate.entered)
            second = loop.create_task(own.run(begun.append, 1, deadline=0.05))
            await asyncio.sleep(0)
            gate.open()
            time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still: the alarm can't ring before the thread is done
            await first
            with pytest.raises(DeadlineExceeded):
                await second
            assert begun == []

    run(main())


def test_a_caller_that_is_cancelled_withdraws_what_waits(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        begun: list[int] = []
        async with pool(threads=1) as own:
            loop = asyncio.get_running_loop()
            first = loop.create_task(own.run(gate.wait))
            await until(lambda: gate.entered)
            second = loop.create_task(own.run(begun.append, 1))
            await asyncio.sleep(0)
            assert own.waiting == 1
            second.cancel()
            await asyncio.wait([second])
            assert own.waiting == 0
            gate.open()
            await first
        assert second.cancelled()
        assert begun == []

    run(main())


def test_a_thread_that_overruns_keeps_its_place_and_is_named_with_its_stack(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands_module, "_PATIENCE", 0.02)

    async def main() -> None:
        gate = Gate()
        told: list[TaskSurvived] = []
        alarms().report = told.append
        async with pool(threads=1) as own:
            with pytest.raises(DeadlineExceeded):
                await own.run(gate.wait, deadline=0.02, name="parse")
            assert own.busy == 1
            await until(lambda: told)
            (event,) = told
            assert (event.name, event.owner, event.ended) == ("parse", "sojourn-thread-1", False)
            assert event.cause == "deadline parse"
            assert "in wait" in event.stack
            assert "in _run" not in event.stack
            with pytest.raises(DeadlineExceeded):  # its place is taken
                await own.run(len, "abc", deadline=0.02)
            gate.open()
            await until(lambda: len(told) == 2)
            assert told[1].ended
            assert await own.run(len, "abc") == 3

    run(main())


def test_a_thread_that_ends_soon_after_its_deadline_is_not_worth_a_word(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        told: list[TaskSurvived] = []
        alarms().report = told.append
        async with pool(threads=1) as own:
            with pytest.raises(DeadlineExceeded):
                await own.run(gate.wait, deadline=0.02)
            gate.open()
            await until(lambda: own.busy == 0)
        assert told == []

    run(main())


@pytest.mark.parametrize("turns", range(5))
def test_cancelled_at_any_await_nothing_is_left(run: Any, turns: int) -> None:
    async def main() -> None:
        async with pool(threads=1, queue=1) as own:
            loop = asyncio.get_running_loop()
            calls = [loop.create_task(own.run(time.sleep, 0.005)) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0.002 if turns > 2 else 0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await until(lambda: own.busy == own.waiting == 0)
            assert await own.run(len, "abc") == 3

    run(main())


def test_threads_that_have_nothing_to_do_end(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands_module, "_IDLE", 0.03)

    others = set(threading.enumerate())

    def named() -> int:
        return sum(thread.name.startswith("sojourn-thread") for thread in threading.enumerate() if thread not in others)

    async def main() -> None:
        own = Offload(threads=3)
        await asyncio.gather(*(own.run(time.sleep, 0.01) for _ in range(3)))
        assert named() == 3
        await until(lambda: named() == 0)
        assert await own.run(len, "abc") == 3  # and come again
        own.stop()

    run(main())


def test_threads_end_with_their_loop() -> None:
    own = Offload(threads=1)
    seen: list[threading.Thread] = []

    async def main() -> None:
        await own.run(lambda: seen.append(threading.current_thread()))

    asyncio.run(main())
    asyncio.run(main())  # another loop: what was made for the other is given up
    seen[0].join(5)
    assert not seen[0].is_alive()
    own.stop()
    seen[1].join(5)
    assert not seen[1].is_alive()


def test_a_closed_one_does_nothing_more(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        own = Offload(threads=1)
        loop = asyncio.get_running_loop()
        running, waiting = loop.create_task(own.run(gate.wait)), loop.create_task(own.run(gate.wait))
        await until(lambda: own.busy == 1 and own.waiting == 1)
        began = time.monotonic()
        await own.close(0.05)
        assert time.monotonic() - began < 2.0
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        with pytest.raises(RuntimeError, match="closed"):
            await own.run(len, "abc")
        gate.open()
        assert await running == "through"

    run(main())


def test_what_makes_no_sense_is_refused(run: Any) -> None:
    async def coroutine() -> None: ...

    async def main() -> None:
        with pytest.raises(TypeError, match="plain function"):
            await offload(coroutine)
        with pytest.raises(ValueError, match="thread or a process"):
            await offload(len, "abc", to="moon")  # type: ignore[arg-type]

    run(main())
    for options in ({"threads": 0}, {"processes": 0}, {"queue": -1}):
        with pytest.raises(ValueError, match="at least one"):
            Offload(**options)


# Processes


def test_a_process_sees_who_acts_without_claims_and_how_long_there_is_time(run: Any) -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            with acting_as(ALICE):
                async with deadline(60.0, "report"):
                    who, claims, pid = await own.run(elsewhere.who, to="process")
                    left, by = await own.run(elsewhere.left, to="process")
                with pytest.raises(AccessDenied, match="lacks editor") as caught:
                    await own.run(elsewhere.needs, "editor", to="process")
            assert (who, claims) == ("alice", False)
            assert pid != os.getpid()
            assert 0 < left <= 60.0
            assert by == "report"
            assert caught.value.principal == "alice"
            assert "in the process that ran it" in "".join(caught.value.__notes__)
            with pytest.raises(SecurityContextError):  # nothing of the last call is left there
                await own.run(elsewhere.who, to="process")
            assert await own.run(elsewhere.left, to="process") == (None, "")
            assert await own.run(os.getpid, to="process") == pid  # the same one, again and again
        await until(lambda: not alive(pid))

    run(main())


def test_a_process_is_killed_at_the_deadline_and_replaced(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            first = await own.run(os.getpid, to="process")
            started = tmp_path / "started"
            with pytest.raises(DeadlineExceeded) as caught:
                await own.run(elsewhere.spin, str(started), to="process", deadline=0.3, name="render")
            assert caught.value.deadline == "render"
            assert int(started.read_text()) == first
            await until(lambda: not alive(first))
            assert await own.run(os.getpid, to="process") != first

    run(main())


def test_a_caller_that_is_cancelled_kills_the_process_of_its_call(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            started = tmp_path / "started"
            call = asyncio.get_running_loop().create_task(own.run(elsewhere.spin, str(started), to="process"))
            await until(lambda: started.exists() and started.read_text())
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: not alive(int(started.read_text())))

    run(main())


def test_a_deadline_shorter_than_a_start_does_not_keep_one_from_ever_starting() -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            with pytest.raises(DeadlineExceeded):
                await own.run(os.getpid, to="process", deadline=0.01)
            await until(lambda: own.busy == 0)  # it has started meanwhile, and was not killed for it
            assert await own.run(os.getpid, to="process", deadline=1.0) != os.getpid()

    asyncio.run(main())


def test_processes_work_side_by_side_and_heed_no_signal_for_their_server() -> None:
    async def main() -> None:
        async with pool(processes=2) as own:
            began = time.monotonic()
            pids = set(await asyncio.gather(*(own.run(elsewhere.nap, 0.2, to="process") for _ in range(4))))
            assert len(pids) == 2
            assert time.monotonic() - began < 5
            calls = [asyncio.get_running_loop().create_task(own.run(elsewhere.nap, 0.2, to="process")) for _ in pids]
            await asyncio.sleep(0.05)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)  # as systemd does, to all of them
                os.kill(pid, signal.SIGINT)
            assert set(await asyncio.gather(*calls)) == pids

    asyncio.run(main())


def test_a_process_that_dies_says_how_and_the_next_call_has_another() -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            with pytest.raises(WorkerDied, match="with code 7 in the middle"):
                await own.run(elsewhere.leave, 7, to="process")
            pid = await own.run(os.getpid, to="process")
            call = asyncio.get_running_loop().create_task(own.run(elsewhere.nap, 30.0, to="process"))
            await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="by signal 9"):
                await call

    asyncio.run(main())


def test_what_can_not_travel_is_told_in_words() -> None:
    async def main() -> None:
        async with pool(processes=1) as own:
            with pytest.raises((AttributeError, TypeError, ValueError), match="pickle"):
                await own.run(lambda: 1, to="process")
            with pytest.raises(RuntimeError, match="Local: only here") as caught:
                await own.run(elsewhere.raise_local, to="process")
            assert "raise_local" in "".join(caught.value.__notes__)
            with pytest.raises(RuntimeError, match="SystemExit"):
                await own.run(elsewhere.exit_politely, to="process")
            with pytest.raises(TypeError, match="pickle"):
                await own.run(elsewhere.unpicklable, to="process")
            with pytest.raises(AccessDenied):
                await own.run(elsewhere.denied, to="process")

    asyncio.run(main())


ORPHAN = """
import asyncio, os, signal, sys
from sojourn.scopes.offload import offload
from tests.scopes import elsewhere

async def main():
    task = asyncio.create_task(offload(elsewhere.spin, sys.argv[1], to="process"))
    while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        await asyncio.sleep(0.01)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    # else: returns with the call still running

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["kill", "return"])
def test_a_process_never_outlives_its_parent(how: str, tmp_path: Path) -> None:
    script, started = tmp_path / "script.py", tmp_path / "started"
    script.write_text(ORPHAN, encoding="utf-8")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, script, started, how], env=environment, timeout=30, check=False, cwd=root)
    pid = int(started.read_text())
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid)


# With a server


def test_calls_that_run_and_wait_are_counted_by_the_page(tmp_path: Path) -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await asyncio.gather(*(offload(gate.wait) for _ in range(3)))
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    class Meter:
        found: ClassVar[dict[tuple[str, str], float]] = {}

        def gauge(self, name: str, value: float, *, to: str, state: str) -> None:
            assert f"sojourn_{name}" in TABLE
            self.found[to, state] = value

    async def main() -> None:
        async with serving(app) as served:
            served.server.offload._limits["thread"] = 2
            client = await served.connect()
            client.get()
            await until(lambda: gate.entered == 2)
            for count in served.server._gauges:
                count(Meter())  # type: ignore[arg-type]
            gate.open()
            await client.head()
        assert Meter.found["thread", "running"] == 2.0
        assert Meter.found["thread", "waiting"] == 1.0
        assert Meter.found["process", "running"] == 0.0

    asyncio.run(main())


@both_loops
def test_a_server_has_its_own_and_nothing_of_it_is_left(run: Any) -> None:
    threads: list[threading.Thread] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        with acting_as(ALICE):
            thread = await offload(threading.current_thread)
        threads.append(thread)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def main() -> None:
        async with serving(app) as served:
            assert (await served.get()).endswith(b"hello")
            assert served.server.offload.busy == 0
        threads[0].join(5)
        assert not threads[0].is_alive()

    run(main())


def test_a_stop_waits_a_moment_for_threads_and_not_for_ever() -> None:
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await offload(gate.wait, name="stuck")

    async def main() -> float:
        async with serving(app, drain=Drain(delay=0.0, requests=0.1, total=0.5)) as served:
            client = await served.connect()
            client.get()
            await until(lambda: gate.entered)
            began = time.monotonic()
        (event,) = [event for event in served.of(TaskSurvived) if event.name == "stuck"]
        assert "in wait" in event.stack
        return time.monotonic() - began

    try:
        assert uvloop.run(main()) < 6.0
    finally:
        gate.open()
