"""Planted faults are named with file and line, in the log and by the admin listener; a clean server reports nothing.

The clean server is under load for a minute; ``DRILL_SECONDS=600`` makes that ten.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from drills import planted
from drills.crowd import Client, Crowd, EventStream, Load, Request, WebSocket
from drills.served import end_of, now, serving
from tests.server.processes import Serving

FILE: Final = Path(planted.__file__)
SECONDS: Final = float(os.environ.get("DRILL_SECONDS", "60"))
#: Longest time until a fault is named: grace, two sweeps, and a machine that is busy with something else.
PATIENCE: Final = 40.0
#: Descriptors are named only once their number has grown for minutes, and connections half a minute after their end.
SLOW_PATIENCE: Final = 420.0


class Watched:
    """A server with its admin listener."""

    def __init__(self, served: Serving, admin: Path) -> None:
        self.served = served
        self._admin = admin

    def get(self, path: str) -> bytes:
        """What the admin listener answers; it must be 200."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self._admin))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b"".join(iter(lambda: client.recv(1 << 16), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), data[:2000]
        return body

    def list(self, path: str, name: str = "") -> list[dict[str, Any]]:
        """A list of the admin listener, named like its path or otherwise; every worker must have answered."""
        document = json.loads(self.get(path))
        assert set(document["workers"].values()) == {"ok"}, document["workers"]
        found: list[dict[str, Any]] = document[name or path[1:].partition("?")[0]]
        return found

    def do(self, path: str, times: int = 1) -> None:
        """Requests of the application, one after the other."""
        for _ in range(times):
            with socket.create_connection(("127.0.0.1", self.served.port), timeout=30) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 "), answer

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Somebody else's requests meanwhile, without a pause: a fault has victims."""
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.02):
                self.do("/")

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)

    def leak(self, kind: str, known: int = 1, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the record of the planted leak of a kind, with at least so many, and for its metrics."""

        def there() -> list[dict[str, Any]]:
            return [
                leak
                for leak in self.list("/leaks")
                if leak["kind"] == kind and line_of(kind) in leak["created"] and leak["known"] >= known
            ]

        found: dict[str, Any] = self.eventually(there, f"a leak of kind {kind}", patience)[0]
        series = f'{{kind="{kind}"}}'
        self.eventually(lambda: self.metric(f"sojourn_leaks{series}") >= found["alive"], "how many there are")
        self.eventually(lambda: self.metric(f"sojourn_leaks_found_total{series}") >= 1, "that one was found")
        return found

    def told(self, event: str, **fields: str) -> dict[str, Any]:
        """Wait for a message in which these fields have these texts in them."""

        def there() -> list[dict[str, Any]]:
            return [m for m in self.served.told(event) if all(text in str(m[name]) for name, text in fields.items())]

        found: dict[str, Any] = self.eventually(there, f"{event} with {fields}")[0]
        return found

    def eventually(self, there: Any, what: str, patience: float = PATIENCE) -> Any:
        """Wait for something to be true."""
        pause, end = socket.socketpair(), now() + patience
        with pause[0], pause[1]:
            pause[0].settimeout(0.25)
            while not (found := there()):
                assert now() < end, f"{what}: not within {patience} s; {self.served.stderr[-3000:]}"
                try:
                    pause[0].recv(1)
                except TimeoutError:
                    pass  # a quarter of a second has passed
        return found

    def metric(self, series: str) -> float:
        """A value of the metrics page; 0 when it is not there."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.get("/metrics").decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0


def line_of(mark: str) -> str:
    """``file:line`` of a planted fault."""
    lines = FILE.read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"planted: {mark}")]
    return f"{FILE.name}:{number}"


@contextmanager
def watched(folder: Path, **settings: str) -> Iterator[Watched]:
    admin = folder / "admin.sock"
    chosen = {"admin_bind": f"unix:{admin}", "diagnostics_leak_grace": "1", "diagnostics_lease_held": "2"} | settings
    with serving("drills.planted:app", **chosen) as served:
        served.wait_for("serving ")
        yield Watched(served, admin)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One server for all faults: each has a line of its own."""
    with watched(tmp_path_factory.mktemp("faulty"), diagnostics_stall="0.1") as server:
        yield server


def test_a_task_leaked_by_each_request_is_named_with_the_line_that_made_it_and_the_line_it_waits_at(
    faulty: Watched,
) -> None:
    faulty.do("/leak-task", 5)
    leak = faulty.leak("task", 5)
    assert leak["what"].endswith("never_ends")
    assert leak["alive"] == 5
    assert line_of("task waits") in leak["waiting"]
    assert "/leak-task" in leak["owner"]
    faulty.told("leak_found", kind="task", created=line_of("task"), waiting=line_of("task waits"))
    listed = [task for task in faulty.list("/tasks?limit=1000") if line_of("task") in task["created"]]
    assert len(listed) == 5
    assert all(task["retained"] for task in listed)
    assert b"never_ends" in faulty.get("/debug/pprof/goroutine?debug=1")


def test_a_task_that_the_collector_took_is_named_with_the_line_that_made_it(faulty: Watched) -> None:
    faulty.do("/lose-task")
    faulty.leak("lost_task")
    faulty.told("leak_found", kind="lost_task", created=line_of("lost_task"))


def test_a_lease_never_returned_is_named_with_the_line_that_took_it(faulty: Watched) -> None:
    faulty.do("/keep-lease", 3)
    leak = faulty.leak("lease", 3)
    assert (leak["what"], leak["alive"]) == ("pool", 3)
    assert "/keep-lease" in leak["owner"]
    faulty.told("leak_found", kind="lease", created=line_of("lease"))


def test_a_lease_held_for_too_long_is_named_with_the_stack_that_took_it_and_told_when_it_comes_back(
    faulty: Watched,
) -> None:
    def held() -> list[dict[str, Any]]:
        return [each for each in faulty.list("/leaks", "overdue") if line_of("overdue") in each["created"]]

    asking = threading.Thread(target=faulty.do, args=("/hold-lease",))
    asking.start()
    (listed,) = faulty.eventually(held, "a lease that is overdue")
    asking.join(30)
    assert (listed["pool"], listed["leaked"]) == ("slow pool", False)
    assert "/hold-lease" in listed["owner"]
    assert held() == []
    overdue = faulty.told("lease_overdue", pool="slow pool")
    assert "hold_lease" in overdue["stack"]
    assert line_of("overdue").partition(":")[2] in overdue["stack"]
    faulty.told("lease_returned", pool="slow pool")
    faulty.eventually(lambda: faulty.metric('sojourn_lease_overdue_total{pool="slow pool"}') >= 1, "that one was late")


def test_a_blocking_call_in_a_handler_is_named(faulty: Watched) -> None:
    with faulty.busy():
        faulty.do("/block")
    told = faulty.told("loop_stalled", function=line_of("block"))
    assert told["cause"] in ("code", "native")
    assert 0.4 < told["seconds"] < 5
    assert "ask_somebody" in told["function"]
    (stall,) = [stall for stall in faulty.list("/stalls") if line_of("block") in stall["function"]]
    assert stall["known"] == 1
    file, _, line = line_of("block").partition(":")
    shown = faulty.get("/debug/pprof/stall?debug=1").decode()
    assert re.search(rf"^ask_somebody\n\s.*/{re.escape(file)}:{line}$", shown, re.MULTILINE), shown
    faulty.eventually(lambda: faulty.metric(f'sojourn_loop_stalls_total{{cause="{told["cause"]}"}}') >= 1, "the stall")


def test_a_handler_that_keeps_the_collector_busy_is_named_and_the_collector_is_the_cause(faulty: Watched) -> None:
    with faulty.busy():
        faulty.do("/make-garbage")
    told = faulty.told("loop_stalled", cause="gc", function=line_of("garbage"))
    assert told["collector"] > 0.5 * told["seconds"]
    causes = {stall["cause"] for stall in faulty.list("/stalls") if line_of("garbage") in stall["function"]}
    assert "gc" in causes
    faulty.eventually(lambda: faulty.metric('sojourn_loop_stalls_total{cause="gc"}') >= 1, "the stall")
    assert faulty.metric('sojourn_gc_pause_seconds_count{generation="2"}') >= 1


def test_a_coroutine_never_awaited_is_named_with_its_line(faulty: Watched) -> None:
    faulty.do("/forget-coroutine", 2)
    leak = faulty.leak("coroutine", 2)
    assert leak["what"].endswith("never_ends")
    faulty.told("leak_found", kind="coroutine", created=line_of("coroutine"))


def test_connections_kept_alive_are_named_with_the_variable_that_holds_them_and_its_line(faulty: Watched) -> None:
    faulty.do("/keep-connection", 8)
    leak = faulty.leak("connection", 5, SLOW_PATIENCE)
    assert leak["holder"].startswith("drills.planted.CALLBACKS -> list -> ")
    assert "/keep-connection" in leak["owner"]
    faulty.told("leak_found", kind="connection", created=line_of("connection"), holder="drills.planted.CALLBACKS")


def test_descriptors_that_stay_open_are_named_with_the_line_that_opened_them(faulty: Watched) -> None:
    def there() -> list[dict[str, Any]]:
        faulty.do("/leak-descriptor")
        return [leak for leak in faulty.list("/leaks") if leak["kind"] == "fd" and line_of("fd") in leak["created"]]

    faulty.eventually(there, "the leaked descriptors", SLOW_PATIENCE)
    assert faulty.leak("fd")["alive"] >= 8
    faulty.told("leak_found", kind="fd", created=line_of("fd"))


def test_a_clean_server_under_load_reports_nothing(tmp_path: Path) -> None:
    """Clients of every kind come, go, and leave in the middle."""

    async def passing(crowd: Crowd, make: Any, stay: float) -> None:
        clients: list[Client] = await crowd.join(make, 20)
        await asyncio.sleep(stay)
        for client in clients:
            client.transport.abort()

    async def main(server: Watched) -> None:
        end = now() + SECONDS
        async with Load(server.served.port, new=2, kept=4) as load:
            while now() < end:
                async with Crowd(server.served.port) as crowd, asyncio.timeout(60):
                    await asyncio.gather(
                        passing(crowd, lambda: WebSocket("/ws"), 2),
                        passing(crowd, lambda: EventStream("/events"), 1),
                        passing(crowd, lambda: Request("/"), 0.001),
                    )
        assert load.failures == []
        assert sum(load.answers.values()) > 20 * SECONDS
        await asyncio.sleep(15)  # grace, and two sweeps
        assert await asyncio.to_thread(server.list, "/leaks") == []
        # Somebody else's work may take the processor away; no function is to blame for that.
        stalls = await asyncio.to_thread(server.list, "/stalls")
        assert [stall for stall in stalls if stall["cause"] != "machine"] == []
        for kind in ("task", "lost_task", "coroutine", "lease", "fd", "connection", "resource"):
            assert await asyncio.to_thread(server.metric, f'sojourn_leaks{{kind="{kind}"}}') == 0
        server.served.signal()
        code, _ = await end_of(server.served, 60)
        assert code == 0
        for event in ("leak_found", "lease_overdue", "task_survived", "worker_hung", "application_failed"):
            assert server.served.told(event) == []
        assert [told for told in server.served.told("loop_stalled") if told["cause"] not in ("machine", "")] == []

    with watched(tmp_path) as server:
        asyncio.run(main(server))
