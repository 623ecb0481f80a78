"""The ring never makes the loop wait, loses nothing in silence, and lets an idle process sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sojourn.observe.log.ring import Ring
from tests.observe.log.samples import Memory

MakeRing = Callable[..., Ring]


@pytest.fixture
def make_ring() -> Iterator[MakeRing]:
    rings: list[Ring] = []

    def make(capacity: int = 64, **options: float) -> Ring:
        rings.append(Ring(capacity, **options))  # type: ignore[arg-type]
        return rings[-1]

    yield make
    for ring in rings:
        ring.close(5)


def stick(ring: Ring, memory: Memory) -> None:
    """Bring the writer thread into a write that doesn't return."""
    ring.append((memory, 0.0, "stuck"))
    assert memory.writing.wait(5)


def test_lines_are_written_in_the_order_they_came(make_ring: MakeRing) -> None:
    ring, memory = make_ring(1000), Memory()
    for number in range(500):
        ring.append((memory, 0.0, number))
    assert ring.flush()
    assert memory.lines == [str(number) for number in range(500)]
    assert ring.dropped == 0


def test_what_came_during_a_write_is_written_with_one_call(make_ring: MakeRing) -> None:
    ring, memory = make_ring(1000), Memory(stuck=True)
    stick(ring, memory)
    for number in range(400):
        ring.append((memory, 0.0, number))
    memory.reader.set()
    assert ring.flush()
    assert len(memory.writes) == 2


def test_a_batch_is_bounded_in_bytes(make_ring: MakeRing) -> None:
    ring, memory = make_ring(1000), Memory(stuck=True)
    stick(ring, memory)
    for _ in range(100):
        ring.append((memory, 0.0, "x" * 10_000))
    memory.reader.set()
    assert ring.flush()
    assert len(memory.lines) == 101
    assert max(map(len, memory.writes)) <= 256 * 1024 + 10_001


def test_a_full_ring_drops_the_newest_lines_and_counts_them(make_ring: MakeRing) -> None:
    ring, memory = make_ring(10, reserve=0), Memory(stuck=True)
    stick(ring, memory)
    for number in range(25):
        ring.append((memory, 0.0, number))
    assert (ring.dropped, memory.dropped, len(ring)) == (15, 15, 10)
    memory.reader.set()
    assert ring.flush()
    assert memory.lines == ["stuck", *map(str, range(10)), "15 dropped"]


def test_a_gap_is_told_once_and_before_what_came_after_it(make_ring: MakeRing) -> None:
    ring, memory = make_ring(2), Memory(stuck=True)
    stick(ring, memory)
    for number in range(3):
        ring.append((memory, 0.0, number))
    memory.reader.set()
    assert ring.flush()
    ring.append((memory, 0.0, "later"))
    assert ring.flush()
    assert memory.lines == ["stuck", "0", "1", "1 dropped", "later"]


def test_the_loop_goes_on_while_the_writer_is_stuck(make_ring: MakeRing) -> None:
    ring, memory = make_ring(100), Memory(stuck=True)
    stick(ring, memory)
    began = time.monotonic()
    for number in range(50_000):
        ring.append((memory, 0.0, number))
    assert time.monotonic() - began < 5, "an append waited for the writer"
    assert len(ring) == 100
    memory.reader.set()


def test_a_flood_leaves_room_for_urgent_lines(make_ring: MakeRing) -> None:
    ring, memory = make_ring(10, reserve=2), Memory(stuck=True)
    stick(ring, memory)
    for number in range(20):
        ring.append((memory, 0.0, number))
    for name in "abc":
        ring.urgent((memory, 0.0, name))
    memory.reader.set()
    assert ring.flush()
    assert memory.lines == ["stuck", *map(str, range(10)), "a", "b", "11 dropped"]


def test_a_burst_wakes_the_writer_before_its_interval_is_over(make_ring: MakeRing) -> None:
    ring, memory = make_ring(100, interval=3600), Memory()
    ring.append((memory, 0.0, "first"))
    assert memory.writing.wait(5)
    memory.writing.clear()
    while len(ring):  # until the first batch is done and the long interval begins
        pass
    for number in range(99):
        ring.append((memory, 0.0, number))
    assert memory.writing.wait(5)


def test_an_idle_ring_has_no_wakeups(make_ring: MakeRing) -> None:
    ring, memory = make_ring(interval=0.005), Memory()
    ring.append((memory, 0.0, "line"))
    assert ring.flush()
    threading.Event().wait(0.1)
    before = ring.wakeups
    threading.Event().wait(0.3)
    assert ring.wakeups == before
    ring.append((memory, 0.0, "another"))
    assert ring.flush()
    assert memory.lines == ["line", "another"]


def test_lines_that_trickle_are_never_left_behind(make_ring: MakeRing) -> None:
    ring, memory = make_ring(interval=0.0005), Memory()
    for number in range(300):
        memory.writing.clear()
        ring.append((memory, 0.0, number))
        if number % 3:  # at once, while the thread works, and after it fell asleep
            assert memory.writing.wait(5)
        if number % 3 == 2:
            threading.Event().wait(0.002)
    assert ring.flush()
    assert len(memory.lines) == 300


def test_lines_of_many_threads_are_written_or_counted(make_ring: MakeRing) -> None:
    ring, memory = make_ring(50, reserve=10, interval=0.001), Memory()

    def talk() -> None:
        for number in range(2000):
            ring.urgent((memory, 0.0, number))

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ring.flush(10)
    written = [line for line in memory.lines if not line.endswith("dropped")]
    assert len(written) + memory.dropped == 8000


def test_each_destination_gets_its_own_lines(make_ring: MakeRing) -> None:
    ring, access, console = make_ring(), Memory(), Memory()
    for number in range(6):
        ring.append((console if number % 2 else access, 0.0, number))
    assert ring.flush()
    assert (access.lines, console.lines) == (["0", "2", "4"], ["1", "3", "5"])


def test_an_order_runs_after_the_lines_before_it(make_ring: MakeRing) -> None:
    ring, memory = make_ring(), Memory(stuck=True)
    seen: list[list[str]] = []
    stick(ring, memory)
    ring.append((memory, 0.0, "before"))
    ring.order(lambda: seen.append(memory.lines))
    ring.append((memory, 0.0, "after"))
    memory.reader.set()
    assert ring.flush()
    assert seen == [["stuck", "before"]]


def test_flush_gives_up_on_a_stuck_reader_and_then_asks_no_patience_again(make_ring: MakeRing) -> None:
    ring, memory = make_ring(), Memory(stuck=True)
    stick(ring, memory)
    assert not ring.flush(0.05)
    began = time.monotonic()
    assert not ring.flush(30)
    assert time.monotonic() - began < 5
    memory.reader.set()
    assert memory.writing.wait(5)


def test_a_reader_that_recovered_is_waited_for_again(make_ring: MakeRing) -> None:
    ring, memory = make_ring(), Memory(stuck=True)
    stick(ring, memory)
    assert not ring.flush(0.01)
    memory.reader.set()
    while not ring.flush(5):  # the thread clears its name once the batch is written
        pass
    assert ring.flush(5)


def test_close_writes_what_waits(make_ring: MakeRing) -> None:
    ring, memory = make_ring(interval=3600), Memory()
    for number in range(20):
        ring.append((memory, 0.0, number))
    assert ring.close() == 0
    assert memory.lines == [str(number) for number in range(20)]


def test_close_leaves_a_stuck_writer_behind_and_says_how_much_is_lost(make_ring: MakeRing) -> None:
    ring, memory = make_ring(), Memory(stuck=True)
    stick(ring, memory)
    for number in range(5):
        ring.append((memory, 0.0, number))
    began = time.monotonic()
    assert ring.close(0.05) == 5
    assert time.monotonic() - began < 5
    memory.reader.set()


def test_a_closed_ring_drops_and_counts(make_ring: MakeRing) -> None:
    ring, memory = make_ring(), Memory()
    ring.close()
    ring.close()
    ring.append((memory, 0.0, "late"))
    ring.urgent((memory, 0.0, "late"))
    assert (ring.dropped, len(ring), memory.lines) == (2, 0, [])
    assert ring.flush()


def test_a_gap_is_told_behind_the_lines_that_filled_the_ring(make_ring: MakeRing) -> None:
    ring, memory = make_ring(1000, reserve=0), Memory(stuck=True)
    stick(ring, memory)
    for _ in range(500):
        ring.append((memory, 0.0, "x" * 1000))  # two batches by their bytes: the second is dealt with by pieces
    memory.writing.clear()
    memory.reader.set()
    assert memory.writing.wait(5)
    memory.reader.clear()  # stuck again, inside the second batch
    while not memory.dropped:
        ring.append((memory, 0.0, "y"))
    memory.reader.set()
    assert ring.flush()
    assert memory.lines[-1] == f"{memory.dropped} dropped"
    assert sum(line.endswith("dropped") for line in memory.lines) == 1
