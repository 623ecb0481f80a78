"""One connection for scripts: answers in order, whoever still waits for them, and a new one when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from sojourn.scopes.work import attend
from sojourn.stores.line import Line
from sojourn.stores.redis import failures, forbidden, read_only, refusal, unknown_script
from sojourn.testing.faults import FaultProxy
from tests.databases import RedisServer
from tests.databases import redis_server as running

ECHO = "return ARGV[1]"
ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running() as server:
        yield server


def play(main: Any, seconds: float = 10.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}])
def test_a_script_is_sent_whole_once_and_again_to_a_redis_that_forgot_it(
    options: dict[str, Any], redis_server: RedisServer
) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url, **options)
        line, key = Line(client, 1.0), f"sum {options}".encode()
        await client.script_flush()
        before = (await client.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"]
        assert [await line.run(ADD, key, b"%d" % number) for number in (1, 2, 3)] == [1, 3, 6]
        assert (await client.info("commandstats"))["cmdstat_eval"]["calls"] - before == 1
        await client.script_flush()
        assert [await line.run(ADD, key, b"%d" % number) for number in (4, 5)] == [10, 15]
        assert await line.run(ECHO, key, b"\xff\r\n") == b"\xff\r\n"
        line.drop()
        await client.aclose()

    play(main())


def test_what_was_sent_before_is_sent_at_once_where_there_is_a_connection(redis_server: RedisServer) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url)
        line = Line(client, 1.0)
        assert line.at_once(ECHO, b"k", b"1") is None
        assert await line.run(ECHO, b"k", b"2") == b"2"
        assert line.at_once(ADD, b"k", b"3") is None
        answers = [line.at_once(ECHO, b"k", b"%d" % number) for number in range(3)]
        assert [await each for each in answers if each is not None] == [b"0", b"1", b"2"]
        await client.script_flush()
        answer = line.at_once(ECHO, b"k", b"4")
        assert answer is not None
        with pytest.raises(unknown_script()):
            await answer
        line.drop()
        assert line.at_once(ECHO, b"k", b"5") is None
        await client.aclose()

    play(main())


def test_many_share_a_connection_and_who_gives_up_disturbs_nobody(redis_server: RedisServer) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url)
        line = Line(client, 1.0)
        before = (await client.info("stats"))["total_connections_received"]
        for turns in range(6):
            asking = [attend(line.run(ECHO, b"k", b"%d" % number), "ask") for number in range(100)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asking[::3]:
                task.cancel()
            await asyncio.wait(asking)
            for number, task in enumerate(asking):
                assert task.cancelled() or task.result() == b"%d" % number
        assert (await client.info("stats"))["total_connections_received"] - before == 1
        line.drop()
        await client.aclose()

    play(main())


def test_who_is_cancelled_while_it_is_connected_leaves_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url)
        line = Line(client, 1.0)
        for turns in range(25):
            task = attend(line.run(ECHO, b"k", b"1"), "ask")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled() or task.result() == b"1"
            assert await line.run(ECHO, b"k", b"2") == b"2"
            line.drop()
        await client.aclose()

    play(main())


def test_a_connection_that_was_lost_is_told_to_who_waits_and_made_anew(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_server.port)) as proxy:
            client: Any = Redis.from_url(f"redis://127.0.0.1:{proxy.address[1]}")
            line = Line(client, 1.0)
            for _ in range(3):
                assert await line.run(ECHO, b"k", b"1") == b"1"
                hole = proxy.timeout()
                waiting = [attend(line.run(ECHO, b"k", b"1"), "ask") for _ in range(3)]
                await asyncio.sleep(0.01)
                proxy.cut()
                await asyncio.wait(waiting)
                assert all(isinstance(task.exception(), failures()) for task in waiting)
                hole.remove()
            line.drop()
            await client.aclose()

    play(main())


def test_a_connection_that_fell_silent_is_given_up_though_nobody_waits_so_long(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_server.port)) as proxy:
            client: Any = Redis.from_url(f"redis://127.0.0.1:{proxy.address[1]}")
            line = Line(client, 0.05)
            assert await line.run(ECHO, b"k", b"1") == b"1"
            await asyncio.sleep(0.15)  # quiet, and nothing is due
            before = line.heard
            assert before
            hole = proxy.timeout()
            for _ in range(3):
                task = attend(line.run(ECHO, b"k", b"1"), "ask")
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
            await asyncio.sleep(0.15)
            hole.remove()
            assert await line.run(ECHO, b"k", b"2") == b"2"  # on a new one: the old one is still in the hole
            line.drop()
            await client.aclose()

    play(main())


def test_a_late_answer_is_a_reason_for_a_new_connection_only_without_a_sign_of_life(redis_server: RedisServer) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url)
        line = Line(client, 1.0)
        connections = (await client.info("stats"))["total_connections_received"]
        heard = line.heard
        await line.run(ECHO, b"k", b"1")
        line.doubt(heard)
        await line.run(ECHO, b"k", b"1")
        assert (await client.info("stats"))["total_connections_received"] - connections == 1
        line.doubt(line.heard)
        await line.run(ECHO, b"k", b"1")
        assert (await client.info("stats"))["total_connections_received"] - connections == 2
        line.drop()
        await client.aclose()

    play(main())


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$1\r\n1\r\n:2\r\n", b"*99999999999\r\n"])
def test_what_is_no_answer_ends_the_connection(noise: bytes) -> None:
    async def main() -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while data := await reader.read(65536):
                writer.write(noise if b"EVAL" in data else b"+OK\r\n" * data.count(b"\r\nCLIENT\r\n"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client: Any = Redis(port=server.sockets[0].getsockname()[1], protocol=2)
        line = Line(client, 1.0)
        for turn in range(2):
            try:
                assert await line.run(ECHO, b"k") == b"1"  # and then one that nobody has asked for
            except failures():
                assert not noise.startswith(b"$")
            assert connections == turn + 1
        line.drop()
        await client.aclose()
        server.close()

    play(main())


@pytest.mark.parametrize(
    ("text", "is_one_of"),
    [
        ("NOSCRIPT No matching script.", (unknown_script(),)),
        ("READONLY You can't write against a read only replica.", (read_only(),)),
        ("NOPERM this user has no permissions", forbidden()),
        ("NOAUTH Authentication required.", forbidden()),
        ("OOM command not allowed when used memory > 'maxmemory'.", failures()),
        ("LOADING Redis is loading the dataset in memory", failures()),
        ("ERR something", failures()),
        ("", failures()),
    ],
)
def test_what_redis_refuses_is_known_as_the_client_would_say_it(
    text: str, is_one_of: tuple[type[Exception], ...]
) -> None:
    assert isinstance(refusal(text), is_one_of)
    assert isinstance(refusal(text), failures())
