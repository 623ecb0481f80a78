"""Two nodes of a hub in Redis: one is killed, Redis falls silent, and nothing is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from drills.served import alive, descendants, now, serving, until
from sojourn.testing import FaultProxy
from tests.databases import redis_server
from tests.server.processes import Serving

PUBLICATIONS = 200_000
CHANNELS = [f"drill:{index}" for index in range(8)]
EACH = PUBLICATIONS // len(CHANNELS)
#: Publications in one request.
BATCH = 250
#: Publications in a second, of all channels: so that each fault meets some.
RATE = 8_000


class Node:
    """A server, and those that come after it when it is killed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._context: AbstractContextManager[Serving] | None = None
        self.served: Serving | None = None
        self.port = 0

    async def start(self) -> None:
        # Started from a thread: it connects through the proxy, which lives in this loop.
        self._context = serving("drills.hub_node:app", app_env_file=str(self._file))
        self.served = await asyncio.to_thread(self._context.__enter__)
        served = self.served
        self.port = await asyncio.to_thread(lambda: served.port)

    async def kill(self) -> None:
        assert self.served is not None
        for pid in [self.served.process.pid, *descendants(self.served.process.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        await self.stop()

    async def stop(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            await asyncio.to_thread(context.__exit__, None, None, None)


class Subscriber:
    """A member of one channel that comes back with the cursor of what it has seen last."""

    def __init__(self, node: Node, channel: str) -> None:
        self.node = node
        self.channel = channel
        self.cursor = ""
        self.seq = 0
        self.numbers: list[int] = []
        self.wrong: list[str] = []
        self.connections = 0
        self.repeats = 0
        self.resumed: Counter[bool] = Counter()

    async def run(self) -> None:
        while len(self.numbers) < EACH:
            try:
                async with connect(
                    f"ws://127.0.0.1:{self.node.port}/hub/", subprotocols=["sojourn.v1"], max_size=None, open_timeout=5
                ) as socket:
                    self.connections += 1
                    join: dict[str, Any] = {"ch": self.channel}
                    if self.cursor:
                        join["since"] = self.cursor
                    await socket.send(json.dumps({"id": 1, "join": join}))
                    async for frame in socket:
                        lines = [json.loads(line) for line in frame.splitlines()]
                        joined = [self._take(line) for line in lines]
                        if False in joined or len(self.numbers) >= EACH:
                            break
                        if {} in lines:
                            await socket.send("{}")
            except (OSError, WebSocketException, TimeoutError):
                pass  # its node was killed, or is not there yet: it comes back
            await asyncio.sleep(0.1)

    def _take(self, line: dict[str, Any]) -> bool:
        """Take one object; False to come back, because it could not join."""
        if "error" in line:
            return bool(not line["error"]["retry"] and self.wrong.append(f"{line}"))
        if "ok" in line and line["id"] == 1:
            if not self.cursor:
                self._place(line["ok"]["pos"])
            elif not line["ok"]["recovered"]:
                self.wrong.append(f"not recovered from {self.cursor}: {line}")
            self.resumed[bool(line["ok"].get("recovered"))] += 1
        elif "gap" in line or "snap" in line:
            self.wrong.append(f"a gap: {line}")
        elif "ch" in line:
            self._publication(line["p"], line["d"])
        return True

    def _publication(self, seq: int, number: int) -> None:
        if seq <= self.seq:  # again, as clients must bear
            self.repeats += 1
            if number not in self.numbers[-20_000:]:
                self.wrong.append(f"{number} came late, as {seq} after {self.seq}")
            return
        if number != len(self.numbers):
            self.wrong.append(f"{number} in place of {len(self.numbers)}, as {seq}")
        self.numbers.append(number)
        self._place(f"{self.cursor.partition('.')[0]}.{seq}")

    def _place(self, cursor: str) -> None:
        self.cursor, self.seq = cursor, int(cursor.partition(".")[2])


class Publisher:
    """Publishes the numbers of one channel in order, over the nodes in turn, until each is known to be published."""

    def __init__(self, nodes: list[Node], channel: str) -> None:
        self.nodes = nodes
        self.channel = channel
        self.done = 0
        self.refused = 0

    async def run(self, client: httpx.AsyncClient) -> None:
        turn, due = 0, now()
        while self.done < EACH:
            turn += 1
            url = f"http://127.0.0.1:{self.nodes[turn % 2].port}/publish"
            asked = {"channel": self.channel, "first": self.done, "count": BATCH}
            try:
                answer = await client.post(url, params=asked)
                assert answer.status_code in (204, 503), answer.text
                published = answer.status_code == 204
            except httpx.TransportError:
                published = False
            if published:
                self.done += BATCH
                due = max(due + BATCH * len(CHANNELS) / RATE, now() - 0.5)
                await asyncio.sleep(max(0.0, due - now()))
            else:
                self.refused += 1
                await asyncio.sleep(0.1)


def test_200000_publications_are_neither_lost_nor_doubled_nor_reordered(tmp_path: Path) -> None:
    async def main(redis_port: int) -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy, AsyncExitStack() as stack:
            (tmp_path / "env").write_text(f"DRILL_REDIS=redis://127.0.0.1:{proxy.address[1]}/0\n")
            nodes = [Node(tmp_path / "env") for _ in range(2)]
            for node in nodes:
                stack.push_async_callback(node.stop)
                await node.start()
            subscribers = [Subscriber(node, channel) for node in nodes for channel in CHANNELS]
            publishers = [Publisher(nodes, channel) for channel in CHANNELS]
            limits = httpx.Limits(max_connections=None)
            client = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=5))
            tasks = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
            await until(lambda: all(subscriber.cursor for subscriber in subscribers), 20, "all have joined")
            tasks += [asyncio.create_task(publisher.run(client)) for publisher in publishers]
            try:
                await _faults(lambda: sum(publisher.done for publisher in publishers), nodes, proxy, redis_port)
                await until(lambda: all(task.done() for task in tasks), 60, "all publications have come")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                _report(subscribers, publishers)
            for task in tasks:
                task.result()
        for subscriber in subscribers:
            assert subscriber.wrong == []
            assert subscriber.numbers == list(range(EACH))
        assert all(subscriber.connections >= 2 for subscriber in subscribers[len(CHANNELS) :])  # their node was killed
        assert sum(publisher.refused for publisher in publishers) > 0

    with redis_server() as redis:
        asyncio.run(main(redis.port))


async def _faults(published: Callable[[], int], nodes: list[Node], proxy: FaultProxy, redis_port: int) -> None:
    await until(lambda: published() > 0.2 * PUBLICATIONS, 60, "a fifth is published")
    await nodes[1].kill()
    await asyncio.sleep(1.0)
    await nodes[1].start()
    await until(lambda: published() > 0.4 * PUBLICATIONS, 60, "two fifths are published")
    silence = proxy.timeout()  # Redis is there, and nothing comes through
    await asyncio.sleep(3.0)
    silence.remove()
    await until(lambda: published() > 0.6 * PUBLICATIONS, 60, "three fifths are published")
    answers = proxy.timeout(direction="down")  # what is asked is done, and nobody is told
    await asyncio.sleep(0.3)
    answers.remove()
    proxy.cut()
    await until(lambda: published() > 0.8 * PUBLICATIONS, 60, "four fifths are published")
    async with Redis.from_url(f"redis://127.0.0.1:{redis_port}/0") as client:
        for _ in range(3):
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            await asyncio.sleep(0.3)


def _report(subscribers: list[Subscriber], publishers: list[Publisher]) -> None:
    print(
        f"{sum(publisher.done for publisher in publishers)} published,",
        f"{sum(publisher.refused for publisher in publishers)} requests refused,",
        f"{sum(len(subscriber.numbers) for subscriber in subscribers)} received,",
        f"{sum(subscriber.connections for subscriber in subscribers)} connections,",
        f"{sum((subscriber.resumed for subscriber in subscribers), Counter())} resumes,",
        f"{sum(subscriber.repeats for subscriber in subscribers)} repeats;",
        [subscriber.wrong[:3] for subscriber in subscribers if subscriber.wrong] or "nothing wrong",
        [len(subscriber.numbers) for subscriber in subscribers],
    )
