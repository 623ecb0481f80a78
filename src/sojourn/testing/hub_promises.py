"""What the contract of :mod:`sojourn.hub.engine` promises of publications, each as a check of engines that run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sojourn.hub.engine import Publish, Wanted
from sojourn.hub.publication import Kind
from sojourn.hub.rules import History
from sojourn.scopes.work import attend, together
from sojourn.testing.hub_recorder import Node, expect
from sojourn.wire.hub.cursor import Cursor

__all__ = ["PUBLISHING", "Promise"]

Promise = Callable[[Sequence[Node]], Awaitable[None]]

_KEPT: Final = History(size=100, ttl=60)
_THREE: Final = History(size=3, ttl=60)
_SHORT: Final = History(size=100, ttl=0.4)
_NONE: Final = History()
_LATEST: Final = History(size=3, ttl=60, mode="latest")
_ALL: Final = {"a": _THREE, "b": _KEPT, "c": _KEPT, "d": _NONE}


async def numbers_only_grow_over_all_channels_and_nodes(nodes: Sequence[Node]) -> None:
    found = [(await node.publish(f"c{turn % 2}")).cursor for turn in range(6) for node in nodes]
    numbers = [cursor.seq for cursor in found]
    expect(numbers == sorted(set(numbers)) and numbers[0] > 0, f"numbers do not grow: {numbers}")
    expect(len({cursor.epoch for cursor in found}) == 1, "the epoch has changed while the store lived")
    for node in nodes:
        position = await node.engine.position()
        expect(position >= found[-1], f"the position {position} is before the last publication {found[-1]}")


async def what_is_published_after_subscribe_is_delivered_in_order_to_all(nodes: Sequence[Node]) -> None:
    starts = [await node.engine.subscribe("c") for node in nodes]
    sent = [(await nodes[index % len(nodes)].publish("c", b"%d" % index)).cursor.seq for index in range(40)]
    for node, start in zip(nodes, starts, strict=True):
        await node.seen.until(lambda seen=node.seen: len(seen.of("c")) >= 40, "not all was delivered")  # type: ignore[misc]
        got = node.seen.of("c")
        expect([each.seq for each in got] == sent, "delivered otherwise than published")
        expect([each.data for each in got] == [b"%d" % index for index in range(40)], "the payloads are others")
        expect(not node.seen.holes("c", start.seq), f"prev tells of a hole: {node.seen.holes('c', start.seq)}")
        expect({each.epoch for each in got} == {start.epoch}, "a publication of another epoch")


async def publications_made_at_the_same_time_have_one_order(nodes: Sequence[Node]) -> None:
    starts = [[await node.engine.subscribe(channel) for channel in "ab"] for node in nodes]
    count = 100

    async def some(node: Node, channel: str) -> None:
        for _ in range(count):
            await node.publish(channel)

    await together([some(node, channel) for node in nodes for channel in "ab"], "contract")
    for node, positions in zip(nodes, starts, strict=True):
        for channel, start in zip("ab", positions, strict=True):
            await node.seen.until(
                lambda seen=node.seen, name=channel: len(seen.of(name)) >= count * len(nodes),  # type: ignore[misc]
                "not all was delivered",
            )
            expect(len(node.seen.of(channel)) == count * len(nodes), "something was delivered twice")
            expect(not node.seen.holes(channel, start.seq), "not in order, or prev tells of a hole")
        numbers = [each.seq for each in node.seen.publications]
        expect(numbers == sorted(numbers), "not in order over all channels")
    orders = {tuple(each.seq for each in node.seen.of("a")) for node in nodes}
    expect(len(orders) == 1, "nodes have seen different orders")


async def what_is_published_stays_as_it_was(nodes: Sequence[Node]) -> None:
    for node in nodes:
        await node.engine.subscribe("kinds")
    payloads = [(Kind.JSON, b'{"a": 1}'), (Kind.TEXT, "ü".encode()), (Kind.BINARY, bytes(range(256))), (Kind.TEXT, b"")]
    payloads.append((Kind.BINARY, b"\x00\xff" * 100_000))
    for index, (kind, data) in enumerate(payloads):
        await nodes[0].engine.publish(Publish("kinds", kind, data, _KEPT, f"k{index}"))
    wanted = [(kind, data, f"k{index}") for index, (kind, data) in enumerate(payloads)]
    for node in nodes:
        await node.seen.until(lambda seen=node.seen: len(seen.of("kinds")) == 5, "not all was delivered")  # type: ignore[misc]
        expect([(each.kind, each.data, each.key) for each in node.seen.of("kinds")] == wanted, "delivered otherwise")
        kept = (await node.all("kinds")).publications
        expect([(each.kind, each.data, each.key) for each in kept] == wanted, "kept otherwise")
        expect([each.cursor for each in kept] == [each.cursor for each in node.seen.of("kinds")], "other numbers")


async def only_what_is_subscribed_is_delivered(nodes: Sequence[Node]) -> None:
    listener = nodes[-1]
    await listener.engine.subscribe("on")
    await listener.engine.subscribe("off")
    await nodes[0].publish("off")
    await listener.seen.until(lambda: len(listener.seen.of("off")) == 1, "not delivered before unsubscribe")
    await listener.engine.unsubscribe("off")
    await nodes[0].publish("off")
    await nodes[0].publish("never")
    await nodes[0].publish("on")
    await listener.seen.until(lambda: len(listener.seen.of("on")) == 1, "not delivered")
    expect(len(listener.seen.of("off")) == 1, "delivered after unsubscribe has returned")
    expect(not listener.seen.of("never"), "delivered though it was not subscribed")
    again = await listener.engine.subscribe("off")
    await nodes[0].publish("off")
    await listener.seen.until(lambda: len(listener.seen.of("off")) == 2, "not delivered after another subscribe")
    expect(listener.seen.of("off")[-1].seq > again.seq, "before the place that subscribe has told")
    expect(
        listener.seen.of("off")[-1].prev <= again.seq, "something after the place that subscribe has told is missing"
    )


async def a_page_is_what_came_after_and_says_where_to_go_on(nodes: Sequence[Node]) -> None:
    sent = []
    for index in range(6):
        sent.append((await nodes[0].publish("c", b"%d" % index)).cursor)
        await nodes[0].publish("other")
    for node in nodes:
        page = await node.read("c", sent[1], 2, _KEPT)
        expect([each.cursor for each in page.publications] == sent[2:4], "not what came after")
        expect(page.more and not page.gap and page.position == sent[3], f"not the first of more pages: {page}")
        page = await node.read("c", page.position, 2, _KEPT)
        expect([each.cursor for each in page.publications] == sent[4:], "not the rest")
        expect(not page.more and not page.gap and page.position >= sent[5], f"not the last page: {page}")
        page = await node.read("c", page.position, 2, _KEPT)
        expect(not page.publications and not page.more and not page.gap, f"not an empty page: {page}")
        page = await node.read("c", None, 4, _KEPT)
        expect([each.cursor for each in page.publications] == sent[:4] and page.more, "not the first of all")
        page = await node.read("unknown", page.position, 4, _KEPT)
        expect(not page.publications and not page.gap and not page.more, f"not an empty page: {page}")


async def a_gap_is_told_exactly_when_something_is_missing(nodes: Sequence[Node]) -> None:
    for channel, rule, kept in (("sized", _THREE, 3), ("none", _NONE, 0)):
        before = await nodes[0].engine.position()
        places = [before, *[(await nodes[0].publish(channel, rule=rule)).cursor for _ in range(5)]]
        for node in nodes:
            for index, since in enumerate(places):
                page = await node.read(channel, since, 100, rule)
                wanted = places[max(index + 1, 6 - kept) :]
                expect([each.cursor for each in page.publications] == wanted, f"{channel}: kept otherwise")
                expect(page.gap == (5 - index > kept), f"{channel}: gap={page.gap} after {index} of 5, {kept} kept")
            expect(not (await node.read(channel, None, 100, rule)).gap, "a gap before the first of all")


async def a_gap_says_up_to_where_something_is_missing(nodes: Sequence[Node]) -> None:
    start = await nodes[0].engine.position()
    sent: dict[str, list[int]] = {"sized": [], "none": []}
    for _ in range(5):
        await nodes[0].publish("other")
        for channel, rule in (("sized", _THREE), ("none", _NONE)):
            sent[channel].append((await nodes[0].publish(channel, rule=rule)).cursor.seq)
    await nodes[0].publish("other")
    wanted = {"sized": sent["sized"][1], "none": sent["none"][4]}
    for node in nodes:
        for channel, rule in (("sized", _THREE), ("none", _NONE)):
            page = await node.read(channel, start, 100, rule)
            expect(page.lost == {channel: wanted[channel]}, f"lost: {page.lost}, but the last was {wanted[channel]}")
            page = await node.read(channel, start, 1, rule)
            expect(page.lost == {channel: wanted[channel]}, f"lost: {page.lost} in a part of it")
            page = await node.read(channel, start._replace(seq=wanted[channel]), 100, rule)
            expect(not page.lost, f"{channel} has lost nothing after {wanted[channel]}: {page.lost}")


async def channels_are_read_together_in_one_order_each_after_its_place(nodes: Sequence[Node]) -> None:
    start = await nodes[0].engine.position()
    sent = [((await nodes[0].publish(name, rule=_ALL[name])).cursor, name) for name in "abcaabbcbaccab"]
    places: dict[str, Cursor | None] = {"a": start, "b": sent[6][0], "c": None}
    found = [(cursor, name) for cursor, name in sent if cursor > (places[name] or start)]
    found = [each for each in found if each[1] != "a" or each[0] > sent[3][0]]  # of a three are kept
    for node in nodes:
        whole = await node.engine.history([Wanted(name, places[name], _ALL[name]) for name in "abc"], 100)
        expect([(each.cursor, each.channel) for each in whole.publications] == found, "not what came after, in order")
        expect(not whole.more and whole.position >= sent[-1][0], f"not up to the present: {whole.position}")
        expect(whole.lost == {"a": sent[3][0].seq}, f"lost: {whole.lost}")
        for limit in (1, 2, 3, 5):
            got, at = [], dict(places)
            while True:
                page = await node.engine.history([Wanted(name, at[name], _ALL[name]) for name in "abc"], limit)
                got += [(each.cursor, each.channel) for each in page.publications]
                if not page.more:
                    break
                expect(len(page.publications) == limit, f"{len(page.publications)} though there are more than {limit}")
                expect(page.position == got[-1][0], f"it goes on at {page.position}, and is at {got[-1]}")
                at = {name: page.position if place is None else max(place, page.position) for name, place in at.items()}
            expect(got == found, f"in parts of {limit} it is not the same")


async def channels_that_are_read_together_are_read_at_one_moment(nodes: Sequence[Node]) -> None:
    sent: list[tuple[int, str]] = []
    running = True

    async def go_on() -> None:
        while running:
            for name in "abd":
                sent.append(((await nodes[0].publish(name, rule=_ALL[name])).cursor.seq, name))
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)

    publisher = attend(go_on(), "contract")
    pages = []
    try:
        node = nodes[-1]
        for turn in range(40):
            expect(not publisher.done(), "publishing has failed")
            since = await node.engine.position()
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.002)
            names = "abd"[turn % 3 :] + "abd"[: turn % 3]
            page = await node.engine.history([Wanted(name, since, _ALL[name]) for name in names], 10_000)
            pages.append((since.seq, page))
    finally:
        running = False
        await asyncio.wait([publisher])
    for start, page in pages:
        end, got = page.position.seq, [(each.seq, each.channel) for each in page.publications]
        expect(all(start < seq <= end for seq, _ in got), "something is behind the position of the page")
        for name in "abd":
            missed = [seq for seq, channel in sent if channel == name and start < seq <= end]
            here = [seq for seq, channel in got if channel == name]
            kept = missed[len(missed) - min(len(missed), _ALL[name].size) :]
            expect(here == kept, f"{name} up to {end} is {kept}, not {here}: it was read at another moment")
            lost = missed[len(missed) - len(kept) - 1] if len(missed) > len(kept) else None
            expect(page.lost.get(name) == lost, f"lost of {name}: {page.lost.get(name)}, not {lost}")


async def what_is_older_than_its_time_is_gone_and_is_a_gap(nodes: Sequence[Node]) -> None:
    before = await nodes[0].engine.position()
    old = (await nodes[0].publish("c", rule=_SHORT)).cursor
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.5)
    fresh = (await nodes[0].publish("c", rule=_SHORT)).cursor
    for node in nodes:
        page = await node.read("c", before, 100, _SHORT)
        expect([each.cursor for each in page.publications] == [fresh] and page.gap, f"what is too old counts: {page}")
        page = await node.read("c", old, 100, _SHORT)
        expect([each.cursor for each in page.publications] == [fresh] and not page.gap, f"a gap too many: {page}")


async def another_epoch_or_a_place_ahead_is_a_gap_and_gets_all(nodes: Sequence[Node]) -> None:
    sent = [(await nodes[0].publish("c")).cursor for _ in range(2)]
    for node in nodes:
        for since in (Cursor("0another0", sent[0].seq), Cursor(sent[1].epoch, sent[1].seq + 1_000_000)):
            page = await node.read("c", since, 100, _KEPT)
            expect([each.cursor for each in page.publications] == sent, f"since {since}: not all that is kept: {page}")
            expect(page.gap, f"since {since}: no gap is told")
            expect((await node.read("empty", since, 100, _KEPT)).gap, f"since {since}: no gap in an empty one")


async def the_latest_of_each_key_is_kept_and_has_no_gaps(nodes: Sequence[Node]) -> None:
    before = await nodes[0].engine.position()
    sent = [(await nodes[0].publish("c", key.encode(), rule=_LATEST, key=key)).cursor for key in "xyxzw"]
    other = Cursor("0another0", 1)
    for node in nodes:
        for since in (before, None, other):
            page = await node.read("c", since, 100, _LATEST)
            expect(
                [each.key for each in page.publications] == ["x", "z", "w"], f"since {since}: not the latest: {page}"
            )
            expect([each.cursor for each in page.publications] == sent[2:], f"since {since}: other numbers: {page}")
            expect(not page.gap, f"since {since}: the latest values have no gaps")
        page = await node.read("c", sent[3], 100, _LATEST)
        expect([each.key for each in page.publications] == ["w"] and not page.gap, f"not what came after: {page}")
        page = await node.read("c", None, 2, _LATEST)
        expect([each.key for each in page.publications] == ["x", "z"] and page.more, f"not the first of all: {page}")
        expect((await node.read("empty", other, 100, _LATEST)).gap, "an empty channel, after another epoch")


async def what_has_an_id_is_published_once(nodes: Sequence[Node]) -> None:
    await nodes[-1].engine.subscribe("c")
    first = await nodes[0].publish("c", b"first", name="id")
    expect(not first.repeated, "the first one is no repetition")
    for node in nodes:
        again = await node.publish("c", b"again", name="id")
        expect(again.repeated and again.cursor == first.cursor, f"published again: {again}")
    other = await nodes[0].publish("d", name="id")
    expect(not other.repeated, "an id counts within its channel")
    made = await together([node.publish("c", name="race") for node in nodes for _ in range(5)], "contract")
    expect(len({each.cursor for each in made}) == 1, "published more than once at the same time")
    expect([each.repeated for each in made].count(False) == 1, "more or less than one is the first")
    await nodes[0].publish("c", b"last")
    seen = nodes[-1].seen
    await seen.until(lambda: bool(seen.of("c")) and seen.of("c")[-1].data == b"last", "not delivered")
    expect([each.data for each in seen.of("c")] == [b"first", b"x", b"last"], "a repetition was delivered")
    expect(len((await nodes[0].all("c")).publications) == 3, "a repetition is kept")


async def who_resumes_while_others_publish_misses_nothing(nodes: Sequence[Node]) -> None:
    sent: list[int] = []
    running = True

    async def go_on() -> None:
        while running:
            sent.append((await nodes[0].publish("c", rule=History(size=10_000, ttl=60))).cursor.seq)
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)

    publisher = attend(go_on(), "contract")
    try:
        node = nodes[-1]
        for _ in range(10):
            expect(not publisher.done(), "publishing has failed")
            since = await node.engine.position()
            live = len(node.seen.publications)
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.005)
            position = await node.engine.subscribe("c")
            page = await node.read("c", since, 10_000, History(size=10_000, ttl=60))
            enough = page.position.seq
            await node.seen.until(
                lambda limit=enough: bool(node.seen.publications) and node.seen.publications[-1].seq > limit,  # type: ignore[misc]
                "nothing is delivered while others publish",
            )
            await node.engine.unsubscribe("c")
            got = [each.seq for each in node.seen.publications[live:]]
            both = sorted({each.seq for each in page.publications} | set(got))
            wanted = [seq for seq in sent if since.seq < seq <= both[-1]]
            expect(not page.gap, "a gap though everything is kept")
            expect(got == sorted(set(got)) and got[0] > position.seq - 1, "delivered twice, or not in order")
            expect([seq for seq in both if seq in set(wanted)] == wanted, "something is missing")
    finally:
        running = False
        await asyncio.wait([publisher])


#: All of them, by what they promise, with the nodes that each needs.
PUBLISHING: Final[dict[str, tuple[Promise, int]]] = {
    promise.__name__: (promise, 1)
    for promise in (
        numbers_only_grow_over_all_channels_and_nodes,
        what_is_published_after_subscribe_is_delivered_in_order_to_all,
        publications_made_at_the_same_time_have_one_order,
        what_is_published_stays_as_it_was,
        only_what_is_subscribed_is_delivered,
        a_page_is_what_came_after_and_says_where_to_go_on,
        a_gap_is_told_exactly_when_something_is_missing,
        a_gap_says_up_to_where_something_is_missing,
        channels_are_read_together_in_one_order_each_after_its_place,
        channels_that_are_read_together_are_read_at_one_moment,
        what_is_older_than_its_time_is_gone_and_is_a_gap,
        another_epoch_or_a_place_ahead_is_a_gap_and_gets_all,
        the_latest_of_each_key_is_kept_and_has_no_gaps,
        what_has_an_id_is_published_once,
        who_resumes_while_others_publish_misses_nothing,
    )
}
