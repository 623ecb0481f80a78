"""A timeline that Perfetto opens."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.ending import Ending, Phase
from sojourn.errors import ErrandError
from sojourn.events import DrainPhaseChanged, LeakFound, LoopStalled, RequestEnded
from sojourn.net.ticker import Ticker
from sojourn.observe.profiles.trace import Timeline
from tests.observe.profiles.serving import looking
from tests.server.serving import Run, both_loops

COMPLETED = Ending("completed", Phase.RESPONSE)


def block() -> None:
    time.sleep(0.4)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/slow":
        block()
    elif scope["path"] == "/fails":
        raise ValueError("no")
    elif scope["path"] == "/collects":
        gc.collect()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def checked(data: bytes) -> list[dict[str, Any]]:
    """The events of a document whose shape is that of the Trace Event Format."""
    document = json.loads(data)
    assert set(document) == {"displayTimeUnit", "traceEvents", "otherData"}
    for event in document["traceEvents"]:
        assert event["ph"] in "XiCM"
        assert event["pid"] == os.getpid()
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event["args"], dict)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        elif event["ph"] == "i":
            assert event["s"] == "t"
        elif event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
    named = {event["tid"] for event in document["traceEvents"] if event["name"] == "thread_name"}
    assert named >= {event["tid"] for event in document["traceEvents"] if event["ph"] in "Xi"}
    return document["traceEvents"]  # type: ignore[no-any-return]


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["name"] == name]


@both_loops
def test_requests_connections_stalls_and_collections_of_a_real_server_are_on_their_tracks(run: Run) -> None:
    async def main() -> None:
        async with looking(app, watchdog=True) as looked:
            bus = looked.served.server.bus
            before = {kind: len(observers) for kind, observers in bus.observers.items()}, list(gc.callbacks)
            idle = await looked.served.connect()
            recording = asyncio.get_running_loop().create_task(looked.profilers.answers["trace"]({"seconds": 2.5}))
            await asyncio.sleep(0.3)
            for path in ("/a?secret=1", "/slow", "/collects", "/fails"):
                await looked.served.get(path)
            data = await recording
            assert isinstance(data, bytes)
            events = checked(data)
            (request,) = of(events, "GET /a")
            assert request["args"]["status"] == 200
            assert "secret" not in data.decode()
            (slow,) = of(events, "GET /slow")
            assert 400_000 <= slow["dur"] < 2_000_000
            around = [event for event in of(events, "connection") if event["tid"] == slow["tid"]]
            assert len(around) == 1
            assert around[0]["ts"] <= slow["ts"]
            assert around[0]["ts"] + around[0]["dur"] >= slow["ts"] + slow["dur"]
            (stall,) = of(events, "stall code")
            assert "block" in stall["args"]["function"]
            assert of(events, "generation 2")
            assert of(events, "application failed")[0]["args"]["error"] == "ValueError"
            assert len(of(events, "loop lag")) >= 2
            assert max(event["args"]["ms"] for event in of(events, "loop lag")) > 200
            assert [event for event in of(events, "connection") if event["args"].get("open")]
            after = {kind: len(observers) for kind, observers in bus.observers.items()}, list(gc.callbacks)
            assert after == before
            await idle.close()

    run(main())


def test_one_at_a_time_and_bounds_are_held() -> None:
    async def main() -> None:
        async with looking(app) as looked:
            trace = looked.profilers.answers["trace"]
            first = asyncio.get_running_loop().create_task(trace({"seconds": 20}))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(ErrandError) as caught:
                await trace({"seconds": 1})
            assert caught.value.status == 409
            first.cancel()
            await asyncio.wait([first])
            with pytest.raises(ErrandError) as caught:
                await trace({"seconds": 301})
            assert caught.value.status == 400

    asyncio.run(main())


def site(clock: ManualClock) -> Any:
    loop = asyncio.get_running_loop()
    return SimpleNamespace(runtime=SimpleNamespace(loop=loop, bus=Bus(), ticker=Ticker(clock), registry=[]))


def request(connection: int, duration: float) -> RequestEnded:
    return RequestEnded(connection, None, "GET", b"/", "1.1", 200, COMPLETED, duration, 0, 5, ())


def test_the_oldest_events_go_when_there_are_too_many_and_that_is_told() -> None:
    async def main() -> None:
        world = site(ManualClock())
        timeline = Timeline(world, kept=10)
        for number in range(1, 31):
            world.runtime.bus.emit(request(number, 0.0))
        timeline.close()
        timeline.close()
        data = await timeline.encode()
        events = [event for event in checked(data) if event["ph"] == "X"]
        assert [event["tid"] - 100 for event in events] == list(range(21, 31))
        assert json.loads(data)["otherData"] == {"events": 30, "left_out": 20}

    asyncio.run(main())


def test_what_began_before_the_window_is_cut_at_its_begin_and_says_so() -> None:
    async def main() -> None:
        clock = ManualClock()
        world = site(clock)
        timeline = Timeline(world)
        clock.advance(1.0)
        world.runtime.bus.emit(request(3, 61.0))
        timeline.close()
        (event,) = [event for event in checked(await timeline.encode()) if event["ph"] == "X"]
        assert event["ts"] == pytest.approx(1e6 * timeline.start, abs=2)
        assert event["dur"] == pytest.approx(1e6, abs=2)
        assert event["args"]["began_before"] == pytest.approx(60.0)

    asyncio.run(main())


def test_phases_of_a_drain_follow_each_other_and_leaks_are_told() -> None:
    async def main() -> None:
        clock = ManualClock()
        world = site(clock)
        timeline = Timeline(world)
        for phase in ("notice", "finish"):
            world.runtime.bus.emit(DrainPhaseChanged(phase, "worker 1", 30.0, 1, 0, 0, 0))
            clock.advance(2.0)
        world.runtime.bus.emit(LeakFound("task", "poll", "a.py:1 in f", "", "", 9.0, 1))
        world.runtime.bus.emit(LoopStalled(0.5, "gc"))
        timeline.close()
        events = checked(await timeline.encode())
        (notice,), (finish,) = of(events, "notice"), of(events, "finish")
        assert notice["dur"] == finish["dur"] == pytest.approx(2e6)
        assert finish["ts"] == pytest.approx(notice["ts"] + 2e6)
        assert of(events, "leak of a task")[0]["args"]["what"] == "poll"
        assert of(events, "stall gc")[0]["dur"] == pytest.approx(5e5)

    asyncio.run(main())


def test_lateness_is_still_told_to_whoever_asked_before() -> None:
    async def main() -> None:
        late: list[float] = []
        world = site(ManualClock())
        world.runtime.ticker.lagged = before = late.append
        timeline = Timeline(world)
        world.runtime.ticker.tick()
        timeline.close()
        assert world.runtime.ticker.lagged is before
        assert len(late) == 1

    asyncio.run(main())
