"""What grows."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.profiles.model import Profile
from sojourn.observe.profiles.render import render
from tests.observe.profiles.serving import looking
from tests.server.serving import Run, both_loops

KEPT: list[Any] = []


class Pattern:
    path = "/leak/{number}"


def keep() -> None:
    KEPT.append([bytes(200 + number) for number in range(100)])


def drop() -> int:
    return len([bytes(200 + number) for number in range(100)])


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    scope["route"] = Pattern()
    drop()
    if scope["path"] == "/leak/7":
        keep()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(autouse=True)
def _empty() -> Any:
    yield
    KEPT.clear()


def lines(profile: Profile) -> dict[str, int]:
    """Objects by the innermost line."""
    found: dict[str, int] = {}
    for sample in profile.samples:
        frame = sample.stack[0]
        found[f"{frame.file}:{frame.line}"] = found.get(f"{frame.file}:{frame.line}", 0) + sample.values[0]
    return found


LEAK = f"{__file__}:{keep.__code__.co_firstlineno + 1}"


@both_loops
def test_what_stays_is_named_with_its_line_and_what_is_dropped_is_not(run: Run) -> None:
    async def main() -> None:
        async with looking(app) as looked:
            profile = await looked.under_load("/leak/7", name="allocs", seconds=1, engine="tracemalloc")
            assert not tracemalloc.is_tracing()
            found = lines(profile)
            assert found[LEAK] > 20_000
            assert found.get(f"{__file__}:{drop.__code__.co_firstlineno + 1}", 0) < 0.02 * found[LEAK]
            assert profile.samples[0].stack[0].line == keep.__code__.co_firstlineno + 1
            assert profile.samples[0].stack[0].function == f"test_allocations.py:{profile.samples[0].stack[0].line}"
            assert [tuple(kind) for kind in profile.kinds] == [("grown_objects", "count"), ("grown_space", "bytes")]
            assert "six times slower" in profile.comments[0]
            assert b"test_allocations" in render(profile, "text")[1]

    run(main())


class Sampler:
    """As the module mprofile, as far as it is used."""

    running = False
    rate = 0

    def start(self, *, sample_rate: int) -> None:
        self.running, self.rate = True, sample_rate

    def stop(self) -> None:
        self.running = False

    def take_snapshot(self) -> Any:
        assert self.running
        outer = SimpleNamespace(name="app", filename="/app.py", lineno=9)
        inner = SimpleNamespace(name="keep", filename="/app.py", lineno=3)
        found = SimpleNamespace(traceback=[outer, inner], count=7, size=700)
        return SimpleNamespace(statistics=lambda by: [found])


def test_the_sampler_is_taken_where_it_is_installed_and_is_off_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        sampler = Sampler()
        monkeypatch.setitem(sys.modules, "mprofile", sampler)  # type: ignore[arg-type]
        monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
        async with looking(app) as looked:
            profile = await looked.profilers.profile({"name": "allocs", "seconds": 1})
            (sample,) = profile.samples
            assert [str(frame) for frame in sample.stack] == ["/app.py:3 in keep", "/app.py:9 in app"]
            assert sample.values == (7, 700)
            assert (sampler.running, sampler.rate, profile.period) == (False, 524_288, 524_288)
            assert profile.comments[0].startswith("engine=mprofile")

    asyncio.run(main())


def test_a_program_that_uses_tracemalloc_itself_keeps_it() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            tracemalloc.start()
            try:
                with pytest.raises(ErrandError, match="itself") as caught:
                    await looked.profilers.profile({"name": "allocs", "engine": "tracemalloc"})
                assert caught.value.status == 409
                assert tracemalloc.is_tracing()
            finally:
                tracemalloc.stop()

    asyncio.run(main())


def test_without_mprofile_it_says_what_to_take_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with looking(app) as looked:
            monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
            with pytest.raises(ErrandError, match="engine=tracemalloc"):
                await looked.profilers.profile({"name": "allocs", "engine": "mprofile"})

    asyncio.run(main())


def test_one_at_a_time_and_nothing_is_left_of_one_that_was_given_up() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            make = looked.profilers.profile({"name": "allocs", "seconds": 20, "engine": "tracemalloc"})
            first = asyncio.get_running_loop().create_task(make)
            await asyncio.sleep(0.05)
            assert tracemalloc.is_tracing()
            with pytest.raises(ErrandError) as caught:
                await looked.profilers.profile({"name": "allocs", "engine": "tracemalloc"})
            assert (caught.value.status, caught.value.reason) == (409, "busy")
            first.cancel()
            await asyncio.wait([first])
            assert not tracemalloc.is_tracing()

    asyncio.run(main())


@pytest.mark.parametrize("arguments", [{"engine": "magic"}, {"seconds": 301}, {"seconds": 31, "engine": "tracemalloc"}])
def test_arguments_that_are_no_good_are_refused(arguments: dict[str, Any]) -> None:
    async def main() -> None:
        async with looking(app) as looked:
            with pytest.raises(ErrandError) as caught:
                await looked.profilers.profile({"name": "allocs", **arguments})
            assert caught.value.status == 400

    asyncio.run(main())
