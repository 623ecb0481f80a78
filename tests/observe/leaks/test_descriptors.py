"""Descriptors are counted, explained and, when they pile up, named."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sojourn.observe.leaks.descriptors import Descriptors
from sojourn.observe.leaks.ledger import Ledger
from sojourn.observe.leaks.openings import Openings
from sojourn.observe.leaks.places import place
from sojourn.testing.server import MemoryServer
from tests.observe.leaks.scene import answer, requests_only

HERE = str(Path(__file__))


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Scene:
    """Descriptors of a server in memory, whose clock is moved by hand."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.leased = 0
        self.ledger = Ledger(server.bus, server.clock)
        self.openings = Openings()
        self.descriptors = Descriptors(server.site, self.ledger, lambda: self.leased, self.openings)

    async def look(self, seconds: float = 15.0) -> None:
        self.server.clock.advance(seconds)
        self.server.runtime.ticker.now += seconds
        await self.descriptors.look()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async with MemoryServer(requests_only(app)) as server:
        made = Scene(server)
        try:
            yield made
        finally:
            made.descriptors.close()


def test_what_is_open_is_counted_by_kind_and_state(opened: ExitStack, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene() as at:
            before = await at.descriptors.counts()
            listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = opened.enter_context(socket.create_connection(listening.getsockname()))
            server, _ = listening.accept()
            opened.callback(server.close)
            client.close()
            opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for end in socket.socketpair():
                opened.callback(end.close)
            for fd in os.pipe():
                opened.callback(os.close, fd)
            opened.enter_context((tmp_path / "a").open("w"))
            time.sleep(0.02)  # noqa: ASYNC251 - the FIN
            after = await at.descriptors.counts()
            assert after.open - before.open == 8
            assert after.unexplained - before.unexplained == 8
            assert _more(before.kinds, after.kinds) == {"socket": 5, "pipe": 2, "file": 1}
            assert _more(before.states, after.states) == {"listen": 1, "close_wait": 1, "udp": 1, "unix": 2}
            assert after.limit == os.sysconf("SC_OPEN_MAX")
            assert listening.fileno() >= 0
            at.leased = 2
            assert (await at.descriptors.counts()).unexplained == after.unexplained - 2

    asyncio.run(main())


def _more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {kind: count - before.get(kind, 0) for kind, count in after.items() if count != before.get(kind, 0)}


def test_connections_of_the_registry_are_explained() -> None:
    async def main() -> None:
        async with scene() as at:
            before = (await at.descriptors.counts()).unexplained
            for _ in range(3):
                at.server.connect()  # in memory: it has no descriptor, so it must be missing
            counts = await at.descriptors.counts()
            assert counts.connections == 3
            assert counts.unexplained == before - 3

    asyncio.run(main())


def test_openings_are_noted_only_when_the_unexplained_part_keeps_growing(opened: ExitStack) -> None:
    async def main() -> None:
        async with scene() as at:
            for _ in range(5):
                await at.look()
            assert not at.openings.on
            for _ in range(50):
                opened.enter_context(socket.socket())
            await at.look()  # a pool that fills up grows once
            await at.look()
            assert not at.openings.on
            for _ in range(4):
                for _ in range(3):
                    opened.enter_context(socket.socket())
                await at.look()
            assert at.openings.on
            for _ in range(50):
                await at.look()
            assert not at.openings.on

    asyncio.run(main())


def test_files_that_pile_up_are_named_once_with_their_line_and_counted(opened: ExitStack, tmp_path: Path) -> None:
    def leak(number: int) -> None:
        opened.enter_context((tmp_path / f"upload-{number}").open("w"))

    async def main() -> None:
        async with scene() as at:
            at.openings.begin()
            for step in range(12):
                for each in range(3):
                    leak(10 * step + each)
                await at.look()
            (record,) = at.ledger.records.values()
            assert (record.kind, record.what) == ("fd", "file")
            assert record.created.startswith(f"{HERE}:{leak.__code__.co_firstlineno + 1} in ")
            assert record.owner.startswith(str(tmp_path / "upload-"))
            assert record.alive == record.known >= 12
            opened.close()
            await at.look()
            assert record.alive == 0

    asyncio.run(main())


def test_a_pool_that_fills_up_and_stays_is_no_leak(opened: ExitStack) -> None:
    async def main() -> None:
        async with scene() as at:
            at.openings.begin()
            for _ in range(2):
                for _ in range(20):
                    opened.enter_context(socket.socket())
                await at.look()
            for _ in range(20):
                await at.look()
            assert at.ledger.records == {}

    asyncio.run(main())


def test_descriptors_that_live_for_a_while_are_no_leak() -> None:
    async def main() -> None:
        async with scene() as at:
            at.openings.begin()
            chance = random.Random(7)
            batches: list[list[socket.socket]] = []
            for _ in range(100):
                batches.append([socket.socket() for _ in range(chance.randint(5, 15))])
                await at.look()
                if len(batches) == 6:
                    close(batches.pop(0))
            for batch in batches:
                close(batch)
            assert at.ledger.records == {}

    asyncio.run(main())


def test_descriptors_that_grow_with_the_connections_are_no_leak(opened: ExitStack) -> None:
    async def main() -> None:
        async with scene() as at:
            at.openings.begin()
            for _ in range(12):  # a proxy: each connection has one of its own
                for _ in range(4):
                    at.server.connect()
                    opened.enter_context(socket.socket())
                await at.look()
            assert at.ledger.records == {}

    asyncio.run(main())


def close(batch: list[socket.socket]) -> None:
    for sock in batch:
        sock.close()


def test_the_hook_notes_who_opened_what_and_nothing_while_it_is_off(tmp_path: Path) -> None:
    openings = Openings()
    openings.begin()
    openings.tell_time(5.0)
    with socket.socket() as sock, open(tmp_path / "a", "w") as file:
        ((fd, opening),) = list(openings.sockets())
        assert fd == sock.fileno()
        assert place(opening.stack).startswith(f"{HERE}:")
        assert place(opening.stack).endswith("in test_the_hook_notes_who_opened_what_and_nothing_while_it_is_off")
        noted = openings.file(os.readlink(f"/proc/self/fd/{file.fileno()}"))
        assert noted is not None
        assert noted.at == 5.0
    thread = threading.Thread(target=lambda: socket.socket().close())
    thread.start()
    thread.join()
    assert list(openings.sockets()) == []
    openings.end()
    with socket.socket():
        assert list(openings.sockets()) == []


def test_a_forgotten_hook_holds_nobody() -> None:
    openings = Openings()
    openings.begin()
    del openings
    with socket.socket() as sock:
        assert sock.fileno() >= 0
