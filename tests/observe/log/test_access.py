"""Which events become a line of the access log, and how severe it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.ending import Ending, Phase
from sojourn.events import ConnectionEnded, ConnectionGrewOld, ConnectionOpened, Event, RequestEnded, WebSocketOpened
from sojourn.observe.log.access import SEVERITY, Access, AccessForm, Line
from sojourn.observe.log.ring import Ring
from sojourn.observe.log.sink import Cause
from tests.observe.log.samples import COMPLETED, CONNECTION, LEFT, OLD, OPENED, REQUEST, SCANNER, SILENT, Memory

Wanted = Callable[..., list[str]]


class Names(AccessForm):
    """A format that writes the level and the event's name only."""

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        return f"{level} request".encode()

    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        return f"{level} ended".encode()

    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        return b"info opened"

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return b"gap"


@pytest.fixture
def wanted() -> Iterator[Wanted]:
    """Emit events and read which of them reached the output."""
    rings: list[Ring] = []

    def emit(*events: Event, requests_only: bool = False) -> list[str]:
        bus, memory = Bus(), Memory()
        rings.append(Ring())
        access = Access(bus, rings[-1], memory, ManualClock(), requests_only=requests_only)
        for event in events:
            bus.emit(event)
        access.close()
        assert rings[-1].flush()
        assert bus.failures == 0
        return memory.lines

    yield emit
    for ring in rings:
        ring.close()


def between(reason: str, phase: Phase) -> ConnectionEnded:
    return CONNECTION._replace(ending=Ending(reason, phase))


@pytest.mark.parametrize(
    ("event", "count", "in_combined"),
    [
        (REQUEST, 1, 1),
        (OPENED, 1, 0),
        (OLD, 1, 0),
        (ConnectionOpened(1, "peer", "listener"), 0, 0),
        (CONNECTION, 0, 0),  # its requests have told
        (CONNECTION._replace(long=True), 1, 0),
        (CONNECTION._replace(protocol="websocket"), 1, 0),
        (SCANNER, 1, 1),
        (between("tls_handshake_failed", Phase.TLS), 1, 1),
        (between("invalid_request_line", Phase.HEAD), 1, 1),
        (between("connection_limit", Phase.ACCEPT), 1, 1),
        (between("client_reset", Phase.IDLE), 1, 1),
        (between("send_timeout", Phase.CLOSING), 1, 1),
        (between("keep_alive_idle", Phase.IDLE), 0, 0),  # nobody's fault
        (between("connected_no_data", Phase.HEAD), 0, 0),
        (between("drain_goodbye", Phase.IDLE), 0, 0),
        (between("client_closed_request", Phase.HANDLER), 0, 0),  # its request tells
        (between("response_start_timeout", Phase.HANDLER), 0, 0),
        (between("request_body_timeout", Phase.BODY), 0, 0),
        (between("client_closed_mid_response", Phase.RESPONSE), 0, 0),
    ],
)
def test_the_access_log_takes(wanted: Wanted, event: Event, count: int, in_combined: int) -> None:
    assert len(wanted(event)) == count
    assert len(wanted(event, requests_only=True)) == in_combined


def test_lines_carry_the_wall_clock_of_their_event() -> None:
    class Stamps(Memory):
        def render(self, when: float, payload: object) -> bytes:
            return f"{when}\n".encode()

    bus, ring, memory, clock = Bus(), Ring(), Stamps(), ManualClock(wall=100.0)
    Access(bus, ring, memory, clock)
    bus.emit(REQUEST)
    clock.advance(2.5)
    bus.emit(REQUEST)
    ring.close()
    assert memory.lines == ["100.0", "102.5"]


def test_nothing_is_observed_after_close() -> None:
    bus, ring = Bus(), Ring()
    Access(bus, ring, Memory(), ManualClock()).close()
    ring.close()
    assert not any(map(bus.wants, (RequestEnded, ConnectionEnded, WebSocketOpened, ConnectionGrewOld)))


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (REQUEST, "info"),
        (REQUEST._replace(status=404), "info"),
        (REQUEST._replace(status=500), "error"),
        (REQUEST._replace(ending=LEFT), "info"),
        (REQUEST._replace(ending=Ending("pong_timeout", Phase.WEBSOCKET)), "info"),
        (REQUEST._replace(ending=Ending("queue_full", Phase.QUEUED), status=503), "warning"),
        (REQUEST._replace(ending=Ending("drain_forced", Phase.RESPONSE)), "warning"),
        (REQUEST._replace(ending=Ending("handler_deadline", Phase.RESPONSE)), "error"),
        (REQUEST._replace(ending=Ending("internal_error", Phase.HANDLER), status=500), "error"),
        (SCANNER, "info"),
        (SCANNER._replace(ending=Ending("fd_exhausted", Phase.ACCEPT)), "error"),
        (OPENED, "info"),
        (OLD, "info"),
    ],
)
def test_the_fault_decides_the_level_and_log_level_what_is_written(event: Line, level: str) -> None:
    for word, severity in SEVERITY.items():
        line = Names(severity).line(0.0, event)
        assert bool(line) == (SEVERITY[level] >= severity), word
        assert not line or line.startswith(level.encode())


REFUSED = REQUEST._replace(ending=SILENT, status=408)


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        ([REFUSED, SCANNER], 1),  # the answer of 408 was logged as a request
        ([REFUSED._replace(connection=99), SCANNER], 2),  # another connection's
        ([REQUEST._replace(ending=COMPLETED), SCANNER], 2),  # an earlier request's success tells nothing
        ([REFUSED, SCANNER, SCANNER], 2),  # it is forgotten once used
        ([REFUSED, SCANNER._replace(long=True)], 2),  # a long one is always told
    ],
)
def test_one_end_is_told_once(events: list[Line], lines: int) -> None:
    form = Names()
    assert sum(bool(form.line(0.0, event)) for event in events) == lines


def test_what_is_remembered_about_requests_is_bounded() -> None:
    form = Names()
    for connection in range(5000):
        form.line(0.0, REQUEST._replace(connection=connection, ending=SILENT))
    assert len(form._told) <= 1024
    assert form.line(0.0, SCANNER._replace(connection=4999)) == b""
