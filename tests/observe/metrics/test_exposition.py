"""The page as text: both formats say the same, and whoever knows them can read it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.observe.metrics.exposition import Series, joined, rendered, wants_openmetrics
from sojourn.observe.metrics.families import FAMILIES, PREFIX, TABLE, Family, Kind
from sojourn.observe.metrics.memory import Key
from tests.observe.metrics.samples import needs_promtool, numbers, promtool

REQUESTS = TABLE[PREFIX + "requests_ended_total"]
DURATION = TABLE["http_server_request_duration_seconds"]
RESIDENT = TABLE[PREFIX + "memory_resident_bytes"]
FDS = TABLE[PREFIX + "fds"]
PHASE_SECONDS = TABLE[PREFIX + "drain_phase_seconds"]

#: As Prometheus 2.42 sends it.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
_LABEL = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_NUMBER = st.integers(0, 2**40).map(float)


@st.composite
def pages(draw: st.DrawFn) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for family in draw(st.lists(st.sampled_from(FAMILIES), unique=True, max_size=6)):
        count = len(family.labels) + (family.join.value == "worker")
        labels = st.tuples(*[_LABEL] * count)
        values = st.lists(_NUMBER, min_size=family.width, max_size=family.width)
        found[family.name] = draw(st.dictionaries(labels, values, min_size=1, max_size=3))
    return found


def labels_of(family: Family, values: tuple[str, ...], **more: str) -> tuple[tuple[str, str], ...]:
    names = (*family.labels, "worker")[: len(values)]
    given = {name: value for name, value in zip(names, values, strict=True) if value}
    return tuple(sorted({**given, **more}.items()))


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
@given(page=pages())
def test_prometheus_client_reads_back_every_number_whatever_the_labels_are(
    openmetrics: bool, page: dict[str, Series]
) -> None:
    text = rendered(page, openmetrics=openmetrics) + ("# EOF\n" if openmetrics else "")
    found = numbers(text.encode(), openmetrics=openmetrics)
    for name, series in page.items():
        family = TABLE[name]
        for values, expected in series.items():
            labels = labels_of(family, values)
            if family.kind is not Kind.HISTOGRAM:
                assert found.pop((name, labels)) == expected[0]
                continue
            assert found.pop((f"{name}_sum", labels)) == expected[-1]
            assert found.pop((f"{name}_count", labels)) == sum(expected[:-1])
            for index, bound in enumerate((*family.buckets, math.inf)):
                le = "+Inf" if bound == math.inf else repr(bound)
                assert found.pop((f"{name}_bucket", labels_of(family, values, le=le))) == sum(expected[: index + 1])
    assert found == {}


@needs_promtool
def test_promtool_has_nothing_against_any_metric() -> None:
    every: dict[str, Series] = {}
    for family in FAMILIES:
        labels = tuple("x" for _ in family.labels) + (("1",) if family.join.value == "worker" else ())
        every[family.name] = {labels: [1.0] * family.width}
    assert promtool(rendered(every, openmetrics=False).encode()) == ""


@needs_promtool
def test_promtool_would_find_what_is_wrong() -> None:
    wrong = rendered({FDS.name: {(): (1.0,)}}, openmetrics=False).replace("gauge", "counter")
    assert promtool(wrong.encode()) != ""


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ('application/openmetrics-text; version="1.0.0"; charset=utf-8', True),
        ("application/openmetrics-text;version=1.0.0;q=0.4,text/plain;q=0.5", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("text/plain;version=0.0.4", False),
        ("*/*", False),
        ("", False),
        (",;,=,", False),
    ],
)
def test_who_asks_for_openmetrics_gets_it_and_nobody_else(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def counted(*series: tuple[Family, tuple[str, ...], float]) -> list[tuple[Key, list[float]]]:
    return [((family, labels), [value]) for family, labels, value in series]


def test_counters_of_workers_are_added_up_with_what_ended_workers_left() -> None:
    page = joined(
        {
            "1": counted((REQUESTS, ("completed", "none"), 1.0)),
            "2": counted((REQUESTS, ("completed", "none"), 10.0), (REQUESTS, ("client_reset", "client"), 5.0)),
        },
        counted((REQUESTS, ("completed", "none"), 100.0)),
    )
    assert page[REQUESTS.name] == {("completed", "none"): [111.0], ("client_reset", "client"): [5.0]}


def test_histograms_are_added_up_bucket_by_bucket() -> None:
    one: list[tuple[Key, list[float]]] = [((DURATION, ("GET", "", "200", "")), [1.0] * DURATION.width)]
    page = joined({"1": one, "2": one}, one)
    assert page[DURATION.name] == {("GET", "", "200", ""): [3.0] * DURATION.width}


def test_what_is_no_sum_is_the_highest_or_stands_for_each_worker() -> None:
    page = joined(
        {
            "1": counted((FDS, (), 7.0), (RESIDENT, (), 1e6)),
            "2": counted((FDS, (), 90.0), (RESIDENT, (), 2e6)),
            "3": counted((FDS, (), 8.0)),
        }
    )
    assert page[FDS.name] == {(): [90.0]}
    assert page[RESIDENT.name] == {("1",): [1e6], ("2",): [2e6]}
    assert 'sojourn_memory_resident_bytes{worker="2"} 2000000.0' in rendered(page, openmetrics=False)


def test_the_last_drain_of_an_ended_worker_is_told_until_a_living_one_knows_better() -> None:
    left = counted((PHASE_SECONDS, ("finish",), 30.0))
    assert joined({"1": []}, left)[PHASE_SECONDS.name] == {("finish",): [30.0]}
    assert joined({"1": counted((PHASE_SECONDS, ("finish",), 2.0))}, left)[PHASE_SECONDS.name] == {("finish",): [2.0]}


def test_a_family_without_series_is_not_on_the_page() -> None:
    assert rendered(joined({}), openmetrics=False) == ""
