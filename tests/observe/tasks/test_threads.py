"""The threads of the process as a profile."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from sojourn.observe.tasks.threads import threads_profile
from tests.observe.tasks.loops import on_both_loops, run


@on_both_loops
def test_each_thread_is_named_with_the_place_where_it_is(loop: str) -> None:
    async def main() -> None:
        begun, go = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go.wait(10)

        thread = threading.Thread(target=work, name="worker of a test")
        thread.start()
        begun.wait(10)
        try:
            profile = threads_profile(asyncio.get_running_loop(), 7.0)
        finally:
            go.set()
            thread.join()
        by_name = {dict(sample.labels)["thread"]: sample for sample in profile.samples}
        functions = [frame.function for frame in by_name["worker of a test"].stack]
        assert "test_each_thread_is_named_with_the_place_where_it_is.<locals>.main.<locals>.work" in functions
        assert functions[0].startswith(("Condition.wait", "Event.wait"))
        assert dict(by_name["MainThread"].labels)["daemon"] == "no"
        assert profile.moment == 7.0
        assert all(sample.values == (1,) for sample in profile.samples)

    run(main(), loop)


def test_calls_that_wait_for_a_thread_are_told() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        begun, go = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go.wait(10)

        calls = [loop.run_in_executor(None, work) for _ in range(3)]
        begun.wait(10)
        comments = threads_profile(loop, 0.0).comments
        go.set()
        await asyncio.gather(*calls)
        assert comments[1] == "2 calls wait for a thread of the event loop's executor"

    run(main())
