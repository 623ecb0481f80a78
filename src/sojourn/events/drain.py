"""A shutdown: its phases, what took part, what had to be cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DrainCounted", "DrainCut", "DrainParticipantEnded", "DrainPhaseChanged", "DrainReported"]


class DrainPhaseChanged(NamedTuple):
    """A phase of the shutdown began.

    Attributes:
        phase: ``notice`` (still serving), ``finish``, ``cut requests`` and so on, or ``persist``.
        instance: Who drains.
        left: Seconds until everything is cut.
        requests: Requests in hand.
        streams: Event streams.
        sockets: WebSockets.
        idle: Connections without a request.
    """

    phase: str
    instance: str
    left: float
    requests: int
    streams: int
    sockets: int
    idle: int


class DrainCounted(NamedTuple):
    """A mark of the countdown: how much time and how many are left. The fields are those of DrainPhaseChanged."""

    phase: str
    instance: str
    left: float
    requests: int
    streams: int
    sockets: int
    idle: int


class DrainParticipantEnded(NamedTuple):
    """Something that had asked to take part in the drain is done, or was not in time.

    Attributes:
        name: What it is called.
        phase: Of which phase.
        seconds: How long it took.
        problem: What went wrong; None when nothing did.
        counts: What it says that it did, by its own words, such as ``handed_over``.
    """

    name: str
    phase: str
    seconds: float
    problem: str | None
    counts: Mapping[str, int] = {}


class DrainReported(NamedTuple):
    """A drain is over.

    Attributes:
        instance: Who drained: a worker, or all together.
        seconds: How long it took.
        exit_code: What the process ends with because of it.
        kinds: For ``requests``, ``streams``, ``sockets`` and ``idle``: how many were ``open``, ``told``, ``finished``
            and ``cut``.
        unanswered: WebSockets whose client did not answer the close frame.
        cut: Connections and tasks that had to be cut.
    """

    instance: str
    seconds: float
    exit_code: int
    kinds: Mapping[str, Mapping[str, int]]
    unanswered: int
    cut: int


class DrainCut(NamedTuple):
    """Something had not ended by itself when its time to drain was over, and was cut.

    Attributes:
        what: ``request``, ``stream``, ``websocket``, ``connection`` (no request in hand) or ``task`` (what a request
            left running after its answer or its client's leaving).
        connection: Id of the connection; 0 for a task.
        peer: ``address:port`` of the client; "" for a task.
        route: Method and path, or what the task belonged to.
        age: Seconds since the connection was accepted; 0 for a task.
        phase: Where the connection was; "" for a task.
        stack: Where the application stood, innermost call last; "" when it did not run.
    """

    what: str
    connection: int
    peer: str
    route: str
    age: float
    phase: str
    stack: str
