"""What the counts mean, in sentences; only where there are enough of them and most agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

__all__ = ["Peak", "Settings", "peak", "sentences"]

#: Fewer endings say nothing.
_ENOUGH: Final = 20
#: This share of them must agree.
_MOST: Final = 0.6
#: Younger ones are left out of a search for somebody's timeout: those clients had simply done what they came for.
_YOUNGEST: Final = 3.0
#: How far timeouts of one length may lie apart: timers are late, and bytes are on their way.
_WIDTH: Final = 1.06
_SECOND: Final = 1.0

#: One row: protocol, reason, phase, and how many of each idle age.
Row = tuple[str, str, str, Sequence[tuple[float, int]]]

_CUT: Final = frozenset(("client_reset", "client_closed_mid_response", "ws_eof_no_close", "tcp_dead"))
_GAVE_UP: Final = frozenset(("client_closed_request", "client_closed_in_queue", "client_reset"))


class Settings(NamedTuple):
    """What the counts are compared with, in seconds; None for no limit.

    Attributes:
        keep_alive: ``timeouts.keep_alive``.
        response_start: ``timeouts.response_start``.
        ping_interval: ``websocket.ping_interval``.
    """

    keep_alive: float | None
    response_start: float | None
    ping_interval: float | None


class Peak(NamedTuple):
    """An age at which most of them ended.

    Attributes:
        age: In seconds; the one that is most frequent there.
        agree: How many ended at about that age.
        of: How many there were, the very young left out.
    """

    age: float
    agree: int
    of: int


def peak(ages: Iterable[tuple[float, int]]) -> Peak | None:
    """The age that most of these have in common; None when there are too few or they don't agree."""
    old = sorted((age, count) for age, count in ages if age >= _YOUNGEST)
    total = sum(count for _, count in old)
    if total < _ENOUGH:
        return None
    best: list[tuple[float, int]] = []
    for start, (age, _) in enumerate(old):
        end = age * _WIDTH + _SECOND
        near = [item for item in old[start:] if item[0] <= end]
        if sum(count for _, count in near) > sum(count for _, count in best):
            best = near
    count = sum(count for _, count in best)
    if count < _MOST * total:
        return None
    return Peak(max(best, key=lambda item: item[1])[0], count, total)


def sentences(rows: Sequence[Row], settings: Settings) -> list[str]:
    """What an operator should know.

    Args:
        rows: What was counted.
        settings: What the server does.
    """
    found = [
        _closed_by_them(rows, settings),
        _closed_by_us(rows, settings),
        _cut_websockets(rows, settings),
        _cut_answers(rows),
        _gave_up(rows, settings),
        _said_nothing(rows),
    ]
    return [sentence for sentence in found if sentence]


def _closed_by_them(rows: Sequence[Row], settings: Settings) -> str:
    found = peak(_ages(rows, lambda row: row[1] == "keep_alive_closed_by_client"))
    if found is None:
        return ""
    text = (
        f"{found.agree} of {found.of} idle HTTP connections were closed by the other side after about {found.age:g} s: "
        f"a proxy, load balancer or pool in front of us keeps them for about {found.age:g} s. "
    )
    ours = settings.keep_alive
    if ours is None or ours > found.age * _WIDTH + _SECOND:
        ours_is = "has no limit" if ours is None else f"is {ours:g} s"
        return f"{text}timeouts.keep_alive {ours_is}: longer, as it should be. They close first, and lose nothing."
    return (
        f"{text}timeouts.keep_alive is {ours:g} s: both close at about the same time, and a request may meet a "
        f"connection that we are closing. Make it longer, such as {found.age * 1.25:.0f} s."
    )


def _closed_by_us(rows: Sequence[Row], settings: Settings) -> str:
    ours = _count(rows, lambda row: row[1] == "keep_alive_idle")
    theirs = _count(rows, lambda row: row[1] == "keep_alive_closed_by_client")
    if settings.keep_alive is None or ours < _ENOUGH or ours < _MOST * (ours + theirs):
        return ""
    return (
        f"{ours} idle HTTP connections were closed by us after timeouts.keep_alive ({settings.keep_alive:g} s), "
        f"{theirs} by the other side. If a load balancer is in front, it keeps them for longer, and a request may meet "
        "a connection that we are closing (it answers 502): make timeouts.keep_alive longer than its idle timeout."
    )


def _cut_websockets(rows: Sequence[Row], settings: Settings) -> str:
    found = peak(_ages(rows, lambda row: row[0] == "websocket" and row[1] in _CUT))
    if found is None:
        return ""
    every = settings.ping_interval
    ours = "No pings are sent (websocket.ping_interval)" if every is None else f"websocket.ping_interval is {every:g} s"
    return (
        f"{found.agree} of {found.of} WebSockets that were cut without a close frame had been silent for about "
        f"{found.age:g} s: something on the way ends them after that. {ours}; make it less than {found.age:g} s, or "
        "have the timeout on the way raised."
    )


def _cut_answers(rows: Sequence[Row]) -> str:
    found = peak(_ages(rows, lambda row: row[0] == "http" and row[1] in _CUT and row[2] == "response"))
    if found is None:
        return ""
    return (
        f"{found.agree} of {found.of} answers that were cut had been silent for about {found.age:g} s: something on "
        "the way ends streams after that. Send something more often, such as a comment in an event stream, or have the "
        "timeout on the way raised."
    )


def _gave_up(rows: Sequence[Row], settings: Settings) -> str:
    found = peak(_ages(rows, lambda row: row[1] in _GAVE_UP and row[2] in ("handler", "queued")))
    if found is None:
        return ""
    ours = "has no limit" if settings.response_start is None else f"is {settings.response_start:g} s"
    return (
        f"{found.agree} of {found.of} clients that left before their answer began gave up after about {found.age:g} s: "
        f"that is the timeout of a client or proxy. timeouts.response_start {ours}; less than {found.age:g} s saves "
        "the work that nobody waits for."
    )


def _said_nothing(rows: Sequence[Row]) -> str:
    silent = _count(rows, lambda row: row[1] == "connected_no_data")
    total = _count(rows, lambda row: True)
    if silent < _ENOUGH or silent < _MOST * total:
        return ""
    return (
        f"{silent} of {total} connections were closed by the other side before a byte was sent: port checks of a load "
        "balancer, or a scanner. They cost little; a check of /readyz would tell the balancer more."
    )


def _ages(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> list[tuple[float, int]]:
    """The ages of all rows that are wanted, together."""
    together: Counter[float] = Counter()
    for row in rows:
        if wanted(row):
            for age, count in row[3]:
                together[age] += count
    return sorted(together.items())


def _count(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> int:
    return sum(count for row in rows if wanted(row) for _, count in row[3])
