"""Workers share their limits and their work: exactly, at once, and whatever becomes of one of them."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sojourn.clock import ManualClock, SystemClock
from sojourn.config import Config, Limits
from sojourn.policy.addresses import AddressTable
from sojourn.server.workers.board import Board, Row, State
from sojourn.server.workers.siblings import FRESH, Siblings

ROOT = Path(__file__).parents[3]
HERE, OTHER = "192.0.2.1", "192.0.2.2"
now = SystemClock().monotonic


class Workers:
    """Several workers of one board in this process, and one clock."""

    def __init__(self, number: int, **limits: Any) -> None:
        self.clock = ManualClock()
        self.board = Board.create(rows=8, addresses=16384)
        self.config = Config(limits=Limits(**limits))
        self.rows: list[Row] = []
        self.all: list[Siblings] = []
        for _ in range(number):
            self.add()

    def add(self) -> Siblings:
        row = self.board.claim()
        row.state, row.beat = State.READY, self.clock.monotonic()
        self.rows.append(row)
        self.all.append(Siblings(self.board, row, self.config, self.clock))
        return self.all[-1]

    def admit(self, worker: int, address: str = HERE, number: int = 1) -> list[str | None]:
        return [self.all[worker].connections.admit(address) for _ in range(number)]


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    number, limits = getattr(request, "param", (2, {}))
    workers = Workers(number, **limits)
    yield workers
    workers.board.close()


def limited(number: int, **limits: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("workers", [(number, limits)], indirect=True)


# -- limits


@limited(3, connections_total=10)
def test_the_total_holds_over_all_workers_and_a_place_that_is_left_is_anyones(workers: Workers) -> None:
    answers = [answer for turn in range(12) for answer in workers.admit(turn % 3)]
    assert answers == [None] * 10 + ["connection_limit"] * 2
    assert sum(row.open for row in workers.rows) == 10
    workers.all[1].connections.leave(HERE)
    assert workers.admit(2, number=2) == [None, "connection_limit"]
    workers.all[0].total = None
    assert workers.admit(0) == [None]


@limited(2, connections=3, connections_total=10)
def test_a_worker_keeps_its_own_limit(workers: Workers) -> None:
    assert workers.admit(0, number=4) == [None, None, None, "connection_limit"]
    assert workers.rows[0].open == 3
    assert workers.admit(1) == [None]


@limited(3, connections_per_ip=5)
def test_an_address_is_limited_over_all_workers(workers: Workers) -> None:
    answers = [answer for turn in range(7) for answer in workers.admit(turn % 3)]
    assert answers == [None] * 5 + ["address_limit"] * 2
    assert workers.admit(2, OTHER) == [None]
    assert workers.admit(1, f"::ffff:{HERE}") == ["address_limit"]
    workers.all[0].connections.leave(HERE)
    assert workers.admit(1, number=2) == [None, "address_limit"]
    assert [row.open for row in workers.rows] == [1, 3, 2]


@limited(2, connections_per_ip=3)
def test_an_ipv6_network_is_one_client_of_all_workers(workers: Workers) -> None:
    assert workers.admit(0, "2001:db8::1", 2) == [None, None]
    assert workers.admit(1, "2001:db8::ffff", 2) == [None, "address_limit"]
    assert workers.admit(1, "2001:db8:0:1::1") == [None]


@limited(2, connections_per_ip=2)
def test_a_proxied_connection_is_counted_by_its_client_on_all_workers(workers: Workers) -> None:
    first, second = (worker.connections for worker in workers.all)
    for connections in (first, second, second):
        assert connections.admit("unix") is None
    assert first.move("unix", HERE) is None
    assert second.move("unix", HERE) is None
    assert second.move("unix", HERE) == "address_limit"
    second.leave("unix")
    first.leave(HERE)
    assert workers.admit(1) == [None]


@limited(2, connections_per_ip=2)
def test_who_may_not_move_is_counted_where_it_was(workers: Workers) -> None:
    assert workers.admit(0, HERE, 2) == [None, None]
    assert workers.admit(1, OTHER) == [None]
    assert workers.all[1].connections.move(OTHER, HERE) == "address_limit"
    assert workers.admit(0, OTHER, 2) == [None, "address_limit"]
    workers.all[1].connections.leave(OTHER)
    assert workers.admit(0, OTHER) == [None]


@limited(2, connections_total=6, connections_per_ip=4)
def test_a_worker_that_was_killed_leaves_nothing_behind(workers: Workers) -> None:
    assert workers.admit(0, number=3) + workers.admit(1) == [None] * 4
    assert workers.admit(1) == ["address_limit"]
    assert workers.admit(1, OTHER, 3) == [None, None, "connection_limit"]
    workers.board.free(workers.rows[0])
    assert workers.admit(1, OTHER, 2) == [None, None]
    assert workers.admit(1, HERE) == [None]
    assert workers.add().connections.admit(HERE) == "connection_limit"


@limited(2, connections_per_ip=2)
def test_addresses_that_came_and_went_leave_nothing_behind(workers: Workers) -> None:
    for number in range(2000):
        address = f"10.0.{number // 256}.{number % 256}"
        assert workers.admit(number % 2, address) == [None]
        workers.all[number % 2].connections.leave(address)
    for row in workers.rows:
        memory = workers.board.addresses(row)
        assert not any(memory[: len(memory) // 12 * 8])


@limited(2, connections_per_ip=2)
def test_an_address_that_finds_no_place_is_limited_by_each_worker_and_counted(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(AddressTable, "enter", lambda *_: None)
        assert workers.admit(0, number=3) == [None, None, "address_limit"]
    assert workers.rows[0].untracked == 2
    assert workers.admit(1, number=3) == [None, None, "address_limit"]
    # When there is place again, it is found at the next connection.
    workers.all[0].connections.leave(HERE)
    for _ in range(2):
        workers.all[1].connections.leave(HERE)
    assert workers.admit(0) == [None]
    assert workers.admit(1) == ["address_limit"]


def test_without_a_limit_on_addresses_there_is_no_table(workers: Workers) -> None:
    assert workers.admit(0, number=100) == [None] * 100
    assert workers.rows[0].open == 100
    assert not any(workers.board.addresses(workers.rows[0]))


RACER = """
import json, sys
from sojourn.clock import SystemClock
from sojourn.config import Config, Limits
from sojourn.server.workers.board import Board
from sojourn.server.workers.siblings import Siblings
fd, row, limits = json.loads(sys.argv[1])
board = Board.attach(fd)
connections = Siblings(board, board.row(row), Config(limits=Limits(**limits))).connections
for line in sys.stdin:
    while SystemClock.monotonic() < float(line):
        pass
    admitted = 0
    while connections.admit("192.0.2.1") is None:
        admitted += 1
    print(admitted, flush=True)
    sys.stdin.readline()
    for _ in range(admitted):
        connections.leave("192.0.2.1")
    print("left", flush=True)
"""


@pytest.mark.parametrize("limits", [{"connections_total": 100}, {"connections_per_ip": 100}], ids=["total", "address"])
def test_processes_that_race_for_the_last_places_get_exactly_these(limits: dict[str, int]) -> None:
    """Not one more, and nobody is refused while there is a place: each stops at its first refusal."""
    board = Board.create(rows=4)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, json.dumps([board.fd, board.claim().index, limits])],
            pass_fds=(board.fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]

    def say(line: str) -> list[str]:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(line + "\n")
            racer.stdin.flush()
        return [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]

    try:
        for _ in range(40):
            admitted = [int(number) for number in say(str(now() + 0.005))]
            assert sum(admitted) == 100
            assert sum(row.open for row in board) == 100
            assert say("leave") == ["left"] * 3
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
        board.close()


def test_a_process_that_was_stopped_with_the_lock_holds_nobody_up() -> None:
    workers = Workers(2, connections_total=30)
    workers.clock = SystemClock()  # type: ignore[assignment]
    workers.all = [Siblings(workers.board, row, workers.config) for row in workers.rows]
    script = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX); print('locked', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(workers.board.fd)],
        pass_fds=(workers.board.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        began = now()
        answers = [answer for turn in range(1000) for answer in workers.admit(turn % 2)]
        assert 0.002 <= now() - began < 1.5, "it is waited for, but once"
        assert answers == [None] * 30 + ["connection_limit"] * 970
    finally:
        holder.kill()
        holder.communicate()
    assert workers.admit(0) == ["connection_limit"]
    fcntl.lockf(workers.board.fd, fcntl.LOCK_UN)  # the holder's ended with it
    workers.board.close()


# -- whose turn it is


def test_who_has_more_lets_others_go_first(workers: Workers) -> None:
    first, second = workers.all
    workers.admit(0, number=5)
    assert (first.ahead(), second.ahead()) == (True, False)
    workers.admit(1)
    assert (first.ahead(), second.ahead()) == (False, False), "a small lead is none"
    workers.admit(1, number=9)
    assert (first.ahead(), second.ahead()) == (False, True)


def test_of_many_a_small_share_is_no_lead(workers: Workers) -> None:
    workers.admit(1, number=6400)
    workers.admit(0, number=6504)
    assert not workers.all[0].ahead()
    workers.admit(0)
    assert workers.all[0].ahead()


@pytest.mark.parametrize("state", [State.EMPTY, State.STARTING, State.DRAINING])
def test_who_is_not_ready_is_not_waited_for(workers: Workers, state: State) -> None:
    workers.admit(0, number=100)
    workers.rows[1].state = state
    assert not workers.all[0].ahead()


def test_who_gives_no_sign_of_life_is_not_waited_for(workers: Workers) -> None:
    workers.admit(0, number=100)
    workers.clock.advance(FRESH - 0.01)
    assert workers.all[0].ahead()
    workers.clock.advance(0.02)
    assert not workers.all[0].ahead()
    workers.rows[1].beat = workers.clock.monotonic()
    assert workers.all[0].ahead()


def test_who_drains_lets_all_go_first_that_do_not(workers: Workers) -> None:
    workers.admit(1, number=100)
    workers.rows[0].state = State.DRAINING
    assert workers.all[0].ahead()
    workers.rows[1].state = State.DRAINING
    assert not workers.all[0].ahead()


@limited(1)
def test_one_worker_is_never_ahead_and_sees_another_one_come_and_go(workers: Workers) -> None:
    workers.admit(0, number=100)
    assert not workers.all[0].ahead()
    workers.add()
    assert workers.all[0].ahead()
    workers.board.free(workers.rows[1])
    assert not workers.all[0].ahead()


# -- real processes

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Pair:
    """Two servers on one socket."""

    def __init__(self, loop: str, limits: dict[str, Any]) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=2000)
        self.board = Board.create()
        self.rows = [self.board.claim(), self.board.claim()]
        self.clients: list[socket.socket] = []
        self.processes = [self._start(row, loop, limits) for row in self.rows]

    def _start(self, row: Row, loop: str, limits: dict[str, Any]) -> subprocess.Popen[bytes]:
        told = {"socket": self.sock.fileno(), "board": self.board.fd, "row": row.index, "limits": limits}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.server.workers.sibling", json.dumps(told), loop],
            pass_fds=(self.sock.fileno(), self.board.fd),
            stdin=subprocess.PIPE,
            cwd=ROOT,
        )

    def until_ready(self) -> None:
        end = now() + 30
        while not all(row.state is State.READY for row in self.rows):
            assert now() < end
            assert all(process.poll() is None for process in self.processes)
            selectors.DefaultSelector().select(0.02)

    def connect(self, number: int) -> list[socket.socket]:
        """Open WebSockets, all at once."""
        for _ in range(number):
            client = socket.create_connection(self.sock.getsockname(), timeout=20)
            client.sendall(UPGRADE)
            self.clients.append(client)
        return self.clients[-number:]

    def close(self) -> None:
        for process in self.processes:
            process.kill()  # a stopped one as well
            process.communicate()
        for sock in (self.sock, *self.clients):
            sock.close()
        self.board.close()


@contextmanager
def pair(loop: str, **limits: Any) -> Iterator[Pair]:
    pair = Pair(loop, limits)
    try:
        pair.until_ready()
        yield pair
    finally:
        pair.close()


def answered(clients: list[socket.socket], status: bytes = b"101") -> bool:
    return all(client.recv(1000).startswith(b"HTTP/1.1 " + status) for client in clients)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_two_processes_share_a_burst_and_what_comes_after_it(loop: str) -> None:
    with pair(loop) as servers:
        assert answered(servers.connect(300))
        for _ in range(100):
            assert answered(servers.connect(1))
        opened = [row.open for row in servers.rows]
        assert sum(opened) == 400
        assert max(opened) <= 0.55 * 400


def test_two_processes_hold_a_limit_and_a_killed_one_gives_its_places_back() -> None:
    with pair("uvloop", connections_per_ip=60) as servers:
        assert answered(servers.connect(60))
        assert answered(servers.connect(5), b"503")
        killed, left = servers.rows
        places = killed.open
        assert places + left.open == 60
        servers.processes[0].kill()
        servers.processes[0].wait()
        servers.board.free(killed)
        assert answered(servers.connect(places))
        assert answered(servers.connect(1), b"503")


def test_a_stopped_process_costs_the_others_clients_milliseconds() -> None:
    with pair("uvloop") as servers:
        assert answered(servers.connect(20))
        os.kill(servers.processes[0].pid, signal.SIGSTOP)
        began = now()
        for _ in range(40):
            assert answered(servers.connect(1))
        assert now() - began < 2.0
        assert servers.rows[1].open >= 40
