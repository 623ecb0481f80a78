"""Whatever is cut while others publish, who resumes has everything once and in order, or was told of a gap."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Present, Publish, Wanted
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.rules import History
from sojourn.testing.leaks import assert_no_leaks
from sojourn.wire.hub.cursor import Cursor

HISTORY = History(size=100_000, ttl=600)
CHANNELS = ("a", "b", "c")


class Reader:
    """A hub in small: it follows channels, and reads history where something may be missing.

    Attributes:
        got: Of each channel, what has come: publications, and None where a gap was told.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.got: dict[str, list[Publication | None]] = {channel: [] for channel in CHANNELS}
        self.places: dict[str, Cursor] = {}
        self.held: dict[str, list[Publication]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.losses = 0
        #: The link of which the loss of the one before was told, and whether something came over it too early.
        self.link: object = None
        self.early = False

    async def __aenter__(self) -> None:
        await self.engine.start(self)
        self.link = self.engine._link
        for channel in CHANNELS:
            self.places[channel] = await self.engine.subscribe(channel)

    async def __aexit__(self, *_: object) -> None:
        self.held.clear()
        await self.engine.aclose()
        await self.settle()

    def deliver(self, publication: Publication) -> None:
        self.early = self.early or self.engine._link is not self.link
        channel = publication.channel
        place = self.places[channel]
        if channel in self.held:
            self.held[channel].append(publication)
        elif publication.epoch != place.epoch or publication.prev > place.seq:
            self.repair(channel, [publication])
        elif publication.seq > place.seq:
            self.take(publication)

    def take(self, publication: Publication) -> None:
        self.got[publication.channel].append(publication)
        self.places[publication.channel] = publication.cursor

    def lost(self, channels: Sequence[str] | None) -> None:
        self.losses += 1
        self.link = self.engine._link
        for channel in CHANNELS if channels is None else channels:
            if channel not in self.held:
                self.repair(channel, [])

    def repair(self, channel: str, held: list[Publication]) -> None:
        self.held[channel] = held
        task = asyncio.ensure_future(self._repair(channel))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _repair(self, channel: str) -> None:
        while channel in self.held:
            try:
                page = await self.engine.history([Wanted(channel, self.places[channel], HISTORY)], 50)
            except EngineUnavailable:
                await asyncio.sleep(0.005)
                continue
            if page.gap:
                self.got[channel].append(None)
            self.got[channel] += page.publications
            self.places[channel] = page.position
            if not page.more:
                for publication in self.held.pop(channel):
                    self.deliver(publication)

    def told(self, data: bytes) -> None:
        pass

    def changed(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> None:
        pass

    def away(self, error: Exception | None) -> None:
        pass

    async def settle(self) -> None:
        while self.tasks:
            await asyncio.wait(self.tasks)


async def publish(reader: Reader, name: str, count: int, chance: random.Random) -> list[Publication]:
    """Publish, each again until it is done; what was published."""
    return [await publish_one(reader, chance.choice(CHANNELS), f"{name}-{index}") for index in range(count)]


async def publish_one(reader: Reader, channel: str, text: str) -> Publication:
    while True:
        try:
            done = await reader.engine.publish(Publish(channel, Kind.TEXT, text.encode(), HISTORY, "", text))
        except EngineUnavailable:
            await asyncio.sleep(0.002)
        else:
            return Publication(channel, *done.cursor, 0, Kind.TEXT, text.encode())


def run(main: Callable[[str, AsyncExitStack], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        async with AsyncExitStack() as stack:
            await main(f"{folder}/hub.sock", stack)

    factory = uvloop.new_event_loop
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=factory) as runner, assert_no_leaks():
        runner.run(inside())


async def caught_up(readers: Sequence[Reader], made: Sequence[Publication]) -> None:
    """Wait until everybody has the last of each channel, or is told that it is missing."""
    last = {each.channel: each.cursor for each in made}

    def behind() -> bool:
        places = [(reader.places[channel], cursor) for reader in readers for channel, cursor in last.items()]
        return any(place.epoch != cursor.epoch or place.seq < cursor.seq for place, cursor in places)

    for _ in range(1000):
        if not behind():
            return
        await asyncio.sleep(0.01)


def wanted(made: Sequence[Publication], channel: str) -> list[tuple[int, bytes]]:
    return sorted((each.seq, each.data) for each in made if each.channel == channel)


@pytest.mark.parametrize("seed", range(3))
def test_with_links_cut_everything_comes_once_and_in_order(seed: int) -> None:
    async def main(path: str, stack: AsyncExitStack) -> None:
        chance = random.Random(seed)
        readers = [Reader(LocalEngine(path)) for _ in range(3)]
        for reader in readers:
            await stack.enter_async_context(reader)
        publishing = asyncio.gather(*(publish(reader, str(i), 300, chance) for i, reader in enumerate(readers)))
        while not publishing.done():
            link = chance.choice(readers).engine._link
            if link is not None:
                link.end("cut by the test")
            await asyncio.sleep(0.01 * chance.random())
        made = [each for part in await publishing for each in part]
        for index, reader in enumerate(readers):
            made += await publish(reader, f"end-{index}", 20, chance)
        await caught_up(readers, made)
        assert any(reader.losses for reader in readers)
        for reader in readers:
            await reader.settle()
            assert not reader.early, "something was delivered before the loss was told"
            for channel in CHANNELS:
                got = reader.got[channel]
                assert None not in got
                numbers = [each.seq for each in got if each is not None]
                assert numbers == sorted(set(numbers))
                found = {(each.seq, each.data) for each in got if each is not None}
                assert found >= set(wanted(made, channel))
        for channel in CHANNELS:
            assert len({tuple(each.seq for each in r.got[channel] if each is not None) for r in readers}) == 1

    run(main)


@pytest.mark.parametrize("seed", range(3))
def test_with_brokers_that_end_whatever_is_missing_is_told(seed: int) -> None:
    async def main(path: str, stack: AsyncExitStack) -> None:
        chance = random.Random(seed)
        readers = [Reader(LocalEngine(path)) for _ in range(3)]
        writer = Reader(LocalEngine(path))
        for reader in (*readers, writer):
            await stack.enter_async_context(reader)
        made: list[Publication] = []
        ended: list[Reader] = []
        for part in range(3):
            made += await publish(writer, f"v{part}", 20, chance)
            publishing = asyncio.ensure_future(publish(writer, f"w{part}", 200, chance))
            await asyncio.sleep(0.01)
            host = next((reader for reader in readers if reader.engine.hosting), None)
            if host is not None:  # the writer may be it in the end
                await host.__aexit__()
                ended.append(host)
            made += await publishing
        made += await publish(writer, "end", 20, chance)
        assert ended
        assert len({each.epoch for each in made}) == len(ended) + 1
        living = [reader for reader in (*readers, writer) if reader not in ended]
        await caught_up(living, made)
        for reader in living:
            await reader.settle()
            for channel in CHANNELS:
                check(reader.got[channel], [each for each in made if each.channel == channel])

    run(main)


def check(got: Sequence[Publication | None], made: Sequence[Publication]) -> None:
    """Between two gaps nothing is missing, doubled, or in another order; after the last one neither."""
    by_epoch: dict[str, list[int]] = {}
    for each in made:
        by_epoch.setdefault(each.epoch, []).append(each.seq)
    for run_of in split(got):
        if not run_of:
            continue
        assert len({each.epoch for each in run_of}) == 1, "a new life without a gap"
        numbers = [each.seq for each in run_of]
        assert numbers == sorted(set(numbers))
        expected = [seq for seq in by_epoch.get(run_of[0].epoch, []) if numbers[0] <= seq <= numbers[-1]]
        assert set(expected) <= set(numbers)
    last = [each.seq for each in split(got)[-1]]
    assert last[-1] >= by_epoch[made[-1].epoch][-1]


def split(got: Sequence[Publication | None]) -> list[list[Publication]]:
    parts: list[list[Publication]] = [[]]
    for each in got:
        if each is None:
            parts.append([])
        else:
            parts[-1].append(each)
    return parts
