"""Records as they travel to scripts and back: MessagePack, by positions; moments and spans in microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sojourn.tasks.journal import Claimed, Counts
from sojourn.tasks.record import Claim, Event, NewTask, Outcome, Reading, Settlement, Submitted, Task
from sojourn.tasks.redis.shared import FIELDS, STATES

__all__ = [
    "body",
    "claimed",
    "counted",
    "encoded",
    "fields",
    "micros",
    "new",
    "pages",
    "read",
    "said",
    "submitted",
    "task",
]

encoded: Final = msgspec.msgpack.encode

#: The latest moment, in microseconds: Lua counts exactly so far.
_LATEST: Final = 9_000_000_000_000_000
_OUTCOMES: Final[Mapping[Outcome, str]] = {
    "completed": "c",
    "failed": "f",
    "cancelled": "x",
    "retry": "t",
    "handover": "h",
    "unbegun": "u",
}
#: Fields that are numbers of their own, texts, and bytes.
_NUMBERS: Final = (("failures", "F"), ("interruptions", "I"), ("crashes", "C"), ("epoch", "e"), ("seq", "q"))
_TEXTS: Final = (("owner", "o"), ("key", "i"), ("node", "n"))
_BYTES: Final = (("error", "E"), ("result", "r"), ("checkpoint", "c"))
_AT: Final = {field: index for index, field in enumerate(FIELDS)}

_Row = tuple[str, list[Any], float, str]
_Held = tuple[str, str, int, str, str, str, int, int, int, int, int]
_claims: Final = msgspec.msgpack.Decoder(tuple[int, list[_Held]])
_answers: Final = msgspec.msgpack.Decoder(list[tuple[str, bool, str, str]])
_row: Final = msgspec.msgpack.Decoder(_Row | bool)
_reading: Final = msgspec.msgpack.Decoder(tuple[_Row | bool, int, list[str]])
_page: Final = msgspec.msgpack.Decoder(tuple[str, list[_Row]])
_counts: Final = msgspec.msgpack.Decoder(tuple[list[str], list[int], list[str], list[int]])


def micros(seconds: float) -> int:
    """Seconds as microseconds, from 0 to the latest moment."""
    return max(0, min(round(seconds * 1e6) if seconds < 1e10 else _LATEST, _LATEST))


def new(task: NewTask) -> tuple[Any, ...]:
    """A task for ``submit``.

    Raises:
        UnicodeDecodeError: Its payload or spec is no text, and so no JSON.
    """
    moment = False if task.run_at is None else micros(task.run_at)
    times = (moment, micros(task.delay), task.node, micros(task.lease))
    return (task.id, task.kind, task.owner, task.key, task.priority, *times, fields(task), task.fingerprint, body(task))


def fields(task: NewTask) -> list[Any]:
    """Names and values of its record that are its maker's; what is empty is left out."""
    some: list[Any] = ["K", micros(task.keep)]
    if task.priority:
        some += ("y", task.priority)
    for field, value in (("o", task.owner), ("i", task.key), ("f", task.fingerprint)):
        if value:
            some += (field, value)
    return some


def body(task: NewTask) -> str:
    """Payload and spec in one text: how long the payload is, a colon, both. "" for what most have."""
    if task.payload == task.spec == b"{}":
        return ""
    return f"{len(task.payload)}:{(task.payload + task.spec).decode()}"


def _parts(text: str) -> tuple[bytes, bytes]:
    if not text:
        return b"{}", b"{}"
    length, _, both = text.encode().partition(b":")
    return both[: int(length)], both[int(length) :]


def said(settlement: Settlement) -> tuple[Any, ...]:
    """How a run ended, for ``SETTLE``."""
    checkpoint = settlement.checkpoint
    return (
        settlement.id,
        settlement.epoch,
        _OUTCOMES[settlement.outcome],
        settlement.result.decode(),
        settlement.error.decode(),
        micros(settlement.delay),
        False if checkpoint is None else checkpoint.decode(),
        [new(task) for task in settlement.then],
    )


def submitted(answer: bytes) -> list[Submitted]:
    """What ``SUBMIT`` answers."""
    return [
        Submitted(ident, fresh, fingerprint, STATES[state])  # type: ignore[arg-type]
        for ident, fresh, fingerprint, state in _answers.decode(answer)
    ]


def claimed(answer: bytes) -> Claimed:
    """What ``CLAIM`` answers."""
    after, claims = _claims.decode(answer)
    return Claimed(tuple(_claim(row) for row in claims), None if after < 0 else after / 1e6)


def task(answer: bytes) -> Task | None:
    """What is answered with a record."""
    row: Any = _row.decode(answer)
    return _task(row) if row else None


def read(answer: bytes) -> Reading | None:
    """What ``READ`` answers."""
    row: Any
    row, first, events = _reading.decode(answer)
    if not row:
        return None
    return Reading(_task(row), tuple(_event(first + index, text) for index, text in enumerate(events)))


def pages(answer: bytes) -> tuple[str, Sequence[Task]]:
    """What ``LIST`` answers: where to go on, and tasks."""
    last, rows = _page.decode(answer)
    return last, [_task(row, listed=True) for row in rows]


def counted(answer: bytes) -> Counts:
    """What ``COUNTS`` answers."""
    states: dict[str, dict[str, int]] = {}
    names, numbers, kinds, waits = _counts.decode(answer)
    for name, number in zip(names, numbers, strict=True):
        states.setdefault(name[1:], {})[STATES[name[0]]] = number
    return Counts(states, {kind: wait / 1e6 for kind, wait in zip(kinds, waits, strict=True)})


def _claim(row: _Held) -> Claim:
    ident, kind, epoch, both, owner, checkpoint, failures, interruptions, crashes, waited, age = row
    payload, spec = _parts(both)
    return Claim(
        id=ident,
        kind=kind,
        epoch=epoch,
        payload=payload,
        spec=spec,
        owner=owner,
        checkpoint=checkpoint.encode(),
        failures=failures,
        interruptions=interruptions,
        crashes=crashes,
        waited=waited / 1e6,
        age=age / 1e6,
    )


def _event(number: int, text: str) -> Event:
    at, _, data = text.partition(" ")
    return Event(number, data.encode(), int(at) / 1e6)


def _task(row: _Row, listed: bool = False) -> Task:
    """A task of the values of FIELDS, or of LISTED; False for what is not there."""
    ident, values, lease, both = row
    payload, spec = _parts(both)
    some: dict[str, Any] = {}
    for name, field in _NUMBERS:
        if value := values[_AT[field]]:
            some[name] = int(value)
    for name, field in _TEXTS:
        if value := values[_AT[field]]:
            some[name] = value
    for name, field in _BYTES:
        if _AT[field] < len(values) and (value := values[_AT[field]]) is not False:
            some[name] = value.encode()
    made = _seconds(values[_AT["m"]])
    begun = values[_AT["b"]]
    return Task(
        id=ident,
        kind=values[_AT["k"]],
        state=STATES[values[_AT["s"]]],  # type: ignore[arg-type]
        payload=b"" if listed else payload,
        spec=spec,
        priority=int(values[_AT["y"]] or 0),
        run_at=_seconds(values[_AT["d"]]),
        keep=_seconds(values[_AT["K"]]),
        lease_until=lease / 1e6,
        cancelling=bool(values[_AT["x"]]),
        created=made,
        begun=_seconds(begun.partition(":")[2]) if begun else 0.0,
        updated=_seconds(values[_AT["u"]]) or made,
        ended=_seconds(values[_AT["z"]]),
        **some,
    )


def _seconds(text: Any) -> float:
    return int(text) / 1e6 if text else 0.0
