"""What travels with a task, and of which the journal knows nothing: how to run it, for whom, and why it failed."""

from __future__ import annotations

import msgspec

__all__ = ["Actor", "Problem", "Spec"]


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a task acts for: what of a SecurityContext is no secret. It is asked again each time that the task is run.

    Attributes:
        principal: Who started it.
        roles: Of the principal, sorted.
        tenant: Of the principal; None for none.
        authn: How the principal had proved who it is.
        policy_version: By which it was allowed to.
    """

    principal: str
    roles: tuple[str, ...] = ()
    tenant: str | None = None
    authn: str = ""
    policy_version: str = ""


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a task is to be run; fixed when it is submitted, so that all nodes and versions do the same.

    Attributes:
        deadline: Seconds of one attempt; None for no limit.
        attempts: How many attempts may fail in all.
        crashes: How often it may be lost with its node; once more, and it has failed: it may be what ends them.
        first: Ceiling of the wait before the second attempt, in seconds; it doubles with each (`policy/retry.Backoff`).
        most: Ceiling of all of them.
        expires: Seconds after it was due until which it must have been begun first; None for no limit.
        callback: URL that is told of its end; "" for none.
        actor: For whom it acts; None for nobody.
        trace: ``traceparent`` of who started it; "" for none.
        slot: Of a periodic task, the moment it stands for, in seconds since 1970; None for others.
    """

    deadline: float | None = None
    attempts: int = 1
    crashes: int = 3
    first: float = 1.0
    most: float = 300.0
    expires: float | None = None
    callback: str = ""
    actor: Actor | None = None
    trace: str = ""
    slot: float | None = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task, or its last attempt, failed.

    Attributes:
        type: Name of the error's class, or ``Crashed``, ``Expired``, ``Denied``.
        detail: What it said.
        trace: The end of its traceback; "" where there is none.
        attempt: Which attempt it was, from 1.
    """

    type: str
    detail: str = ""
    trace: str = ""
    attempt: int = 1
