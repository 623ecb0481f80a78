"""Events reach their observers, and an observer's bug reaches nobody."""

from __future__ import annotations

from sojourn.bus import Bus
from sojourn.events import ConnectionOpened, LoopStalled


def test_an_event_reaches_the_observers_of_its_type_in_the_order_they_came() -> None:
    bus, seen = Bus(), []
    bus.observe(LoopStalled, lambda event: seen.append(("first", event.seconds)))
    bus.observe(LoopStalled, lambda event: seen.append(("second", event.seconds)))
    bus.observe(ConnectionOpened, lambda event: seen.append(("other", 0.0)))
    bus.emit(LoopStalled(2.0))
    assert seen == [("first", 2.0), ("second", 2.0)]


def test_nobody_observing_costs_one_look_and_does_nothing() -> None:
    bus = Bus()
    assert not bus.wants(LoopStalled)
    assert LoopStalled not in bus.observers
    bus.emit(LoopStalled(1.0))


def test_an_observer_can_leave_and_leaving_twice_does_nothing() -> None:
    bus, seen = Bus(), []
    forget = bus.observe(LoopStalled, lambda event: seen.append(1))
    bus.observe(LoopStalled, lambda event: seen.append(2))
    forget()
    forget()
    bus.emit(LoopStalled(1.0))
    assert seen == [2]


def test_the_last_observer_that_leaves_takes_the_interest_with_it() -> None:
    bus = Bus()
    forget = bus.observe(LoopStalled, lambda event: None)
    assert bus.wants(LoopStalled)
    forget()
    assert not bus.wants(LoopStalled)


def test_an_observer_may_leave_while_it_is_called() -> None:
    bus, seen = Bus(), []

    def once(event: LoopStalled) -> None:
        seen.append(1)
        forget()

    forget = bus.observe(LoopStalled, once)
    bus.observe(LoopStalled, lambda event: seen.append(2))
    bus.emit(LoopStalled(1.0))
    bus.emit(LoopStalled(1.0))
    assert seen == [1, 2, 2]


def test_an_observer_that_raises_is_counted_and_disturbs_nobody() -> None:
    bus, seen = Bus(), []

    def broken(event: LoopStalled) -> None:
        raise ValueError("a bug")

    bus.observe(LoopStalled, broken)
    bus.observe(LoopStalled, lambda event: seen.append(event.seconds))
    bus.emit(LoopStalled(1.0))
    bus.emit(LoopStalled(2.0))
    assert seen == [1.0, 2.0]
    assert bus.failures == 2
    assert isinstance(bus.last_failure, ValueError)
