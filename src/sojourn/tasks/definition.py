"""What can be said of a kind of task when it is defined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from sojourn.policy.retry import Backoff
from sojourn.tasks.kinds import Place

__all__ = ["Definition"]


class Definition(TypedDict, total=False):
    """The options of ``Tasks.define``.

    Attributes:
        name: What is written down, and part of its URL; the function's own name when missing. Not to be changed while
            tasks of it wait.
        deadline: Seconds of one attempt, 300 when missing; None for no limit.
        retries: How often it is tried again when it fails: 3 times when missing.
        backoff: How long it waits before that: 1 s at most before the second attempt, then twice that, up to 300 s.
        priority: Of its tasks, 0 when missing; higher ones come first.
        keep: Seconds that its ended tasks are kept; None, or missing, takes that of the service.
        limit: How many run at the same time on one node; None, or missing: only the service's own number counts.
        to: ``loop``, ``thread``, or ``process`` for what computes; None, or missing: by what the function is.
        public: Whether clients may start it over HTTP; not when missing.
        crashes: How often it may be lost with its node before it counts as failed, as it may be what ends them: 3.
        final: Errors after which it is not tried again.
        every: Seconds: it starts by itself again and again.
        cron: A cron expression, such as ``"0 3 * * *"``: the same (extra ``cron``).
        timezone: What ``cron`` is meant in; UTC when missing.
        catch_up: Whether a moment that nobody was there for is made up for, once; it is when missing.
    """

    name: str
    deadline: float | None
    retries: int
    backoff: Backoff
    priority: int
    keep: float | None
    limit: int | None
    to: Place | None
    public: bool
    crashes: int
    final: Sequence[type[BaseException]]
    every: float | None
    cron: str | None
    timezone: str
    catch_up: bool
