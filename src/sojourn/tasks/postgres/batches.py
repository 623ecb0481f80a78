"""Batches on their way to a statement and back: columns out of entries, and an answer for each entry out of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sojourn.tasks.record import NewTask, Outcome, Progress, Settlement, State, Submitted

__all__ = ["Ends", "News", "Said"]

#: Columns of a NewTask, in the order of the statement.
_WIDTH: Final = 13


def _row(new: NewTask) -> tuple[Any, ...]:
    return (
        new.id,
        new.kind,
        new.payload,
        new.spec,
        new.owner,
        new.key,
        new.fingerprint,
        new.priority,
        new.delay,
        new.run_at,
        new.keep,
        new.node,
        new.lease,
    )


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


class News:
    """Tasks that are to be written down.

    Args:
        tasks: The batch.

    Attributes:
        due: Whether any of them waits for a claim since.
    """

    __slots__ = ("_asked", "_by_id", "_by_key", "_tasks", "due")

    def __init__(self, tasks: Sequence[NewTask]) -> None:
        self._tasks = tasks
        self._asked: list[NewTask] = []
        self._by_id: dict[str, Submitted] = {}
        self._by_key: dict[tuple[str, str], Submitted] = {}
        self.due = False

    def _found(self, new: NewTask) -> Submitted | None:
        return self._by_id.get(new.id) or (self._by_key.get((new.owner, new.key)) if new.key else None)

    def missing(self) -> list[Sequence[Any]]:
        """Columns of those that have no answer; empty when all have."""
        if self._by_id or self._by_key:
            self._asked = [new for new in self._tasks if self._found(new) is None]
        else:
            self._asked = list(self._tasks)
        # In one order, whoever writes: two batches with the same keys wait for each other in one direction only.
        self._asked.sort(key=lambda new: (new.owner, new.key))
        return _columns([_row(new) for new in self._asked], _WIDTH) if self._asked else []

    def written(self, id: str) -> None:
        """A row was made."""
        self._by_id[id] = Submitted(id, True, "", "pending")

    def conflicts(self) -> tuple[list[str], list[str], list[str]] | None:
        """Ids, owners and keys of what is there already; None when all were made."""
        fresh, some = self._by_id, []
        for new in self._asked:
            done = fresh.get(new.id)
            if done is None:
                some.append(new)
            elif not done.fingerprint:
                state: State = "running" if new.node else "pending"
                self.due = self.due or not new.node
                done = fresh[new.id] = Submitted(new.id, True, new.fingerprint, state)
                if new.key:
                    self._by_key[(new.owner, new.key)] = done
        some = [new for new in some if self._found(new) is None]
        if not some:
            return None
        keyed = [new for new in some if new.key]
        return [new.id for new in some], [new.owner for new in keyed], [new.key for new in keyed]

    def known(self, row: Any) -> None:
        """A row that was there."""
        ident, owner, key, fingerprint, state = row
        found = Submitted(ident, True, fingerprint, state)
        self._by_id[ident] = found
        if key:
            self._by_key[(owner, key)] = found

    def answers(self) -> list[Submitted]:
        """One for each, in the order of the batch."""
        answers = []
        for new in self._tasks:
            found = self._by_id.get(new.id)
            if found is None:
                other = self._by_key[(new.owner, new.key)]
                found = Submitted(other.id, False, other.fingerprint, other.state)
            answers.append(found)
        return answers


class Ends:
    """Ends of runs.

    Args:
        settlements: The batch; of what is said twice of one run, the first counts.

    Attributes:
        follow: Whether there are tasks to submit with them.
        due: Whether something may be claimable since.
        changed: Tasks that are no more what they were.
    """

    __slots__ = ("_all", "_counted", "_first", "changed", "due", "follow")

    def __init__(self, settlements: Sequence[Settlement]) -> None:
        self._all = settlements
        self._first: dict[tuple[str, int], Settlement] = {}
        for each in settlements:
            self._first.setdefault((each.id, each.epoch), each)
        self._counted: dict[tuple[str, int], str] = {}
        self.follow = any(each.then for each in self._first.values())
        self.due = False
        self.changed: list[str] = []

    def columns(self) -> list[Sequence[Any]]:
        """Of the statement, in the order of ids."""
        rows = []
        for _, each in sorted(self._first.items(), key=lambda item: item[0]):
            rows.append((each.id, each.epoch, each.outcome, each.result, each.error, each.delay, each.checkpoint))
        return _columns(rows, 7)

    def following(self) -> list[Sequence[Any]]:
        """Columns of what is submitted with them, and with which of them."""
        rows = [(*_row(new), each.id, each.epoch) for each in self._first.values() for new in each.then]
        rows.sort(key=lambda row: (row[4], row[5]))
        return _columns(rows, _WIDTH + 2)

    def counted(self, id: str, epoch: int) -> None:
        """This one counts."""
        settlement = self._first[(id, epoch)]
        self._counted[(id, epoch)] = settlement.outcome
        self.due = self.due or settlement.outcome in ("retry", "handover", "unbegun") or bool(settlement.then)
        self.changed.append(id)

    def open(self) -> tuple[list[str], list[int]] | None:
        """Ids and epochs of those that did not count now; None when all did."""
        some = [run for run in self._first if run not in self._counted]
        return ([run[0] for run in some], [run[1] for run in some]) if some else None

    def before(self, id: str, epoch: int, outcome: Outcome) -> None:
        """How one of them was settled already."""
        self._counted[(id, epoch)] = outcome

    def answers(self) -> list[bool]:
        """One for each, in the order of the batch."""
        return [self._counted.get((each.id, each.epoch)) == each.outcome for each in self._all]


class Said:
    """What runs say.

    Args:
        progress: The batch.

    Attributes:
        changed: Tasks that have said something.
    """

    __slots__ = ("_all", "_bases", "_places", "_runs", "changed")

    def __init__(self, progress: Sequence[Progress]) -> None:
        self._all = progress
        #: Of each run: how many events, and its last checkpoint. Of each entry: how many events of its run up to it.
        self._runs: dict[tuple[str, int], tuple[int, bytes | None]] = {}
        self._places: list[int] = []
        self._bases: dict[tuple[str, int], int] = {}
        self.changed: list[str] = []
        for each in progress:
            run = (each.id, each.epoch)
            n, checkpoint = self._runs.get(run, (0, None))
            n += bool(each.data)
            self._runs[run] = n, checkpoint if each.checkpoint is None else each.checkpoint
            self._places.append(n)

    def columns(self) -> list[Sequence[Any]]:
        """Of the statement: runs in the order of ids, then events."""
        runs = [(*run, *rest) for run, rest in sorted(self._runs.items(), key=lambda item: item[0])]
        events = []
        for each, place in zip(self._all, self._places, strict=True):
            if each.data:
                events.append((each.id, each.epoch, place, each.data))
        return [*_columns(runs, 4), *_columns(events, 4)]

    def counted(self, id: str, epoch: int, base: int) -> None:
        """A run may speak; so many it had said before."""
        self._bases[(id, epoch)] = base
        if self._runs[(id, epoch)][0]:
            self.changed.append(id)

    def answers(self) -> list[int]:
        """One for each, in the order of the batch."""
        answers = []
        for each, place in zip(self._all, self._places, strict=True):
            base = self._bases.get((each.id, each.epoch))
            answers.append(0 if base is None else (base + place) or -1)
        return answers
