"""A test that leaves a task or a thread behind fails, and says where it was made."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

from sojourn.testing.leaks import LeakError, assert_no_leaks

ROOT = Path(__file__).resolve().parents[2]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Awaitable[Any]], Any]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def helper() -> None:
    await forever()


def start(kept: list[Any], coroutine: Callable[[], Any] = forever) -> None:
    kept.append(asyncio.ensure_future(coroutine()))  # start makes it


LINE = start.__code__.co_firstlineno + 1


async def leaving_two(kept: list[Any]) -> None:
    async with assert_no_leaks(retries=3):
        start(kept)
        start(kept)
        await asyncio.sleep(0)


async def end(kept: list[Any]) -> None:
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


@on_both_loops
def test_tasks_that_outlive_the_block_are_grouped_by_where_they_were_made(run: Run) -> None:
    async def main() -> None:
        kept: list[Any] = []
        with pytest.raises(LeakError) as caught:
            await leaving_two(kept)
        text = str(caught.value)
        assert text.startswith("2 tasks did not end:\n  2 x forever, made at ")
        assert f"{__file__}:{LINE} in start; now at {__file__}:" in text
        await end(kept)

    run(main())


@on_both_loops
def test_a_sync_block_around_a_run_finds_what_the_run_would_cancel(run: Run) -> None:
    async def main() -> None:
        start([])
        await asyncio.sleep(0)

    found = pytest.raises(LeakError, match=rf"1 task did not end:\n  1 x forever, made at .*:{LINE} in start")
    with found, assert_no_leaks(retries=3):
        run(main())


def test_a_sync_block_finds_the_tasks_of_a_loop_that_was_closed_over_them() -> None:
    kept: list[Any] = []

    async def main() -> None:
        start(kept)
        await asyncio.sleep(0)

    def by_hand() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    with pytest.raises(LeakError, match="1 x forever"), assert_no_leaks(retries=3):
        by_hand()
    kept[0].get_coro().close()
    kept[0]._log_destroy_pending = False


@on_both_loops
def test_what_ends_a_little_later_is_no_leak(run: Run) -> None:
    async def late() -> None:
        await asyncio.sleep(0.05)

    async def inside() -> None:
        async with assert_no_leaks():
            start([], late)

    async def around() -> None:
        start([], late)

    run(inside())
    with assert_no_leaks():
        run(around())


@on_both_loops
def test_what_was_there_before_is_no_leak_unless_it_is_asked_for(run: Run) -> None:
    async def main() -> None:
        kept: list[Any] = []
        start(kept)
        async with assert_no_leaks(retries=2):
            await asyncio.sleep(0)
        with pytest.raises(LeakError, match="forever, made at an unknown place"):
            async with assert_no_leaks(retries=2, ignore_current=False):
                await asyncio.sleep(0)
        await end(kept)

    run(main())


@pytest.mark.parametrize(
    ("options", "leaks"),
    [
        ({"ignore_top_function": [f"{__name__}.forever"]}, False),
        ({"ignore_top_function": [f"{__name__}.helper"]}, True),
        ({"ignore_any_function": [f"{__name__}.helper"]}, False),
        ({"ignore_any_function": [f"{__name__}.nobody"]}, True),
        ({"ignore_created_by": [f"{__name__}.start"]}, False),
        ({"ignore_created_by": [f"{__name__}.helper"]}, True),
    ],
)
def test_functions_can_be_let_off_by_where_a_task_stands_or_was_made(options: dict[str, Any], leaks: bool) -> None:
    async def main() -> None:
        kept: list[Any] = []
        try:
            async with assert_no_leaks(retries=2, **options):
                start(kept, helper)
                await asyncio.sleep(0)
        finally:
            await end(kept)

    if leaks:
        with pytest.raises(LeakError):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_threads_count_when_they_are_asked_for() -> None:
    stop = threading.Event()

    def begin() -> threading.Thread:
        thread = threading.Thread(target=stop.wait, name="left over")
        thread.start()
        return thread

    with assert_no_leaks(retries=2):
        kept = [begin()]
    found = pytest.raises(LeakError, match=r"1 thread did not end:\n  1 x left over, made at .* in .*begin")
    with found, assert_no_leaks(threads=True, retries=2):
        kept.append(begin())
    stop.set()
    for thread in kept:
        thread.join()
    with assert_no_leaks(threads=True):
        begin()


def test_an_error_inside_the_block_is_not_covered_up() -> None:
    async def main() -> None:
        kept: list[Any] = []
        try:
            async with assert_no_leaks(retries=2):
                start(kept)
                raise LookupError("the real reason")
        finally:
            await end(kept)

    with pytest.raises(LookupError, match="the real reason"):
        asyncio.run(main())


def test_tasks_of_a_task_group_of_anyio_count_too() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            with pytest.raises(LeakError, match=r"1 x .*forever, made at .* in .*main"):
                async with assert_no_leaks(retries=2):
                    group.start_soon(forever)
            group.cancel_scope.cancel()

    asyncio.run(main())


def test_nothing_is_left_patched() -> None:
    before = [vars(asyncio.BaseEventLoop)["create_task"], vars(uvloop.Loop).get("create_task"), threading.Thread.start]
    with assert_no_leaks(), assert_no_leaks():
        pass
    after = [vars(asyncio.BaseEventLoop)["create_task"], vars(uvloop.Loop).get("create_task"), threading.Thread.start]
    assert after == before


SAMPLES = """
import asyncio, threading, unittest
import pytest, uvloop

KEPT = []

async def forever():
    await asyncio.get_running_loop().create_future()

async def leak():
    KEPT.append(asyncio.create_task(forever()))
    await asyncio.sleep(0)

async def tidy():
    await asyncio.create_task(asyncio.sleep(0))

def test_run_leaks(): asyncio.run(leak())
def test_run_tidy(): asyncio.run(tidy())
def test_uvloop_leaks(): uvloop.run(leak())
def test_uvloop_tidy(): uvloop.run(tidy())

@pytest.mark.anyio
async def test_anyio_leaks(): await leak()
@pytest.mark.anyio
async def test_anyio_tidy(): await tidy()

@pytest.mark.asyncio
async def test_pytest_asyncio_leaks(): await leak()
@pytest.mark.asyncio
async def test_pytest_asyncio_tidy(): await tidy()

class TestUnittest(unittest.IsolatedAsyncioTestCase):
    async def test_unittest_leaks(self): await leak()
    async def test_unittest_tidy(self): await tidy()

@pytest.fixture
async def background():
    task = asyncio.create_task(forever())
    yield task
    task.cancel()

@pytest.mark.anyio
async def test_fixture_tidy(background): await tidy()

@pytest.mark.leaks(ignore_created_by=["test_sample.leak"])
def test_ignored_tidy(): asyncio.run(leak())

@pytest.mark.leaks(False)
def test_off_tidy(): asyncio.run(leak())

@pytest.mark.leaks(threads=True, retries=3)
def test_thread_leaks():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_fails_itself():
    async def main():
        await leak()
        assert False, "its own fault"
    asyncio.run(main())

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_the_plugin_fails_each_leaking_test_of_every_runner_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(SAMPLES)
    plugins = ["-p", "sojourn.testing.leaks", "-p", "anyio.pytest_plugin", "-p", "pytest_asyncio.plugin"]
    options = ["-p", "no:cacheprovider", "-rA", "-q", "--strict-markers", "-W", "ignore", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *plugins, *options]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    results = dict(re.findall(r"^(?:PASSED|FAILED|ERROR) .*::(\w+)(.*)$", done.stdout, re.MULTILINE))
    failed = set(re.findall(r"^FAILED .*::(\w+)", done.stdout, re.MULTILINE))
    assert len(results) == 15, done.stdout
    assert failed == {name for name in results if not name.endswith("_tidy")}, done.stdout
    assert "made at" in done.stdout
    assert re.search(r"1 x forever, made at .*test_sample.py:11 in leak", done.stdout)
    assert "AssertionError: its own fault" in done.stdout
    assert "1 x forever" not in results["test_fails_itself"]
