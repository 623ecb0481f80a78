"""What waits for a peer that is behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from sojourn.net.outbox import Outbox, acknowledged, reset_on_close, unacknowledged
from sojourn.policy.deadlines import Progress


def outbox() -> Outbox:
    return Outbox(Progress(0.0, 0, None, None, 5.0))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            accepted.setblocking(False)
            yield accepted, client


def test_messages_leave_in_order_and_cancelled_ones_not_at_all() -> None:
    async def main() -> None:
        loop, box = asyncio.get_running_loop(), outbox()
        futures = [box.enqueue(loop, data, float(index)) for index, data in enumerate([b"a", b"bb", b"ccc", b"dddd"])]
        assert box.queued_bytes == 10
        assert box.oldest == 0.0
        futures[0].cancel()
        futures[2].cancel()
        assert box.oldest == 1.0
        left = []
        while (queued := box.pop()) is not None:
            left.append(queued.data)
        assert left == [b"bb", b"dddd"]
        assert (box.queued_bytes, box.oldest) == (0, None)

    asyncio.run(main())


def test_room_wakes_who_waits_for_it_and_leaves_the_queue_alone() -> None:
    async def main() -> None:
        loop, box = asyncio.get_running_loop(), outbox()
        waiter, cancelled = loop.create_future(), loop.create_future()
        cancelled.cancel()
        box.waiters += [waiter, cancelled]
        written = box.enqueue(loop, b"a", 0.0)
        box.wake()
        assert waiter.result() is None
        assert not written.done()
        assert box.queued_bytes == 1

    asyncio.run(main())


def test_an_end_reaches_everybody_who_waits() -> None:
    async def main() -> None:
        loop, box = asyncio.get_running_loop(), outbox()
        waiter = loop.create_future()
        box.waiters.append(waiter)
        written = box.enqueue(loop, b"a", 0.0)
        box.wake(ConnectionError("gone"))
        for future in (waiter, written):
            assert isinstance(future.exception(), ConnectionError)
        assert (box.queued_bytes, box.pop()) == (0, None)

    asyncio.run(main())


def test_the_kernel_says_what_a_tcp_peer_has_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    before = acknowledged(ours)
    assert before is not None
    ours.sendall(b"x" * 1000)
    theirs.recv(1000)
    assert acknowledged(ours) == before + 1000
    assert unacknowledged(ours) == 0


def test_the_kernel_says_what_a_tcp_peer_has_not_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    sent = 0
    try:
        while True:
            sent += ours.send(b"x" * 65536)
    except BlockingIOError:
        pass
    taken = acknowledged(ours)
    assert taken is not None
    assert taken + unacknowledged(ours) == sent
    assert unacknowledged(ours) > 0


def test_a_unix_socket_says_only_what_its_peer_has_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x" * 1000)
        assert acknowledged(ours) is None
        assert unacknowledged(ours) >= 1000  # the kernel counts its own overhead too
        theirs.recv(1000)
        assert unacknowledged(ours) == 0


def test_a_socket_that_is_closed_or_absent_says_nothing() -> None:
    sock = socket.socket()
    sock.close()
    for none in (sock, None):
        assert acknowledged(none) is None
        assert unacknowledged(none) == 0
        reset_on_close(none)


def test_a_reset_is_seen_as_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reset_on_close(ours)
    ours.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)
