"""``admission.mode = "adaptive"``: who begins, who waits, who is sent away; in memory, and on real sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from sojourn.asgi.admission import Admission
from sojourn.config import Admin, Config, Drain, Limits, Proxy, Route
from sojourn.config import Admission as Settings
from sojourn.events import DeadlineMissed, RequestEnded
from sojourn.testing import MemoryClient, MemoryServer
from tests.asgi.harness import answer, get, on_both_loops, serving, settings

ROUTES = (Route(path="/high*", priority="high"), Route(path="/low*", priority="low"))
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Gate:
    """Holds requests until they are let go; ``/events`` becomes an event stream at once."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.waiting: list[asyncio.Future[None]] = []

    def let(self) -> None:
        """The oldest of those that run goes on."""
        self.waiting.pop(0).set_result(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            await receive()
            return
        self.started.append(scope["path"])
        if scope["path"] == "/events":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
        await answer(send, scope["path"].encode())


def config(requests: int | None = 1, queue: int = 10, **admission: Any) -> Config:
    return Config(
        limits=Limits(requests=requests, queue=queue, queue_wait=2.0, retry_after=5),
        admission=Settings(mode="adaptive", **{"standing": 0.5, "patience": 1.0, **admission}),
        admin=Admin(probes=True),
        proxy=Proxy(trusted=("192.0.2.1",)),
        drain=Drain(read_only=True),
        routes=ROUTES,
    )


class World:
    """A server in memory with some clients."""

    def __init__(self, gate: Gate, server: MemoryServer) -> None:
        self.gate = gate
        self.server = server
        admission = server.site.admission
        assert admission is not None
        self.admission: Admission = admission
        self.slots = admission.slots

    async def ask(self, path: str, *headers: str, method: str = "GET", after: float = 0.0) -> MemoryClient:
        if after:
            await self.server.advance(after)
        client = self.server.connect()
        client.get(path, *headers, method=method)
        await self.server.settle()
        return client

    async def let(self) -> None:
        self.gate.let()
        await self.server.settle()

    async def finish(self) -> None:
        """Everybody goes on."""
        while self.gate.waiting:
            await self.let()
        assert (self.slots.running, self.slots.waits) == (0, 0)


def in_memory(test: Callable[[World], Awaitable[None]], settings: Config | None = None) -> None:
    async def main() -> None:
        gate = Gate()
        async with MemoryServer(gate, settings or config()) as server:
            world = World(gate, server)
            await test(world)
            await world.finish()

    asyncio.run(main())


def reason(client: MemoryClient) -> str:
    """Why a client was sent away; it is told when to come back."""
    got = client.response()
    assert got.status == 503
    assert 5 <= int(got.header("retry-after") or "0") <= 10
    return str(msgspec.json.decode(got.body)["reason"])


def test_off_is_the_default_and_asks_nothing() -> None:
    async def main() -> None:
        async with MemoryServer(Gate()) as server:
            assert server.site.admission is None
            assert not server.site.guarded

    asyncio.run(main())


def test_handlers_that_only_wait_are_not_held_back() -> None:
    async def test(world: World) -> None:
        for _ in range(300):
            await world.ask("/")
        assert len(world.gate.waiting) == world.slots.running == 300

    in_memory(test, config(None))


class Shop:
    """Computes for 5 ms for each request, so that 200 a second can be served; in memory, where nothing else takes time.

    Args:
        rate: Requests that come in a second, each from a client of its own.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.server = MemoryServer(self, Config(admission=Settings(mode="adaptive")))
        #: Of each request that has ended: when it came, how long it took, its status.
        self.ended: list[tuple[float, float, int]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.server.clock.advance(0.005)
        await answer(send, b"ok")

    async def open(self, seconds: float) -> None:
        """Serve for so long."""
        server, clock = self.server, self.server.clock
        due = began = clock.monotonic()
        came: dict[int, float] = {}
        seen = 0
        while (now := clock.monotonic()) < began + seconds:
            while due <= now:
                client = server.connect()
                client.get("/")
                came[client.connection.id] = due
                due += 1 / self.rate
            await asyncio.sleep(0)  # one turn of the loop
            now, events = clock.monotonic(), server.events[seen:]
            seen += len(events)
            self.ended += [
                (came[event.connection] - began, now - came[event.connection], event.status)
                for event in events
                if isinstance(event, RequestEnded)
            ]
            if not events:
                clock.advance(0.001)  # nothing to do


def test_three_times_what_can_be_served_costs_nothing_of_it_and_little_time() -> None:
    async def main() -> None:
        shop = Shop(600)
        async with shop.server:
            await shop.open(5.0)
            await shop.server.settle()
        assert shop.server.site.admission is not None
        assert shop.server.site.admission.slots.limit <= 4
        served = sorted(taken for came, taken, status in shop.ended if status == 200 and came >= 2.0)
        assert len(served) > 0.95 * 200 * 3
        assert served[int(0.99 * len(served))] < 0.1
        assert {status for _, _, status in shop.ended} == {200, 503}

    asyncio.run(main())


def test_four_fifths_of_what_can_be_served_is_served_whole() -> None:
    async def main() -> None:
        shop = Shop(160)
        async with shop.server:
            await shop.open(5.0)
            await shop.server.settle()
        assert {status for _, _, status in shop.ended} == {200}
        assert len(shop.ended) > 0.98 * 160 * 5

    asyncio.run(main())


def test_a_class_goes_by_its_route() -> None:
    async def test(world: World) -> None:
        for path in ("/first", "/low", "/", "/high"):
            await world.ask(path)
        for _ in range(3):
            await world.let()
        assert world.gate.started == ["/first", "/high", "/", "/low"]

    in_memory(test)


@pytest.mark.parametrize(("trusted", "order"), [(True, ["/b", "/a"]), (False, ["/a", "/b"])])
def test_a_class_goes_by_a_header_only_of_trusted_peers(trusted: bool, order: list[str]) -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        await world.ask("/a", "priority: u=6")
        await world.ask("/b", "priority: u=1, i")
        await world.let()
        await world.let()
        assert world.gate.started == ["/first", *order]

    chosen = config(priority_header="Priority")
    in_memory(test, chosen if trusted else msgspec.structs.replace(chosen, proxy=Proxy(trusted=("10.0.0.1",))))


def test_under_overload_who_came_last_goes_first_and_the_others_are_soon_told_no() -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        old = await world.ask("/old")
        for number in range(4):
            await world.ask(f"/{number}", after=0.3)
        assert world.slots.stands(world.server.clock.monotonic())
        await world.let()
        assert world.gate.started == ["/first", "/3"]
        assert reason(old) == "shed"

    in_memory(test)


def test_a_queue_that_does_not_stand_is_served_in_the_order_they_came() -> None:
    async def test(world: World) -> None:
        for number in range(4):
            await world.ask(f"/{number}", after=0.1)
        for _ in range(3):
            await world.let()
        assert world.gate.started == ["/0", "/1", "/2", "/3"]

    in_memory(test)


def test_who_waits_for_limits_queue_wait_is_told_so_even_if_nobody_else_comes() -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        client = await world.ask("/late")
        await world.server.advance(2.4)
        assert reason(client) == "queue_timeout"
        assert client.connection.ending is None
        assert [each.deadline for each in world.server.seen(DeadlineMissed)] == ["queue_wait"]
        assert world.slots.waits == 0

    in_memory(test)


def test_a_full_queue_sends_the_lowest_class_away() -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        low = await world.ask("/low")
        await world.ask("/")
        assert reason(await world.ask("/low2")) == "queue_full"
        await world.ask("/high")
        assert reason(low) == "shed"
        ended = world.server.seen(RequestEnded)
        assert [each.ending.reason for each in ended] == ["queue_full", "shed"]

    in_memory(test, config(queue=2))


def test_probes_are_answered_whatever_happens() -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        world.admission.measures(no_keep_alive=True, no_streams=True, shed_low=True)
        assert (await world.ask("/livez")).response().status == 200
        assert (world.slots.running, world.slots.waits) == (1, 0)

    in_memory(test)


def test_an_event_stream_gives_its_slot_back_when_it_begins() -> None:
    async def test(world: World) -> None:
        stream = await world.ask("/events")
        assert world.slots.running == 0
        await world.ask("/next")
        assert world.gate.started == ["/events", "/next"]
        stream.peer.close()
        await world.server.settle()
        assert world.slots.running == 1

    in_memory(test)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_who_leaves_leaves_the_queue(leave: str) -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        gone = await world.ask("/gone")
        await world.ask("/next")
        getattr(gone.peer, leave)()
        await world.server.settle()
        assert world.slots.waits == 1
        await world.let()
        assert world.gate.started == ["/first", "/next"]

    in_memory(test)


def test_a_request_that_is_cut_gives_its_slot_back() -> None:
    async def test(world: World) -> None:
        running = await world.ask("/first")
        await world.ask("/next")
        running.peer.reset()
        await world.server.advance(4.0)  # timeouts.disconnect_grace is 3 s; limits.queue_wait is 2
        assert world.slots.running == 0
        await world.ask("/again")
        assert world.gate.started == ["/first", "/again"]

    in_memory(test)


def test_pressure_refuses_new_streams_and_websockets_until_it_is_gone() -> None:
    async def test(world: World) -> None:
        world.admission.measures(no_keep_alive=False, no_streams=True, shed_low=False)
        assert reason(await world.ask("/events", "accept: text/event-stream")) == "shed"
        assert reason(await world.ask("/ws", *UPGRADE)) == "shed"
        await world.ask("/plain")
        assert world.gate.started == ["/plain"]
        world.admission.measures(no_keep_alive=False, no_streams=False, shed_low=False)
        assert (await world.ask("/ws", *UPGRADE)).received.startswith(b"HTTP/1.1 101")
        await world.let()
        assert (await world.ask("/events", "accept: text/event-stream")).response().status == 200

    in_memory(test)


def test_pressure_sends_low_priority_away_and_nobody_else() -> None:
    async def test(world: World) -> None:
        world.admission.measures(no_keep_alive=False, no_streams=False, shed_low=True)
        assert reason(await world.ask("/low")) == "shed"
        await world.ask("/")
        world.admission.measures(no_keep_alive=False, no_streams=False, shed_low=False)
        await world.ask("/low")
        assert world.slots.running + world.slots.waits == 2

    in_memory(test)


def test_pressure_closes_connections_after_their_answer() -> None:
    async def test(world: World) -> None:
        world.admission.measures(no_keep_alive=True, no_streams=False, shed_low=False)
        client = await world.ask("/")
        await world.let()
        assert client.response().header("connection") == "close"
        assert client.connection.ending is not None
        assert client.connection.ending.reason == "keep_alive_rotated"
        world.admission.measures(no_keep_alive=False, no_streams=False, shed_low=False)
        client = await world.ask("/")
        await world.let()
        assert client.response().header("connection") is None

    in_memory(test)


def test_what_comes_in_a_drain_goes_first_and_read_only_holds() -> None:
    async def test(world: World) -> None:
        kept = await world.ask("/first")
        await world.ask("/")
        world.server.drain(5.0)
        await world.server.settle()
        assert reason(await world.ask("/write", method="POST")) == "draining"
        await world.let()
        assert kept.response().status == 200
        assert world.gate.started == ["/first", "/"]

    in_memory(test)


def test_the_limit_follows_a_changed_setting() -> None:
    async def test(world: World) -> None:
        for number in range(4):
            await world.ask(f"/{number}")
        site = world.server.site
        site.adopt(msgspec.structs.replace(site.config, limits=Limits(requests=3)))
        await world.server.settle()
        assert world.gate.started == ["/0", "/1", "/2"]
        assert world.admission.limit.maximum == 3

    in_memory(test)


def test_pipelined_requests_that_are_sent_away_end_with_the_first() -> None:
    async def test(world: World) -> None:
        await world.ask("/first")
        client = world.server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 2000)
        await world.server.settle()
        assert reason(client) == "concurrency_limit"
        assert client.received == b""
        assert client.connection.ending is not None

    in_memory(test, config(queue=0))


# On real sockets


def spinning(seconds: float) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        await answer(send, b"ok")

    return app


@on_both_loops
def test_everybody_gets_an_answer_under_overload(loop: str) -> None:
    chosen = settings(admission={"mode": "adaptive"}, limits={"retry_after": 3})
    seen: list[int] = []
    with serving(spinning(0.003), chosen, loop) as served:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            clients = [served.connect().send(get()) for _ in range(40)]
            for client in clients:
                got = client.answer()
                seen.append(got.status)
                assert got.status == 200 or 3 <= int(got["retry-after"]) <= 6
                client.close()
    assert set(seen) <= {200, 503}
    assert seen.count(200) > 50


@on_both_loops
def test_a_flood_of_low_priority_does_not_take_the_rate_of_the_high_one(loop: str) -> None:
    chosen = settings(admission={"mode": "adaptive"}, routes=ROUTES)
    over = threading.Event()
    with serving(spinning(0.003), chosen, loop) as served:

        def flood() -> None:
            while not over.is_set():
                clients = [served.connect().send(get("/low")) for _ in range(20)]
                for client in clients:
                    client.answer()
                    client.close()

        flooding = [threading.Thread(target=flood) for _ in range(3)]
        for each in flooding:
            each.start()
        try:
            time.sleep(0.5)
            high = [served.connect().send(get("/high")).answer().status for _ in range(20)]
        finally:
            over.set()
            for each in flooding:
                each.join()
    assert high.count(200) == 20


@on_both_loops
def test_handlers_that_compute_in_threads_get_few_slots_too(loop: str) -> None:
    def spin() -> None:
        until = time.thread_time() + 0.003
        while time.thread_time() < until:
            pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(pool, spin)
        await answer(send, b"ok")

    pool = ThreadPoolExecutor(40)  # as many as Starlette has
    seen: list[int] = []
    with serving(app, settings(admission={"mode": "adaptive"}), loop) as served:
        admission = served.server.site.admission
        assert admission is not None
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            clients = [served.connect().send(get()) for _ in range(60)]
            for client in clients:
                seen.append(client.answer().status)
                client.close()
        assert served.call(lambda: admission.slots.limit) < 10_000
    pool.shutdown()
    assert seen.count(200) > 50


@on_both_loops
def test_slots_come_back_however_clients_and_handlers_end(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/crash":
            raise RuntimeError("crash")
        if scope["path"] == "/wait":
            await asyncio.sleep(30)
        await answer(send, b"ok")

    chosen = settings(
        admission={"mode": "adaptive", "standing": 5.0},
        limits={"requests": 2, "queue_wait": 5.0},
        timeouts={"disconnect_grace": 0.1},
    )
    with serving(app, chosen, loop) as served:
        for _ in range(3):
            with served.connect() as client:
                assert client.send(get("/crash")).answer().status == 500
            gone = [served.connect().send(get("/wait")) for _ in range(4)]
            served.until(lambda: served.call(lambda: served.server.site.waiting) == 2)
            for number, each in enumerate(gone):
                each.reset() if number % 2 else each.close()
            served.until(lambda: served.call(lambda: served.server.site.waiting) == 0)
        with served.connect() as client:
            for _ in range(20):
                assert client.send(get("/")).answer().status == 200


@on_both_loops
def test_a_connection_stays_after_a_refusal_and_is_framed_as_before(loop: str) -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await go.wait()
        await answer(send, scope["path"].encode())

    chosen = settings(admission={"mode": "adaptive"}, limits={"requests": 1, "queue": 0})
    with serving(app, chosen, loop) as served:
        first = served.connect().send(get("/wait"))
        served.until(lambda: served.call(lambda: served.server.site.admission.slots.running) == 1)  # type: ignore[union-attr]
        client = served.connect()
        for _ in range(3):
            got = client.send(get("/no", method="POST", body=b"x" * 1000)).answer()
            assert (got.status, got.all("connection")) == (503, [])
            assert client.send(get("/no", method="HEAD")).answer("HEAD").status == 503
        served.call(go.set)
        assert first.answer().body == b"/wait"
        served.until(lambda: served.call(lambda: served.server.site.admission.slots.running) == 0)  # type: ignore[union-attr]
        assert client.send(get("/yes")).answer().body == b"/yes"
        first.send(get("/yes"))
        assert first.answer().status == 200


@on_both_loops
def test_who_waits_when_a_drain_begins_is_not_sent_away(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.15)
        await answer(send, b"ok")

    chosen = settings(admission={"mode": "adaptive"}, limits={"requests": 1}, drain={"requests": 8.0, "total": 10.0})
    with serving(app, chosen, loop) as served:
        clients = [served.connect().send(get()) for _ in range(4)]
        served.until(lambda: served.call(lambda: served.server.site.waiting) == 3)
        served.call(served.server.stop)
        assert [client.answer().status for client in clients] == [200] * 4
