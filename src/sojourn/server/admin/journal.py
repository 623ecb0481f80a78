"""Durable tasks: what runs where, what is in the journal; cancelling and trying again, one or those of a kind.

What runs is asked of all workers; the journal is one, so any worker answers for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sojourn.asgi.probes import Answer
from sojourn.errors import ErrandError
from sojourn.server.admin.answers import Kind, Question, Route, json
from sojourn.server.admin.gather import ask_all, ask_one

if TYPE_CHECKING:
    from sojourn.scopes.journals import Record

__all__ = ["ROUTES", "Changes", "Recorded"]

_LOOK: Final[dict[str, Kind]] = {"name": "text", "limit": "number"}
_LIST: Final[dict[str, Kind]] = {
    "name": "text",
    "state": "text",
    "kind": "text",
    "owner": "text",
    "before": "text",
    "limit": "number",
}
_MANY: Final[dict[str, Kind]] = {"name": "text", "kind": "text", "state": "text", "before": "text"}
#: Seconds that a worker has for 200 changes.
_SECONDS: Final = 20.0
#: What a list leaves out, because it may be long.
_LONG: Final = ("payload", "spec", "result", "error", "checkpoint", "said")


class Recorded(Protocol):
    """Does something that is recorded: ``Commands.recorded``."""

    async def __call__(
        self, question: Question, what: str, facts: Mapping[str, Any], do: Callable[[], Awaitable[Any]]
    ) -> Any: ...


async def _journal(question: Question) -> Answer:
    from sojourn.scopes.journals import Amounts, JournalInfo  # workers' code; who only supervises may never need it

    found = await ask_all(question, "journal")
    rows = [
        {"worker": worker, **info._asdict(), "runs": [run._asdict() for run in info.runs]}
        for worker, answer in found.answers.items()
        for info in msgspec.msgpack.decode(answer, type=list[JournalInfo])
    ]
    document: dict[str, Any] = {"journals": rows, "tasks": {}, "problem": None, "workers": found.workers}
    try:
        answer = await ask_one(question, "journal_amounts", {"name": question.arguments.get("name", "")})
    except ErrandError as error:
        document["problem"] = error.detail  # what runs is known all the same
    else:
        amounts = msgspec.msgpack.decode(answer, type=dict[str, Amounts])
        document["tasks"] = {name: each._asdict() for name, each in amounts.items()}
    return json(question, document)


async def _tasks(question: Question) -> Answer:
    from sojourn.scopes.journals import Record

    found = msgspec.msgpack.decode(await ask_one(question, "journal_tasks"), type=list[Record])
    return json(question, {"tasks": [_short(record) for record in found]})


async def _task(question: Question) -> Answer:
    from sojourn.scopes.journals import Record

    answer = await ask_one(question, "journal_task", {"id": question.named[0]})
    record = msgspec.msgpack.decode(answer, type=Record)
    return json(question, {**record._asdict(), "said": [moment._asdict() for moment in record.said]})


def _short(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record._asdict().items() if name not in _LONG}


ROUTES: Final = (
    Route("/journal", _journal, "durable tasks: what runs where, how many there are of each kind", _LOOK),
    Route("/journal/tasks", _tasks, "durable tasks in the journal, newest first", _LIST),
    Route("/journal/tasks/{id}", _task, "a durable task with all that is known of it"),
)


class Changes:
    """What is done to durable tasks.

    Args:
        recorded: Does it, and records that.

    Attributes:
        routes: What is answered.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        post: dict[str, Any] = {"method": "POST", "action": True}
        self.routes: tuple[Route, ...] = (
            Route("/journal/tasks/{id}/cancel", self._cancel, "end a durable task", **post),
            Route("/journal/tasks/{id}/retry", self._retry, "try a durable task again", **post),
            Route("/journal/cancel", self._cancel_all, "end durable tasks of a kind", _MANY, **post),
            Route("/journal/retry", self._retry_all, "try durable tasks of a kind again", _MANY, **post),
        )

    async def _cancel(self, question: Question) -> Answer:
        return await self._one(question, "cancel")

    async def _retry(self, question: Question) -> Answer:
        return await self._one(question, "retry")

    async def _cancel_all(self, question: Question) -> Answer:
        return await self._all(question, "cancel")

    async def _retry_all(self, question: Question) -> Answer:
        return await self._all(question, "retry")

    async def _one(self, question: Question, what: str) -> Answer:
        from sojourn.scopes.journals import Record

        task = question.named[0]

        async def do() -> Any:
            answer = await ask_one(question, "journal_change", {"id": task, "what": what})
            return _short(msgspec.msgpack.decode(answer, type=Record))

        return json(question, await self._recorded(question, f"journal-{what}", {"task": task}, do))

    async def _all(self, question: Question, what: str) -> Answer:
        arguments = {**question.arguments, **(question.document() if question.body else {}), "what": what}
        arguments.setdefault("kind", "")

        async def do() -> Any:
            return msgspec.msgpack.decode(await ask_one(question, "journal_change_all", arguments, _SECONDS))

        return json(question, await self._recorded(question, f"journal-{what}", {"arguments": arguments}, do))
