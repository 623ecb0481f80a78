"""Idle connections held open by the C opener, which answers pings until it is ended."""

from __future__ import annotations

import json
import select
from dataclasses import dataclass
from types import TracebackType

from bench import build, machine, process
from bench.process import BenchError

OPEN_DEADLINE = 70.0
ANSWER_DEADLINE = 10.0


@dataclass(frozen=True)
class Count:
    """What the opener tells."""

    open: int
    failed: int
    closed: int
    pings: int
    closes: int
    bytes: int
    cpu: float


class Holder:
    """Opens `count` connections of one kind, `http` or `ws`; a context manager that always ends them.

    `rate` is how many are opened in a second; 0 for as fast as it goes.
    """

    def __init__(self, kind: str, port: int, count: int, lifetime: float, rate: int = 0) -> None:
        path = "/ws" if kind == "ws" else "/"
        command = [build.client("idle"), kind, str(port), path, str(count), str(int(lifetime)), str(rate)]
        self.count = count
        self.process = process.spawn(command, machine.cores()[0], pipes=True)
        try:
            first = self._read(OPEN_DEADLINE)
            if first.open != count:
                raise BenchError(f"{first.open} of {count} connections could be opened")
        except BaseException:
            self.end()
            raise

    def _read(self, deadline: float) -> Count:
        assert self.process.stdout
        assert self.process.stderr
        ready, _, _ = select.select([self.process.stdout], [], [], deadline)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise BenchError(f"idle: {self.process.stderr.read().strip() or 'no word from the opener'}")
        return Count(**json.loads(line))

    def ask(self) -> Count:
        """The counts of this moment; every connection must still be open."""
        now = self.look()
        if now.open != self.count:
            raise BenchError(f"{now.closed} of {self.count} idle connections were closed by the server")
        return now

    def look(self) -> Count:
        """The counts of this moment."""
        assert self.process.stdin
        try:
            self.process.stdin.write("stat\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError("idle: the opener has ended") from error
        return self._read(ANSWER_DEADLINE)

    def end(self) -> None:
        """Closes all connections by ending the opener."""
        process.end(self.process)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
