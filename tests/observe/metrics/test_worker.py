"""What a server counts while it serves, read from its page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.asgi.event_stream import event_stream
from sojourn.config import Admission, App, Config, Drain, Limits, Timeouts, WebSocket
from sojourn.config import Route as Setting
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    ConfigChanged,
    LeakFound,
    LeaseOverdue,
    LoopStalled,
    PressureChanged,
    TaskFailed,
    TaskSurvived,
)
from sojourn.testing import MemoryClient, MemoryServer
from tests.observe.metrics.samples import Counted, counting, needs_promtool, numbers, promtool, run
from tests.wire.websocket_client import client_frame

DURATION = "http_server_request_duration_seconds"
TEXT, CLOSE, PONG = 1, 8, 10


class Route:
    """What Starlette leaves in the scope."""

    def __init__(self, path: str) -> None:
        self.path = path


class Application:
    """Does what the path says."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.websocket(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith("/items/"):
            scope["route"] = Route("/items/{id}")
        if path == "/wait":
            await self.go_on.wait()
        if path == "/crash":
            raise RuntimeError("planted")
        status = int(path[1:]) if path[1:].isdigit() else 200
        kind = b"text/event-stream" if path == "/events" else b"text/plain"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        if path == "/events":
            async for piece in event_stream(self.events()):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif path == "/big":
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        elif path == "/parts":
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def events(self) -> Any:
        yield "first"
        await self.go_on.wait()

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route("/rooms/{room}")
        if scope["path"] == "/rooms/denied":
            await send({"type": "websocket.close"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
            await send({"type": "websocket.send", "text": message["text"]})


def settings(**groups: Any) -> Config:
    return Config(app=App(lifespan="off"), **groups)


async def asked(server: MemoryServer, path: str, **more: Any) -> MemoryClient:
    client = server.connect()
    client.get(path, **more)
    await server.settle()
    return client


async def upgraded(server: MemoryServer, path: str) -> MemoryClient:
    client = server.connect()
    key = "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="
    client.get(path, "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", key)
    await server.settle()
    return client


def test_a_request_is_counted_by_method_route_and_status_with_its_duration() -> None:
    async def scene() -> None:
        app = Application()
        async with counting(app) as counted:
            for number in range(3):
                await asked(counted.server, f"/items/{number}")
            await asked(counted.server, "/404", method="HEAD")
            waiting = await asked(counted.server, "/wait")
            await counted.server.advance(2.0)
            app.go_on.set()
            await counted.server.settle()
            assert waiting.response().status == 200
            await counted.server.advance(2.0)
            item = {"http_request_method": "GET", "http_route": "/items/{id}", "http_response_status_code": "200"}
            assert counted(f"{DURATION}_count", **item) == 3.0
            assert counted(f"{DURATION}_bucket", **item, le="0.005") == 3.0
            plain = {"http_request_method": "GET", "http_response_status_code": "200"}
            assert counted(f"{DURATION}_bucket", **plain, le="1.0") == 0.0
            assert counted(f"{DURATION}_bucket", **plain, le="2.5") == 1.0
            assert abs(counted(f"{DURATION}_sum", **plain) - 2.0) < 0.01
            missing = {"http_request_method": "HEAD", "http_response_status_code": "404"}
            assert counted(f"{DURATION}_count", **missing) == 1.0
            assert counted("sojourn_requests_ended_total", reason="completed", fault="none") == 5.0

    run(scene)


def test_a_failure_is_told_by_its_reason_and_an_answer_of_500_by_its_status() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await asked(counted.server, "/crash")
            await asked(counted.server, "/503")
            await counted.server.advance(2.0)
            crash = {"http_request_method": "GET", "http_response_status_code": "500"}
            assert counted(f"{DURATION}_count", **crash, error_type="app_error_before_head") == 1.0
            answer = {"http_request_method": "GET", "http_response_status_code": "503", "error_type": "503"}
            assert counted(f"{DURATION}_count", **answer) == 1.0
            assert counted("sojourn_requests_ended_total", reason="app_error_before_head", fault="app") == 1.0
            assert counted("sojourn_requests_ended_total", reason="completed", fault="none") == 1.0

    run(scene)


def test_a_method_that_few_know_is_no_label_of_its_own() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await asked(counted.server, "/", method="PROPFIND")
            await asked(counted.server, "/", method="MKCOL")
            labels = {"http_request_method": "_OTHER", "http_response_status_code": "200"}
            assert counted(f"{DURATION}_count", **labels) == 2.0

    run(scene)


def test_a_path_that_a_client_chose_is_never_a_label() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            for number in range(50):
                await asked(counted.server, f"/scan/{number}/secret")
            assert b"secret" not in counted.page()
            assert counted(f"{DURATION}_count", http_request_method="GET", http_response_status_code="200") == 50.0

    run(scene)


def test_an_event_stream_is_kept_apart_from_requests() -> None:
    async def scene() -> None:
        app = Application()
        async with counting(app) as counted:
            await asked(counted.server, "/events")
            await counted.server.advance(10.0)
            assert counted("sojourn_connections", protocol="http", state="event_stream") == 1.0
            assert counted("sojourn_requests_running") == 1.0
            app.go_on.set()
            await counted.server.advance(10.0)
            assert counted("sojourn_event_streams_total", reason="completed") == 1.0
            assert counted("sojourn_event_stream_duration_seconds_count") == 1.0
            assert counted("sojourn_event_stream_duration_seconds_bucket", le="1.0") == 0.0
            assert counted("sojourn_requests_ended_total", reason="completed", fault="none") == 1.0
            assert DURATION.encode() not in counted.page()
            assert counted("sojourn_connections", protocol="http", state="event_stream") == 0.0

    run(scene)


def test_a_websocket_is_counted_with_its_messages_while_it_is_open_and_after() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            client = await upgraded(counted.server, "/rooms/7")
            for _ in range(5):
                client.send(client_frame(TEXT, b"hello"))
            await counted.server.advance(10.0)
            assert counted("sojourn_handshake_duration_seconds_count", kind="websocket") == 1.0
            assert counted("sojourn_connections", protocol="websocket", state="open") == 1.0
            assert counted("sojourn_websocket_messages_total", direction="in") == 5.0
            assert counted("sojourn_websocket_messages_total", direction="out") == 10.0
            client.send(client_frame(CLOSE, (1000).to_bytes(2, "big")))
            await counted.server.advance(10.0)
            assert counted("sojourn_websockets_total", route="/rooms/{room}", reason="ws_client_closed") == 1.0
            assert counted("sojourn_websocket_duration_seconds_count") == 1.0
            assert counted("sojourn_websocket_messages_total", direction="in") == 5.0
            assert counted("sojourn_connections", protocol="websocket", state="open") == 0.0
            ended = {"protocol": "websocket", "reason": "ws_client_closed", "fault": "none"}
            assert counted("sojourn_connections_ended_total", **ended) == 1.0
            assert counted("sojourn_connection_duration_seconds_count", protocol="websocket") == 1.0
            assert DURATION.encode() not in counted.page()

    run(scene)


def test_a_refused_handshake_counts_as_a_websocket_without_a_duration() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await upgraded(counted.server, "/rooms/denied")
            assert counted("sojourn_websockets_total", route="/rooms/{room}", reason="upgrade_denied") == 1.0
            assert counted("sojourn_websocket_duration_seconds_count") == 0.0
            assert counted("sojourn_handshake_duration_seconds_count", kind="websocket") == 0.0

    run(scene)


def test_the_round_trip_of_a_ping_is_measured_and_a_missed_one_counted() -> None:
    async def scene() -> None:
        websocket = WebSocket(ping_interval=5.0, ping_timeout=2.0, ping_misses=2)
        async with counting(Application(), settings(websocket=websocket)) as counted:
            client = await upgraded(counted.server, "/rooms/7")
            handler: Any = client.connection.handler
            while handler._pinged is None:
                await counted.server.advance(0.1)
            counted.server.clock.advance(0.03)
            client.send(client_frame(PONG, b""))
            await counted.server.settle()
            assert handler.round_trip == pytest.approx(0.03)
            assert counted("sojourn_ping_round_trip_seconds_count") == 1.0
            assert counted("sojourn_ping_round_trip_seconds_sum") == handler.round_trip
            await counted.server.advance(20.0)
            assert counted("sojourn_pongs_missed_total") == 2.0
            ended = {"protocol": "websocket", "reason": "pong_timeout", "fault": "network"}
            assert counted("sojourn_connections_ended_total", **ended) == 1.0

    run(scene)


def test_every_accepted_connection_is_open_or_ended() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            clients = [await asked(counted.server, "/") for _ in range(3)]
            counted.server.connect()
            clients[0].peer.close()
            await counted.server.advance(9.0)
            page = numbers(counted.page())
            states = {labels: number for (name, labels), number in page.items() if name == "sojourn_connections"}
            assert states[("protocol", "none"), ("state", "opening")] == 1.0
            assert states[("protocol", "http"), ("state", "idle")] == 2.0
            assert counted("sojourn_connections_accepted_total") == 4.0 == sum(states.values()) + 1.0
            left = {"protocol": "http", "reason": "keep_alive_closed_by_client", "fault": "none"}
            assert counted("sojourn_connections_ended_total", **left) == 1.0

    run(scene)


def test_bytes_are_those_of_open_and_of_ended_connections_and_never_fall() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            client = await asked(counted.server, "/parts")
            await counted.server.advance(9.0)
            received = counted("sojourn_bytes_total", direction="in")
            sent = counted("sojourn_bytes_total", direction="out")
            assert received == client.connection.bytes_in > 0
            assert sent == client.connection.bytes_out > 0
            client.peer.close()
            await counted.server.advance(9.0)
            assert counted("sojourn_bytes_total", direction="in") == received
            assert counted("sojourn_bytes_total", direction="out") == sent

    run(scene)


def test_a_client_that_is_behind_is_seen_with_what_waits_for_it() -> None:
    async def scene() -> None:
        async with counting(Application(), settings(limits=Limits(write_min_rate=None))) as counted:
            client = counted.server.connect()
            client.peer.stop_taking()
            client.get("/big")
            await counted.server.settle()
            await counted.server.advance(7.6)
            waiting = client.connection.buffered
            assert waiting > 900_000
            assert counted("sojourn_connections_behind") == 1.0
            assert counted("sojourn_buffered_bytes") == waiting
            assert counted("sojourn_outbox_high_bytes") == waiting
            client.peer.take_all()
            await counted.server.advance(10.0)
            assert counted("sojourn_connections_behind") == 0.0
            assert counted("sojourn_buffered_bytes") == 0.0

    run(scene)


def test_requests_that_wait_for_a_slot_are_seen_and_their_wait_is_measured() -> None:
    async def scene() -> None:
        app = Application()
        limits = Limits(requests=1, queue=1, queue_wait=30.0)
        async with counting(app, settings(limits=limits)) as counted:
            for _ in range(3):
                await asked(counted.server, "/wait")
            await counted.server.advance(9.0)
            assert counted("sojourn_requests_queued") == 1.0
            assert counted("sojourn_connections", protocol="http", state="queued") == 1.0
            assert counted("sojourn_requests_running") == 1.0
            assert counted("sojourn_requests_ended_total", reason="queue_full", fault="overload") == 1.0
            app.go_on.set()
            await counted.server.advance(3.0)
            assert counted("sojourn_request_queue_wait_seconds_count") == 1.0
            assert 8.0 < counted("sojourn_request_queue_wait_seconds_sum") < 10.0
            assert counted("sojourn_requests_queued") == 0.0

    run(scene)


def test_who_is_shed_is_counted_by_priority_and_the_limit_that_was_found_is_shown() -> None:
    async def scene() -> None:
        app = Application()
        limits = Limits(requests=1, queue=1, queue_wait=5.0)
        chosen = settings(
            limits=limits, admission=Admission(mode="adaptive"), routes=(Setting(path="/low", priority="low"),)
        )
        async with counting(app, chosen) as counted:
            for path in ("/wait", "/wait", "/low"):
                await asked(counted.server, path)
            await counted.server.advance(9.0)
            assert counted("sojourn_requests_limit", worker="1") == 1.0
            assert counted("sojourn_requests_shed_total", priority="low", reason="queue_full") == 1.0
            assert counted("sojourn_requests_shed_total", priority="normal", reason="queue_timeout") == 1.0
            counted.server.bus.emit(PressureChanged("space", 2, 1, "memory", ("short_idle", "no_keep_alive")))
            assert counted("sojourn_pressure_level", cause="space") == 2.0
            app.go_on.set()
            await counted.server.settle()

    run(scene)


def test_a_missed_deadline_is_counted_by_its_name() -> None:
    async def scene() -> None:
        async with counting(Application(), settings(timeouts=Timeouts(header=2.0, response_start=3.0))) as counted:
            counted.server.connect().send(b"GET / HT")
            await asked(counted.server, "/wait")
            await counted.server.advance(5.0)
            assert counted("sojourn_deadlines_missed_total", deadline="header") == 1.0
            assert counted("sojourn_deadlines_missed_total", deadline="response_start") == 1.0
            ended = {"protocol": "none", "reason": "request_headers_timeout", "fault": "client"}
            assert counted("sojourn_connections_ended_total", **ended) == 1.0

    run(scene)


def test_the_time_of_tls_handshakes_is_measured() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            client = counted.server.connect(handshake=False)
            await counted.server.advance(0.5)
            client.finish_handshake()
            await counted.server.settle()
            assert counted("sojourn_handshake_duration_seconds_count", kind="tls") == 1.0
            assert abs(counted("sojourn_handshake_duration_seconds_sum", kind="tls") - 0.5) < 0.01

    run(scene)


def test_a_tick_that_comes_late_is_lag_and_a_stall_is_told_by_its_cause() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await counted.server.advance(1.0)
            before = counted("sojourn_loop_lag_seconds_bucket", le="1.0")
            assert before == counted("sojourn_loop_lag_seconds_count") >= 10.0
            await counted.server.stall(3.1)
            assert counted("sojourn_loop_lag_seconds_bucket", le="1.0") == before
            assert counted("sojourn_loop_lag_seconds_bucket", le="5.0") == before + 1.0
            assert counted("sojourn_loop_stalls_total", cause="unknown") == 1.0
            counted.server.bus.emit(LoopStalled(0.5, "code"))
            assert counted("sojourn_loop_stalls_total", cause="code") == 1.0
            assert abs(counted("sojourn_loop_stalled_seconds_total") - 3.6) < 0.01

    run(scene)


def test_what_others_find_is_counted_from_their_events() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            emit = counted.server.bus.emit
            emit(LeakFound("task", "poll", "a.py:1 in f", "", "", 9.0, 1))
            emit(LeaseOverdue("db", 12.0, "", ""))
            emit(TaskFailed("mail", "the server", KeyError("mine")))
            emit(TaskSurvived("request", "connection 1 GET /", "client_reset", 6.5, "", False))
            emit(TaskSurvived("request", "connection 1 GET /", "client_reset", 9.0, "", True))
            emit(AcceptPaused("http://a", "fd_exhausted"))
            emit(AcceptPaused("http://b", "fd_exhausted"))
            emit(AcceptResumed("http://a", 1.0))
            emit(ConfigChanged(4, "somebody", {}))
            assert counted("sojourn_leaks_found_total", kind="task") == 1.0
            assert counted("sojourn_lease_overdue_total", pool="db") == 1.0
            assert counted("sojourn_tasks_failed_total") == 1.0
            assert counted("sojourn_tasks_survived_total") == 1.0
            assert counted("sojourn_accept_paused") == 1.0
            assert counted("sojourn_config_version") == 4.0

    run(scene)


def test_the_phases_of_a_drain_are_told_and_timed_and_so_is_what_became_of_everybody() -> None:
    async def scene() -> None:
        drain = Drain(delay=2.0, requests=3.0, streams=3.0, sockets=3.0, total=10.0, persist=1.0, close_rate=None)
        async with counting(Application(), settings(drain=drain)) as counted:
            await asked(counted.server, "/wait")
            counted.server.drain()
            await counted.server.advance(1.0)
            assert counted("sojourn_drain_phase", phase="notice") == 1.0
            left = counted("sojourn_drain_left_seconds")
            await counted.server.advance(1.5)
            assert counted("sojourn_drain_phase", phase="notice") == 0.0
            assert counted("sojourn_drain_phase", phase="finish") == 1.0
            assert 1.9 < counted("sojourn_drain_phase_seconds", phase="notice") < 2.5
            assert counted("sojourn_drain_left_seconds") < left
            await counted.server.advance(8.0)
            report = await counted.server.shutdown.finished()
            counted.server.bus.emit(report.event)
            assert 2.5 < counted("sojourn_drain_phase_seconds", phase="finish") < 3.5
            assert counted("sojourn_drain_connections", kind="requests", outcome="cut") == 1.0
            assert counted("sojourn_drain_connections", kind="requests", outcome="finished") == 0.0
            page = numbers(counted.page())
            assert sum(number for (name, _), number in page.items() if name == "sojourn_drain_phase") == 0.0

    run(scene)


def test_the_limit_of_connections_is_this_workers_share_of_it() -> None:
    async def scene(limits: Limits, expected: float) -> None:
        config = Config(app=App(lifespan="off", workers=4), limits=limits)
        async with counting(Application(), config) as counted:
            assert counted("sojourn_connections_limit") == expected

    asyncio.run(scene(Limits(connections=100), 100.0))
    asyncio.run(scene(Limits(connections=100, connections_total=200), 50.0))
    asyncio.run(scene(Limits(connections=None), 0.0))


def test_what_was_counted_until_the_end_is_in_the_block_and_the_server_counts_no_more() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await asked(counted.server, "/")
            counted.metrics.close()
            assert counted("sojourn_requests_ended_total", reason="completed", fault="none") == 1.0
            assert counted("sojourn_bytes_total", direction="in") > 0
            assert counted.server.site.meter is None
            assert counted.server.runtime.ticker.lagged is None
            page = counted.page()
            await asked(counted.server, "/")
            await counted.server.advance(20.0)
            assert counted.page() == page
            counted.metrics.close()

    run(scene)


@needs_promtool
def test_promtool_has_nothing_against_the_page_of_a_server_that_has_done_everything() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            for path in ("/", "/items/1", "/crash", "/503"):
                await asked(counted.server, path)
            await upgraded(counted.server, "/rooms/7")
            await counted.server.advance(9.0)
            assert promtool(counted.page()) == ""

    run(scene)


def test_many_connections_are_walked_over_in_slices() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            for _ in range(1200):
                counted.server.connect()
            await counted.server.advance(8.5)
            assert counted("sojourn_connections", protocol="none", state="opening") == 1200.0

    run(scene)


def counts(counted: Counted) -> dict[Any, float]:
    """The counters of a page."""
    return {
        key: number
        for key, number in numbers(counted.page()).items()
        if key[0].endswith(("_total", "_count", "_bucket", "_sum"))
    }


def test_no_counter_falls_while_connections_come_and_go() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            before: dict[Any, float] = {}
            for number in range(30):
                client = await upgraded(counted.server, "/rooms/7")
                client.send(client_frame(TEXT, b"hello") * 3)
                other = await asked(counted.server, "/parts")
                await counted.server.advance(1.7)
                (client if number % 2 else other).peer.close()
                after = counts(counted)
                assert all(after[key] >= value for key, value in before.items())
                before = after

    run(scene)


def test_a_peak_between_two_looks_is_not_missed() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            client = counted.server.connect()
            client.peer.stop_taking()
            client.get("/big")
            await counted.server.advance(0.2)
            waiting = client.connection.buffered
            client.peer.take_all()
            await counted.server.advance(9.0)
            assert counted("sojourn_outbox_high_bytes") >= waiting > 900_000
            assert counted("sojourn_buffered_bytes") == 0.0
            await counted.server.advance(9.0)
            assert counted("sojourn_outbox_high_bytes") == 0.0

    run(scene)


def test_requests_and_connections_are_in_the_block_with_the_next_tick() -> None:
    async def scene() -> None:
        async with counting(Application()) as counted:
            await asked(counted.server, "/")
            await counted.server.advance(0.1)
            block = counted.memory.block(0)
            found = {(family.name, labels): numbers[0] for (family, labels), numbers in block.read()}
            assert found["sojourn_requests_ended_total", ("completed", "none")] == 1.0
            assert found[DURATION, ("GET", "", "200", "")] == 1.0
            assert found["sojourn_connections_accepted_total", ()] == 1.0

    run(scene)
