"""For how long something is gathered."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.profiles.window import passed, seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 5.0), ("", 5.0), (2, 2.0), ("2.5", 2.5), (1, 1.0), (10, 10.0), (True, 1.0)]
)
def test_seconds_are_a_number_within_bounds_or_the_usual_one(given: Any, seconds: float) -> None:
    assert seconds_of({"seconds": given}, 5.0, 1.0, 10.0) == seconds
    assert seconds_of({}, 5.0, 1.0, 10.0) == 5.0


@pytest.mark.parametrize("given", [0, 0.99, 10.01, -1, "inf", "nan", "soon", [], {}])
def test_anything_else_is_refused_with_the_bounds(given: Any) -> None:
    with pytest.raises(ErrandError, match="1 to 10") as caught:
        seconds_of({"seconds": given}, 5.0, 1.0, 10.0)
    assert (caught.value.status, caught.value.reason) == (400, "bad_argument")


def test_the_wait_ends_by_itself_and_can_be_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = time.monotonic()
        await passed(loop, 0.05)
        assert time.monotonic() - start >= 0.05
        task = loop.create_task(passed(loop, 60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
