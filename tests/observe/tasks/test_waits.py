"""The wait profile: where time is spent that no processor spends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import ErrandError
from sojourn.net.ticker import TICK, Ticker
from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.waits import Labels, Stack, Waits
from tests.observe.tasks.loops import run, turns
from tests.observe.tasks.test_census import KEPT, forever, served, waits

SECOND = 1e9


class Scene:
    """A wait profile on a ManualClock; a test says what is found at each look."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ticker = Ticker(self.clock)
        self.found: list[tuple[Stack, Labels]] = []
        self.weight = 1.0
        self.looks = 0
        self.waits = Waits(asyncio.get_running_loop(), self.ticker, self.clock.monotonic, self.look)
        self.waits.start()

    def look(self, most: int) -> tuple[float, Iterator[tuple[Stack, Labels]]]:
        self.looks += 1
        return self.weight, iter(self.found)

    async def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.ticker.tick()
            await turns(1)

    def delays(self) -> dict[str, float]:
        return {sample.stack[0].function: sample.values[1] for sample in self.waits.profile(0.0, None).samples}


def stack(name: str) -> Stack:
    return (Frame(name, "app.py", 1),)


def test_each_look_counts_for_the_time_since_the_one_before() -> None:
    async def main() -> None:
        scene = Scene()
        scene.found = [(stack("a"), ()), (stack("a"), ()), (stack("b"), ())]
        await scene.advance(50)
        delays = scene.delays()
        assert delays["a"] == pytest.approx(2 * delays["b"])
        assert delays["b"] == pytest.approx(50 * SECOND, rel=0.25)

    run(main())


def test_one_of_many_stands_for_the_others() -> None:
    async def main() -> None:
        scene = Scene()
        scene.weight = 20.0
        scene.found = [(stack("a"), ())]
        await scene.advance(50)
        (sample,) = scene.waits.profile(0.0, None).samples
        assert sample.values[0] == 20 * scene.looks
        assert sample.values[1] == pytest.approx(1000 * SECOND, rel=0.25)

    run(main())


def test_the_table_stays_bounded_and_nothing_is_lost_of_the_sum() -> None:
    async def main() -> None:
        scene = Scene()
        total = 0
        for piece in range(10):
            scene.found = [(stack(f"{piece}.{index}"), ()) for index in range(400)]
            scene.found += [(stack("the large one"), ())] * 50
            before = scene.looks
            await scene.advance(10)
            total += (scene.looks - before) * 450
        profile = scene.waits.profile(0.0, None)
        assert len(profile.samples) <= 1001
        assert sum(sample.values[0] for sample in profile.samples) == total
        assert {"(other stacks)", "the large one"} <= set(scene.delays())

    run(main())


def test_a_look_at_many_deep_stacks_gives_way_to_others() -> None:
    async def main() -> None:
        scene = Scene()
        readings = iter(range(10**9))
        scene.waits._monotonic = lambda: next(readings) / 1000  # each reading is a millisecond later
        scene.found = [(stack(f"{index}"), ()) for index in range(100)]
        while not scene.looks:
            await scene.advance(TICK)
        assert scene.looks == 1
        assert len(scene.waits.copy()) < 100
        await turns(20)
        assert len(scene.waits.copy()) == 100

    run(main())


def test_stopped_it_looks_no_more() -> None:
    async def main() -> None:
        scene = Scene()
        await scene.advance(15)
        scene.waits.stop()
        scene.waits.stop()
        looks = scene.looks
        await scene.advance(20)
        assert scene.looks == looks > 0

    run(main())


def test_the_profile_of_a_server_shows_where_its_tasks_wait() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            KEPT.update(asyncio.create_task(forever()) for _ in range(600))
            await server.advance(50.0)
            profile = await tasks.profiles["block"]({})
            (sample,) = (sample for sample in profile.samples if sample.stack[0].function == "Event.wait")
            assert dict(sample.labels)["owner"] == "application"
            assert sample.values[1] == pytest.approx(600 * 50 * SECOND, rel=0.3)
            assert "at most 500 tasks" in profile.comments[0]

    run(main())


def test_of_a_window_only_what_was_added_in_it_is_shown() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            KEPT.add(asyncio.create_task(forever()))
            await server.advance(20.0)
            asked = asyncio.create_task(tasks.profiles["block"]({"seconds": 5}))
            await turns()
            await server.advance(6.0)
            (sample,) = (sample for sample in (await asked).samples if sample.stack[0].function == "Event.wait")
            assert 4 * SECOND <= sample.values[1] <= 7 * SECOND
            with pytest.raises(ErrandError, match="between 0 and 300"):
                await tasks.profiles["block"]({"seconds": 301})

    run(main())


def test_with_many_tasks_it_looks_so_seldom_that_an_idle_server_does_not_notice() -> None:
    async def main() -> None:
        scene = Scene()
        look = scene.look

        def long_look(most: int) -> tuple[float, Iterator[tuple[Stack, Labels]]]:
            scene.clock.advance(0.003)
            return look(most)

        scene.waits._look = long_look
        scene.found = [(stack("a"), ())]
        await scene.advance(300)
        assert 8 <= scene.looks <= 11  # 3 ms in 30 s
        assert scene.delays()["a"] == pytest.approx(scene.looks * 30 * SECOND, rel=0.25)
        waiting = asyncio.ensure_future(scene.waits.window(10))
        await turns(1)
        before = scene.looks
        await scene.advance(11)
        await waiting
        assert scene.looks - before >= 9

    run(main())
