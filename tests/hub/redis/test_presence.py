"""Who is there, when nodes die, Redis forgets, and there are many."""

from __future__ import annotations

from sojourn.hub.engine import Present
from tests.databases import RedisServer
from tests.hub.redis.nodes import fresh, looking, pause, play, running


def test_a_user_is_counted_once_however_often_it_is_there(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with running(redis_server.url, fresh()) as node:
            await node.engine.enter("c", [Present("m1", "ada"), Present("m2", "ada"), Present("m3", "")], 60)
            assert await node.engine.count("c") == (3, 1)
            await node.engine.enter("c", [Present("m2", "bob:1"), Present("m2", "bob:1", "suspect")], 60)
            assert await node.engine.count("c") == (3, 2)
            await node.engine.leave("c", ["m1", "m1", "nobody"])
            assert await node.engine.count("c") == (2, 1)
            await node.engine.leave("c", ["m2", "m3"])
            assert await node.engine.count("c") == (0, 0)

    play(main())


def test_nothing_is_told_when_nothing_has_changed(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with running(redis_server.url, prefix) as node, running(redis_server.url, prefix) as other:
            await other.engine.subscribe("c")
            for _ in range(3):
                await node.engine.enter("c", [Present("m", "ada")], 60)
            await node.engine.leave("c", ["nobody"])
            await node.engine.refresh({"c": ["m"]}, 60)
            await node.engine.leave("c", ["m"])
            await other.seen.until(lambda: len(other.seen.changes) == 2, "came and left")
            assert [(len(change.came), change.left) for change in other.seen.changes] == [(1, []), (0, ["m"])]

    play(main())


def test_who_was_late_is_told_again_by_its_node_when_it_is_still_there(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with running(redis_server.url, prefix) as node, running(redis_server.url, prefix) as other:
            await node.engine.subscribe("c")
            await other.engine.subscribe("c")
            await node.engine.enter("c", [Present("m", "ada"), Present("n", "bob")], 0.1)
            await pause(0.15)  # its loop was busy, or it was cut off
            assert await other.engine.count("c") == (0, 0)
            await other.seen.until(lambda: len(other.seen.changes) == 2, "told that they are gone")
            await node.engine.refresh({"c": ["m"]}, 60)
            assert await other.engine.present("c", 10) == [Present("m", "ada")]
            await other.seen.until(lambda: len(other.seen.changes) == 3, "told that it is there")
            assert node.seen.changes == []  # of its own it knows better

    play(main())


def test_many_members_in_many_channels_take_few_scripts(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with looking(redis_server.url) as client, running(redis_server.url, fresh()) as node:
            await node.engine.enter("large", [Present(f"m{index}", f"u{index % 100}") for index in range(1200)], 60)
            for index in range(50):
                await node.engine.enter(f"small{index}", [Present("m0", "")], 60)
            before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
            present = {channel: list(members) for channel, members in node.engine._roll.mine.items()}  # type: ignore[attr-defined]
            await node.engine.refresh(present, 60)
            assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] - before <= 5
            assert await node.engine.count("large") == (1200, 100)
            assert len(await node.engine.present("large", 700)) == 700
            await node.engine.leave("large", [f"m{index}" for index in range(1200)])
            assert await node.engine.count("large") == (0, 0)

    play(main())


def test_a_store_that_nobody_uses_any_more_keeps_no_members(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            await node.engine.enter("c", [Present("m", "ada")], 0.05)
            names = [name for kind in "mtu" for name in await client.keys(f"{prefix}*:{kind}:c")]
            assert len(names) == 3
            assert all([0 < await client.pttl(name) <= 100 for name in names])

    play(main())
