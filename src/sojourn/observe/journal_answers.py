"""What a worker answers about its durable tasks: how they stand, which there are; and what it does to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec

from sojourn.errors import ErrandError, JournalUnavailable
from sojourn.observe.answers import Answers, read
from sojourn.scopes.journals import Amounts, JournalInfo, Journals, Record, Shown, Wanted

__all__ = ["JournalAnswers"]

T = TypeVar("T")

#: Runs of a service that are shown, unless somebody asks for more; and tasks that are listed, and changed, in one go.
_SHOWN, _LISTED, _CHANGED = 20, 50, 200

What = Literal["cancel", "retry"]
#: In which states a task can be changed, the one that is meant by itself first; and in which it is done.
_FROM: Final[Mapping[str, tuple[str, ...]]] = {"cancel": ("pending", "running"), "retry": ("failed", "cancelled")}
_DONE: Final[Mapping[str, str]] = {"cancel": "cancelled", "retry": "pending"}


class _Look(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``journal``."""

    name: str = ""
    limit: int = _SHOWN


class _List(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``journal_tasks``."""

    name: str = ""
    state: str = ""
    kind: str = ""
    owner: str | None = None
    before: str = ""
    limit: int = _LISTED


class _One(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``journal_task`` and ``journal_change``."""

    id: str
    what: What = "cancel"


class _Many(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``journal_change_all``."""

    what: What
    kind: str
    state: str = ""
    name: str = ""
    before: str = ""


class JournalAnswers:
    """Answers for the services of a worker.

    Args:
        journals: Those that were used.

    Attributes:
        answers: The errands it does.
    """

    def __init__(self, journals: Journals) -> None:
        self._journals = journals
        self.answers: Answers = {
            "journal": self.look,
            "journal_amounts": self.amounts,
            "journal_tasks": self.list,
            "journal_task": self.show,
            "journal_change": self.change,
            "journal_change_all": self.change_all,
        }

    async def look(self, arguments: Mapping[str, Any]) -> list[JournalInfo]:
        """How the services stand here.

        Args:
            arguments: ``name``: only services of this name; ``limit``: so many runs of each.

        Raises:
            ErrandError: An argument is no good.

        Cancel: safe.
        """
        given = read(_Look, arguments)
        return [service.look(given.limit) for service in self._named(given.name)]

    async def amounts(self, arguments: Mapping[str, Any]) -> dict[str, Amounts]:
        """What there is in the journals, by the name of the service.

        Args:
            arguments: ``name``: only of services of this name.

        Raises:
            ErrandError: An argument is no good, or a journal can't be reached.

        Cancel: safe.
        """
        given = read(_Look, arguments)
        return {service.name: await _asked(service.amounts()) for service in self._named(given.name)}

    async def list(self, arguments: Mapping[str, Any]) -> list[Record]:
        """Tasks, newest first.

        Args:
            arguments: ``name`` of the service, ``state``, ``kind``, ``owner``, ``before``, ``limit``.

        Raises:
            ErrandError: An argument is no good, or a journal can't be reached.

        Cancel: safe.
        """
        given = read(_List, arguments)
        if given.limit < 1:
            raise ErrandError(400, "bad_argument", f"limit is at least 1, not {given.limit}")
        wanted = Wanted(given.state, given.kind, given.owner, given.before, given.limit)
        found: dict[str, Record] = {}
        for service in self._named(given.name):
            for record in await _asked(service.list(wanted)):
                found.setdefault(record.id, record)  # two services may have one journal
        return sorted(found.values(), key=lambda record: -record.created)[: given.limit]

    async def show(self, arguments: Mapping[str, Any]) -> Record:
        """A task.

        Args:
            arguments: ``id``.

        Raises:
            ErrandError: There is none, or a journal can't be reached.

        Cancel: safe.
        """
        task = read(_One, arguments).id
        return await self._first(task, lambda service: service.show(task))

    async def change(self, arguments: Mapping[str, Any]) -> Record:
        """Cancel a task, or have it tried again.

        Args:
            arguments: ``id``, and ``what``: ``cancel`` or ``retry``.

        Returns:
            The task after it.

        Raises:
            ErrandError: There is none, it is in no state for that, or a journal can't be reached.

        Cancel: it may be done.
        """
        given = read(_One, arguments)
        record = await self._first(given.id, lambda service: _act(service, given.what, given.id))
        if not _is_done(given.what, record):
            states = " or ".join(_FROM[given.what])
            detail = f"the task is {record.state}; {given.what} is for those that are {states}"
            raise ErrandError(409, f"no_{given.what}", detail)
        return record

    async def change_all(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel tasks of a kind, or have them tried again: at most 200, newest first.

        Args:
            arguments: ``what``, ``kind``, ``state``; ``name`` of the service, if there are several; ``before``: go on
                where that came from.

        Returns:
            How many were ``changed``; ``before`` for the next, "" when there are none.

        Raises:
            ErrandError: An argument is no good, or a journal can't be reached.

        Cancel: some of it may be done.
        """
        given = read(_Many, arguments)
        state = given.state or _FROM[given.what][0]
        if state not in _FROM[given.what] or not given.kind:
            states = " or ".join(_FROM[given.what])
            raise ErrandError(400, "bad_argument", f"{given.what} is for one kind, and a state that is {states}")
        services = self._named(given.name)
        if len(services) != 1:
            there = ", ".join(each.name for each in self._named("")) or "none"
            raise ErrandError(400, "bad_argument", f"say of which service by its name; there are {there}")
        found = await _asked(services[0].list(Wanted(state, given.kind, None, given.before, _CHANGED)))
        changed = 0
        for record in found:
            after = await _asked(_act(services[0], given.what, record.id))
            changed += after is not None and _is_done(given.what, after)
        return {"changed": changed, "before": found[-1].id if len(found) == _CHANGED else ""}

    async def _first(self, task: str, ask: Callable[[Shown], Awaitable[Record | None]]) -> Record:
        """What the first service says that has the task."""
        for service in self._named(""):
            record = await _asked(ask(service))
            if record is not None:
                return record
        raise ErrandError(404, "no_such_task", f"there is no durable task {task!r}, or no more")

    def _named(self, name: str) -> Sequence[Shown]:
        return sorted((each for each in self._journals if name in ("", each.name)), key=lambda each: each.name)


def _act(service: Shown, what: What, task: str) -> Awaitable[Record | None]:
    return service.cancel(task) if what == "cancel" else service.retry(task)


def _is_done(what: What, after: Record) -> bool:
    return after.state == _DONE[what] or (what == "cancel" and after.cancelling)


async def _asked(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except JournalUnavailable as error:
        raise ErrandError(503, "journal_away", str(error)) from error
