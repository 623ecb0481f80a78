"""A load that does not wait: requests come when they come, whatever became of those before.

Arrivals are a Poisson process with a fixed seed, planned before the first is sent; every time is counted from the
planned moment, so a server that stalls can't make its own test easier. Connections are kept and reused, as by a
balancer, unless each is to be fresh; one is opened when none is free. Who waits longer than the deadline leaves, and
closes.

    python -m bench.overload.load PORT TARGET RATE SECONDS DEADLINE WARM KEEP     prints a line of JSON

RATE is a number of requests a second, or ``closed:N`` for N clients with one request each at a time. KEEP is ``kept``,
or ``fresh`` for a connection of its own for each request.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import sys
from collections import Counter

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: close", re.IGNORECASE)


class Load:
    """One measurement.

    Args:
        port: Where the server listens.
        target: What is asked for.
        deadline: Seconds a client waits.
        keep: Whether connections are used again.
    """

    def __init__(self, port: int, target: str, deadline: float, *, keep: bool = True) -> None:
        self.port = port
        close = "" if keep else "Connection: close\r\n"
        self.request = f"GET {target} HTTP/1.1\r\nHost: bench\r\n{close}\r\n".encode()
        self.keep = keep
        self.deadline = deadline
        self.free: list[Client] = []
        #: Planned moment, what came of it (a status, ``late``, ``error``), seconds.
        self.results: list[tuple[float, str, float]] = []
        self.connects = 0
        self.open = 0
        self.behind = 0.0

    async def send(self, planned: float) -> None:
        """One request, from its planned moment to its answer or its deadline."""
        loop = asyncio.get_running_loop()
        self.behind = max(self.behind, loop.time() - planned)
        word, client = "late", None
        self.open += 1
        try:
            async with asyncio.timeout_at(planned + self.deadline):
                client = self.free.pop() if self.free else await self._connect()
                word = str(await client.ask(self.request))
        except TimeoutError:
            pass
        except OSError:
            word = "error"
        self.open -= 1
        if client is not None:
            if word.isdigit() and client.usable and self.keep:
                self.free.append(client)
            else:
                client.transport.abort()
        self.results.append((planned, word, loop.time() - planned))

    async def _connect(self) -> Client:
        self.connects += 1
        _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", self.port)
        return client


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.usable = True
        self.waiter: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send; the status of the answer."""
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiter

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or (length := _LENGTH.search(self.buffer)) is None or len(self.buffer) < end + 4 + int(length[1]):
            return
        head, self.buffer = self.buffer[: end + 4], b""
        self.usable = self.usable and _CLOSE.search(head) is None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self in self.load.free:
            self.load.free.remove(self)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error or ConnectionResetError("closed"))


async def _open_loop(load: Load, rate: float, seconds: float) -> None:
    loop, arrivals = asyncio.get_running_loop(), random.Random(5)
    moment = began = loop.time() + 0.05
    tasks = set()
    while (moment := moment + arrivals.expovariate(rate)) < began + seconds:
        if (wait := moment - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.add(task := loop.create_task(load.send(moment)))
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(tasks)


async def _closed_loop(load: Load, clients: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def client() -> None:
        while (now := loop.time()) < until:
            await load.send(now)

    await asyncio.gather(*(client() for _ in range(clients)))


async def measure(load: Load, rate: str, seconds: float, warm: float) -> dict[str, object]:
    """Run it; what came in the first ``warm`` seconds is left out."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if rate.startswith("closed:"):
        await _closed_loop(load, int(rate[7:]), seconds)
    else:
        await _open_loop(load, float(rate), seconds)
    counted = [each for each in load.results if began + warm <= each[0] < began + seconds]
    good = sorted(taken for _, word, taken in counted if word == "200")
    refused = sorted(taken for _, word, taken in counted if word == "503")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "offered": len(counted) / (seconds - warm),
        "good": len(good) / (seconds - warm),
        "outcomes": Counter(word for _, word, _ in counted),
        "p50": _at(good, 0.5),
        "p99": _at(good, 0.99),
        "refused_p99": _at(refused, 0.99),
        "connects": load.connects,
        "behind": load.behind,
        "busy": (used.ru_utime + used.ru_stime) / (loop.time() - began),
    }


def _at(values: list[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def main() -> None:
    port, target, rate, seconds, deadline, warm, keep = sys.argv[1:]
    load = Load(int(port), target, float(deadline), keep=keep == "kept")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(load, rate, float(seconds), float(warm)))))


if __name__ == "__main__":
    main()
