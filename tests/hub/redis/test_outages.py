"""Connections that break or fall silent: found in time, made again, and never a silent hole."""

from __future__ import annotations

import asyncio
import time

import pytest

from sojourn.errors import DeadlineExceeded, EngineUnavailable
from sojourn.hub.engine import Publish, Published
from sojourn.hub.publication import Kind
from sojourn.hub.redis.engine import RedisEngine
from sojourn.hub.rules import History
from sojourn.scopes.deadline import deadline
from sojourn.testing import FaultProxy
from sojourn.testing.hub_recorder import Node, Recorder
from tests.databases import RedisServer
from tests.hub.redis.nodes import fresh, looking, pause, play, running

KEPT = History(size=100, ttl=60)


def through(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.address[1]}/0"


def test_a_peer_that_has_vanished_is_found_by_a_ping_without_answer(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with (
            FaultProxy(("127.0.0.1", redis_server.port)) as proxy,
            running(through(proxy), prefix) as node,
            running(redis_server.url, prefix) as other,
        ):
            await node.engine.subscribe("c")
            await other.engine.subscribe("c")
            await other.publish("c", b"before")
            await node.seen.until(lambda: len(node.seen.of("c")) == 1, "delivered")
            silence, began = proxy.timeout(), time.monotonic()
            await node.seen.until(lambda: node.seen.outages != [], "away")
            assert time.monotonic() - began < 1.5
            assert isinstance(node.seen.outages[0], Exception)
            assert not node.engine.available
            with pytest.raises(EngineUnavailable):
                await node.publish("c")
            missed = (await other.publish("c", b"meanwhile")).cursor
            assert node.seen.losses == []
            silence.remove()
            await node.seen.until(lambda: node.seen.losses == [None], "lost, when all is subscribed again")
            assert node.seen.outages[-1] is None
            page = await node.read("c", node.seen.of("c")[0].cursor, 10, KEPT)
            assert [each.cursor for each in page.publications] == [missed]
            assert not page.gap
            await other.publish("c", b"after")
            await node.seen.until(lambda: len(node.seen.of("c")) == 2, "delivered again")
            assert other.seen.outages == []

    play(main())


def test_a_subscription_that_redis_has_ended_is_made_again_and_counts_as_a_loss(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with looking(redis_server.url) as client, running(redis_server.url, fresh()) as node:
            await node.engine.subscribe("c")
            for round_ in range(1, 4):
                await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await node.seen.until(lambda count=round_: len(node.seen.losses) == count, "lost")  # type: ignore[misc]
                await node.publish("c")
                await node.seen.until(lambda count=round_: len(node.seen.of("c")) == count, "delivered")  # type: ignore[misc]
            assert [outage is None for outage in node.seen.outages] == [False, True] * 3

    play(main())


def test_a_publication_whose_answer_was_lost_is_sent_again_and_published_once(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with (
            FaultProxy(("127.0.0.1", redis_server.port)) as proxy,
            running(through(proxy), prefix, timeout=3.0, ping=60.0) as node,
            running(redis_server.url, prefix) as other,
        ):
            await other.engine.subscribe("c")
            await node.publish("c", b"0")
            for number in (1, 2, 3):
                swallowing = proxy.timeout(direction="down")
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(node.publish("c", b"%d" % number)) for _ in range(3)]
                    await other.seen.until(
                        lambda count=3 * number: len(other.seen.of("c")) == 1 + count,  # type: ignore[misc]
                        "published, without an answer",
                    )
                    swallowing.remove()
                    proxy.cut()
                await node.seen.until(lambda: node.engine.available, "available again")
                got = other.seen.of("c")[-3:]
                assert [task.result() for task in tasks] == [Published(each.cursor) for each in got]
            assert [each.data for each in other.seen.of("c")] == [b"0", *[b"%d" % (i // 3) for i in range(3, 12)]]
            assert not other.seen.holes("c", 0)

    play(main())


def test_a_redis_that_does_not_answer_bounds_every_call(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with (
            FaultProxy(("127.0.0.1", redis_server.port)) as proxy,
            running(through(proxy), fresh(), timeout=0.2, ping=60.0, pong_within=60.0) as node,
        ):
            await node.engine.subscribe("c")
            silence = proxy.timeout()
            calls = (
                node.publish("c"), node.all("c"), node.engine.position(), node.engine.tell(b"x"),
                node.engine.present("c", 1), node.engine.count("c"), node.engine.leave("c", ["m"]),
                node.engine.subscribe("d"),
            )  # fmt: skip
            began = time.monotonic()
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 1.5
            assert {type(error) for error in found} == {EngineUnavailable}, found
            with pytest.raises(DeadlineExceeded) as caught:
                async with deadline(0.05, "mine"):
                    await node.all("c")
            assert caught.value.deadline == "mine"
            silence.remove()

    play(main())


def test_a_redis_that_is_not_there_is_tried_again_until_it_is() -> None:
    async def main(server: RedisServer) -> None:
        async with running(server.url, fresh()) as node:
            assert [type(outage) for outage in node.seen.outages] != []
            assert not node.engine.available
            with pytest.raises(EngineUnavailable, match="Error 111"):
                await node.engine.subscribe("c")
            await asyncio.to_thread(server.start)
            await node.seen.until(lambda: node.engine.available, "available")
            assert node.seen.outages[-1] is None
            assert len(node.seen.outages) == 2  # told once, however often it was tried
            assert node.seen.losses == []  # nothing was subscribed before

    server = RedisServer()
    try:
        play(main(server))
    finally:
        server.stop()


def test_connections_that_were_reset_in_their_sleep_are_replaced(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with (
            FaultProxy(("127.0.0.1", redis_server.port)) as proxy,
            running(through(proxy), fresh(), timeout=3.0, ping=60.0) as node,
        ):
            await node.engine.subscribe("c")
            answered = 0
            for turns in range(7):
                await node.seen.until(lambda: node.engine.available, "available again")
                await asyncio.gather(*(node.all("c") for _ in range(5)), return_exceptions=True)
                proxy.cut()
                for _ in range(turns):
                    await asyncio.sleep(0)
                calls = (node.publish("c"), node.all("c"), node.engine.position(), node.engine.subscribe(f"d{turns}"))
                found = await asyncio.gather(*calls, return_exceptions=True)
                answered += sum(not isinstance(each, BaseException) for each in found)
                assert [each for each in found if isinstance(each, BaseException)] == [
                    each for each in found if isinstance(each, EngineUnavailable)
                ]
            assert answered > 0

    play(main())


def test_a_caller_that_is_cancelled_takes_nobody_with_it(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with running(redis_server.url, fresh()) as node:
            loop = asyncio.get_running_loop()
            await node.engine.subscribe("c")
            for turns in range(8):
                calls = [loop.create_task(node.publish("c", b"%d" % index)) for index in range(3)]
                calls += [loop.create_task(node.engine.subscribe(f"d{turns}")) for _ in range(2)]  # type: ignore[arg-type]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in (calls[1], calls[3]):
                    call.cancel()
                await asyncio.wait(calls)
                assert [call.cancelled() or call.exception() is None for call in calls] == [True] * 5
                assert not calls[4].cancelled()
                await node.publish(f"d{turns}")
                await node.seen.until(lambda name=f"d{turns}": node.seen.of(name) != [], "delivered")  # type: ignore[misc]
            assert not node.seen.holes("c", 0)

    play(main())


def test_an_engine_that_was_closed_leaves_no_task_and_no_connection(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with looking(redis_server.url) as client:
            before = int((await client.info("clients"))["connected_clients"])
            tasks = asyncio.all_tasks()
            for steps in (0, 1, 3, 5, 8, 12, 20, 40):
                engine = RedisEngine(redis_server.url, prefix=fresh())
                starting = asyncio.get_running_loop().create_task(engine.start(Recorder()))
                for _ in range(steps):
                    await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait([starting])
                await engine.aclose()
            async with running(redis_server.url, fresh()) as node:
                pending = asyncio.get_running_loop().create_task(node.publish("c"))
                await asyncio.sleep(0)
                await node.engine.aclose()
                await asyncio.wait([pending])
                assert isinstance(pending.exception(), EngineUnavailable)
            assert asyncio.all_tasks() == tasks
            limit = time.monotonic() + 2
            while int((await client.info("clients"))["connected_clients"]) > before:
                assert time.monotonic() < limit, "connections are left"
                await pause(0.01)

    play(main())


def test_as_many_as_may_wait_and_no_more(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("sojourn.hub.redis.publisher._WAITING", 5)
        async with running(redis_server.url, fresh()) as node:
            found = await asyncio.gather(*(node.publish("c") for _ in range(8)), return_exceptions=True)
            assert [isinstance(each, EngineUnavailable) for each in found] == [False] * 5 + [True] * 3
            await node.publish("c")
            with pytest.raises(ValueError, match="surrogates"):
                await node.engine.publish(Publish("c", Kind.TEXT, b"", KEPT, "", "\ud800"))

    play(main())


def test_many_channels_are_subscribed_by_few_commands(redis_server: RedisServer) -> None:
    async def main(node: Node) -> None:
        async with looking(redis_server.url) as client:
            before = (await client.info("commandstats"))["cmdstat_subscribe"]["calls"]
            await asyncio.gather(*(node.engine.subscribe(f"c{index}") for index in range(1000)))
            assert (await client.info("commandstats"))["cmdstat_subscribe"]["calls"] - before < 20
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await node.seen.until(lambda: node.seen.losses != [], "lost")
            await asyncio.gather(*(node.publish(f"c{index}") for index in range(1000)))
            await node.seen.until(lambda: len(node.seen.publications) == 1000, "all are subscribed again")

    async def whole() -> None:
        async with running(redis_server.url, fresh(), timeout=5.0, pong_within=5.0) as node:
            await main(node)

    play(whole())
