"""Workers: a bounded queue for bursts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

import sojourn
from sojourn.errors import DeadlineExceeded, WorkersFull
from sojourn.guards.workers import Workers
from sojourn.scopes.deadline import deadline

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WHO: ContextVar[str] = ContextVar("who")


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Burst:
    """Jobs that run until they are let go."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.go = asyncio.Event()
        self.ran: list[int] = []
        self.most = 0

    async def job(self, number: int) -> int:
        self.ran.append(number)
        self.most = max(self.most, self.workers.running)
        await self.go.wait()
        return number

    async def come(self, number: int) -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(self.workers.submit(self.job, job)) for job in range(number)]
        await turns()
        return tasks


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def counts(workers: Workers) -> dict[str, int]:
    assert (workers.running, workers.waiting) == (0, 0)
    return {word: number for word, number in workers.figures().counts.items() if number}


def test_a_burst_waits_in_order_and_what_is_beyond_the_queue_is_refused(run: Any) -> None:
    workers = Workers(queue=5, workers=2)

    async def main() -> None:
        burst = Burst(workers)
        tasks = await burst.come(10)
        assert (burst.ran, workers.running, workers.waiting) == ([0, 1], 2, 5)
        burst.go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert done[:7] == burst.ran == list(range(7))
        assert [str(error) for error in done[7:]] == ["workers: 2 jobs run and 5 wait, as many as may"] * 3
        assert all(isinstance(error, WorkersFull) for error in done[7:])
        assert burst.most == 2

    run(main())
    assert counts(workers) == {"ran": 7, "full": 3}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_finds_no_place_is_done_in_a_lesser_way(run: Any, asynchronous: bool) -> None:
    def lesser(number: int) -> str:
        return f"cached {number}"

    async def lesser_later(number: int) -> str:
        await asyncio.sleep(0)
        return lesser(number)

    workers = Workers(queue=0, workers=1, on_full="degrade", degrade=lesser_later if asynchronous else lesser)

    async def main() -> None:
        burst = Burst(workers)
        (task,) = await burst.come(1)
        assert await workers.submit(burst.job, 7) == "cached 7"
        burst.go.set()
        assert await task == 0

    run(main())
    assert counts(workers) == {"ran": 1, "degraded": 1}


def test_who_waits_too_long_is_refused_or_made_do(run: Any) -> None:
    async def main() -> None:
        strict = Workers(queue=5, workers=1, wait=0.01, name="strict")
        kind = Workers(queue=5, workers=1, wait=0.01, on_full="degrade", degrade=lambda number: -number)
        for workers in (strict, kind):
            burst = Burst(workers)
            (task,) = await burst.come(1)
            if workers is kind:
                assert await workers.submit(burst.job, 7) == -7
            else:
                with pytest.raises(WorkersFull, match=r"strict: no worker was free in 0.01 s: 1 jobs run"):
                    await workers.submit(burst.job, 7)
            burst.go.set()
            await task
            assert burst.ran == [0]

    run(main())


def test_a_job_whose_deadline_passes_in_the_queue_never_runs(run: Any) -> None:
    workers = Workers(queue=5, workers=1)

    async def main() -> None:
        burst = Burst(workers)
        (task,) = await burst.come(1)
        with pytest.raises(DeadlineExceeded, match="'request'"):
            async with deadline(0.01, "request"):
                await workers.submit(burst.job, 1)
        burst.go.set()
        await task
        assert burst.ran == [0]

    run(main())
    assert counts(workers) == {"ran": 1}


def test_a_job_that_runs_is_bounded_by_its_submitters_deadline(run: Any) -> None:
    workers = Workers(workers=1)

    async def main() -> None:
        burst = Burst(workers)
        with pytest.raises(DeadlineExceeded, match="'request'"):
            async with deadline(0.01, "request"):
                await workers.submit(burst.job, 0)

    run(main())
    assert counts(workers) == {"ran": 1}


def test_a_job_has_the_context_of_who_submits_it(run: Any) -> None:
    workers = Workers(workers=1)

    async def who() -> str:
        return WHO.get()

    async def submit(name: str) -> str:
        WHO.set(name)
        return await workers.submit(who)

    async def main() -> None:
        names = ["ann", "bob", "cid"]
        assert await asyncio.gather(*(asyncio.create_task(submit(name)) for name in names)) == names

    run(main())


def test_who_is_cancelled_withdraws_a_job_that_waits_and_ends_one_that_runs(run: Any) -> None:
    workers = Workers(queue=5, workers=1)

    async def main() -> None:
        for after in range(8):
            burst = Burst(workers)
            first, second, third = await burst.come(3)
            second.cancel()
            for _ in range(after):
                await asyncio.sleep(0)
            first.cancel()
            third.cancel() if after % 2 else burst.go.set()
            await asyncio.wait([first, second, third])
            assert 1 not in burst.ran
            assert (workers.running, workers.waiting) == (0, 0)

    run(main())


def test_a_job_that_fails_frees_its_worker(run: Any) -> None:
    workers = Workers(workers=1)

    async def fail() -> None:
        raise LookupError("nothing")

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(LookupError):
                await workers.submit(fail)

    run(main())
    assert counts(workers) == {"ran": 3}


def test_left_they_take_no_job_any_more_and_finish_those_they_took(run: Any) -> None:
    workers = Workers(queue=5, workers=1)

    async def main() -> None:
        burst = Burst(workers)
        async with workers:
            tasks = await burst.come(3)
            asyncio.get_running_loop().call_later(0.01, burst.go.set)
        assert [task.result() for task in tasks] == [0, 1, 2]
        with pytest.raises(WorkersFull, match="the workers are stopped"):
            await workers.submit(burst.job, 9)
        async with workers:
            assert await workers.submit(burst.job, 4) == 4

    run(main())
    assert counts(workers) == {"ran": 4, "stopped": 1}


def test_stopping_ends_also_when_the_last_job_is_cancelled_as_its_turn_comes(run: Any) -> None:
    async def main() -> None:
        workers = Workers(queue=5, workers=1)
        burst = Burst(workers)
        first, second = await burst.come(2)
        stopping = asyncio.create_task(workers.stop())
        await turns()
        first.cancel()
        await asyncio.sleep(0)  # it has left, and the second has its slot
        second.cancel()
        await stopping
        assert (workers.running, workers.waiting) == (0, 0)

    run(main())


def test_the_drain_of_a_server_waits_for_jobs_that_run_on_behind_a_request() -> None:
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        async with Workers(workers=1, name="mail") as workers:
            await receive()
            (participant,) = sojourn.current_server().participants
            assert (participant.name, participant.phase) == ("workers mail", "persist")
            job = asyncio.create_task(workers.submit(mail))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            done.append("shutdown")
            await job
        assert sojourn.current_server().participants == []
        await send({"type": "lifespan.shutdown.complete"})

    async def mail() -> None:
        await asyncio.sleep(0.05)
        done.append("mail")

    async def main() -> None:
        config = sojourn.Config(bind=sojourn.config.Bind(port=0), drain=sojourn.config.Drain(delay=0))  # type: ignore[attr-defined]
        async with sojourn.Server(app, config):
            pass

    asyncio.run(main())
    assert done == ["mail", "shutdown"]


@pytest.mark.parametrize(
    "wrong", [{"on_full": "wait"}, {"on_full": "degrade"}, {"degrade": len}, {"workers": 0}, {"wait": 0.0}]
)
def test_settings_that_can_not_be_meant_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"on_full|at once"):
        Workers(**wrong)
