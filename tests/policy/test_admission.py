"""Connections and requests are let in up to their limits, in order, and every place comes back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sojourn.clock import NEVER
from sojourn.ending import REASONS
from sojourn.policy.admission import Connections, Slots

ADDRESSES = ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "unix"]
CLIENT = {
    "192.0.2.1": "a",
    "::ffff:192.0.2.1": "a",
    "192.0.2.2": "b",
    "2001:db8::1": "c",
    "2001:db8::2": "c",
    "2001:db8:0:1::1": "d",
    "unix": None,
}


def test_no_limit_admits_everyone() -> None:
    connections = Connections(None, None)
    assert [connections.admit("192.0.2.1") for _ in range(100)] == [None] * 100
    assert connections.open == 100


def test_the_total_is_limited_and_a_place_comes_back() -> None:
    connections = Connections(2, None)
    assert connections.admit("192.0.2.1") is None
    assert connections.admit("192.0.2.2") is None
    assert connections.admit("192.0.2.3") == "connection_limit"
    connections.leave("192.0.2.1")
    assert connections.admit("192.0.2.3") is None
    assert connections.addresses == 2


def test_one_address_is_limited_and_others_are_not() -> None:
    connections = Connections(None, 1)
    assert connections.admit("192.0.2.1") is None
    assert connections.admit("192.0.2.1") == "address_limit"
    assert connections.admit("::ffff:192.0.2.1") == "address_limit"
    assert connections.admit("192.0.2.2") is None
    assert connections.open == 2


def test_an_ipv6_network_counts_as_one_client() -> None:
    connections = Connections(None, 1)
    assert connections.admit("2001:db8::1") is None
    assert connections.admit("2001:db8::ffff:2") == "address_limit"
    assert connections.admit("2001:db8:0:1::1") is None
    assert connections.admit("fe80::1%eth0") is None
    assert connections.admit("fe80::2%eth1") == "address_limit"
    single = Connections(None, 1, ipv6_prefix=128)
    assert [single.admit("2001:db8::1"), single.admit("2001:db8::2")] == [None, None]
    wide = Connections(None, 1, ipv6_prefix=48)
    assert [wide.admit("2001:db8::1"), wide.admit("2001:db8:0:1::1")] == [None, "address_limit"]


def test_peers_of_a_unix_socket_have_no_address() -> None:
    connections = Connections(3, 1)
    assert [connections.admit("unix") for _ in range(4)] == [None, None, None, "connection_limit"]
    assert connections.addresses == 0


def test_a_proxied_connection_is_counted_by_its_client() -> None:
    connections = Connections(None, 2)
    assert connections.admit("10.0.0.1") is None
    assert connections.move("10.0.0.1", "192.0.2.1") is None
    assert connections.admit("10.0.0.1") is None
    assert connections.move("10.0.0.1", "192.0.2.1") is None
    assert connections.admit("10.0.0.1") is None
    assert connections.move("10.0.0.1", "192.0.2.1") == "address_limit"
    connections.leave("10.0.0.1")
    connections.leave("192.0.2.1")
    connections.leave("192.0.2.1")
    assert (connections.open, connections.addresses) == (0, 0)


def test_leaving_twice_is_a_bug_that_shows() -> None:
    connections = Connections(None, None)
    with pytest.raises(ValueError, match="more connections left"):
        connections.leave("192.0.2.1")
    connections.admit("192.0.2.1")
    with pytest.raises(ValueError, match=r"no connection of 192\.0\.2\.2"):
        connections.leave("192.0.2.2")


class Far:
    """Other workers: what they were told, and how much room they leave."""

    def __init__(self, room: int, room_for_address: int) -> None:
        self.room, self.room_for_address = room, room_for_address
        self.told = 0
        self.addresses: dict[str, int] = {}

    def enter(self, mine: int) -> bool:
        if mine > self.room:
            return False
        self.told = mine
        return True

    def leave(self, mine: int) -> None:
        self.told = mine

    def enter_address(self, key: str, mine: int, limit: int | None) -> bool:
        if limit is not None and mine > self.room_for_address:
            return False
        self.addresses[key] = mine
        return True

    def leave_address(self, key: str, mine: int) -> None:
        self.addresses[key] = mine


def test_those_elsewhere_are_asked_for_room_and_always_know_what_is_open_here() -> None:
    far = Far(room=3, room_for_address=2)
    connections = Connections(10, 5, elsewhere=far)
    answers = [connections.admit(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "unix")]
    assert answers == [None, None, "address_limit", None, "connection_limit"]
    assert (far.told, far.addresses) == (3, {"192.0.2.1": 2, "192.0.2.2": 1})
    assert connections.move("192.0.2.2", "192.0.2.1") == "address_limit"
    assert far.addresses == {"192.0.2.1": 2, "192.0.2.2": 1}
    assert connections.move("192.0.2.1", "192.0.2.2") is None
    assert far.addresses == {"192.0.2.1": 1, "192.0.2.2": 2}
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
        connections.leave(address)
    assert (far.told, far.addresses) == (0, {"192.0.2.1": 0, "192.0.2.2": 0})


class ConnectionsMachine(RuleBasedStateMachine):
    """Whatever comes and goes: limits hold, and the tables hold exactly what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = Connections(6, 2)
        self.open: list[str] = []

    def clients(self) -> Counter[str | None]:
        return Counter(CLIENT[address] for address in self.open)

    @rule(address=st.sampled_from(ADDRESSES))
    def admit(self, address: str) -> None:
        client = CLIENT[address]
        full = client is not None and self.subject.per_address is not None
        if self.subject.limit is not None and len(self.open) >= self.subject.limit:
            expected = "connection_limit"
        elif full and self.clients()[client] >= (self.subject.per_address or 0):
            expected = "address_limit"
        else:
            expected = None
        assert self.subject.admit(address) == expected
        if expected is None:
            self.open.append(address)
        else:
            assert expected in REASONS

    @precondition(lambda self: self.open)
    @rule(data=st.data(), to=st.sampled_from(ADDRESSES))
    def move(self, data: st.DataObject, to: str) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        others = Counter(CLIENT[address] for at, address in enumerate(self.open) if at != index)
        limit = self.subject.per_address
        refused = CLIENT[to] is not None and limit is not None and others[CLIENT[to]] >= limit
        assert self.subject.move(self.open[index], to) == ("address_limit" if refused else None)
        if not refused:
            self.open[index] = to

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.subject.leave(self.open.pop(data.draw(st.integers(0, len(self.open) - 1))))

    @rule(limit=st.none() | st.integers(1, 8), per_address=st.none() | st.integers(1, 3))
    def change(self, limit: int | None, per_address: int | None) -> None:
        self.subject.limit, self.subject.per_address = limit, per_address

    @invariant()
    def accounted(self) -> None:
        assert self.subject.open == len(self.open)
        assert self.subject.addresses == len(set(self.clients()) - {None})


TestConnectionsMachine = ConnectionsMachine.TestCase


def test_without_a_queue_the_next_one_is_refused() -> None:
    slots: Slots[str] = Slots(1, 0, 1.0)
    assert slots.enter(0.0, "a") == "run"
    assert slots.enter(0.0, "b") == "concurrency_limit"
    assert slots.leave(0.0) is None
    assert slots.enter(0.0, "b") == "run"


def test_the_queue_is_first_in_first_out_and_bounded() -> None:
    slots: Slots[str] = Slots(1, 2, 1.0)
    assert [slots.enter(0.0, ticket) for ticket in "abcd"] == ["run", "queued", "queued", "queue_full"]
    assert slots.leave(0.5) == "b"
    assert slots.last_wait == 0.5
    assert slots.leave(0.75) == "c"
    assert slots.leave(0.8) is None
    assert slots.running == 0


def test_a_wait_ends_in_time_and_the_next_end_can_be_read() -> None:
    slots: Slots[str] = Slots(1, 5, 1.0)
    assert slots.next_expiry == NEVER
    for at, ticket in enumerate("abc"):
        slots.enter(at / 4, ticket)
    assert slots.next_expiry == 1.25
    assert slots.expired(1.0) == []
    assert slots.expired(1.25) == ["b"]
    assert slots.next_expiry == 1.5
    assert slots.expired(9.0) == ["c"]
    assert slots.next_expiry == NEVER


def test_a_client_that_left_makes_room() -> None:
    slots: Slots[str] = Slots(1, 1, 1.0)
    assert [slots.enter(0.0, ticket) for ticket in "abc"] == ["run", "queued", "queue_full"]
    assert slots.forget("b") is True
    assert slots.forget("b") is False
    assert slots.forget("a") is False  # it runs: leave() is what it needs
    assert slots.enter(0.0, "c") == "queued"
    assert slots.leave(0.0) == "c"


def test_limits_change_while_requests_wait() -> None:
    slots: Slots[str] = Slots(1, 5, 1.0)
    for ticket in "abcd":
        slots.enter(0.0, ticket)
    assert slots.resize(0.1, 3, 5, 2.0) == ["b", "c"]
    assert slots.next_expiry == 2.0
    assert slots.resize(0.1, 1, 5, 2.0) == []
    assert [slots.leave(0.2), slots.leave(0.2), slots.leave(0.2)] == [None, None, "d"]


def test_bugs_of_the_caller_show() -> None:
    slots: Slots[str] = Slots(1, 5, 1.0)
    with pytest.raises(ValueError, match="more requests left"):
        slots.leave(0.0)
    slots.enter(0.0, "a")
    slots.enter(0.0, "b")
    with pytest.raises(ValueError, match="waiting already"):
        slots.enter(0.0, "b")


class SlotsMachine(RuleBasedStateMachine):
    """Every ticket runs, is refused, is forgotten or expires: once. Nobody waits while a slot is free."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.subject: Slots[int] = Slots(2, 3, 1.0)
        self.tickets = 0
        self.running: list[int] = []
        self.waiting: list[tuple[int, float]] = []

    def start(self, ticket: int) -> None:
        assert ticket == self.waiting.pop(0)[0]
        self.running.append(ticket)

    @rule()
    def enter(self) -> None:
        self.tickets += 1
        answer = self.subject.enter(self.now, self.tickets)
        if len(self.running) < self.subject.limit:
            assert answer == "run"
            self.running.append(self.tickets)
        elif len(self.waiting) < self.subject.queue:
            assert answer == "queued"
            self.waiting.append((self.tickets, self.now))
        else:
            assert answer == ("queue_full" if self.subject.queue else "concurrency_limit")
            assert answer in REASONS

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        since = self.waiting[0][1] if self.waiting else 0.0
        started = self.subject.leave(self.now)
        assert (started is not None) is (bool(self.waiting) and len(self.running) < self.subject.limit)
        if started is not None:
            self.start(started)
            assert self.subject.last_wait == self.now - since

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        ticket, _ = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.subject.forget(ticket)

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        due = [ticket for ticket, since in self.waiting if since + self.subject.queue_wait <= self.now]
        assert self.subject.expired(self.now) == due
        self.waiting = [entry for entry in self.waiting if entry[0] not in due]

    @rule(limit=st.integers(1, 4), queue=st.integers(0, 4), queue_wait=st.sampled_from([0.5, 1.0, 2.0]))
    def resize(self, limit: int, queue: int, queue_wait: float) -> None:
        for ticket in self.subject.resize(self.now, limit, queue, queue_wait):
            self.start(ticket)

    @invariant()
    def accounted(self) -> None:
        assert self.subject.running == len(self.running)
        assert self.subject.waiting == len(self.waiting)
        assert not self.waiting or len(self.running) >= self.subject.limit
        oldest = self.waiting[0][1] + self.subject.queue_wait if self.waiting else NEVER
        assert self.subject.next_expiry == oldest


TestSlotsMachine = SlotsMachine.TestCase
