"""One run: worker A begins the task, is killed or told to stop, worker B starts at once; the diary tells the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from drills.recovery.cases import Case
from drills.served import ROOT, alive
from scripts.peers import python_of
from tests.databases import redis_server

__all__ = ["BEFORE", "WATCHED", "Outcome", "Stuck", "run"]

#: Seconds from the begin of the task to the signal, and how long is watched after it.
BEFORE, WATCHED = 1.5, 40.0
_BEGIN = 30.0
_LOOK = 0.02
#: Seconds in which a worker is surely up, for those that must be before the task is.
_UP = 4.0


class Stuck(Exception):
    """The experiment could not be made: worker A has never begun the task."""


class Outcome(NamedTuple):
    """Seconds after the signal; None for what has not happened while it was watched.

    Attributes:
        cancelled: A's task was told to end.
        finished: A's task came to its end.
        exited: A's process ended.
        again: The task began in B.
        done: It was done in B.
        runs: How often it was begun in B.
    """

    cancelled: float | None
    finished: float | None
    exited: float | None
    again: float | None
    done: float | None
    runs: int


@contextmanager
def _store(kind: str, postgres: int, folder: str) -> Iterator[str]:
    if kind == "redis":
        with redis_server() as server:
            yield server.url
    elif kind == "postgres":
        name = f"recovery_{os.path.basename(folder).replace('-', '_').lower()}"
        ask = [
            "psql",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(postgres),
            "-U",
            "postgres",
            "-c",
            f'CREATE DATABASE "{name}"',
        ]
        subprocess.run(ask, check=True, timeout=30)
        yield f"postgresql://postgres@127.0.0.1:{postgres}/{name}"
    else:
        yield f"{folder}/tasks.db"


def _diary(path: Path) -> list[tuple[str, str, float]]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(what, who, float(at)) for what, who, at in (line.split(" ") for line in lines)]


def _first(path: Path, what: str, who: str) -> float | None:
    return next((at for said, of, at in _diary(path) if (said, of) == (what, who)), None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Everything of the process's own session, which began with it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended, and so has what it had started
    process.wait(timeout=10)


def _until(seen: Callable[[], object], limit: float) -> bool:
    while not seen():
        if time.monotonic() > limit:
            return False
        time.sleep(_LOOK)
    return True


class _Workers:
    """The processes of one run: who submits, A and B. What A and B say goes to a file."""

    def __init__(self, case: Case, store: str, diary: Path, log: Path) -> None:
        self._case, self._diary, self._log = case, diary, log
        self._python = python_of(case.venv) if case.venv else sys.executable
        self._env = os.environ | dict(case.env)
        self._env |= {"RECOVERY_STORE": store, "RECOVERY_DIARY": str(diary), "PYTHONPATH": str(ROOT)}
        self._started: list[subprocess.Popen[bytes]] = []
        log.write_bytes(b"")

    def submit(self) -> None:
        """Have the task written down."""
        command = [self._python, *self._case.submission()]
        with self._log.open("ab") as said:
            subprocess.run(command, cwd=ROOT, env=self._env, check=True, timeout=60, stdout=said, stderr=said)

    def start(self, who: str) -> subprocess.Popen[bytes]:
        """Start a worker; a session of its own, so that all of it can be killed."""
        command, env = [self._python, *self._case.command()], self._env | {"RECOVERY_WHO": who}
        with self._log.open("ab") as said:
            found = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        self._started.append(found)
        return found

    def begin(self) -> subprocess.Popen[bytes]:
        """Worker A, 1.5 s after it has begun the task."""
        if self._case.ahead:
            self.submit()
        a = self.start("A")
        if not self._case.ahead:
            time.sleep(_UP)
            self.submit()
        _until(lambda: _first(self._diary, "begun", "A") or a.poll() is not None, time.monotonic() + _BEGIN)
        begun = _first(self._diary, "begun", "A")
        if begun is None:
            raise Stuck(f"worker A has not begun the task: see {self._log}")
        time.sleep(max(0.0, begun + BEFORE - time.monotonic()))
        return a

    def end(self) -> None:
        """Kill what there is of them."""
        for worker in self._started:
            _kill(worker)


def run(case: Case, how: signal.Signals, postgres: int, log: Path, quiet: Lock) -> Outcome:
    """Make the experiment once.

    Args:
        case: Whose.
        how: SIGKILL, for the whole group of A's processes, or SIGTERM, for the first of them.
        postgres: Port of a PostgreSQL.
        log: Gets what the workers say.
        quiet: Held while processes start, so that those of two experiments do not slow each other.
    """
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder, _store(case.store, postgres, folder) as store:
        diary = Path(folder) / "diary"
        workers = _Workers(case, store, diary, log)
        try:
            with quiet:
                a = workers.begin()
                at = time.monotonic()
                if how is signal.SIGKILL:
                    _kill(a)
                else:
                    a.send_signal(how)
                workers.start("B")
                exit_ = _Exit(a)
                _until(lambda: exit_.seen() and _first(diary, "begun", "B"), at + _UP / 2)
            return _watched(exit_, diary, at)
        finally:
            workers.end()


class _Exit:
    """When a process ended, as near as it was looked at."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.at: float | None = None

    def seen(self) -> bool:
        """Look. Returns whether it has ended."""
        if self.at is None and (self._process.poll() is not None or not alive(self._process.pid)):
            self.at = time.monotonic()
        return self.at is not None


def _watched(exit_: _Exit, diary: Path, at: float) -> Outcome:
    """What the diary says until there is nothing more to come, or no more time."""

    def over() -> bool:
        gone = exit_.seen()
        return gone and any(what == "done" and moment > at for what, _, moment in _diary(diary))

    _until(over, at + WATCHED)
    time.sleep(1.0)  # whether it begins once more

    def since(moment: float | None) -> float | None:
        return None if moment is None else moment - at

    return Outcome(
        cancelled=since(_first(diary, "cancelled", "A")),
        finished=since(_first(diary, "done", "A")),
        exited=since(exit_.at),
        again=since(_first(diary, "begun", "B")),
        done=since(_first(diary, "done", "B")),
        runs=sum((what, who) == ("begun", "B") for what, who, _ in _diary(diary)),
    )
