"""What the garbage collector does to the latency of a server with 20,000 idle tasks, by how it is set.

The application is in this file: its server is told by a request how to collect. Half of the tasks are there when the
server starts, the others come later, as connections do. Requests make objects as views do, and leave some in a cache.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from bench import clients
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec

Say = Callable[[str], None]
Message = MutableMapping[str, Any]

TASKS = 20_000
#: Seconds of one measurement, and clients that wait for each other.
SECONDS = 3.0
CONNECTIONS = 8
#: Thresholds, and whether what the server begins with is frozen.
SETTINGS = {
    "python": ((700, 10, 10), False),
    "python-frozen": ((700, 10, 10), True),
    "20-20-50": ((20_000, 20, 50), False),
    "20-20-50-frozen": ((20_000, 20, 50), True),
    "50-20-100": ((50_000, 20, 100), False),
    "50-20-100-frozen": ((50_000, 20, 100), True),
}
#: Results of requests that stay for a while.
CACHED = 1_000


async def _idle(event: asyncio.Event) -> None:
    session = {"user": {"name": "a"}, "topics": ["b", "c"]}
    await event.wait()
    session.clear()


def _crowd(state: dict[str, Any], size: int) -> None:
    state["crowd"] += [asyncio.create_task(_idle(state["event"])) for _ in range(size)]


def _view(number: int) -> dict[str, Any]:
    rows = [{"id": index, "tags": ["x", str(index)], "owner": {"id": number}} for index in range(20)]
    return {"rows": rows, "page": {"number": number, "of": 10}}


async def app(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
    """GET / works, GET /set/NAME sets the collector."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send, scope["state"])
        return
    state = scope["state"]
    _, word, name = f"{scope['path']}/".split("/")[:3]
    if word == "set":
        thresholds, frozen = SETTINGS[name]
        gc.unfreeze()
        gc.collect()
        if frozen:
            gc.freeze()
        gc.set_threshold(*thresholds)
        if len(state["crowd"]) < TASKS:
            _crowd(state, TASKS // 2)
    else:
        state["number"] += 1
        state["cache"].append(_view(state["number"]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _lifespan(receive: Any, send: Callable[[Message], Awaitable[None]], state: dict[str, Any]) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            state.update(event=asyncio.Event(), crowd=[], cache=deque(maxlen=CACHED), number=0)
            _crowd(state, TASKS // 2)
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def run(sojourn: Spec, rounds: int, results: Results, say: Say) -> None:
    """All settings, round by round, on one server; each sample is the P99 in milliseconds."""

    def command(port: int) -> list[str]:
        return [part.replace("bench.apps.asgi:app", "bench.figures.collector:app") for part in sojourn.command(port)]

    try:
        with Running(replace(sojourn, name="sojourn-collector", command=command)) as running:
            for number in range(1, rounds + 1):
                for name in SETTINGS:
                    _measure(running, name, number, results, say)
    except (BenchError, OSError) as error:
        results.fail("collector", BenchError(str(error)))
        say(f"collector: {error}")


def _measure(running: Running, name: str, number: int, results: Results, say: Say) -> None:
    if running.get(f"/set/{name}") != 200:
        raise BenchError(f"the collector could not be set to {name}")
    done = clients.wrk(running.port, "/", SECONDS, connections=CONNECTIONS).data
    detail = {key: done[key] for key in ("p50_us", "p99_us", "max_us", "rate")}
    results.samples.append(Sample("collector", name, number, done["p99_us"] / 1000, detail=detail))
    p99, longest = done["p99_us"] / 1000, done["max_us"] / 1000
    say(f"round {number} collector {name:20} P99 {p99:7.2f} ms, max {longest:7.2f} ms, {done['rate']:7.0f} requests/s")
