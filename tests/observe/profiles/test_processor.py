"""Where a server computes."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.profiles.model import Profile
from sojourn.observe.profiles.processor import ProcessorProfiler
from sojourn.observe.profiles.render import render
from tests.observe.profiles.serving import looking
from tests.server.serving import Run, both_loops

OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}


class Pattern:
    path = "/burn/{number}"


def burn(seconds: float) -> int:
    rounds, until = 0, time.thread_time() + seconds
    while time.thread_time() < until:
        rounds += 1
    return rounds


async def deeper() -> None:
    burn(0.02)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"].startswith("/burn"):
        scope["route"] = Pattern()
        await deeper()
    elif scope["path"] == "/child":
        scope["route"] = Pattern()
        await asyncio.get_running_loop().create_task(deeper())
    elif scope["path"] == "/thread":
        await asyncio.to_thread(burn, 0.1)
    await send(OK)
    await send({"type": "http.response.body", "body": b"ok"})


def share(profile: Profile, *, function: str, label: tuple[str, str] | None = None) -> float:
    """Of the nanoseconds, those of samples with this function innermost."""
    whole = sum(sample.values[1] for sample in profile.samples)
    found = [
        sample.values[1]
        for sample in profile.samples
        if function in sample.stack[0].function and (label is None or label in sample.labels)
    ]
    return sum(found) / whole


@both_loops
def test_most_time_is_in_the_function_that_computes_with_its_route_task_and_line(run: Run) -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.under_load("/burn/7", name="profile", seconds=1)
            assert (profile.name, profile.default, profile.period) == ("profile", 1, 10_000_000)
            assert [tuple(kind) for kind in profile.kinds] == [("samples", "count"), ("cpu", "nanoseconds")]
            assert share(profile, function="burn") > 0.7
            assert share(profile, function="burn", label=("route", "/burn/{number}")) > 0.7
            heaviest = profile.samples[0]
            assert [frame.function for frame in heaviest.stack[:3]] == ["burn", "deeper", "app"]
            assert heaviest.stack[0].file == __file__
            first = burn.__code__.co_firstlineno
            assert first < heaviest.stack[0].line <= first + 4
            assert ("task", "request") in heaviest.labels
            assert profile.seconds >= 0.99
            assert b"burn" in render(profile, "text")[1]
            # What it counted is what the process used, not what the clock on the wall says.
            used = float(profile.comments[1].split()[3])
            assert sum(sample.values[1] for sample in profile.samples) / 1e9 == pytest.approx(used, rel=0.35)

    run(main())


def test_a_task_that_a_request_made_is_labelled_with_its_coroutine() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.under_load("/child", name="profile", seconds=1, engine="signal")
            assert share(profile, function="burn", label=("task", "deeper")) > 0.7
            assert share(profile, function="burn", label=("route", "/burn/{number}")) > 0.7

    asyncio.run(main())


def test_what_other_threads_compute_is_theirs() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.under_load("/thread", name="profile", seconds=1, engine="signal")
            threads = {value for sample in profile.samples for name, value in sample.labels if name == "thread"}
            assert any("asyncio" in str(thread) for thread in threads)
            assert share(profile, function="burn") > 0.5

    asyncio.run(main())


def test_another_thread_sees_the_same() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.under_load("/burn/7", name="profile", seconds=1, engine="thread")
            assert share(profile, function="burn", label=("route", "/burn/{number}")) > 0.5

    asyncio.run(main())


def test_by_the_wall_clock_an_idle_loop_waits() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.profilers.profile({"name": "profile", "seconds": 1, "engine": "wall"})
            assert profile.kinds[1].name == "wall"
            assert sum(sample.values[1] for sample in profile.samples) / 1e9 == pytest.approx(profile.seconds, rel=0.2)
            assert share(profile, function="select") > 0.8

    asyncio.run(main())


def test_outside_the_main_thread_a_thread_samples() -> None:
    found: list[Profile] = []

    async def main() -> None:
        async with looking(app) as looked:
            with pytest.raises(ErrandError, match="engine=thread") as caught:
                await looked.profilers.profile({"name": "profile", "seconds": 1, "engine": "signal"})
            assert caught.value.status == 409
            found.append(await looked.under_load("/burn/7", name="profile", seconds=1))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(30)
    (profile,) = found
    assert profile.comments[0].startswith("engine=thread")
    assert share(profile, function="burn") > 0.5


def test_a_signal_that_somebody_else_uses_is_left_alone() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            before = signal.signal(signal.SIGPROF, mine)
            try:
                profile = await looked.profilers.profile({"name": "profile", "seconds": 1})
                assert signal.getsignal(signal.SIGPROF) is mine
            finally:
                signal.signal(signal.SIGPROF, before)
            assert profile.comments[0].startswith("engine=thread")

    def mine(number: int, frame: object) -> None:
        raise AssertionError("nobody sends it")

    asyncio.run(main())


def test_one_at_a_time_and_nothing_is_left_of_one_that_was_given_up() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profilers = looked.profilers
            first = asyncio.get_running_loop().create_task(profilers.profile({"name": "profile", "seconds": 30}))
            await asyncio.sleep(0.05)
            assert signal.getitimer(signal.ITIMER_PROF)[1] > 0
            with pytest.raises(ErrandError) as caught:
                await profilers.profile({"name": "profile", "seconds": 1})
            assert (caught.value.status, caught.value.reason) == (409, "busy")
            first.cancel()
            await asyncio.wait([first])
            assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
            assert (await profilers.profile({"name": "profile", "seconds": 1})).name == "profile"

    asyncio.run(main())


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": 0.5}, {"seconds": 301}, {"seconds": "soon"}, {"seconds": "nan"}, {"engine": "magic"}],
)
def test_arguments_that_are_no_good_are_refused(arguments: dict[str, Any]) -> None:
    async def main() -> None:
        async with looking(app) as looked:
            with pytest.raises(ErrandError) as caught:
                await looked.profilers.profile({"name": "profile", **arguments})
            assert caught.value.status == 400

    asyncio.run(main())


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            with pytest.raises(ErrandError, match="profile, heap, allocs, stall") as caught:
                await looked.profilers.profile({"name": "nope"})
            assert caught.value.status == 404
            assert isinstance(looked.profilers.profiles["profile"].__self__, ProcessorProfiler)  # type: ignore[attr-defined]

    asyncio.run(main())
