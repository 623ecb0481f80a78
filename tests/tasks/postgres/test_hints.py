"""Hints go out together, fit, and are told at once where they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import Any

import msgspec

from sojourn.errors import JournalUnavailable
from sojourn.scopes.work import launch
from sojourn.tasks.postgres.hints import Hint, Hints
from sojourn.testing.task_journal import Ears
from tests.tasks.postgres.scene import run


class Sent:
    """What was notified."""

    def __init__(self) -> None:
        self.turns: list[list[Hint]] = []
        self.fails = False

    async def send(self, payloads: Sequence[str]) -> None:
        if self.fails:
            raise JournalUnavailable("away")
        assert all(len(payload.encode()) < 8000 for payload in payloads)
        self.turns.append([msgspec.json.decode(payload, type=Hint) for payload in payloads])

    def hints(self) -> Hints:
        def start(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return launch(coroutine, name, Context())

        return Hints(self.send, start)


def test_the_first_is_sent_at_once_and_those_of_some_milliseconds_together() -> None:
    async def main() -> None:
        sent = Sent()
        hints = sent.hints()
        hints.tell(due=True)
        await asyncio.sleep(0.002)
        assert [[hint.due for hint in turn] for turn in sent.turns] == [[True]]
        for number in range(50):
            hints.tell(changed=[f"t{number % 10}"], cancelled=["c"], due=number == 49)
        await asyncio.sleep(0.05)
        assert len(sent.turns) == 2
        told = sent.turns[1]
        assert {id for hint in told for id in hint.changed} == {f"t{number}" for number in range(10)}
        assert [id for hint in told for id in hint.cancelled] == ["c"]
        assert [hint.due for hint in told].count(True) == 1
        await hints.aclose()

    run(main)


def test_many_ids_are_sent_in_portions_that_fit_and_too_many_as_one_word() -> None:
    async def main() -> None:
        sent = Sent()
        hints = sent.hints()
        ids = [f"ä{number:030d}" for number in range(1000)]
        hints.tell(changed=ids)
        await asyncio.sleep(0.002)
        assert len(sent.turns[0]) > 3
        assert sorted(id for hint in sent.turns[0] for id in hint.changed) == ids
        hints.tell(changed=[f"{number}" for number in range(6000)], due=True)
        await hints.aclose()
        assert [hint.missed for hint in sent.turns[1]] == [True]

    run(main)


def test_who_is_here_is_told_at_once_and_not_again_by_the_echo() -> None:
    async def main() -> None:
        one, other, ears = Sent(), Sent(), Ears()
        here, there = one.hints(), other.hints()
        here.listeners.append(ears)
        here.tell(due=True, changed=["a"], cancelled=["b"])
        assert (ears.dues, ears.changes, ears.cancels) == (1, ["a"], ["b"])
        there.tell(due=True, changed=["c"])
        await asyncio.gather(here.aclose(), there.aclose())
        for turn in (one.turns[0], other.turns[0]):
            for hint in turn:
                here.heard(msgspec.json.encode(hint).decode(), ears)
        here.heard("something else", ears)
        here.heard('{"a": 1}', ears)
        assert (ears.dues, ears.changes, ears.cancels) == (2, ["a", "c"], ["b"])

    run(main)


def test_a_hint_that_can_not_be_sent_is_dropped_and_the_next_is_sent() -> None:
    async def main() -> None:
        sent = Sent()
        hints = sent.hints()
        sent.fails = True
        hints.tell(due=True)
        await asyncio.sleep(0.03)
        sent.fails = False
        hints.tell(changed=["a"])
        await hints.aclose()
        assert [[hint.changed for hint in turn] for turn in sent.turns] == [[("a",)]]
        await hints.aclose()

    run(main)
