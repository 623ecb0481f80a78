"""One question to all workers at the same time, each with its deadline: who is silent holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sojourn.errors import ErrandError
from sojourn.scopes.work import together
from sojourn.server.admin.answers import Question

__all__ = ["SECONDS", "Gathered", "NoAnswer", "ask_all", "ask_one", "gather"]

T = TypeVar("T")
#: Seconds that a worker has for its answer, unless a route says otherwise.
SECONDS: Final = 5.0
#: Seconds more until a way to a worker that does not keep its own deadline is given up.
_PATIENCE: Final = 2.0
#: States of a worker in which it answers.
_AWAKE: Final = ("ready", "draining")
#: Answers that are this worker's alone: another may do better.
_NEXT: Final = (503, 504)


class NoAnswer(ErrandError):
    """No worker answered.

    Args:
        error: Why the first of them did not.
        workers: Why each of them did not.
    """

    def __init__(self, error: ErrandError, workers: Mapping[str, str]) -> None:
        super().__init__(error.status, error.reason, error.detail)
        self.workers = dict(workers)


class Gathered(NamedTuple, Generic[T]):
    """What came.

    Attributes:
        answers: By the worker's number.
        workers: For each that was asked: ``ok``, or why there is no answer.
    """

    answers: dict[int, T]
    workers: dict[str, str]


async def ask_all(
    question: Question, name: str, arguments: Mapping[str, Any] | None = None, seconds: float = SECONDS
) -> Gathered[bytes]:
    """Ask the worker that is meant, or all.

    Args:
        question: Says who is meant.
        name: What is asked.
        arguments: Of it; None takes those of the question.
        seconds: How long each may take.

    Returns:
        Answers as MessagePack.

    Raises:
        ErrandError: There is no such worker.
        NoAnswer: Nobody answered.

    Cancel: safe.
    """
    given = question.arguments if arguments is None else arguments
    return await gather(question, lambda worker: question.fleet.ask(worker, name, given, seconds), seconds)


async def ask_one(
    question: Question, name: str, arguments: Mapping[str, Any] | None = None, seconds: float = SECONDS
) -> bytes:
    """Ask for what all workers would answer alike: the worker that is meant, or one after another until one answers.

    Arguments are those of :func:`ask_all`.

    Returns:
        The answer as MessagePack.

    Raises:
        ErrandError: There is no such worker; or what the first has said that can be reached.

    Cancel: safe; what was asked may be done.
    """
    given = question.arguments if arguments is None else arguments
    known = {worker.number: worker.state for worker in question.fleet.status().workers}
    if question.worker is not None:
        return await question.fleet.ask(question.worker, name, given, seconds)
    failed = ErrandError(503, "no_worker", "there is no worker now")
    for number in sorted(known, key=lambda number: (known[number] not in _AWAKE, number)):
        answer = await _answer(lambda worker: question.fleet.ask(worker, name, given, seconds), number, seconds)
        if not isinstance(answer, ErrandError):
            return answer
        failed = answer
        if answer.status not in _NEXT:
            break
    raise failed


async def gather(
    question: Question, ask: Callable[[int], Awaitable[T]], seconds: float = SECONDS, *, hung: bool = False
) -> Gathered[T]:
    """As :func:`ask_all`, in any way.

    Args:
        question: Says who is meant.
        ask: Asks a worker.
        seconds: How long each may take.
        hung: Whether workers that do not serve yet, or do not live any more, can be asked too.
    """
    known = {worker.number: worker.state for worker in question.fleet.status().workers}
    if question.worker is not None and question.worker not in known:
        there = ", ".join(map(str, sorted(known))) or "none now"
        raise ErrandError(404, "no_such_worker", f"there is no worker {question.worker}; there are {there}")
    meant = [question.worker] if question.worker is not None else sorted(known)
    failed: dict[int, ErrandError] = {
        number: ErrandError(503, "not_ready", f"it is {known[number]}")
        for number in meant
        if known[number] not in _AWAKE and not hung
    }
    asked = [number for number in meant if number not in failed]
    given = await together((_answer(ask, number, seconds) for number in asked), "question to a worker")
    answers: dict[int, T] = {}
    for number, answer in zip(asked, given, strict=True):
        if isinstance(answer, ErrandError):
            failed[number] = answer
        else:
            answers[number] = answer
    workers = {str(number): failed[number].detail if number in failed else "ok" for number in meant}
    if not answers:
        first = next((failed[number] for number in meant if number in asked), None)
        first = first or next(iter(failed.values()), ErrandError(503, "no_worker", "there is no worker now"))
        raise NoAnswer(first, workers)
    return Gathered(answers, workers)


async def _answer(ask: Callable[[int], Awaitable[T]], number: int, seconds: float) -> T | ErrandError:
    try:
        async with asyncio.timeout(seconds + _PATIENCE):
            return await ask(number)
    except ErrandError as error:
        return error
    except TimeoutError:
        return ErrandError(504, "no_answer", f"there was no answer within {seconds:g} s")
