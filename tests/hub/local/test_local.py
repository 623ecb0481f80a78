"""The engine of one host holds the contract, and comes back from every loss of its broker with the loss told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sojourn.errors import ConfigError, EngineUnavailable
from sojourn.hub.engine import Present
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.local.place import VARIABLE
from sojourn.hub.rules import History
from sojourn.testing.hub_engine import EngineContract, Node, Recorder
from sojourn.testing.leaks import assert_no_leaks


def run(main: Callable[[], Coroutine[Any, Any, None]], *, plain: bool = False) -> None:
    factory = asyncio.new_event_loop if plain else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, assert_no_leaks():
        runner.run(main())


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # that of pytest may be too long for a socket
        yield f"{folder}/hub.sock"


@asynccontextmanager
async def store(nodes: int) -> AsyncIterator[list[LocalEngine]]:
    with tempfile.TemporaryDirectory() as folder:
        yield [LocalEngine(f"{folder}/hub.sock") for _ in range(nodes)]


CONTRACT = EngineContract(store)
HISTORY = History(size=100, ttl=60)


@pytest.mark.parametrize("promise", CONTRACT.promises)
def test_contract(promise: str) -> None:
    run(lambda: CONTRACT.check(promise))


def test_contract_on_the_loop_of_asyncio() -> None:
    run(lambda: CONTRACT.check("publications_made_at_the_same_time_have_one_order"), plain=True)


async def begin(*paths: str, within: float = 3.0) -> list[Node]:
    nodes = [Node(LocalEngine(path, within=within), Recorder()) for path in paths]
    for node in nodes:
        await node.engine.start(node.seen)
        assert node.engine.available
    return nodes


async def end(*nodes: Node) -> None:
    for node in nodes:
        await node.engine.aclose()


# --- who is the broker


def test_the_first_process_is_the_broker_and_when_it_ends_another_is(path: str) -> None:
    async def main() -> None:
        first, second = await begin(path, path)
        assert isinstance(first.engine, LocalEngine)
        assert isinstance(second.engine, LocalEngine)
        assert (first.engine.hosting, second.engine.hosting) == (True, False)
        assert os.stat(path).st_mode & 0o777 == 0o600
        since = await second.engine.subscribe("c")
        await first.publish("c")
        await second.engine.enter("c", [Present("m", "ada")], 60)
        await first.engine.aclose()
        await second.seen.until(lambda: second.seen.losses == [None], "not told of the loss")
        assert [error is None for error in second.seen.outages] == [False, True]
        assert second.engine.hosting
        page = await second.read("c", since, 10, HISTORY)
        assert page.gap  # another life
        assert await second.engine.present("c", 10) == [Present("m", "ada")]  # told anew
        await second.publish("c", b"after")
        await second.seen.until(lambda: second.seen.of("c")[-1].data == b"after", "not subscribed anew")
        await end(second)

    run(main)
    assert not Path(path).exists()


def test_what_a_killed_broker_leaves_behind_is_in_nobodys_way(path: str) -> None:
    async def main() -> None:
        async with process(path) as other:
            (node,) = await begin(path)
            await node.engine.subscribe("c")
            other.kill()
            await node.seen.until(lambda: node.seen.losses == [None], "not told of the loss")
            assert isinstance(node.engine, LocalEngine)
            assert node.engine.hosting
            await node.publish("c", b"after")
            await node.seen.until(lambda: bool(node.seen.of("c")), "not subscribed anew")
        await end(node)

    run(main)


def test_a_broker_that_stands_still_is_lost_and_found_again(path: str) -> None:
    async def main() -> None:
        async with process(path) as other:
            (node,) = await begin(path, within=0.3)
            await node.engine.subscribe("c")
            os.kill(other.pid, signal.SIGSTOP)
            with pytest.raises(EngineUnavailable, match="no answer"):
                await node.publish("c")
            assert not node.engine.available
            with pytest.raises(EngineUnavailable):
                await node.engine.position()
            os.kill(other.pid, signal.SIGCONT)
            await node.seen.until(lambda: node.seen.losses == [None], "not told of the loss")
            await node.publish("c", b"after")
            await node.seen.until(lambda: node.seen.of("c")[-1:][0].data == b"after", "not subscribed anew")
            await end(node)

    run(main)


def test_a_broker_that_says_nothing_is_found_out_though_nobody_asks(path: str) -> None:
    async def main() -> None:
        async with process(path) as other:
            (node,) = await begin(path, within=0.1)
            os.kill(other.pid, signal.SIGSTOP)
            await node.seen.until(lambda: len(node.seen.outages) == 1, "not told")
            os.kill(other.pid, signal.SIGCONT)
            await node.seen.until(lambda: node.seen.outages[-1] is None, "not told that it is back")
            await end(node)

    run(main)


def test_a_worker_that_is_killed_is_present_no_more_soon(path: str) -> None:
    async def main() -> None:
        (node,) = await begin(path)
        await node.engine.subscribe("c")
        async with process(path, "member") as other:
            await node.seen.until(lambda: bool(node.seen.changes), "not told who came")
            other.kill()
            await node.seen.until(lambda: node.seen.changes[-1].left == ["m"], "not told who is gone")
        await end(node)

    run(main)


def test_without_a_supervisor_and_a_path_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    async def main() -> None:
        engine = LocalEngine()
        with pytest.raises(ConfigError, match="the same path"):
            await engine.start(Recorder())
        await engine.aclose()

    run(main)


def test_a_path_that_is_no_place_for_a_socket_is_told() -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        LocalEngine("/tmp/" + 200 * "x")

    async def main() -> None:
        node = Node(LocalEngine("/nowhere/hub.sock"), Recorder())
        await node.engine.start(node.seen)
        assert not node.engine.available
        assert isinstance(node.seen.outages[0], FileNotFoundError)
        with pytest.raises(EngineUnavailable, match="nowhere"):
            await node.publish("c")
        await node.engine.unsubscribe("c")  # is easily done
        await end(node)

    run(main)


# --- bounds


def test_what_can_not_be_written_is_left_out_of_presence_only(path: str) -> None:
    async def main() -> None:
        (node,) = await begin(path)
        infos = [10**30, "x" * 70_000, {"fits": True}]
        await node.engine.enter("c", [Present(f"m{i}", "", info=info) for i, info in enumerate(infos)], 60)
        assert [present.info for present in await node.engine.present("c", 10)] == [None, None, {"fits": True}]
        await end(node)

    run(main)


def test_a_publication_that_is_too_long_is_refused_and_harms_nothing(path: str) -> None:
    async def main() -> None:
        (node,) = await begin(path)
        with pytest.raises(ValueError, match="bytes are more than"):
            await node.publish("c", bytes(33 * 1024 * 1024))
        for _ in range(3):
            await node.publish("c", bytes(3 * 1024 * 1024))
        pages, since = [], None
        while True:
            page = await node.read("c", since, 100, HISTORY)
            pages.append(len(page.publications))
            since = page.position
            if not page.more:
                break
        assert pages == [1, 1, 1]  # each as many as fit
        await end(node)

    run(main)


def test_start_that_is_cancelled_leaves_nothing_behind(path: str) -> None:
    async def main() -> None:
        for steps in range(8):
            engine = LocalEngine(path)
            task = asyncio.ensure_future(engine.start(Recorder()))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await engine.aclose()

    run(main)
    assert not Path(path).exists()


# --- another process

OTHER = """
import asyncio, sys
from sojourn.hub.engine import Present
from sojourn.hub.local.engine import LocalEngine
class Quiet:
    def __getattr__(self, name):
        return lambda *arguments: None
async def main():
    engine = LocalEngine(sys.argv[1])
    await engine.start(Quiet())
    if sys.argv[2] == "member":
        await engine.enter("c", [Present("m", "ada")], 60)
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""


@asynccontextmanager
async def process(path: str, what: str = "nothing") -> AsyncIterator[subprocess.Popen[bytes]]:
    """Another process with an engine at a path. Its start does not hold up this one, which may be its broker."""
    command = [sys.executable, "-c", OTHER, path, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220 - until exec only
        try:
            assert other.stdout is not None
            line = await asyncio.get_running_loop().run_in_executor(None, other.stdout.readline)
            assert line == b"ready\n"
            yield other
        finally:
            other.kill()
