"""Who hangs up, when, and after how long idle: counted by minute, kept for an hour, added up over workers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.config import Config, Timeouts
from sojourn.ending import REASONS, Ending, How, Phase
from sojourn.errors import ErrandError
from sojourn.events import ConnectionEnded
from sojourn.observe.endings import Endings, EofReport, merged
from sojourn.observe.endings.reading import Settings
from sojourn.observe.endings.report import CLASSES, report
from sojourn.observe.endings.tally import AGES, MINUTES, Tally
from sojourn.testing.server import MemoryServer
from tests.observe.log.samples import CONNECTION

START = 1_700_000_000.0  # twenty seconds into a minute
SETTINGS = Settings(75.0, 60.0, 20.0)
LEFT = Ending("keep_alive_closed_by_client", Phase.IDLE, How.FIN)

ends = st.builds(
    CONNECTION._replace,
    protocol=st.sampled_from(["http", "websocket", ""]),
    ending=st.builds(Ending, st.sampled_from(sorted(REASONS)), st.sampled_from(Phase)),
    idle=st.floats(0, 1e5),
)


def ended(idle: float = 0.0, ending: Ending = LEFT) -> ConnectionEnded:
    return CONNECTION._replace(ending=ending, idle=idle)


def counted(*events: tuple[float, ConnectionEnded], until: float = START) -> EofReport:
    tally = Tally(START)
    for now, event in events:
        tally.add(event, now)
    return report(tally.minutes(until), START, until, SETTINGS)


def test_a_row_says_how_and_after_how_long_idle() -> None:
    (row,) = counted((START, ended(0.4)), (START, ended(60.2)), (START, ended(60.9)), (START, ended(99999.0))).rows
    assert row[:6] == ("http", "keep_alive_closed_by_client", "idle", "client", "none", 4)
    assert row.idle == [1, 0, 0, 0, 0, 2, 0, 0, 0, 1]
    assert row.ages == [(0.0, 1), (60.0, 2), (AGES[-1], 1)]


def test_the_most_frequent_comes_first() -> None:
    other = Ending("client_closed_request", Phase.HANDLER)
    made = counted((START, ended()), (START, ended(ending=other)), (START, ended(ending=other)))
    assert [(row.reason, row.ended) for row in made.rows] == [("client_closed_request", 2), (LEFT.reason, 1)]
    assert made.total == 3


def test_each_minute_says_what_ended_in_it() -> None:
    made = counted((START, ended()), (START + 30, ended()), (START + 60, ended(20.0)), until=START + 61)
    assert [(minute.begin, minute.total) for minute in made.minutes] == [(1_699_999_980, 2), (1_700_000_040, 1)]
    assert made.minutes[1].counts == [("http", LEFT.reason, "idle", 15.0, 1)]


def test_an_hour_is_kept_and_no_more() -> None:
    events = [(START + 60 * minute, ended()) for minute in range(70)]
    made = counted(*events, until=START + 60 * 69)
    assert len(made.minutes) == made.total == MINUTES
    assert counted(*events, until=START + 60 * 200).total == 0


def test_a_wall_clock_that_is_set_back_loses_nothing() -> None:
    assert counted((START, ended()), (START - 3600, ended()), (START + 1, ended()), until=START + 1).total == 3


@given(st.lists(ends, max_size=30))
def test_every_ending_is_in_one_row_one_class_and_one_minute(events: list[ConnectionEnded]) -> None:
    made = counted(*((START + 7 * index, event) for index, event in enumerate(events)), until=START + 300)
    assert made.total == len(events)
    for row in made.rows:
        assert row.ended == sum(row.idle) == sum(count for _, count in row.ages)
    assert sum(minute.total for minute in made.minutes) == len(events)
    assert sum(count.ended for minute in made.minutes for count in minute.counts) == len(events)


@given(st.lists(ends, max_size=20), st.lists(ends, max_size=20))
def test_the_report_of_two_workers_is_that_of_all_their_endings(a: list[Any], b: list[Any]) -> None:
    moments = [(START + 11 * index, event) for index, event in enumerate([*a, *b])]
    one, two = counted(*moments[: len(a)], until=START + 600), counted(*moments[len(a) :], until=START + 600)
    assert merged([one, two]) == counted(*moments, until=START + 600)


def test_a_report_crosses_processes_unchanged() -> None:
    made = counted(*[(START, ended(60.0))] * 30)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=EofReport) == made
    assert len(made.sentences) == 1


def test_the_classes_of_the_report_are_ages_that_are_kept_apart() -> None:
    assert set(CLASSES) <= set(AGES)
    assert sorted(AGES) == list(AGES)


def test_a_service_whose_proxy_closes_after_a_minute_says_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main() -> EofReport:
        async with MemoryServer(app, Config(timeouts=Timeouts(keep_alive=75.0))) as server:
            endings = Endings(server.site)
            clients = [server.connect() for _ in range(25)]
            for client in clients:
                client.get("/")
            await server.advance(60.0)
            for client in clients:
                client.peer.close()
            await server.settle()
            with pytest.raises(ErrandError):
                await endings.answers["eof"]({"limit": 1})
            made = await endings.answers["eof"]({})
            endings.close()
            endings.close()
            server.connect().peer.close()
            await server.settle()
            assert (await endings.report({})).total == 25
            assert isinstance(made, EofReport)
            return made

    made = asyncio.run(main())
    assert [(row.reason, row.ended, row.idle[CLASSES.index(60.0)]) for row in made.rows] == [(LEFT.reason, 25, 25)]
    assert made.sentences[0].startswith("25 of 25 idle HTTP connections were closed by the other side after about 60 s")
    assert made.minutes[0].counts[0].idle == 60.0
