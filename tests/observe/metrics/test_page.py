"""The page of the supervisor: workers, what became of them, and what they have counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from sojourn.bus import Bus
from sojourn.events import ConfigChanged, Event, WorkerEnded, WorkerHung, WorkerReady, WorkerRetired
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.meter import Meter, declare
from sojourn.observe.metrics.page import SupervisorMetrics, WorkerState
from sojourn.observe.metrics.worker import Metrics
from tests.observe.metrics.samples import OPENMETRICS, Numbers, needs_promtool, numbers, promtool
from tests.server.serving import Run, both_loops, hello, serving, until


class Supervised:
    """A supervisor's memory and page, and workers that count into it."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.memory = MetricsMemory.create(4)
        self.metrics = SupervisorMetrics(self.bus, self.memory)
        self.workers: list[WorkerState] = []

    def worker(self, number: int, row: int, *, beat_age: float | None = 0.1, up: bool = True) -> Meter:
        """Another worker."""
        block = MetricsMemory.attach(os.dup(self.memory.fd)).block(row)
        declare(block)
        self.workers.append(WorkerState(number, row, up, beat_age))
        return Meter(block)

    def end(self, number: int) -> None:
        """A worker has ended."""
        (gone,) = [each for each in self.workers if each.number == number]
        self.workers.remove(gone)
        self.metrics.retire(gone.row)

    def numbers(self, **texts: str) -> Numbers:
        """The page."""
        return numbers(self.metrics.page("", self.workers, {})[1])

    def restarts(self, *events: Event) -> dict[str, float]:
        """Why workers were replaced, after some events."""
        for event in events:
            self.bus.emit(event)
        found = self.numbers()
        return {
            labels[0][1]: number
            for (name, labels), number in found.items()
            if name == "sojourn_worker_restarts_total" and number
        }


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    made = Supervised()
    yield made
    assert made.bus.failures == 0, made.bus.last_failure
    made.metrics.close()
    assert made.bus.observers == {}
    made.memory.close()


def test_workers_are_one_service_and_each_says_how_it_is(supervised: Supervised) -> None:
    supervised.worker(1, 0).count("tasks_lost_total", 2.0)
    supervised.worker(2, 1, beat_age=8.5).count("tasks_lost_total", 3.0)
    supervised.worker(3, 2, beat_age=None, up=False)
    found = supervised.numbers()
    assert found["sojourn_tasks_lost_total", ()] == 5.0
    assert found["sojourn_worker_up", (("worker", "1"),)] == 1.0
    assert found["sojourn_worker_up", (("worker", "3"),)] == 0.0
    assert found["sojourn_worker_beat_age_seconds", (("worker", "2"),)] == 8.5
    assert ("sojourn_worker_beat_age_seconds", (("worker", "3"),)) not in found


def test_no_counter_falls_when_workers_replace_each_other(supervised: Supervised) -> None:
    total = 0.0
    for number in range(1, 8):
        supervised.worker(number, number % 3).count("tasks_lost_total", float(number))
        total += number
        assert supervised.numbers()["sojourn_tasks_lost_total", ()] == total
        if number > 1:
            supervised.end(number - 1)
            assert supervised.numbers()["sojourn_tasks_lost_total", ()] == total


def test_a_successor_of_the_supervisor_goes_on_from_the_same_numbers(supervised: Supervised) -> None:
    supervised.worker(1, 0).count("tasks_lost_total", 4.0)
    supervised.restarts(WorkerRetired(1, 10, "upgrade"), WorkerReady(2, 11, 0.4))
    successor = SupervisorMetrics(Bus(), MetricsMemory.attach(os.dup(supervised.memory.fd)))
    found = numbers(successor.page("", supervised.workers, {})[1])
    assert found["sojourn_tasks_lost_total", ()] == 4.0
    assert found["sojourn_worker_restarts_total", (("cause", "upgrade"),)] == 1.0
    assert found["sojourn_worker_start_seconds_count", ()] == 1.0
    successor.close()
    successor.memory.close()


def test_a_restart_that_was_asked_for_is_counted_by_its_cause(supervised: Supervised) -> None:
    retired = [WorkerRetired(1, 10, why) for why in ("restart", "max_memory", "stopped from outside", "restart")]
    ended = WorkerEnded(1, 10, 0, True, None)
    assert supervised.restarts(*retired, ended) == {"restart": 2.0, "max_memory": 1.0, "stopped": 1.0}


def test_a_worker_that_falls_is_counted_once(supervised: Supervised) -> None:
    killed = WorkerEnded(1, 10, -9, False, 0.0)
    assert supervised.restarts(killed) == {"crash": 1.0}
    hung = (WorkerHung(2, 11, 10.0, ""), WorkerEnded(2, 11, -9, False, 0.0))
    assert supervised.restarts(*hung) == {"crash": 1.0, "hung": 1.0}
    failed = WorkerEnded(3, 12, 3, False, 1.0, "the application's startup failed")
    assert supervised.restarts(failed) == {"crash": 1.0, "hung": 1.0, "failed": 1.0}


def test_the_version_of_the_configuration_is_the_newest_anybody_knows(supervised: Supervised) -> None:
    assert supervised.numbers()["sojourn_config_version", ()] == 1.0
    supervised.worker(1, 0).gauge("config_version", 2.0)
    assert supervised.numbers()["sojourn_config_version", ()] == 2.0
    supervised.bus.emit(ConfigChanged(3, "somebody", {}))
    assert supervised.numbers()["sojourn_config_version", ()] == 3.0


def test_both_formats_hold_the_same_numbers(supervised: Supervised) -> None:
    supervised.worker(1, 0).pong(0.02)
    texts = {1: "# HELP mine M.\n# TYPE mine gauge\nmine 1.0\n", 2: ""}
    kind, text = supervised.metrics.page("text/plain", supervised.workers, texts)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    kind, openmetrics = supervised.metrics.page(OPENMETRICS, supervised.workers, texts)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.endswith(b"# EOF\n")
    assert numbers(text) == numbers(openmetrics, openmetrics=True)
    assert numbers(text)["mine", (("worker", "1"),)] == 1.0


@needs_promtool
def test_promtool_has_nothing_against_the_page(supervised: Supervised) -> None:
    supervised.worker(1, 0).pong(0.02)
    supervised.worker(2, 1)
    supervised.restarts(WorkerReady(1, 10, 0.3), WorkerEnded(1, 10, -9, False, 0.0))
    assert promtool(supervised.metrics.page("", supervised.workers, {})[1]) == ""


@both_loops
def test_a_real_server_shows_its_requests_on_the_page(run: Run) -> None:
    async def scene() -> None:
        memory = MetricsMemory.create(1)
        page = SupervisorMetrics(Bus(), memory)

        def now() -> Numbers:
            return numbers(page.page("", [WorkerState(1, 0, True, 0.1)], {})[1])

        async with serving(hello) as served:
            metrics = Metrics(served.server.site, memory.block(0))
            try:
                for _ in range(10):
                    assert (await served.get()).endswith(b"hello")
                ended = ("sojourn_requests_ended_total", (("fault", "none"), ("reason", "completed")))
                await until(lambda: now().get(ended) == 10.0)
                found = now()
                plain = (("http_request_method", "GET"), ("http_response_status_code", "200"))
                assert found["http_server_request_duration_seconds_count", plain] == 10.0
                assert 0.0 < found["http_server_request_duration_seconds_sum", plain] < 5.0
                assert found["sojourn_connections_accepted_total", ()] == 10.0
                assert found["sojourn_memory_resident_bytes", (("worker", "1"),)] > 1e7
                assert found["sojourn_fds", ()] > 3.0
                assert found["sojourn_fds_limit", ()] >= found["sojourn_fds", ()]
                assert found["sojourn_processor_seconds_total", ()] > 0.0
                (build,) = [dict(labels) for name, labels in found if name == "sojourn_build_info"]
                assert build["loop"] == type(asyncio.get_running_loop()).__module__.partition(".")[0]
            finally:
                metrics.close()
        page.close()
        memory.close()

    run(scene())
