"""What it costs to arm a deadline again while 100,000 connections have theirs: one line of JSON."""

from __future__ import annotations

import json
import random
import time

from sojourn.clock import NEVER
from sojourn.policy.deadlines import Deadlines
from sojourn.policy.wheel import Wheel

CONNECTIONS = 100_000
ARMED = 1_000_000


class Waiting:
    """As much of a connection as has to do with its deadlines."""

    __slots__ = ("due", "looked_at")

    def __init__(self) -> None:
        self.due = Deadlines()
        self.looked_at = NEVER

    def passed_by(self, now: float) -> float:
        """The moment of its next deadline."""
        return self.due.soonest()


def main() -> None:
    """Arm connections in random order, as a server does at the end of a request.

    The first loop only looks at each connection, and is taken off: whoever arms a deadline has just used its
    connection, and does not wait for memory any more.
    """
    now = time.monotonic()
    wheel: Wheel[Waiting] = Wheel(now)
    connections = [Waiting() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.due.keep_alive = now + 75.0
        wheel.add(connection, now + 75.0)
    order = [random.choice(connections) for _ in range(ARMED)]
    began = time.perf_counter()
    for connection in order:
        moment = now + 75.0
        if connection.due.header < connection.looked_at:
            wheel.sooner(connection, moment)
    empty = time.perf_counter() - began
    began = time.perf_counter()
    for connection in order:
        connection.due.keep_alive = moment = now + 75.0
        if moment < connection.looked_at:
            wheel.sooner(connection, moment)
    took = time.perf_counter() - began
    print(json.dumps({"us": (took - empty) / ARMED * 1e6, "with_loop_us": took / ARMED * 1e6}))


if __name__ == "__main__":
    main()
