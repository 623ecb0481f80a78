"""Counting: by name, without a way to count what is not in the table, and for requests within a second."""

from __future__ import annotations

import pytest

from sojourn.ending import Ending, Phase
from sojourn.observe.metrics.families import FAMILIES, TABLE, Kind
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.meter import Meter, declare

REQUEST = TABLE["http_server_request_duration_seconds"]
SCOPE = {"type": "http", "method": "GET", "path": "/"}


@pytest.fixture
def meter() -> Meter:
    return Meter(MetricsMemory.alone().block(0))


def value(meter: Meter, name: str, *labels: str) -> float:
    return meter.values[meter.place(name, *labels)]


def durations(meter: Meter, *labels: str) -> list[float]:
    block = meter._block
    place = block.place(REQUEST, labels)
    return block.values[place : place + REQUEST.width].tolist()


def test_counters_add_gauges_are_set_and_totals_only_rise(meter: Meter) -> None:
    meter.count("tasks_lost_total")
    meter.count("tasks_lost_total", 2.0)
    meter.gauge("leaks", 5.0, kind="task")
    meter.gauge("leaks", 3.0, kind="task")
    meter.total("connections_accepted_total", 9.0)
    meter.total("connections_accepted_total", 7.0)
    assert value(meter, "tasks_lost_total") == 3.0
    assert value(meter, "leaks", "task") == 3.0
    assert value(meter, "connections_accepted_total") == 9.0


def test_a_value_goes_into_the_first_bucket_that_holds_it(meter: Meter) -> None:
    for seconds in (0.0005, 0.001, 0.0011, 99.0):
        meter.pong(seconds)
    place = meter.place("ping_round_trip_seconds")
    buckets = len(TABLE["sojourn_ping_round_trip_seconds"].buckets)
    assert meter.values[place] == 2.0
    assert meter.values[place + 1] == 1.0
    assert meter.values[place + buckets] == 1.0
    assert meter.values[place + buckets + 1] == pytest.approx(99.0026)


def test_the_order_in_which_labels_are_given_does_not_matter(meter: Meter) -> None:
    meter.count("requests_ended_total", fault="client", reason="client_reset")
    meter.count("requests_ended_total", reason="client_reset", fault="client")
    assert value(meter, "requests_ended_total", "client_reset", "client") == 2.0


def test_what_is_not_in_the_table_can_not_be_counted(meter: Meter) -> None:
    with pytest.raises(KeyError):
        meter.count("invented_total")
    with pytest.raises(KeyError):
        meter.count("leaks_found_total", what="task")
    with pytest.raises(KeyError):
        meter.count("leaks_found_total")
    with pytest.raises(ValueError, match="never goes down"):
        meter.count("tasks_lost_total", -1.0)


@pytest.mark.parametrize("scope", [SCOPE, {**SCOPE, "path_template": "/items/{id}"}], ids=["plain", "routed"])
def test_requests_are_counted_each_once_however_often_they_are_brought_to_the_block(
    meter: Meter, scope: dict[str, str]
) -> None:
    route = scope.get("path_template", "")
    for rounds in (1, 2, 3):
        meter.answered(scope, 200, 0.002)
        meter.answered(scope, 200, 0.3)
        meter.answered(scope, 200, 60.0)
        meter.flush()
        meter.flush()
        numbers = durations(meter, "GET", route, "200", "")
        assert sum(numbers[:-1]) == 3.0 * rounds
        assert (numbers[0], numbers[7], numbers[14]) == (rounds, rounds, rounds)
        assert numbers[-1] == pytest.approx(60.302 * rounds)
        assert value(meter, "requests_ended_total", "completed", "none") == 3.0 * rounds


def test_routes_beyond_the_limit_are_counted_together_and_none_is_lost(meter: Meter) -> None:
    for number in range(REQUEST.most + 200):
        for _ in range(2):
            meter.answered({**SCOPE, "path_template": f"/{number}"}, 200, 0.001)
    meter.flush()
    assert durations(meter, "other", "other", "other", "")[0] == 400.0
    assert value(meter, "requests_ended_total", "completed", "none") == 2.0 * (REQUEST.most + 200)


def test_statuses_beyond_the_limit_are_counted_together_and_none_is_lost() -> None:
    meter = Meter(MetricsMemory.alone().block(0))
    for status in range(200, 1000):
        for method in ("GET", "POST"):
            meter.answered({**SCOPE, "method": method}, status, 0.001)
    meter.flush()
    block = meter._block
    counted = [numbers[0] for (family, _), numbers in block.read() if family is REQUEST]
    assert sum(counted) == 1600.0
    assert len(counted) <= REQUEST.most + 2


def test_an_ending_that_is_no_completion_tells_its_reason_and_whose_fault_it_is(meter: Meter) -> None:
    meter.request_ended(SCOPE, 499, Ending("client_closed_request", Phase.HANDLER), 2.0, False)
    assert value(meter, "requests_ended_total", "client_closed_request", "client") == 1.0
    assert sum(durations(meter, "GET", "", "499", "client_closed_request")[:-1]) == 1.0


def test_what_every_server_can_count_is_there_with_zero_from_the_beginning() -> None:
    block = MetricsMemory.alone().block(0)
    declare(block)
    names = {family.name for (family, _), _ in block.read()}
    for family in FAMILIES:
        expected = not family.supervised and (
            bool(family.known) or (not family.labels and family.kind is not Kind.GAUGE)
        )
        assert (family.name in names) == expected, family.name
    assert all(number == 0.0 for _, numbers in block.read() for number in numbers)
