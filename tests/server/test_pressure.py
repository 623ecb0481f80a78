"""A worker that has too little of something does less, one measure after the other, and all of it again later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from sojourn.config import Admission, Config, Limits
from sojourn.ending import REASONS
from sojourn.events import ConnectionEnded, PressureChanged
from sojourn.policy.pressure import Measure
from sojourn.server.pressure import Pressure, PressureInfo
from sojourn.server.server import Server
from sojourn.testing import MemoryServer
from tests.server.effects import UPGRADE, app

MANY = 1 << 40


def config(**admission: Any) -> Config:
    quiet = {"memory": None, "buffered": None, "descriptors": None, "lag": None}
    return Config(
        limits=Limits(requests=1, queue=10, write_min_rate=None),
        admission=Admission(mode="adaptive", **{**quiet, **admission}),
    )


def pressed(settings: Config, test: Callable[[MemoryServer, Pressure], Awaitable[None]]) -> None:
    async def main() -> None:
        async with MemoryServer(app, settings) as server:
            assert server.site.admission is not None
            pressure = Pressure(server.site, server.site.admission)
            await test(server, pressure)
            pressure.close()
            pressure.close()
            assert pressure.measures == frozenset()
            assert server.site.keep_alive == settings.timeouts.keep_alive
            assert server.runtime.ticker.lagged is None

    asyncio.run(main())


def test_memory_above_its_bound_takes_every_measure_in_turn() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        await server.advance(9)
        assert [each.level for each in server.seen(PressureChanged)] == [1, 2, 3, 4, 5]
        assert {each.why for each in server.seen(PressureChanged)} == {"memory"}
        assert pressure.measures == set(Measure)
        assert server.seen(PressureChanged)[-1].measures == tuple(sorted(each.value for each in Measure))
        admission = server.site.admission
        assert admission is not None
        assert (admission.no_keep_alive, admission.no_streams, admission.shed_low) == (True, True, True)

    pressed(config(memory=1), test)


def test_all_of_it_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = [MANY]
    monkeypatch.setattr("sojourn.server.pressure.resident_bytes", lambda: resident[0])

    async def test(server: MemoryServer, pressure: Pressure) -> None:
        await server.advance(9)
        assert pressure.ladders["space"].level == 5
        resident[0] = 0
        await server.advance(40)
        assert pressure.measures == frozenset()
        assert [each.level for each in server.seen(PressureChanged)] == [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
        assert server.site.keep_alive == 75.0
        assert server.site.admission is not None
        assert server.site.admission.slots.room == 1

    pressed(config(memory=1000), test)


def test_idle_connections_leave_sooner_under_pressure_and_others_stay() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        idle, busy = server.connect(), server.connect()
        idle.get("/")
        await server.settle()
        busy.get("/wait")
        await server.advance(8)
        assert idle.connection.ending is not None
        assert idle.connection.ending.reason == "keep_alive_idle"
        assert busy.connection.ending is None

    pressed(config(memory=1, idle=2.0), test)


def test_without_pressure_idle_connections_stay() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        idle = server.connect()
        idle.get("/")
        await server.advance(60)
        assert idle.connection.ending is None
        assert server.seen(PressureChanged) == []

    pressed(config(memory=MANY, buffered=MANY, descriptors=1.0, lag=9.0, idle=2.0), test)


def test_the_slowest_readers_are_told_to_come_back_later() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        slow, quick = server.connect(), server.connect()
        for client, path in ((slow, "/burst"), (quick, "/")):
            client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n".encode() + UPGRADE + b"\r\n")
            await server.settle()
        assert slow.connection.outbox is not None
        await server.advance(6)
        assert pressure.signals["buffered"] > 1.0
        await server.advance(8)
        (ended,) = server.seen(ConnectionEnded)
        assert (ended.connection, ended.ending.reason, ended.ws_sent) == (slow.connection.id, "shed", 1013)
        assert quick.connection.ending is None

    pressed(config(buffered=50_000), test)


def test_a_queue_that_stands_is_pressure_on_the_processor_and_closes_nobody() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        idle = server.connect()
        idle.get("/")
        await server.settle()
        for _ in range(60):  # one runs and does not end; the others wait, and more come
            client = server.connect()
            client.get("/wait")
            await server.advance(0.1)
        assert pressure.ladders["processor"].level >= 4
        assert pressure.measures == {Measure.NO_STREAMS, Measure.SHED_LOW}
        assert idle.connection.ending is None

    pressed(config(), test)


def test_a_late_loop_is_pressure_on_the_processor() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        for _ in range(20):
            await server.advance(0.5)
            await server.stall(0.4)
        assert pressure.ladders["processor"].why == "lag"

    pressed(config(lag=0.1), test)


def test_descriptors_are_a_share_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda what: (10, 10))

    async def test(server: MemoryServer, pressure: Pressure) -> None:
        monkeypatch.setattr(pressure._descriptors, "count", lambda: 9)
        await server.advance(3)
        assert pressure.signals["descriptors"] == 1.0
        assert pressure.ladders["space"].why == "descriptors"

    pressed(config(descriptors=0.9), test)


def test_an_operator_can_see_it() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        await server.advance(3)
        (info,) = await pressure.list({})
        assert msgspec.msgpack.decode(msgspec.msgpack.encode([info]), type=list[PressureInfo]) == [info]
        assert info.levels["space"] >= 1
        assert "short_idle" in info.measures
        assert (info.requests_limit, info.requests_running, info.requests_waiting) == (1, 0, 0)

    pressed(config(memory=1), test)


def test_a_download_that_nobody_takes_is_cut_when_it_is_the_slowest() -> None:
    async def test(server: MemoryServer, pressure: Pressure) -> None:
        slow = server.connect()
        slow.peer.stop_taking()
        slow.get("/big")
        await server.advance(14)
        (ended,) = server.seen(ConnectionEnded)
        assert ended.ending.reason == "shed"

    pressed(config(buffered=50_000), test)


def test_a_server_has_it_when_it_is_asked_for_and_gives_everything_back() -> None:
    async def main(mode: Any) -> bool:
        chosen = Config(admission=Admission(mode=mode), bind=Config().bind.__class__(port=0))
        async with Server(app, chosen) as server:
            pressed = bool(await server.diagnosis.answers["pressure"]({}))
            ticker = server.runtime.ticker
        assert ticker.lagged is None
        return pressed

    assert asyncio.run(main("adaptive"))
    assert not asyncio.run(main("off"))


def test_clients_that_are_shed_are_advised_to_come_back() -> None:
    row = REASONS["shed"]
    assert (row.status, row.ws_code, row.reconnect) == (503, 1013, True)
