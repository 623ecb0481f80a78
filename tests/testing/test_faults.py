"""The fault proxy: each toxic does what its name says."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sojourn.testing import FaultProxy
from sojourn.testing.channel import Channel

RUNS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Any], None]


@asynccontextmanager
async def echo(**options: Any) -> AsyncIterator[FaultProxy]:
    """A server behind a proxy that sends back what it gets, and its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    if "path" in options:
        server = await asyncio.start_unix_server(serve, **options)
        upstream: Any = options["path"]
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        upstream = server.sockets[0].getsockname()
    async with FaultProxy(upstream) as proxy:
        yield proxy
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)


async def exactly(channel: Channel, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await channel.receive()
        assert piece
        data += piece
    return data


@RUNS
def test_without_toxics_everything_gets_through_and_half_closes(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy:
            async with await Channel.open(proxy.address) as channel:
                sent = bytes(range(256)) * 8192  # more than the proxy holds
                sending = asyncio.ensure_future(channel.send(sent))
                assert await exactly(channel, len(sent)) == sent
                await sending
                channel.send_eof()
                assert await channel.receive() == b""
            await asyncio.sleep(0.01)
            assert (proxy.accepted, proxy.open) == (1, 0)

    run(main())


@RUNS
def test_latency_keeps_the_order_and_adds_its_time(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy, await Channel.open(proxy.address) as channel:
            proxy.latency(0.2, jitter=0.05)
            began = time.monotonic()
            for number in range(10):
                await channel.send(b"%d" % number)
            assert await exactly(channel, 10) == b"0123456789"
            assert 0.14 <= time.monotonic() - began < 1.5  # and not one after the other

    run(main())


@RUNS
def test_bandwidth_is_a_rate(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy, await Channel.open(proxy.address) as channel:
            proxy.bandwidth(100_000, "up")
            began = time.monotonic()
            await channel.send(bytes(20_000))
            await exactly(channel, 20_000)
            assert 0.15 <= time.monotonic() - began < 3.0

    run(main())


@RUNS
def test_a_half_open_peer_takes_everything_and_says_nothing_until_the_toxic_is_gone(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy, await Channel.open(proxy.address, timeout=0.1) as channel:
            lost = proxy.timeout()
            await channel.send(bytes(100_000))
            with pytest.raises(TimeoutError):
                await channel.receive()
            assert proxy.open == 1
            lost.remove()
            lost.remove()
            await channel.send(b"again")
            assert await exactly(channel, 5) == b"again"
            proxy.timeout()
            channel.send_eof()
            with pytest.raises(TimeoutError):
                await channel.receive()
            proxy.clear()
            assert await channel.receive() == b""

    run(main())


@RUNS
def test_a_timeout_with_a_time_closes_and_reset_peer_resets(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy:
            async with await Channel.open(proxy.address) as channel:
                await asyncio.sleep(0.01)
                lost = proxy.timeout(0.05)
                assert await channel.receive() == b""
            lost.remove()
            proxy.reset_peer()
            async with await Channel.open(proxy.address) as channel:
                with pytest.raises(ConnectionResetError):
                    await channel.receive()
            proxy.clear()
            async with await Channel.open(proxy.address) as channel:
                await channel.send(b"a")
                assert await channel.receive() == b"a"
                proxy.cut()
                with pytest.raises(ConnectionResetError):
                    await channel.receive()

    run(main())


@RUNS
def test_a_slicer_sends_small_pieces_and_limit_data_closes_after_so_many(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy, await Channel.open(proxy.address) as channel:
            slicer = proxy.slicer(10, variation=3, gap=0.03)
            await channel.send(bytes(100))
            sizes = []
            while sum(sizes) < 100:
                sizes.append(len(await channel.receive()))
            assert len(sizes) > 3  # who reads late gets several at once
            slicer.remove()
            proxy.limit_data(150)
            await channel.send(bytes(100))
            assert await exactly(channel, 50) == bytes(50)
            assert await channel.receive() == b""

    run(main())


@RUNS
def test_slow_close_holds_the_end_back(run: Run) -> None:
    async def main() -> None:
        async with echo() as proxy, await Channel.open(proxy.address) as channel:
            proxy.slow_close(0.1)
            channel.send_eof()
            began = time.monotonic()
            assert await channel.receive() == b""
            assert 0.09 <= time.monotonic() - began < 3.0

    run(main())


def test_a_server_that_refuses_resets_the_client_and_unix_sockets_work(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            async with FaultProxy(nobody.getsockname()) as proxy, await Channel.open(proxy.address) as channel:
                with pytest.raises(ConnectionResetError):
                    await channel.receive()
        async with echo(path=str(tmp_path / "s")) as proxy, await Channel.open(proxy.address) as channel:
            await channel.send(b"hello")
            assert await exactly(channel, 5) == b"hello"

    asyncio.run(main())


def test_what_makes_no_sense_is_refused() -> None:
    async def main() -> None:
        async with echo() as proxy:
            with pytest.raises(ValueError, match="toxic 'latency' can't have"):
                proxy.latency(-1)
            with pytest.raises(ValueError, match="toxic 'bandwidth'"):
                proxy.bandwidth(0)

    asyncio.run(main())
