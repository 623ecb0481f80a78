"""The application's metrics of all workers on one page."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.observe.metrics.merging import merged_texts
from tests.observe.metrics.samples import needs_promtool, numbers, promtool


def text_of(*collectors: str, value: float = 1.0, label: str = "x") -> str:
    """What an application with one metric of each of these types sends."""
    registry = prometheus_client.CollectorRegistry()
    if "counter" in collectors:
        prometheus_client.Counter("orders", "Orders.", ["shop"], registry=registry).labels(label).inc(value)
    if "gauge" in collectors:
        prometheus_client.Gauge("queue_length", "Length.", registry=registry).set(value)
    if "histogram" in collectors:
        prometheus_client.Histogram("payment_seconds", "Time.", buckets=(1, 5), registry=registry).observe(value)
    if "summary" in collectors:
        prometheus_client.Summary("size_bytes", "Size.", registry=registry).observe(value)
    if "info" in collectors:
        prometheus_client.Info("shop", "Which.", registry=registry).info({"worker": "of the application"})
    return prometheus_client.generate_latest(registry).decode()


EVERY = ("counter", "gauge", "histogram", "summary", "info")


def read(texts: dict[str, str], *, openmetrics: bool = False) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = merged_texts(texts, openmetrics=openmetrics) + ("# EOF\n" if openmetrics else "")
    return numbers(page.encode(), openmetrics=openmetrics)


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
def test_each_sample_says_of_which_worker_it_is(openmetrics: bool) -> None:
    found = read({"1": text_of(*EVERY), "2": text_of(*EVERY, value=2.0)}, openmetrics=openmetrics)
    assert found["orders_total", (("shop", "x"), ("worker", "1"))] == 1.0
    assert found["orders_total", (("shop", "x"), ("worker", "2"))] == 2.0
    assert found["queue_length", (("worker", "2"),)] == 2.0
    assert found["payment_seconds_bucket", (("le", "1.0"), ("worker", "2"))] == 0.0
    assert found["payment_seconds_count", (("worker", "1"),)] == 1.0
    assert found["size_bytes_sum", (("worker", "2"),)] == 2.0


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
def test_a_label_worker_of_the_application_is_kept_under_another_name(openmetrics: bool) -> None:
    found = read({"3": text_of("info")}, openmetrics=openmetrics)
    assert found["shop_info", (("exported_worker", "of the application"), ("worker", "3"))] == 1.0


@given(label=st.text(st.characters(exclude_categories=("Cs",)), max_size=30), openmetrics=st.booleans())
def test_label_values_come_through_whatever_they_are(label: str, openmetrics: bool) -> None:
    for value in (label, f'worker="{label}"', f"{label}}}", f',worker="1",{label}'):
        found = read({"1": text_of("counter", label=value)}, openmetrics=openmetrics)
        assert found["orders_total", tuple(sorted((("shop", value), ("worker", "1"))))] == 1.0


@given(st.text(max_size=300), st.booleans())
def test_whatever_a_worker_sends_the_page_can_be_read(text: str, openmetrics: bool) -> None:
    page = merged_texts({"1": text + "\n" + text_of("gauge")}, openmetrics=openmetrics)
    assert 'queue_length{worker="1"} 1.0' in page


def test_a_metric_of_a_name_of_the_server_is_left_out_and_told() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Histogram("http_server_request_duration_seconds", "Ours too.", registry=registry)
    prometheus_client.Counter("sojourn_requests_ended", "Ours too.", registry=registry).inc()
    prometheus_client.Gauge("sojourn_loop_lag_seconds_sum", "Looks like ours.", registry=registry)
    prometheus_client.Gauge("mine", "Mine.", registry=registry)
    page = merged_texts({"1": prometheus_client.generate_latest(registry).decode()}, openmetrics=False)
    assert [line for line in page.splitlines() if line.startswith("mine")] == ['mine{worker="1"} 0.0']
    assert not any(line.startswith(("http_server", "sojourn_")) for line in page.splitlines())
    (comment,) = [line for line in page.splitlines() if line.startswith("# left out")]
    for name in (
        "http_server_request_duration_seconds",
        "sojourn_requests_ended_total",
        "sojourn_loop_lag_seconds_sum",
    ):
        assert name in comment.split()


def test_a_metric_that_has_two_types_is_told_and_keeps_the_first() -> None:
    counter = "# HELP a A.\n# TYPE a counter\na 1.0\n"
    page = merged_texts({"1": "# HELP a A.\n# TYPE a gauge\na 1.0\n", "2": counter}, openmetrics=False)
    assert numbers(page.encode()) == {("a", (("worker", "1"),)): 1.0}
    assert "# left out, because the name is the server's or has two types: a" in page


def test_comments_of_workers_are_passed_on_where_the_format_has_comments() -> None:
    texts = {"2": "# the application's metrics took longer than 5 s to collect\n"}
    assert merged_texts(texts, openmetrics=False) == (
        "# worker 2: the application's metrics took longer than 5 s to collect\n"
    )
    assert merged_texts(texts, openmetrics=True) == ""


def test_times_are_seconds_in_openmetrics() -> None:
    text = "# HELP a A.\n# TYPE a gauge\na 1.0 1700000000500\n"
    assert 'a{worker="1"} 1.0 1700000000500\n' in merged_texts({"1": text}, openmetrics=False)
    assert 'a{worker="1"} 1.0 1700000000.5\n' in merged_texts({"1": text}, openmetrics=True)


@needs_promtool
def test_promtool_accepts_the_applications_metrics_of_two_workers() -> None:
    texts = {"1": text_of("counter", "gauge", "histogram"), "2": text_of("counter", "gauge", "histogram")}
    assert promtool(merged_texts(texts, openmetrics=False).encode()) == ""
