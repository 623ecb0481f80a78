"""gRPC against a real server of grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from sojourn.clients.grpc import bounded
from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, run, took


class Users(grpc.GenericRpcHandler):
    """A service of bytes, and the seconds that each call had when it arrived; None without a deadline."""

    def __init__(self) -> None:
        self.had: list[float | None] = []
        self.cancelled = 0

    def service(self, details: Any) -> Any:
        return {
            "/users/Get": grpc.unary_unary_rpc_method_handler(self.get),
            "/users/List": grpc.unary_stream_rpc_method_handler(self.list),
            "/users/Put": grpc.stream_unary_rpc_method_handler(self.put),
            "/users/Chat": grpc.stream_stream_rpc_method_handler(self.list),
        }.get(details.method)

    def arrived(self, context: Any) -> None:
        self.had.append(context.time_remaining())

    async def get(self, request: bytes, context: Any) -> bytes:
        self.arrived(context)
        try:
            await asyncio.sleep(5 if request == b"slow" else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"hello"

    async def list(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        self.arrived(context)
        for _ in range(100):
            yield b"."
            await asyncio.sleep(0.03)

    async def put(self, requests: Any, context: Any) -> bytes:
        self.arrived(context)
        return b"".join([request async for request in requests])


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Users, int]]:
    """Serve them."""
    users, server = Users(), grpc.aio.server()
    server.add_generic_rpc_handlers((users,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield users, port
    finally:
        await server.stop(0)


@asynccontextmanager
async def channel_at(port: int) -> AsyncIterator[Any]:
    """A bounded channel."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert bounded(channel, dependency="users") is channel
        yield channel


async def one(values: list[bytes]) -> AsyncIterator[bytes]:
    for value in values:
        yield value


def test_the_server_is_told_the_shortest_of_all_limits() -> None:
    async def main() -> None:
        async with served() as (users, port), channel_at(port) as channel:
            get = channel.unary_unary("/users/Get")
            assert await get(b"") == b"hello"
            async with deadline(3, "profile"):
                assert await get(b"") == b"hello"
                assert await get(b"", timeout=1) == b"hello"
                assert await channel.stream_unary("/users/Put")(one([b"a", b"b"])) == b"ab"
                call = channel.stream_unary("/users/Put")()
                await call.write(b"c")
                await call.done_writing()
                assert await call == b"c"
                async for _ in channel.unary_stream("/users/List")(b""):
                    break
                async for _ in channel.stream_stream("/users/Chat")(one([b"a"])):
                    break
            budgets(users=2)
            assert await get(b"", timeout=9) == b"hello"
            had = [None if seconds is None or seconds > 1e6 else round(seconds) for seconds in users.had]
            assert had == [None, 3, 1, 3, 3, 3, 3, 2]

    run(main())


def test_a_slow_call_ends_at_the_deadline_and_at_the_server_too() -> None:
    async def main() -> None:
        async with served() as (users, port), channel_at(port) as channel:
            get = channel.unary_unary("/users/Get")

            async def ask() -> None:
                async with deadline(0.2, "profile"):
                    await get(b"slow")

            with took(0.18, 0.5), pytest.raises(DeadlineExceeded, match=r"'profile' of 0\.2 s passed"):
                await ask()
            budgets(users=0.1)
            with took(0.09, 0.4), pytest.raises(DeadlineExceeded, match=r"'users' of 0\.1 s passed"):
                await get(b"slow")
            async with asyncio.timeout(5):
                while users.cancelled < 2:  # noqa: ASYNC110 - the server's own state
                    await asyncio.sleep(0.01)

    run(main())


def test_a_stream_ends_at_the_deadline() -> None:
    async def main() -> None:
        async with served() as (_, port), channel_at(port) as channel:
            users = channel.unary_stream("/users/List")

            async def read(seconds: float | None) -> None:
                async with deadline(seconds, "profile"):
                    async for _ in users(b""):
                        pass

            with took(0.18, 0.5), pytest.raises((DeadlineExceeded, grpc.aio.AioRpcError)):
                await read(0.2)
            budgets(users=0.1)
            with took(0.09, 0.4), pytest.raises(grpc.aio.AioRpcError) as raised:
                await read(None)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run(main())


def test_nothing_is_sent_when_no_time_is_left() -> None:
    async def main() -> None:
        async with served() as (users, port), channel_at(port) as channel:

            async def late() -> None:
                async with deadline(0.01, "profile"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'profile'"):
                            await channel.unary_unary("/users/Get")(b"")
                        with pytest.raises(DeadlineExceeded, match="'profile'"):
                            async for _ in channel.unary_stream("/users/List")(b""):
                                pass

            with pytest.raises(DeadlineExceeded):
                await late()
            assert users.had == []

    run(main())


def test_the_calls_own_timeout_and_the_servers_own_word_stay_what_they_are() -> None:
    async def main() -> None:
        async with served() as (_, port), channel_at(port) as channel:

            async def ask(path: str, **options: Any) -> None:
                async with deadline(5, "profile"):
                    await channel.unary_unary(path)(b"slow", **options)

            with took(0.04, 0.4), pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask("/users/Get", timeout=0.05)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask("/users/Unknown")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main())


def test_a_half_open_server_ends_at_the_deadline() -> None:
    async def main() -> None:
        async with (
            served() as (_, port),
            FaultProxy(("127.0.0.1", port)) as proxy,
            channel_at(proxy.address[1]) as channel,
        ):
            get = channel.unary_unary("/users/Get")
            assert await get(b"") == b"hello"
            lost = proxy.timeout()

            async def ends() -> None:
                async with deadline(0.1, "profile"):
                    await get(b"")

            with took(0.09, 0.4), pytest.raises(DeadlineExceeded, match="'profile'"):
                await ends()
            lost.remove()
            proxy.cut()  # in the middle of a stream bytes are missing
            async with asyncio.timeout(5):
                while True:
                    with suppress(grpc.aio.AioRpcError):  # what is sent on the connection that is gone
                        assert await get(b"", wait_for_ready=True) == b"hello"
                        break

    run(main())


def test_who_is_cancelled_cancels_the_call() -> None:
    async def main() -> None:
        async with served() as (users, port), channel_at(port) as channel:
            task = asyncio.ensure_future(_slow(channel))
            async with asyncio.timeout(5):
                while not users.had:  # noqa: ASYNC110 - the server's own state
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while not users.cancelled:  # noqa: ASYNC110 - the server's own state
                    await asyncio.sleep(0.01)

    async def _slow(channel: Any) -> None:
        async with deadline(5, "profile"):
            await channel.unary_unary("/users/Get")(b"slow")

    run(main())


def test_what_is_no_channel_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dict is no channel of grpc\.aio"):
        bounded({})
