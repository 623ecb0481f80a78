"""Memory that a worker writes and the supervisor reads: nothing half done is read, nothing counted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import StartupError
from sojourn.observe.metrics.families import FAMILIES, PREFIX, TABLE, Family, Kind, Rest
from sojourn.observe.metrics.memory import Block, MetricsMemory

ENDED = TABLE[PREFIX + "requests_ended_total"]
STREAMS = TABLE[PREFIX + "event_streams_total"]
LAG = TABLE[PREFIX + "loop_lag_seconds"]
RESIDENT = TABLE[PREFIX + "memory_resident_bytes"]
PHASE_SECONDS = TABLE[PREFIX + "drain_phase_seconds"]
DRAINED = TABLE[PREFIX + "drain_connections"]


def count(block: Block, family: Family, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
    block.values[block.place(family, labels)] += amount


def read(block: Block) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    return {(family.name, labels): list(numbers) for (family, labels), numbers in block.read()}


def values(block: Block, family: Family) -> dict[tuple[str, ...], float]:
    return {labels: numbers[0] for (name, labels), numbers in read(block).items() if name == family.name}


def test_a_series_has_one_place_however_often_it_is_asked_for() -> None:
    block = MetricsMemory.alone().block(0)
    assert block.place(ENDED, ("completed", "none")) == block.place(ENDED, ("completed", "none"))
    assert block.place(ENDED, ("completed", "none")) != block.place(ENDED, ("client_reset", "client"))


@given(
    st.lists(st.tuples(st.sampled_from(FAMILIES), st.lists(st.text(max_size=200), min_size=4, max_size=4)), max_size=30)
)
def test_another_process_reads_what_was_counted_whatever_the_labels_are(
    wanted: list[tuple[Family, list[str]]],
) -> None:
    memory = MetricsMemory.create(1)
    block = memory.block(0)
    expected: dict[tuple[str, int], float] = {}
    for family, labels in wanted:
        place = block.place(family, tuple(labels[: len(family.labels)]))
        block.values[place] += 1.0
        expected[family.name, place] = block.values[place]
    other = MetricsMemory.attach(os.dup(memory.fd))
    found = sorted((family.name, numbers[0]) for (family, _), numbers in other.block(0).read())
    assert found == sorted((name, number) for (name, _), number in expected.items())
    other.close()
    memory.close()


def test_a_reader_finds_series_that_come_after_it_began_to_read() -> None:
    memory = MetricsMemory.create(2)
    reader = MetricsMemory.attach(os.dup(memory.fd))
    count(memory.block(1), ENDED, ("completed", "none"))
    assert values(reader.block(1), ENDED) == {("completed", "none"): 1.0}
    count(memory.block(1), ENDED, ("client_reset", "client"), 2.0)
    assert values(reader.block(1), ENDED) == {("completed", "none"): 1.0, ("client_reset", "client"): 2.0}
    assert values(reader.block(0), ENDED) == {}
    reader.close()
    memory.close()


def test_what_a_killed_worker_has_counted_is_there() -> None:
    memory = MetricsMemory.create(1)
    program = (
        "import os, signal, sys\n"
        "from sojourn.observe.metrics.families import TABLE\n"
        "from sojourn.observe.metrics.memory import MetricsMemory\n"
        "block = MetricsMemory.attach(int(sys.argv[1])).block(0)\n"
        "block.values[block.place(TABLE['sojourn_tasks_lost_total'])] += 7.0\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(memory.fd)], pass_fds=[memory.fd], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert values(memory.block(0), TABLE["sojourn_tasks_lost_total"]) == {(): 7.0}
    memory.close()


def test_one_series_more_than_a_family_may_have_is_called_other() -> None:
    block = MetricsMemory.alone().block(0)
    for number in range(STREAMS.most + 50):
        count(block, STREAMS, (f"/items/{number}", "completed"))
    found = values(block, STREAMS)
    assert len(found) == STREAMS.most + 1
    assert found["other", "other"] == 50.0
    assert found["/items/0", "completed"] == 1.0
    count(block, STREAMS, ("", "new"))
    assert values(block, STREAMS)["", "other"] == 1.0, "a label that says nothing goes on to say nothing"


def test_a_full_block_goes_on_to_count_under_other_and_never_fails() -> None:
    block = MetricsMemory.alone().block(0)
    for family in FAMILIES:
        for number in range(family.most + 1):
            block.place(family, tuple(f"{'x' * 155}{number}" for _ in family.labels))
    fresh = block.place(STREAMS, ("/never/seen", "completed"))
    assert fresh == block.place(STREAMS, ("/nor/this", "completed"))
    block.values[fresh] += 3.0
    assert ("other", "other") in values(block, STREAMS)


def test_names_that_are_too_long_are_cut() -> None:
    block = MetricsMemory.alone().block(0)
    count(block, STREAMS, ("/" + "a" * 5000, "completed"))
    ((route, _),) = values(block, STREAMS)
    assert len(route) == 160


def test_no_counter_goes_down_when_its_worker_ends() -> None:
    memory = MetricsMemory.create(2)
    for worker in (1, 2, 3):
        block = memory.block(0)
        count(block, ENDED, ("completed", "none"), 10.0 * worker)
        block.values[block.place(LAG) + 2] += 1.0
        memory.retire(0)
        assert read(memory.block(0)) == {}
    assert values(memory.ended, ENDED) == {("completed", "none"): 60.0}
    assert read(memory.ended)[LAG.name, ()][2] == 3.0
    memory.close()


def test_a_worker_that_comes_into_a_row_begins_at_zero() -> None:
    memory = MetricsMemory.create(1)
    count(memory.block(0), ENDED, ("completed", "none"), 5.0)
    memory.retire(0)
    worker = MetricsMemory.attach(os.dup(memory.fd))
    count(worker.block(0), ENDED, ("client_reset", "client"))
    assert values(memory.block(0), ENDED) == {("client_reset", "client"): 1.0}
    worker.close()
    memory.close()


def test_a_gauge_ends_with_its_worker_unless_it_tells_of_a_drain() -> None:
    memory = MetricsMemory.create(1)
    for worker in (1.0, 2.0):
        block = memory.block(0)
        block.values[block.place(RESIDENT)] = 1e6
        block.values[block.place(PHASE_SECONDS, ("finish",))] = worker
        block.values[block.place(DRAINED, ("sockets", "cut"))] = worker
        memory.retire(0)
    assert read(memory.ended) == {
        (PHASE_SECONDS.name, ("finish",)): [2.0],
        (DRAINED.name, ("sockets", "cut")): [3.0],
    }
    memory.close()


def test_what_lies_in_memory_half_done_is_not_read() -> None:
    memory = MetricsMemory.create(1)
    block = memory.block(0)
    count(block, ENDED, ("completed", "none"))
    used = int(block._words[0])
    count(block, ENDED, ("client_reset", "client"))
    block._words[0] = used + 8  # as if it were just being written
    reader = MetricsMemory.attach(os.dup(memory.fd))
    assert values(reader.block(0), ENDED) == {("completed", "none"): 1.0}
    reader.close()
    memory.close()


def test_series_that_another_version_counts_are_left_out() -> None:
    memory = MetricsMemory.create(1)
    block = memory.block(0)
    block.place(ENDED._replace(name="sojourn_from_the_future_total"), ("a", "b"))
    block.place(LAG._replace(buckets=(1.0, 2.0)))
    block.place(ENDED._replace(labels=("reason",)), ("completed",))
    count(block, ENDED, ("completed", "none"))
    reader = MetricsMemory.attach(os.dup(memory.fd))
    assert list(read(reader.block(0))) == [(ENDED.name, ("completed", "none"))]
    reader.close()
    memory.close()


def test_a_block_counts_on_where_it_stopped_when_it_is_opened_again() -> None:
    memory = MetricsMemory.create(1)
    count(memory.ended, ENDED, ("completed", "none"), 4.0)
    successor = MetricsMemory.attach(os.dup(memory.fd))
    count(successor.ended, ENDED, ("completed", "none"))
    assert values(memory.ended, ENDED) == {("completed", "none"): 5.0}
    successor.close()
    memory.close()


def test_memory_is_taken_only_as_far_as_it_is_used() -> None:
    memory = MetricsMemory.create(64)
    count(memory.block(3), ENDED, ("completed", "none"))
    assert os.fstat(memory.fd).st_blocks * 512 <= 64 * 1024
    assert os.fstat(memory.fd).st_size > 64 * 1024 * 1024
    memory.close()


def test_a_descriptor_of_something_else_is_refused() -> None:
    fd = os.memfd_create("something else")
    with pytest.raises(StartupError, match="is no memory of metrics"):
        MetricsMemory.attach(fd)
    os.write(fd, b"\x45\x42\x43\x54\x41\x44\x4e\x4a\x53" * 4)
    with pytest.raises(StartupError, match="is no memory of metrics"):
        MetricsMemory.attach(fd)
    os.close(fd)
    with pytest.raises(StartupError, match="can't be read"):
        MetricsMemory.attach(fd)


def test_another_layout_is_refused_by_its_number() -> None:
    memory = MetricsMemory.create(1)
    os.pwrite(memory.fd, (99).to_bytes(8, sys.byteorder), 8)
    with pytest.raises(StartupError, match="layout 99"):
        MetricsMemory.attach(memory.fd)
    memory.close()


def test_there_is_no_block_for_a_row_that_does_not_exist() -> None:
    memory = MetricsMemory.create(1)
    with pytest.raises(IndexError):
        memory.block(2)
    memory.close()


def test_every_family_is_made_as_prometheus_asks() -> None:
    assert len(TABLE) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family.name
        assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM), family.name
        assert list(family.buckets) == sorted(set(family.buckets)), family.name
        assert all(len(labels) == len(family.labels) for labels in family.known), family.name
        assert family.kind is Kind.GAUGE or family.rest is Rest.DROP, family.name
        assert family.help.endswith("."), family.name


def test_two_threads_that_read_at_the_same_time_see_each_series_once() -> None:
    block = MetricsMemory.alone().block(0)
    for number in range(100):
        count(block, ENDED, (f"reason {number}", "none"))
    interval, together = sys.getswitchinterval(), threading.Barrier(4)
    seen: list[int] = []

    def scrape() -> None:
        together.wait()
        seen.append(len(list(block.read())))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=scrape) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen == [100] * 4
    assert len(list(block.read())) == 100
