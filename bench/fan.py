"""The members of a fan-out: a C client that holds them, has the server publish, and checks what each of them gets."""

from __future__ import annotations

import json
import select
import time
from dataclasses import dataclass
from types import TracebackType

from bench import build, machine, process
from bench.process import BenchError

LIFETIME = 600
OPEN_DEADLINE = 70.0
CALL_DEADLINE = 60.0
#: Some servers answer the handshake first and take the member in then.
SETTLE = 0.5


@dataclass(frozen=True)
class Told:
    """What the client tells: counts since its start; walls, delays and processor time of the last command."""

    open: int
    failed: int
    closed: int
    stalled: int
    frames: int
    missed: int
    pings: int
    closes: int
    calls: int
    wall: float
    idle: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu: float


class Fan:
    """`members` WebSockets at `path`, spread over the ports; a context manager that always ends them.

    Raises:
        BenchError: Not all could be opened; later: a message was lost, doubled, or out of order, or a member closed.
    """

    def __init__(self, ports: list[int], path: str, members: int) -> None:
        where = ",".join(str(port) for port in ports)
        command = [build.client("fan"), where, path, str(members), str(LIFETIME)]
        self.members = members
        self.process = process.spawn(command, machine.cores()[0], pipes=True)
        try:
            first = self._read(OPEN_DEADLINE)
            if first.open != members:
                raise BenchError(f"{first.open} of {members} members could be opened")
            time.sleep(SETTLE)
        except BaseException:
            self.end()
            raise

    def _read(self, deadline: float) -> Told:
        assert self.process.stdout
        assert self.process.stderr
        ready, _, _ = select.select([self.process.stdout], [], [], deadline)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise BenchError(f"fan: {self.process.stderr.read().strip() or 'no word from the members'}")
        return Told(**json.loads(line))

    def _ask(self, command: str) -> Told:
        assert self.process.stdin
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            assert self.process.stderr
            raise BenchError(f"fan: {self.process.stderr.read().strip() or 'the members have ended'}") from error
        told = self._read(CALL_DEADLINE)
        if told.open != self.members:
            raise BenchError(f"{told.closed} of {self.members} members were closed by the server")
        return told

    def call(self, calls: int, messages: int, gap: float = 0.0) -> Told:
        """Publishes `messages` so often, a call not sooner than `gap` seconds after the one before; all have all."""
        return self._ask(f"call {calls} {messages} {int(gap * 1e6)}")

    def stall(self, count: int) -> Told:
        """The first `count` members read nothing from now on."""
        return self._ask(f"stall {count}")

    def unstall(self) -> Told:
        """They read again."""
        return self._ask("unstall")

    def look(self) -> Told:
        """The counts of this moment."""
        return self._ask("stat")

    def end(self) -> None:
        """Closes all by ending the client."""
        process.end(self.process)

    def __enter__(self) -> Fan:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
