"""The process in numbers."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.metrics.process import Collections, Descriptors
from sojourn.observe.process import processor_seconds, resident_bytes


def test_resident_memory_grows_by_what_is_filled() -> None:
    size = 64 * 1024 * 1024
    with mmap.mmap(-1, size) as held:
        before = resident_bytes()
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
        assert resident_bytes() - before > size // 2


def test_processor_time_goes_on_while_there_is_work() -> None:
    before = processor_seconds()
    while processor_seconds() < before + 0.02:
        sum(range(1000))
    assert processor_seconds() > before


def test_where_the_kernel_does_not_say_descriptors_are_counted_in_slices(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / str(number)).touch()
    descriptors = Descriptors(str(tmp_path), ask=False)
    assert [descriptors.count() for _ in range(3)] == [None, None, 1199]  # less the one that reads
    assert descriptors.count() is None, "it begins anew"
    descriptors.close()


@pytest.mark.parametrize("ask", [True, False])
def test_opened_descriptors_are_counted(ask: bool) -> None:
    descriptors = Descriptors(ask=ask)

    def count() -> int:
        while (found := descriptors.count()) is None:
            pass
        return found

    before = count()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    try:
        assert count() == before + 10
        assert abs(count() - len(os.listdir("/proc/self/fd"))) <= 1
    finally:
        for fd in opened:
            os.close(fd)


class Loop:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


def collected(meter: Meter) -> dict[str, float]:
    """What was counted for full collections."""
    return {
        "pauses": sum(meter.values[meter.place("gc_pause_seconds", "2") :][:13]),
        "seconds": meter.values[meter.place("gc_pause_seconds", "2") + 13],
        "objects": meter.values[meter.place("gc_collected_total", "2")],
    }


@pytest.fixture
def meter() -> Meter:
    return Meter(MetricsMemory.alone().block(0))


def test_a_pause_of_the_collector_is_measured_and_what_it_freed_counted(meter: Meter) -> None:
    clock = ManualClock()

    def slow(phase: str, info: Any) -> None:
        clock.advance(0.2)

    collections = Collections(meter, clock.monotonic)
    gc.collect()
    before = collected(meter)
    for _ in range(100):
        Loop()
    gc.callbacks.insert(0, slow)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(slow)
        collections.close()
    after = collected(meter)
    assert after["pauses"] == before["pauses"] + 1.0
    assert after["seconds"] == pytest.approx(before["seconds"] + 0.2)
    assert after["objects"] >= before["objects"] + 100.0


def test_the_collector_is_left_alone_when_nobody_measures_any_more(meter: Meter) -> None:
    before = list(gc.callbacks)
    collections = Collections(meter, ManualClock().monotonic)
    collections.close()
    collections.close()
    assert gc.callbacks == before


def test_a_forked_child_counts_for_nobody() -> None:
    memory = MetricsMemory.create(1)
    meter = Meter(memory.block(0))
    collections = Collections(meter, ManualClock().monotonic)
    try:
        gc.collect()
        before = collected(meter)
        gc.disable()
        child = os.fork()
        if not child:
            gc.collect()
            os._exit(0)
        os.waitpid(child, 0)
        assert collected(meter) == before
    finally:
        gc.enable()
        collections.close()
        memory.close()
