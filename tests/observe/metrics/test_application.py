"""The application's own metrics, as a worker hands them over."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from prometheus_client.core import GaugeMetricFamily

from sojourn.observe.metrics.application import LARGEST, application_text
from tests.observe.metrics.samples import numbers


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> prometheus_client.CollectorRegistry:
    """A default registry that only this test uses."""
    mine = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", mine)
    return mine


class Collector:
    """A collector of the application."""

    def __init__(self, *families: Any, before: Any = lambda: None) -> None:
        self._families = families
        self._before = before

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        self._before()
        yield from self._families


def text(patience: float = 5.0) -> str:
    async def ask() -> str:
        return await application_text(asyncio.get_running_loop(), patience)

    return asyncio.run(ask())


def test_what_the_application_registered_is_handed_over(registry: prometheus_client.CollectorRegistry) -> None:
    prometheus_client.Counter("orders", "Orders.", ["shop"], registry=registry).labels("x").inc(3)
    prometheus_client.Gauge("queue_length", "Length.", registry=registry).set(7)
    found = numbers(text().encode())
    assert found["orders_total", (("shop", "x"),)] == 3.0
    assert found["queue_length", ()] == 7.0


def test_nothing_is_imported_for_an_application_that_has_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prometheus_client")
    assert text() == ""
    assert "prometheus_client" not in sys.modules


def test_a_collector_that_raises_ends_the_text_and_is_told(registry: prometheus_client.CollectorRegistry) -> None:
    def broken() -> None:
        raise RuntimeError("planted")

    prometheus_client.Gauge("before", "B.", registry=registry).set(1)
    registry.register(Collector(before=broken))
    made = text()
    assert "before 1.0" in made
    assert made.endswith("# the application's metrics end here: RuntimeError while collecting\n")


def test_a_slow_collector_does_not_hold_up_the_event_loop_or_the_answer(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    released = threading.Event()
    registry.register(Collector(before=released.wait))

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        made = await application_text(loop, 0.1)
        assert made == "# the application's metrics took longer than 0.1 s to collect\n"
        assert loop.time() - began < 2.0
        assert "still being collected" in await application_text(loop, 0.1), "one at a time"

    try:
        asyncio.run(ask())
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name == "sojourn-application-metrics":
                thread.join(10)
    assert "still being collected" not in text()


def test_what_is_too_large_is_left_out_and_told(registry: prometheus_client.CollectorRegistry) -> None:
    huge = GaugeMetricFamily("huge", "H.", labels=["a"])
    for number in range(6):
        huge.add_metric([str(number) + "x" * (LARGEST // 5)], 1.0)
    registry.register(Collector(huge, GaugeMetricFamily("small", "S.", value=1.0)))
    made = text()
    assert len(made) < 1000
    assert "small 1.0" in made
    assert "# 1 of the application's metrics are left out" in made
