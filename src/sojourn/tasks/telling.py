"""What a node tells of its runs and its journal: events for the log, the traces and whoever observes the server."""

from __future__ import annotations

from typing import Final

import msgspec

from sojourn.errors import JournalUnavailable
from sojourn.events import StoreAway, StoreBack, TaskBegan, TaskEnded, TaskHandedOver, TaskLost
from sojourn.scopes.journals import Journals
from sojourn.tasks.record import Settlement
from sojourn.tasks.runner import Run
from sojourn.tasks.spec import Problem

__all__ = ["Teller"]

_problem: Final = msgspec.json.Decoder(Problem).decode


class Teller:
    """Makes the events. Where nobody listens each call is a test.

    Args:
        service: Name of the service.
        engine: Of its journal.
        node: What the journal calls this process.
        journals: Whom it tells; None tells nobody.
    """

    __slots__ = ("_engine", "_journals", "_node", "_service")

    def __init__(self, service: str = "", engine: str = "", node: str = "", journals: Journals | None = None) -> None:
        self._service = service
        self._engine = engine
        self._node = node
        self._journals = journals

    def began(self, run: Run) -> None:
        """A run begins. Called in the context in which its function is called: a span becomes the current one there."""
        journals = self._journals
        if journals is not None and journals.wants(TaskBegan):
            claim = run.claim
            before = (claim.failures + 1, claim.interruptions, claim.waited)
            journals.tell(TaskBegan(claim.kind, claim.id, claim.epoch, *before, run.spec.trace, self._node))

    def ended(self, run: Run, settlement: Settlement, seconds: float) -> None:
        """A run is over, and not written down yet."""
        journals = self._journals
        if journals is None or not journals.wants(TaskEnded):
            return
        claim, problem, stack = run.claim, "", ""
        if settlement.error:
            why = _problem(settlement.error)
            problem, stack = f"{why.type}: {why.detail}" if why.detail else why.type, why.trace
        journals.tell(
            TaskEnded(
                claim.kind,
                claim.id,
                settlement.outcome,
                claim.failures + 1,
                seconds,
                problem,
                claim.epoch,
                settlement.delay,
                stack,
            )
        )

    def handed_over(self, run: Run, seconds: float) -> None:
        """A run was given back, and that is written down."""
        if self._journals is not None:
            self._journals.tell(TaskHandedOver(run.claim.kind, run.claim.id, seconds, run.claim.epoch))

    def lost(self, run: Run, why: str, seconds: float) -> None:
        """A run does not count; ``why`` is a word of :class:`sojourn.events.TaskLost`."""
        if self._journals is not None:
            self._journals.tell(TaskLost(run.claim.kind, run.claim.id, why, seconds, run.claim.epoch))

    def away(self, error: BaseException, held: int) -> None:
        """The journal can't be reached any more."""
        if self._journals is not None:
            detail = error.detail if isinstance(error, JournalUnavailable) else f"{type(error).__name__}: {error}"
            self._journals.tell(StoreAway("tasks", self._service, self._engine, detail, held))

    def back(self, seconds: float) -> None:
        """It answers again."""
        if self._journals is not None:
            self._journals.tell(StoreBack("tasks", self._service, self._engine, seconds))
