"""Reading history: many channels in one order and as of one moment, and what of it is missing after all."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sojourn.hub.engine import Publish
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.reading import Read, read_history, settled
from sojourn.hub.rules import Channel, History
from sojourn.hub.topic import Lost, Topic
from sojourn.testing.hub_recorder import Recorder
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, in_a_loop

RULES = {
    "a": History(size=100),
    "b": History(size=3),
    "c": History(),
    "d": History(size=2, mode="latest"),
}


async def filled(seed: int) -> tuple[Engine, list[tuple[str, int]]]:
    """An engine, and what was published there."""
    chance, engine = random.Random(seed), Engine()
    await engine.start(Recorder())
    sent = []
    for number in range(40):
        name = chance.choice("abcd")
        made = await engine.publish(Publish(name, Kind.TEXT, b"", RULES[name], str(number % 3) if name == "d" else ""))
        sent.append((name, made.cursor.seq))
    return engine, sent


def topics(engine: Engine, **places: Any) -> dict[Topic, Cursor | None]:
    """Channels, each with the number after which it is read."""
    found: dict[Topic, Cursor | None] = {}
    for name, since in places.items():
        place = Cursor(engine.epoch, since) if isinstance(since, int) else since
        found[Topic(name, Channel(name, RULES[name]), {}, Cursor(engine.epoch, 0))] = place
    return found


@pytest.mark.parametrize("most", [1, 2, 5, 1000])
@pytest.mark.parametrize("seed", range(5))
@in_a_loop
async def test_whatever_the_size_of_pages_all_is_read_and_what_is_missing_is_known(most: int, seed: int) -> None:
    engine, sent = await filled(seed)
    engine.most = most
    chance = random.Random(seed)
    after = {name: chance.randint(0, engine.seq) for name in "abcd"}
    for since in (after, {**after, "d": None}, {**after, "a": engine.seq + 100}, {**after, "b": Cursor("other", 3)}):
        place, found = await read_history(engine, topics(engine, **since))
        assert place == Cursor(engine.epoch, engine.seq)
        for topic, read in found.items():
            at = since[topic.channel]
            known = isinstance(at, int) and at <= engine.seq
            numbers = [seq for name, seq in sent if name == topic.channel]
            kept = numbers[len(numbers) - min(topic.rule.history.size, len(numbers)) :]
            if topic.channel != "d":
                assert [each.seq for each in read.publications] == [seq for seq in kept if not known or seq > at]
                gone = [seq for seq in numbers if seq not in kept and (not known or seq > at)]
                assert read.lost == (gone[-1] if gone else None if known else 0)
    await engine.aclose()


@in_a_loop
async def test_what_goes_between_two_pages_is_before_what_is_given() -> None:
    engine = Engine()
    await engine.start(Recorder())
    engine.most = 2

    async def publish(count: int) -> None:
        for _ in range(count):
            await engine.publish(Publish("b", Kind.TEXT, b"", RULES["b"]))

    async def meanwhile() -> None:
        if len(engine.asked) == 1:
            await publish(4)

    await publish(3)
    engine.answering = meanwhile
    place, found = await read_history(engine, topics(engine, b=0))
    ((_, read),) = found.items()
    assert (place.seq, [each.seq for each in read.publications], read.lost) == (7, [5, 6, 7], 4)
    await engine.aclose()


def made(*numbers: int, prev: int) -> list[Publication]:
    """Publications that follow one another."""
    found = []
    for seq in numbers:
        found.append(Publication("c", "e", seq, prev, Kind.TEXT, b""))
        prev = seq
    return found


LOST = Lost("c", Cursor("e", 3), Cursor("e", 3))


@pytest.mark.parametrize(
    ("kept", "lost", "live", "flows", "given", "missing"),
    [
        pytest.param([], 8, [], False, [], 8, id="nothing has come"),
        pytest.param([], 8, made(6, 8, prev=5), False, [6, 8], None, id="all has come"),
        pytest.param([], 8, [*made(6, prev=5), LOST, *made(8, prev=6)], False, [6, 8], None, id="and a notice"),
        pytest.param([], 8, made(8, prev=6), False, [8], 6, id="the last has come"),
        pytest.param([], 8, made(6, prev=5), False, [], 8, id="the first has come"),
        pytest.param(made(9, 10, prev=8), 8, made(6, 8, prev=5), False, [6, 8, 9, 10], None, id="before what is kept"),
        pytest.param(made(9, 10, prev=8), 8, made(6, prev=5), False, [9, 10], 8, id="a hole before what is kept"),
        pytest.param(made(9, 10, prev=8), 8, made(8, 9, 10, prev=6), False, [8, 9, 10], 6, id="part of it is kept too"),
        pytest.param([], 12, [], False, [], 12, id="beyond the cut, and nobody knows"),
        pytest.param([], 12, made(12, prev=5), False, [], None, id="beyond the cut, after the place"),
        pytest.param([], 12, made(12, prev=7), False, [], 7, id="beyond the cut, after something else"),
        pytest.param([], 12, made(9, prev=7), True, [9], 7, id="beyond the cut it flows"),
        pytest.param([], 12, made(9, prev=5), True, [9], None, id="beyond the cut it flows, and nothing is missing"),
        pytest.param([], 8, made(3, 5, 6, 8, prev=2), False, [6, 8], None, id="from before the place"),
    ],
)
def test_what_came_live_is_not_missing(
    kept: list[Publication], lost: int, live: list[Publication | Lost], flows: bool, given: list[int], missing: int
) -> None:
    read = settled(Read(kept, lost), Cursor("e", 5), live, Cursor("e", 10), flows=flows)
    assert ([each.seq for each in read.publications], read.lost) == (given, missing)
