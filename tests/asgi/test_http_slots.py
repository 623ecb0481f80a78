"""``limits.requests``: so many at once, some more in line, the rest told to come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

from sojourn.events import DeadlineMissed, RequestEnded
from tests.asgi.harness import Cut, Served, Wire, answer, get, on_both_loops, serving, settings


class Gate:
    """An application that holds its requests until it is told to let them go."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.started: list[str] = []
        self.most = 0
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._open = False

    def let(self, served: Served, *paths: str) -> None:
        """Let requests of these paths go on, now and later; all without paths."""

        def open_() -> None:
            self._open = self._open or not paths
            for gate in [self._gates[path] for path in paths] or self._gates.values():
                gate.set()

        served.call(open_)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.running.append(path)
        self.started.append(path)
        self.most = max(self.most, len(self.running))
        try:
            if not self._open:
                await self._gates[path].wait()
            if path.startswith("/crash"):
                raise RuntimeError("crash")
            await answer(send, path.encode())
        finally:
            self.running.remove(path)


def limited(requests: int, queue: int = 10, wait: float = 20.0, **groups: Any) -> Any:
    return settings(
        limits={"requests": requests, "queue": queue, "queue_wait": wait, "retry_after": 7},
        timeouts={"disconnect_grace": 0.2},
        **groups,
    )


def queued(served: Served) -> int:
    slots = served.server.site.slots
    assert slots is not None
    return served.call(lambda: slots.waiting)


def refusal(client: Wire) -> str:
    got = client.answer()
    assert (got.status, got["retry-after"], got["connection"]) == (503, "7", "close")
    assert client.closed()
    return got.body.decode()


@on_both_loops
def test_so_many_run_at_once_and_the_rest_start_in_the_order_they_came(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(2), loop) as served:
        clients = []
        for number in range(6):
            clients.append(served.connect().send(get(f"/{number}")))
            served.until(lambda n=number: len(gate.running) + queued(served) == n + 1)
        assert gate.running == ["/0", "/1"]
        for number in (1, 0, 3, 2, 5, 4):
            gate.let(served, f"/{number}")
            assert clients[number].answer().body == f"/{number}".encode()
        assert gate.started == [f"/{number}" for number in range(6)]
        assert gate.most == 2
        for client in clients:
            client.send(get("/0"))
            assert client.answer().body == b"/0"
            client.close()


@on_both_loops
def test_a_full_queue_is_answered_with_503_and_when_to_come_back(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1, queue=2), loop) as served:
        inside = [served.connect().send(get(f"/{number}")) for number in range(3)]
        served.until(lambda: queued(served) == 2)
        with served.connect() as client:
            client.send(get("/late"))
            assert "queue_full" in refusal(client)
        gate.let(served)
        assert all(client.answer().status == 200 for client in inside)
        assert "/late" not in gate.started
        assert [each.ending.reason for each in served.of(RequestEnded) if each.status == 503] == ["queue_full"]


@on_both_loops
def test_without_a_queue_the_limit_itself_refuses(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1, queue=0), loop) as served:
        inside = served.connect().send(get("/0"))
        served.until(lambda: gate.running)
        with served.connect() as client:
            client.send(get("/late", method="POST", body=b"x" * 1000))
            assert "concurrency_limit" in refusal(client)
        gate.let(served)
        assert inside.answer().status == 200


@on_both_loops
def test_who_waits_too_long_is_answered_with_503(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1, wait=0.3), loop) as served:
        inside = served.connect().send(get("/0"))
        served.until(lambda: gate.running)
        with served.connect() as client:
            began = time.monotonic()
            client.send(get("/late"))
            assert "queue_timeout" in refusal(client)
            assert 0.25 < time.monotonic() - began < 8
        assert queued(served) == 0
        gate.let(served)
        assert inside.answer().status == 200
        assert gate.started == ["/0"]
        assert len(served.of(DeadlineMissed)) == 1


@on_both_loops
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_who_leaves_leaves_the_queue(how: str, loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1, queue=1), loop) as served:
        inside = served.connect().send(get("/0"))
        served.until(lambda: gate.running)
        gone = served.connect().send(get("/gone"))
        served.until(lambda: queued(served) == 1)
        gone.reset() if how == "rst" else gone.close()
        served.until(lambda: queued(served) == 0)
        (request,) = served.wait(RequestEnded)
        assert request.ending.reason == ("client_closed_in_queue" if how == "fin" else "client_reset")
        assert request.status == 499
        follows = served.connect().send(get("/follows"))
        served.until(lambda: queued(served) == 1)
        gate.let(served)
        assert inside.answer().body == b"/0"
        assert follows.answer().body == b"/follows"
        assert gate.started == ["/0", "/follows"]


@on_both_loops
def test_a_slot_is_given_back_however_a_request_ends(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1), loop) as served:
        gate.let(served, "/crash", "/ok")
        for number in range(3):
            with served.connect() as client:
                client.send(get("/crash"))
                assert client.answer().status == 500
            with served.connect() as client:
                client.send(get(f"/left{number}"))
                served.until(lambda: gate.running)
                client.reset()
            served.until(lambda: not gate.running)
        with served.connect() as client:
            client.send(get("/ok") + get("/ok"))
            assert [client.answer().status for _ in range(2)] == [200, 200]


@on_both_loops
def test_a_request_keeps_its_slot_until_its_application_has_returned(loop: str) -> None:
    """The answer is complete, but its work is not: it counts."""
    go = asyncio.Event()
    started: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope["path"])
        await answer(send, scope["path"].encode())
        await go.wait()

    with serving(app, limited(1), loop) as served, served.connect() as client:
        client.send(get("/1") + get("/2"))
        assert client.answer().body == b"/1"
        served.until(lambda: queued(served) == 1)
        assert client.silent(0.1)
        served.call(go.set)
        assert client.answer().body == b"/2"
        assert started == ["/1", "/2"]


@on_both_loops
def test_a_request_that_is_timed_out_keeps_its_slot_while_it_resists(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await answer(send, b"ok")
            return
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.2)

    config = settings(limits={"requests": 1}, timeouts={"response_start": 0.2})
    with serving(app, config, loop) as served, served.connect() as slow, served.connect() as other:
        slow.send(get("/slow"))
        assert slow.answer().status == 504
        other.send(get("/ok"))
        served.until(lambda: queued(served) == 1)
        assert other.answer().body == b"ok"


@on_both_loops
def test_a_body_that_comes_while_its_request_waits_is_bounded_and_whole(loop: str) -> None:
    gate = asyncio.Event()
    size = 5_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            await gate.wait()
        total, more = 0, True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]
        await answer(send, b"%d" % total)

    with serving(app, limited(1), loop) as served:
        first = served.connect().send(get("/first"))
        served.until(lambda: served.call(lambda: served.server.site.slots.running) == 1)  # type: ignore[union-attr]
        second = served.connect()
        sender = threading.Thread(target=second.send, args=[get("/second", method="POST", body=b"x" * size)])
        sender.start()
        served.until(lambda: queued(served) == 1)
        served.until(lambda: [each for each in served.connections() if each.reading_paused])
        assert max(each.bytes_in for each in served.connections()) < 600_000
        served.call(gate.set)
        assert first.answer().body == b"0"
        assert second.answer().body == b"%d" % size
        sender.join()


@on_both_loops
def test_who_waits_when_the_server_stops_is_answered_or_cut(loop: str) -> None:
    gate = Gate()
    with serving(gate, limited(1, drain={"requests": 8.0, "total": 10.0}), loop) as served:
        inside = served.connect().send(get("/0"))
        served.until(lambda: gate.running)
        waiting = served.connect().send(get("/1"))
        served.until(lambda: queued(served) == 1)
        served.call(served.server.stop)
        gate.let(served, "/0")
        assert inside.answer()["connection"] == "close"
        gate.let(served, "/1")
        try:
            assert waiting.answer().status == 200
        except Cut:
            pass
