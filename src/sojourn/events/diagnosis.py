"""What is wrong with a process: its loop stands still, something leaks."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LeakFound", "LeaseOverdue", "LeaseReturned", "LoopStalled"]


class LoopStalled(NamedTuple):
    """The event loop, or the whole process, stood still; deadlines were extended by that much.

    Emitted when it goes on.

    Attributes:
        seconds: For how long.
        cause: ``code`` (something on the loop's thread ran), ``gc``, ``native`` (it kept the interpreter lock),
            ``machine`` (the process got no processor time) or "" when nobody watched.
        function: The innermost function of the application or a library that was seen on the loop's thread, as
            ``module.function file:line``; "" when none was.
        stack: The loop's thread while it stood still, innermost call last; "" when it was not seen.
        processor: Seconds of processor time that the loop's thread used meanwhile.
        collector: Seconds of it in the garbage collector.
    """

    seconds: float
    cause: str = ""
    function: str = ""
    stack: str = ""
    processor: float = 0.0
    collector: float = 0.0


class LeakFound(NamedTuple):
    """Something is alive past its declared end. Once for each signature; the count grows silently after that.

    Attributes:
        kind: ``task``, ``lost_task``, ``run``, ``coroutine``, ``lease``, ``fd``, ``connection`` or ``resource``.
        what: What it is: the coroutine's name, the pool, the file, the kind of socket.
        created: Where it was made or taken, as ``file:line in function``.
        waiting: Where it is now, as ``file:line in function``; "" when nothing is known.
        owner: What it belonged to, such as ``connection 12 GET /slow``; "" when nothing is known.
        age: Seconds since it was made.
        known: How many of this signature there are so far.
        holder: What holds it, as a path of references; "" when that was not searched.
        stack: The stack at its creation or of its waiting, innermost call last; "" when nothing is known.
    """

    kind: str
    what: str
    created: str
    waiting: str
    owner: str
    age: float
    known: int
    holder: str = ""
    stack: str = ""


class LeaseOverdue(NamedTuple):
    """Something taken from a pool is held for longer than ``diagnostics.lease_held``; ``stack`` is who took it."""

    pool: str
    seconds: float
    owner: str
    stack: str


class LeaseReturned(NamedTuple):
    """What LeaseOverdue or a leak told of was given back after all."""

    pool: str
    seconds: float
    owner: str
