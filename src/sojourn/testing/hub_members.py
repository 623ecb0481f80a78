"""What the contract of :mod:`sojourn.hub.engine` promises of members, of words between nodes, and of the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sojourn.clock import SystemClock
from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Present
from sojourn.scopes.work import attend
from sojourn.testing import hub_recorder
from sojourn.testing.hub_promises import Promise
from sojourn.testing.hub_recorder import Node, expect

__all__ = ["MEMBERS"]

_TTL: Final = 0.4


def _member(name: str, user: str = "") -> Present:
    return Present(name, user, "normal", {"name": name})


async def _soon(right: Callable[[], Awaitable[bool]], text: str) -> None:
    """Ask until it is so."""
    clock = SystemClock()
    limit = clock.monotonic() + hub_recorder.PATIENCE
    while not await right():
        expect(clock.monotonic() < limit, text)
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.02)


async def who_is_present_is_seen_from_all_nodes(nodes: Sequence[Node]) -> None:
    wanted = {}
    for index, node in enumerate(nodes):
        mine = [_member(f"a{index}", "ada"), _member(f"b{index}", f"bob{index}"), _member(f"n{index}")]
        await node.engine.enter("c", mine, 60)
        wanted.update({present.member: present for present in mine})
    for node in nodes:
        found = await node.engine.present("c", 100)
        expect({present.member: present for present in found} == wanted, f"not who is there: {found}")
        expect(await node.engine.count("c") == (3 * len(nodes), 1 + len(nodes)), "counted otherwise")
        expect(len(await node.engine.present("c", 2)) == 2, "more than the limit")
        expect(await node.engine.count("empty") == (0, 0), "somebody is in an empty channel")
        expect(not await node.engine.present("empty", 10), "somebody is in an empty channel")
    suspect = _member("a0", "ada")._replace(state="suspect")
    await nodes[0].engine.enter("c", [suspect], 60)
    await nodes[0].engine.leave("c", ["b0", "unknown"])
    for node in nodes:
        now = {present.member: present for present in await node.engine.present("c", 100)}
        expect(now.get("a0") == suspect, "a change is not seen")
        expect("b0" not in now, "who has left is seen")
        expect(await node.engine.count("c") == (3 * len(nodes) - 1, len(nodes)), "counted otherwise after a leave")


async def who_is_refreshed_stays_and_who_is_not_is_gone_after_the_ttl(nodes: Sequence[Node]) -> None:
    engine, clock = nodes[0].engine, SystemClock()
    await engine.enter("c", [_member("stays"), _member("goes")], _TTL)
    limit = clock.monotonic() + 2.5 * _TTL
    while clock.monotonic() < limit:
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=_TTL / 4)
        await engine.refresh({"c": ["stays"]}, _TTL)

    async def right() -> bool:
        return [[present.member for present in await node.engine.present("c", 10)] for node in nodes] == [
            ["stays"] for _ in nodes
        ]

    await _soon(right, "who was not refreshed is still there, or who was is gone")
    expect(await nodes[-1].engine.count("c") == (1, 0), "counted otherwise")


async def other_nodes_are_told_who_came_changed_and_left(nodes: Sequence[Node]) -> None:
    one, two = nodes[0], nodes[1]
    await two.engine.subscribe("c")
    await one.engine.subscribe("c")
    ada, bob = _member("m1", "ada"), _member("m2", "bob")
    await one.engine.enter("c", [ada, bob], 60)
    await one.engine.enter("other", [ada], 60)
    suspect = bob._replace(state="suspect")
    await one.engine.enter("c", [suspect], 60)
    await one.engine.leave("c", ["m1"])
    came: dict[str, Present] = {}
    left: set[str] = set()

    def right() -> bool:
        came.clear()
        left.clear()
        for change in two.seen.changes:
            came.update({present.member: present for present in change.came})
            left.update(change.left)
        return came == {"m1": ada, "m2": suspect} and left == {"m1"}

    await two.seen.until(right, f"not who came and left: {two.seen.changes}")
    expect({change.channel for change in two.seen.changes} == {"c"}, "told of a channel that is not subscribed")
    expect(not one.seen.changes, "told of its own members")


async def members_of_a_node_that_is_gone_are_gone_after_the_ttl_and_it_is_told(nodes: Sequence[Node]) -> None:
    one, two = nodes[0], nodes[1]
    await one.engine.subscribe("c")
    await two.engine.enter("c", [_member("m1", "ada"), _member("m2")], _TTL)
    await one.engine.enter("c", [_member("own")], 60)

    def told(kind: str) -> set[str]:
        if kind == "left":
            return {member for change in one.seen.changes for member in change.left}
        return {present.member for change in one.seen.changes for present in change.came}

    await one.seen.until(lambda: told("came") == {"m1", "m2"}, "not told who came")
    await two.engine.aclose()
    await one.seen.until(lambda: told("left") == {"m1", "m2"}, "not told that the members of a node are gone")
    expect([present.member for present in await one.engine.present("c", 10)] == ["own"], "they are still there")


async def what_a_node_tells_is_told_to_the_others(nodes: Sequence[Node]) -> None:
    for index in range(3):
        await nodes[0].engine.tell(b"\x00word %d" % index)
    for node in nodes[1:]:
        await node.seen.until(lambda seen=node.seen: len(seen.words) == 3, "not all was told")  # type: ignore[misc]
        expect(node.seen.words == [b"\x00word 0", b"\x00word 1", b"\x00word 2"], "told otherwise")
    expect(not nodes[0].seen.words, "told to itself")


async def a_call_that_is_cancelled_harms_no_other(nodes: Sequence[Node]) -> None:
    node = nodes[0]
    await node.engine.subscribe("c")

    async def calls() -> None:
        for _ in range(3):
            await node.publish("c")
            await node.engine.subscribe("d")
            await node.all("c")
            await node.engine.enter("c", [_member("m")], 60)
            await node.engine.present("c", 10)
            await node.engine.unsubscribe("d")

    for steps in range(12):
        task = attend(calls(), "contract")
        for _ in range(steps):
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)
        task.cancel()
        await asyncio.wait([task])
        expect(task.cancelled() or task.exception() is None, f"cancelling has failed: {task}")
    last = (await node.publish("c", b"last")).cursor
    await node.seen.until(
        lambda: node.seen.of("c")[-1:] != [] and node.seen.of("c")[-1].cursor == last, "nothing is delivered any more"
    )
    expect(node.engine.available, "it is not available any more")


async def an_engine_that_has_ended_tells_nothing_and_does_nothing(nodes: Sequence[Node]) -> None:
    node = nodes[-1]
    await node.engine.subscribe("c")
    await node.publish("c")
    await node.engine.aclose()
    node.seen.closed = True
    await node.engine.aclose()  # again is harmless
    expect(not node.engine.available, "it is available after its end")
    for call in (node.publish("c"), node.all("c"), node.engine.position(), node.engine.subscribe("c")):
        try:
            await call
        except EngineUnavailable:
            continue
        expect(False, "it does something after its end")
    for other in nodes[:-1]:
        await other.publish("c")
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.05)
    expect(not node.seen.late, f"it told something after its end: {node.seen.late}")


#: All of them, by what they promise, with the nodes that each needs.
MEMBERS: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, needed)
    for promise, needed in (
        (who_is_present_is_seen_from_all_nodes, 1),
        (who_is_refreshed_stays_and_who_is_not_is_gone_after_the_ttl, 1),
        (other_nodes_are_told_who_came_changed_and_left, 2),
        (members_of_a_node_that_is_gone_are_gone_after_the_ttl_and_it_is_told, 2),
        (what_a_node_tells_is_told_to_the_others, 2),
        (a_call_that_is_cancelled_harms_no_other, 1),
        (an_engine_that_has_ended_tells_nothing_and_does_nothing, 1),
    )
}
