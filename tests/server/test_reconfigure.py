"""Settings changed while serving: what is refused, what takes effect and where, and that nobody is hurt by it."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.config import Admin, Config, Proxy, Route, Timeouts
from sojourn.errors import ErrandError
from sojourn.server.reconfigure import Running, apply, for_workers, plan
from sojourn.server.server import Server
from sojourn.server.settings.keys import keys
from sojourn.server.workers.board import Board, State
from sojourn.server.workers.siblings import Siblings
from sojourn.testing import MemoryServer
from sojourn.testing.raw import RawHttp, RawWebSocket
from tests.server.effects import EFFECTS, Show, Stage, app, ws_behind
from tests.server.serving import Served, serving, until

# -- What may change


def test_a_change_is_judged_by_when_its_keys_take_effect() -> None:
    change = plan(Config(), {"timeouts.header": "5s", "limits.requests": 3, "websocket.idle": "none"})
    assert (change.live, change.new) == (("limits.requests",), ("timeouts.header",))
    assert change.changes == {"timeouts.header": (10.0, 5.0), "limits.requests": ("none", 3)}
    assert (change.config.timeouts.header, change.config.limits.requests) == (5.0, 3)
    change.check()


def test_what_is_so_already_is_no_change_even_if_it_needs_a_restart() -> None:
    change = plan(Config(), {"bind.port": 8000, "timeouts.header": 10})
    assert (change.changes, change.refused, change.config) == ({}, (), Config())


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"timeouts.headr": 5}, 400, "timeouts.headr: no such key; did you mean timeouts.header?"),
    ({"header": 5}, 400, "header: no such key; did you mean timeouts.header?"),
    ({"zzz": 5}, 400, "zzz: no such key; GET /config lists all keys"),
    ({"timeouts.header": "soon"}, 400, "timeouts.header: 'soon' is not a duration above 0"),
    ({"timeouts.close": "none"}, 400, "timeouts.close: none is not allowed here"),
    ({"websocket.origins": ["example.com"]}, 400, "websocket.origins: 'example.com' is no origin"),
    ({"proxy.trusted": "10.0.0.1/8"}, 400, "proxy.trusted: '10.0.0.1/8' has bits outside its mask"),
    ({"bind.port": 1}, 409, "bind.port can't change while serving"),
    ({"app.workers": 0}, 409, "app.workers can't change while serving"),
    ({"bind.port": 1, "tls.cert": "x"}, 409, "bind.port, tls.cert can't change while serving"),
    ({"routes": [{"path": "x"}]}, 400, "'x' is not a path"),
    ({"routes": [{"path": "/x", "timeouts": {"header": 1}}]}, 400, "can't differ per route"),
    ({"routes": "x"}, 400, "is a list of tables"),
]


@pytest.mark.parametrize(("changes", "status", "told"), REFUSED)
def test_one_key_that_can_not_change_keeps_all_as_they_are(changes: dict[str, Any], status: int, told: str) -> None:
    change = plan(Config(), {"timeouts.keep_alive": 5, **changes})
    assert change.config == Config()
    assert change.refused
    with pytest.raises(ErrandError, match=re.escape(told)) as caught:
        change.check()
    assert caught.value.status == status
    assert caught.value.detail.startswith("nothing was changed. ")


def test_every_key_that_needs_a_restart_is_refused() -> None:
    others = {"flag": True, "whole": 7, "number": 7.5, "list": ("x",), "text": "other"}
    for path, key in keys().items():
        if key.change == "restart":
            choices = [word for word in key.choices if word != key.default]
            value = choices[0] if choices else not key.default if key.kind == "flag" else others[key.kind]
            (refused,) = plan(Config(), {path: value}).refused
            assert (refused.key, refused.reason) == (path, "needs_restart")


def test_a_contradiction_that_was_there_before_is_not_held_against_a_change() -> None:
    odd = Config(admin=Admin(bind="0.0.0.0:1"))  # made in code, where nobody checks it
    assert plan(odd, {"timeouts.header": 5}).refused == ()


def test_what_is_probably_not_meant_is_told_once() -> None:
    change = plan(Config(), {"limits.queue": 5, "timeouts.keep_alive": "none", "websocket.ping_timeout": 30})
    assert [warning.partition(" ")[0] for warning in change.warnings] == [
        "limits.queue",
        "websocket.ping_timeout",
        "timeouts.keep_alive",
    ]
    assert plan(change.config, {"timeouts.header": 5}).warnings == ()


def test_routes_are_replaced_as_a_whole() -> None:
    change = plan(Config(), {"routes": [{"path": "/slow", "timeouts": {"handler": "2s"}}]})
    assert change.config.routes == (Route(path="/slow", timeouts={"handler": 2.0}),)
    assert change.new == ("routes",)
    assert plan(change.config, {"routes": []}).config.routes == ()


def test_a_secret_is_never_told_by_a_change() -> None:
    change = plan(Config(), {"tls.key_password": "hidden"})
    assert "hidden" not in str(change)


def test_versions_count_changes_and_name_who_made_them() -> None:
    running = Running(Config())
    first = running.adopt(plan(running.config, {"timeouts.header": 5}), "uid 0")
    again = running.adopt(plan(running.config, {"timeouts.header": 5}), "uid 0")
    assert (first.version, again.version, again.changes) == (2, 2, {})
    assert str(running.origins["timeouts.header"]) == "version 2 by uid 0"
    running.load(Config())
    assert (running.version, running.config, running.origins) == (3, Config(), {})


def test_the_drain_report_is_the_supervisors() -> None:
    assert for_workers({"drain.report": "/tmp/x", "drain.total": 5}) == {"drain.total": 5}


# -- What takes effect: in memory, where the test moves the time


async def _shown(show: Show, changes: dict[str, Any]) -> object:
    config = Config()
    async with MemoryServer(app, config) as server:
        change = plan(config, changes)
        change.check()
        server.config = change.config
        server.site.adopt(change.config)
        found = await show(Stage(server))
        return found


def named(value: object) -> str:
    """The same in every process: no addresses."""
    return value.__qualname__ if callable(value) else str(value)[:40]


@pytest.mark.parametrize(("changes", "show", "before", "after"), EFFECTS, ids=named)
def test_a_change_shows_on_the_next_connection(
    changes: dict[str, Any], show: Show, before: object, after: object
) -> None:
    assert asyncio.run(_shown(show, {})) == before
    assert asyncio.run(_shown(show, changes)) == after


def test_a_slow_client_can_be_waited_for_instead_of_disconnected() -> None:
    changes = {"websocket.queue": 10, "websocket.slow_consumer": "block"}
    assert asyncio.run(_shown(ws_behind, changes)) is None


# -- What takes effect: on real sockets


async def answer(served: Served, before: bytes = b"", headers: str = "") -> bytes:
    """What a new connection gets, until its end."""
    client = await served.connect()
    client.send(before + f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n".encode())
    return await client.rest()


async def second(served: Served, headers: str = "") -> object:
    """The status of a connection beside an open one."""
    first = await served.connect()
    await until(lambda: served.connections)
    found = (await answer(served, headers=headers))[9:12]
    await first.close()
    return found


async def proxied(served: Served) -> object:
    got = await answer(served, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
    return got[9:12], b"192.0.2.7" in got


async def forwarded(served: Served) -> object:
    return b"192.0.2.7" in await answer(served, headers="X-Forwarded-For: 192.0.2.7\r\n")


async def silent_proxy(served: Served) -> object:
    client = await served.connect()
    try:
        async with asyncio.timeout(1):
            return await client.reader.read(1)
    except TimeoutError:
        return "waits"


def option(name: int, level: int = socket.IPPROTO_TCP) -> Callable[[Served], Awaitable[object]]:
    async def shown(served: Served) -> object:
        await served.connect()
        await until(lambda: served.connections and served.connections[-1].transport)
        transport = served.connections[-1].transport
        assert transport is not None
        return transport.get_extra_info("socket").getsockopt(level, name)

    return shown


REAL: list[tuple[Config, dict[str, Any], Callable[[Served], Awaitable[object]], object, object]] = [
    (Config(), {"limits.connections": 1}, second, b"200", b"503"),
    (Config(), {"limits.connections_per_ip": 1}, second, b"200", b"503"),
    (Config(), {"proxy.protocol": "on"}, proxied, (b"400", False), (b"200", True)),
    (Config(), {"proxy.headers": False}, forwarded, True, False),
    (Config(), {"proxy.trusted": ["10.0.0.0/8"]}, forwarded, True, False),
    (Config(proxy=Proxy(trusted=())), {"proxy.trusted": ["127.0.0.1"]}, forwarded, False, True),
    (Config(proxy=Proxy(protocol="on")), {"timeouts.proxy": 0.2}, silent_proxy, "waits", b""),
    (Config(), {"bind.tcp_keepalive_idle": 33}, option(socket.TCP_KEEPIDLE), 60, 33),
    (Config(), {"bind.tcp_keepalive_idle": "none"}, option(socket.SO_KEEPALIVE, socket.SOL_SOCKET), 1, 0),
    (Config(), {"bind.tcp_keepalive_interval": 7}, option(socket.TCP_KEEPINTVL), 10, 7),
    (Config(), {"bind.tcp_keepalive_probes": 9}, option(socket.TCP_KEEPCNT), 3, 9),
    (Config(), {"bind.tcp_user_timeout": 50}, option(socket.TCP_USER_TIMEOUT), 90_000, 50_000),
]


@pytest.mark.parametrize(("config", "changes", "show", "before", "after"), REAL, ids=named)
def test_a_change_shows_on_the_next_real_connection(
    config: Config, changes: dict[str, Any], show: Any, before: object, after: object
) -> None:
    async def main() -> None:
        async with serving(app, **groups(config)) as served:
            assert await show(served) == before
            change = plan(served.server.config, changes)
            change.check()
            apply(served.server, change.config)
            assert await show(served) == after

    asyncio.run(main())


def groups(config: Config) -> dict[str, Any]:
    return {"proxy": config.proxy, "timeouts": config.timeouts, "limits": config.limits}


def test_a_drain_report_goes_where_it_is_wanted_in_the_end(tmp_path: Any) -> None:
    async def main() -> None:
        async with serving(app) as served:
            change = plan(served.server.config, {"drain.report": str(tmp_path / "report.json")})
            apply(served.server, change.config)

    asyncio.run(main())
    assert (tmp_path / "report.json").read_text().startswith("{")


#: What the supervisor follows, and the log: tested with them.
ELSEWHERE = {"app.workers", "log.level"}
#: Shown by tests of their own, below and above, and in tests/asgi/test_callers.py.
ALONE = {"websocket.slow_consumer", "drain.report", "limits.connections_total"} | {
    key for key in keys() if key.startswith("deadlines.")
}


def test_every_key_that_may_change_is_shown_to_take_effect() -> None:
    shown = {path for changes, *_ in EFFECTS for path in changes} | {
        path for _, changes, *_ in REAL for path in changes
    }
    may = {path for path, key in keys().items() if key.change != "restart" and key.group != "worker"}
    assert may - shown - ELSEWHERE == ALONE
    assert shown - may == {"routes"}


# -- Limits that are switched on and off under load


def test_requests_that_run_when_a_limit_is_set_count_and_those_that_wait_run_when_it_goes() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config()) as server:

            def change(**limits: Any) -> None:
                changed = plan(server.config, {f"limits.{name}": value for name, value in limits.items()})
                server.config = changed.config
                server.site.adopt(changed.config)

            clients = [server.connect() for _ in range(4)]
            for client in clients[:2]:
                client.get("/wait")
            await server.settle()
            change(requests=2, queue_wait=50)
            slots = server.site.slots
            assert slots is not None
            assert slots.running == 2
            for client in clients[2:]:
                client.get("/")
            await server.settle()
            assert (slots.waiting, clients[2].received) == (2, b"")
            change(requests=3)
            await server.settle()
            assert [client.response().status for client in clients[2:]] == [200, 200]
            change(requests=1)
            clients[2].get("/")
            await server.settle()
            assert slots.waiting == 1
            change(requests="none")
            await server.settle()
            assert clients[2].response().status == 200
            for client in clients[:2]:
                client.peer.reset()
            await server.advance(10)
            assert (slots.running, slots.waiting) == (0, 0)
            change(requests=1, queue=0)
            clients[3].get("/wait")
            clients[2].get("/")
            await server.settle()
            assert clients[2].response().status == 503

    asyncio.run(main())


def test_a_shorter_write_idle_is_noticed_by_connections_that_are_open() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config()) as server:
            client = server.connect()
            client.peer.stop_taking()
            client.get("/2000")  # less than the high watermark: only the wheel's lap notices it
            await server.settle()
            server.site.adopt(Config(timeouts=Timeouts(write_idle=1.0)))
            await server.advance(3)
            assert client.connection.ending is not None
            assert client.connection.ending.reason == "send_timeout"

    asyncio.run(main())


def test_what_the_kernel_does_not_take_changes_nothing() -> None:
    async def main() -> None:
        async with serving(app) as served:
            shown = option(socket.TCP_KEEPIDLE)
            change = plan(served.server.config, {"bind.tcp_keepalive_idle": 5, "bind.tcp_keepalive_probes": 4000})
            with pytest.raises(ErrandError, match="nothing was changed"):
                apply(served.server, change.config)
            assert served.server.config.bind.tcp_keepalive_probes == 3
            assert await shown(served) == 60

    asyncio.run(main())


def test_limits_of_all_workers_together_follow_and_know_who_was_there_before() -> None:
    board = Board.create(rows=4, addresses=16384)
    workers = []
    for _ in range(2):
        row = board.claim()
        row.state = State.READY
        workers.append(Siblings(board, row, Config(), ManualClock()))
    one, other = workers
    assert one.connections.admit("192.0.2.1") is None
    assert other.connections.admit("192.0.2.1") is None
    limits = plan(Config(), {"limits.connections_per_ip": 2, "limits.connections_total": 3}).config.limits
    for worker in workers:
        worker.adopt(limits)
    assert one.connections.admit("192.0.2.1") == "address_limit"
    assert one.connections.admit("192.0.2.2") is None
    assert one.connections.admit("192.0.2.3") == "connection_limit"
    other.connections.leave("192.0.2.1")
    assert one.connections.admit("192.0.2.1") is None
    one.adopt(Config().limits)
    assert one.connections.admit("192.0.2.1") is None
    board.close()


# -- Nobody is hurt


def changes_of(chance: random.Random) -> dict[str, Any]:
    """A new value for a random key; one that leaves an hour to everybody."""
    may = [
        key
        for key in keys().values()
        if key.change != "restart" and key.group not in ("app", "deadlines", "worker", "proxy")
    ]
    key = chance.choice(may)
    if key.kind == "choice":
        return {key.path: chance.choice(key.choices)}
    if key.kind == "flag":
        return {key.path: chance.random() < 0.5}
    if key.kind == "list":
        return {key.path: chance.choice(["*", "none"])}
    if key.kind == "text":
        return {key.path: "none"}
    if key.optional and chance.random() < 0.2:
        return {key.path: "none"}
    return {key.path: chance.randrange(100, 4000 if key.group != "bind" else 120)}


@pytest.mark.parametrize("seed", range(5))
def test_no_change_of_settings_closes_a_connection(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        async with serving(app, timeouts=Timeouts(disconnect_grace=0.1)) as served:
            server: Server = served.server
            begun = server.config
            idle, waiting = [await RawHttp.open(server.addresses[0]) for _ in range(2)]
            socket_ = await RawWebSocket.open(server.addresses[0])
            async with idle, waiting, socket_:
                await idle.get("/")
                assert (await idle.response()).status == 200
                await waiting.get("/wait")
                await socket_.upgrade("/")
                for _ in range(30):
                    change = plan(server.config, changes_of(chance))
                    change.check()
                    apply(server, change.config)
                    await asyncio.sleep(0)
                assert served.ended_by == {}
                await idle.get("/")
                assert (await idle.response()).status == 200
                await socket_.send_text("hello")
                assert (frame := await socket_.frame()) is not None
                assert frame.payload == b"hello"
                assert served.ended_by == {}
                assert len(served.connections) == 3
                apply(server, begun)  # a drain that may take an hour is for others to wait for

    asyncio.run(main())
