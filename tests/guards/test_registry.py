"""What guards do shows up in the metrics of the server whose code uses them."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.config import Bind, Config, Drain
from sojourn.errors import GuardRefused
from sojourn.events import CircuitChanged
from sojourn.guards.breaker import CircuitBreaker
from sojourn.guards.bulkhead import Bulkhead
from sojourn.guards.registry import Figures, Guards
from sojourn.guards.retry import Retry
from sojourn.guards.workers import Workers
from sojourn.observe.log.messages import Messages
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.meter import Meter
from sojourn.server.server import Server
from sojourn.testing import RawHttp


class Fixed:
    """A guard with these figures."""

    def __init__(self, figures: Figures, kind: str = "bulkhead", name: str = "search") -> None:
        self.kind, self.name, self.now = kind, name, figures

    def figures(self) -> Figures:
        return self.now


class Numbers:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, ...], float] = {}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        key = (name, *labels.values())
        self.found[key] = self.found.get(key, 0.0) + amount

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.found[(name, *labels.values())] = value


def test_each_look_adds_what_was_counted_since_the_last() -> None:
    guards, numbers, guard = Guards(Bus()), Numbers(), Fixed(Figures({"ran": 3, "full": 0}, running=2, waiting=1))
    guards.join(guard)
    guards.report(numbers)
    guards.join(guard)
    guard.now = Figures({"ran": 5, "full": 1}, running=0)
    guards.report(numbers)
    assert numbers.found == {
        ("guard_calls_total", "bulkhead", "search", "ran"): 5.0,
        ("guard_calls_total", "bulkhead", "search", "full"): 1.0,
        ("guard_running", "bulkhead", "search"): 0.0,
        ("guard_waiting", "bulkhead", "search"): 0.0,
    }


def test_guards_of_one_name_are_added_up_and_the_worst_state_is_shown() -> None:
    guards, numbers = Guards(Bus()), Numbers()
    both = [Fixed(Figures({"success": 2}, running=1, state=state), "breaker", "pay") for state in (2, 0)]
    for guard in both:
        guards.join(guard)
    guards.report(numbers)
    assert numbers.found["guard_calls_total", "breaker", "pay", "success"] == 4.0
    assert numbers.found["guard_running", "breaker", "pay"] == 2.0
    assert numbers.found["guard_state", "breaker", "pay"] == 2.0


def test_what_a_guard_counted_stays_when_it_is_gone_and_another_takes_its_name() -> None:
    guards, numbers = Guards(Bus()), Numbers()
    for _ in range(2):
        guard = Fixed(Figures({"ran": 3}, running=0))
        guards.join(guard)
        guards.report(numbers)
        del guard
        gc.collect()
    assert numbers.found["guard_calls_total", "bulkhead", "search", "ran"] == 6.0


def test_a_circuit_that_opens_or_closes_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    messages = Messages(bus)
    with caplog.at_level("INFO", "sojourn"):
        bus.emit(CircuitChanged("pay\nments", True, "by hand"))
        bus.emit(CircuitChanged("payments", False, "the dependency answers again"))
    messages.close()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "circuit pay\\nments opened: by hand"),
        ("INFO", "circuit payments closed: the dependency answers again"),
    ]


@pytest.fixture
def page() -> Any:
    """A meter that counts for real, and what it has counted."""
    block = MetricsMemory.alone().block(0)
    return Meter(block), lambda: {(family.name, *labels): values[0] for (family, labels), values in block.read()}


def test_a_guard_that_a_request_used_is_in_the_metrics_of_its_server(page: Any) -> None:
    breaker, bulkhead = CircuitBreaker("pay"), Bulkhead("pay", 1)
    retry, workers = Retry("pay", on=ConnectionError), Workers(name="mail")

    @retry
    @breaker
    @bulkhead
    async def pay() -> None:
        await workers.submit(asyncio.sleep, 0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/trip":
                breaker.trip()
            try:
                await pay()
            except GuardRefused:
                pass
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def main() -> None:
        meter, read = page
        async with Server(app, Config(bind=Bind(port=0), drain=Drain(delay=0))) as server:
            async with await RawHttp.open(server.addresses[0]) as client:
                for path in ("/", "/", "/trip"):
                    await client.get(path)
                    assert (await client.response()).status == 204
            for gauge in server.diagnosis.gauges:
                gauge(meter)
        found = read()
        calls = {key[1:]: number for key, number in found.items() if key[0] == "sojourn_guard_calls_total"}
        assert calls == {
            ("retry", "pay", "first"): 2.0,
            ("retry", "pay", "final"): 1.0,
            ("breaker", "pay", "success"): 2.0,
            ("breaker", "pay", "refused"): 1.0,
            ("bulkhead", "pay", "ran"): 2.0,
            ("workers", "mail", "ran"): 2.0,
        }
        assert found["sojourn_guard_state", "breaker", "pay"] == 2.0
        assert found["sojourn_guard_running", "workers", "mail"] == 0.0

    asyncio.run(main())
