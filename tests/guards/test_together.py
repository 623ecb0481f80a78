"""Guards around one dependency: real sockets, a peer that goes silent, cancellations at every await."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sojourn.clock import ManualClock
from sojourn.errors import BulkheadFull, CircuitOpen, DeadlineExceeded, GuardRefused
from sojourn.guards.breaker import CircuitBreaker
from sojourn.guards.bulkhead import Bulkhead
from sojourn.guards.retry import Retry
from sojourn.policy.breaker import BreakerThresholds
from sojourn.policy.retry import Backoff, RetryBudget
from sojourn.scopes.deadline import deadline

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Peer:
    """Echoes a line; silent, it accepts and acknowledges, and never answers."""

    def __init__(self) -> None:
        self.silent = False
        self.asked = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        line = await reader.readline()
        if not self.silent:
            writer.write(line)
        await reader.read()
        writer.close()

    async def ask(self, limit: float = 0.02) -> bytes:
        async with deadline(limit, "peer"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"hello\n")
                return await reader.readline()
            finally:
                writer.transport.abort()


@asynccontextmanager
async def listening() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    async with server:
        peer.port = server.sockets[0].getsockname()[1]
        yield peer


def test_a_peer_that_goes_silent_holds_nobody_up_and_is_found_again_when_it_answers(run: Any) -> None:
    circuit = CircuitBreaker("peer", BreakerThresholds(minimum=4), open_seconds=0.5, probes=1)
    room = Bulkhead("peer", 4, queue=4, wait=0.02)

    async def one(peer: Peer, limit: float) -> str:
        try:
            async with circuit, room:
                await peer.ask(limit)
        except (GuardRefused, DeadlineExceeded) as error:
            return type(error).__name__
        return "answered"

    async def burst(peer: Peer, size: int, limit: float = 0.02) -> set[str]:
        return set(await asyncio.gather(*(one(peer, limit) for _ in range(size))))

    async def main() -> None:
        async with listening() as peer:
            assert await burst(peer, 4, 5.0) == {"answered"}
            peer.silent = True
            began = time.monotonic()
            found = await burst(peer, 40) | await burst(peer, 40)
            assert time.monotonic() - began < 5.0
            assert found == {"DeadlineExceeded", "BulkheadFull", "CircuitOpen"}
            assert circuit.state == "open"
            assert (circuit.running, room.running, room.waiting) == (0, 0, 0)
            asked = peer.asked
            assert await burst(peer, 40) == {"CircuitOpen"}
            assert peer.asked == asked
            peer.silent = False
            await asyncio.sleep(0.5)
            assert await burst(peer, 1, 5.0) == {"answered"}
            assert circuit.state == "closed"

    run(main())


def test_retries_of_many_calls_do_not_multiply_the_load_of_a_peer_that_fails(run: Any) -> None:
    clock = ManualClock()
    budget = RetryBudget(share=0.1, per_second=1.0, most=5.0)
    again = Retry("peer", on=ConnectionError, backoff=Backoff(0.001, 0.001), budget=budget, clock=clock)
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise ConnectionError

    async def main() -> None:
        for _ in range(20):
            done = await asyncio.gather(*(again.call(fail) for _ in range(50)), return_exceptions=True)
            assert {type(error) for error in done} == {ConnectionError}

    run(main())
    assert 1000 < calls <= 1000 + 5 + 100


def test_cancelled_at_any_turn_and_at_any_await_the_guards_are_as_if_nothing_was(run: Any) -> None:
    async def main() -> None:
        for after in range(14):
            clock = ManualClock()
            circuit = CircuitBreaker("peer", BreakerThresholds(minimum=2), probes=1, clock=clock)
            room = Bulkhead("peer", 1, queue=2, wait=5.0)
            again = Retry("peer", on=(ConnectionError, BulkheadFull), backoff=Backoff(0.001, 0.001), clock=clock)
            circuit.trip()
            clock.advance(10.0)
            tries = 0

            @again
            @circuit
            @room
            async def call() -> None:
                nonlocal tries
                tries += 1
                await asyncio.sleep(0)
                if tries == 1:
                    raise BulkheadFull("another", "full")
                await asyncio.sleep(0)

            async with room:
                task = asyncio.create_task(call())
                for _ in range(after // 2):
                    await asyncio.sleep(0)
            for _ in range(after - after // 2):
                await asyncio.sleep(0)
            if tries == 1:
                await asyncio.sleep(0.003)  # the backoff is over
            task.cancel()
            await asyncio.wait([task])
            assert (room.running, room.waiting, again.running, again.figures().waiting) == (0, 0, 0, 0)
            assert circuit.running == 0
            await circuit.call(asyncio.sleep, 0)
            assert circuit.state == "closed"

    run(main())


def test_an_open_circuit_costs_neither_slot_nor_wait(run: Any) -> None:
    circuit, room = CircuitBreaker("peer"), Bulkhead("peer", 1)
    circuit.trip()

    async def main() -> None:
        async with room:
            for _ in range(100):
                with pytest.raises(CircuitOpen):
                    async with circuit, room:
                        pass

    run(main())
    assert room.figures().counts["full"] == 0
