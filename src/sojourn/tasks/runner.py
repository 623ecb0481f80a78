"""One run of a task: from its claim to what is written down of its end."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from sojourn.errors import DeadlineExceeded, TaskArguments
from sojourn.policy.retry import Backoff
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.scopes.deadline import deadline
from sojourn.scopes.offload import offload
from sojourn.tasks.current import CURRENT, CurrentTask
from sojourn.tasks.kinds import Kind, encoded
from sojourn.tasks.record import Claim, NewTask, Outcome, Progress, Settlement
from sojourn.tasks.spec import Actor, Problem, Spec

__all__ = ["Cause", "Reauthorise", "Run", "perform"]

#: Why a run is ended from outside: somebody cancelled the task, the server stops, or its lease could not be renewed.
Cause = Literal["", "cancel", "handover", "fenced"]
#: Whether a task may still act for who started it: the context it gets, True for the one that was written down.
Reauthorise = Callable[[SecurityContext, str], Awaitable["SecurityContext | bool"]]

#: Characters of a traceback that are kept: the end, where the error is.
_TRACE: Final = 4000
_DETAIL: Final = 1000

_spec: Final = msgspec.json.Decoder(Spec).decode
_encode: Final = msgspec.json.Encoder().encode


class Then(Protocol):
    """What is submitted together with the end of a task."""

    def __call__(self, run: Run, settlement: Settlement) -> Sequence[NewTask]:
        """The tasks; called for ``completed``, ``failed`` and ``cancelled``."""


class Run:
    """A task that this node has.

    Attributes:
        claim: What it is.
        kind: How it is done.
        spec: How it is to be run.
        renewed: When its lease was last renewed or taken: before that call was sent; monotonic seconds.
        since: When it began to run; when it was claimed, before that.
        task: Runs it; None before it begins.
        cause: Why it is to end; "" while it is not.
        outcome: How it ended; None before.
        left_out: Whether it was not begun because one of an earlier slot was not over.
        saying: How much of what it has said is not written down yet.
        last: Its end, while that waits for this.
        unreadable: Why its spec can't be read; "" when it can.
    """

    __slots__ = (
        "cause",
        "claim",
        "kind",
        "last",
        "left_out",
        "outcome",
        "renewed",
        "saying",
        "since",
        "spec",
        "task",
        "unreadable",
    )

    def __init__(self, claim: Claim, kind: Kind, now: float) -> None:
        self.claim = claim
        self.kind = kind
        self.unreadable = ""
        try:
            self.spec = _spec(claim.spec)
        except msgspec.MsgspecError as error:  # somebody else's hand, or another version's
            self.spec, self.unreadable = Spec(), str(error)
        self.renewed = now
        self.since = now
        self.task: asyncio.Task[Settlement] | None = None
        self.cause: Cause = ""
        self.outcome: Outcome | None = None
        self.left_out = False
        self.saying = 0
        self.last: Settlement | None = None

    def end(self, cause: Cause) -> None:
        """Cancel it, once. Somebody's word that it is to end stands before that of the server."""
        if not self.cause:
            self.cause = cause
            if self.task is not None and not self.task.done():
                self.task.cancel(cause)


async def perform(
    run: Run,
    ask: Callable[[Progress], asyncio.Future[int]],
    reauthorise: Reauthorise | None,
    began: Callable[[Run], None],
    alone: Callable[[str, float], Awaitable[bool]],
) -> Settlement:
    """Do it. Whatever happens has an outcome; nothing is raised.

    Args:
        run: What to do.
        ask: Writes progress down.
        reauthorise: Asked before each run of a task that acts for somebody.
        began: Called in its context before anything else.
        alone: Asked before a run that stands for a slot, with its kind and that: may it begin, or is one of an earlier
            slot not over yet?
    """
    claim, spec = run.claim, run.spec
    began(run)
    if run.unreadable:
        return _failed(claim, Problem("Unreadable", f"its spec: {run.unreadable}", attempt=claim.failures + 1))
    if claim.crashes > spec.crashes:
        detail = f"it was lost with its node {claim.crashes} times, which may be its own doing"
        return _failed(claim, Problem("Crashed", detail, attempt=claim.failures + 1))
    waited = min(claim.waited, claim.age)  # since somebody has retried it, if that was later
    if spec.expires is not None and not (claim.failures or claim.interruptions) and waited > spec.expires:
        detail = f"it was not begun within {spec.expires:g} s of its time, but after {waited:.1f} s"
        return _failed(claim, Problem("Expired", detail, attempt=0))
    try:
        current = CurrentTask(claim, ask, spec.slot)
        CURRENT.set(current)
        if spec.slot is not None and not await alone(run.kind.name, spec.slot):
            run.left_out = True
            return Settlement(id=claim.id, epoch=claim.epoch, outcome="cancelled")
        arguments = run.kind.arguments(claim.payload)
        actor = await _actor(spec.actor, reauthorise, run.kind.name)
        if actor is None and spec.actor is not None:
            return _failed(
                claim, Problem("Denied", f"{spec.actor.principal} may not do this any more", attempt=claim.failures + 1)
            )
        result = await _bounded(run, arguments, actor)
        data = encoded(result, "its result")
    except asyncio.CancelledError as error:
        return _cut(run, error)
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure, and ends nobody else
        # What its clean-up raises when it is interrupted is no failure of the task.
        return _cut(run, error) if run.cause else _raised(run, error)
    return Settlement(id=claim.id, epoch=claim.epoch, outcome="completed", result=data)


async def _bounded(run: Run, arguments: dict[str, Any], actor: SecurityContext | None) -> Any:
    if actor is None:
        return await _call(run, arguments)
    with acting_as(actor):
        return await _call(run, arguments)


async def _call(run: Run, arguments: dict[str, Any]) -> Any:
    kind, seconds = run.kind, run.spec.deadline
    if kind.to != "loop":
        call = _Call(kind.function, arguments)
        return await offload(call, to=kind.to, deadline=seconds, name=f"task {kind.name}")
    if seconds is None:
        return await kind.function(**arguments)
    async with deadline(seconds, f"task {kind.name}"):
        return await kind.function(**arguments)


class _Call:
    """A call with names, for threads and processes."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self) -> Any:
        return self.function(**self.arguments)


async def _actor(actor: Actor | None, reauthorise: Reauthorise | None, kind: str) -> SecurityContext | None:
    if actor is None:
        return None
    context = SecurityContext(
        actor.principal,
        roles=frozenset(actor.roles),
        tenant=actor.tenant,
        authn=actor.authn,
        policy_version=actor.policy_version,
    )
    if reauthorise is None:
        return context
    answer = await reauthorise(context, kind)
    if isinstance(answer, SecurityContext):
        return answer
    return context if answer else None


def _cut(run: Run, error: BaseException) -> Settlement:
    """It was cancelled."""
    claim = run.claim
    if run.cause == "cancel":
        return Settlement(id=claim.id, epoch=claim.epoch, outcome="cancelled")
    if run.cause:
        return Settlement(id=claim.id, epoch=claim.epoch, outcome="handover")
    return _raised(run, error)  # it cancelled itself


def _raised(run: Run, error: BaseException) -> Settlement:
    """It failed: again, or for good."""
    claim, spec = run.claim, run.spec
    attempt = claim.failures + 1
    detail, later = _said(error)
    if isinstance(error, DeadlineExceeded):
        # Without the place in the code: clients are told as well.
        detail = f"deadline {error.deadline!r} of {error.seconds:g} s passed (attempt {attempt})"
    text = "".join(traceback.format_exception(error))[-_TRACE:]
    problem = Problem(type(error).__name__, _written(detail[:_DETAIL]), _written(text), attempt)
    if attempt >= spec.attempts or isinstance(error, run.kind.final):
        return _failed(claim, problem)
    delay = Backoff(spec.first, spec.most).delay(attempt, random.random())
    if isinstance(later, int | float) and later == later:
        delay = max(delay, min(float(later), 10.0 * spec.most))
    return Settlement(id=claim.id, epoch=claim.epoch, outcome="retry", error=_encode(problem), delay=delay)


def _said(error: BaseException) -> tuple[str, Any]:
    """What an error says, and when to try again if it is of a guard, or a dependency, that knows."""
    try:
        said = error.detail if isinstance(error, TaskArguments) else str(error)
        return said, getattr(error, "retry_after", None)
    except Exception as another:  # noqa: BLE001 - classes of the application's: they must not keep the run from its end
        return f"it can't be said: {type(another).__name__}", None


def _written(text: str) -> str:
    """Text as JSON can hold it: file names that are no UTF-8 have halves of characters."""
    return text.encode(errors="backslashreplace").decode()


def _failed(claim: Claim, problem: Problem) -> Settlement:
    return Settlement(id=claim.id, epoch=claim.epoch, outcome="failed", error=_encode(problem))
