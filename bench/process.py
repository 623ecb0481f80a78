"""Child processes: pinned to a core, bounded in time, and always ended by their own id."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine

PYTHON = sys.executable
PR_SET_PDEATHSIG = 1
NICENESS = -15  # when permitted: other work on the machine gets about 3 % beside a busy child
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A server or a load client did not do its part; the text goes into the report."""


def _child(core: int) -> Callable[[], None]:
    """What a child does before exec: pin itself, go first, and die with the harness."""
    privileged = os.geteuid() == 0

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        if privileged:
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
            _favour_session()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


def _favour_session() -> None:
    """A session is a scheduling group of its own (sched(7), autogroup): niceness alone works only within it."""
    try:
        Path("/proc/self/autogroup").write_text(str(NICENESS))
    except OSError:
        return  # no autogroups in this kernel: the priority set before counts


def spawn(
    command: list[str], core: int, log: Path | None = None, env: dict[str, str] | None = None, pipes: bool = False
) -> subprocess.Popen[str]:
    """Starts a child in its own session, pinned to `core`; output to `log`, or to pipes."""
    output = log.open("w") if log else None
    try:
        return subprocess.Popen(
            command,
            cwd=machine.ROOT,
            env={**os.environ, **(env or {})},
            text=True,
            start_new_session=True,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=subprocess.STDOUT if output else (subprocess.PIPE if pipes else subprocess.DEVNULL),
            preexec_fn=_child(core),  # safe: the harness has one thread
        )
    except OSError as error:
        raise BenchError(f"cannot start {Path(command[0]).name}: {error.strerror}") from error
    finally:
        if output:
            output.close()


def end(process: subprocess.Popen[str], patience: float = 3.0) -> None:
    """SIGTERM, then SIGKILL, to the child; then what it left behind in its session, by id."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + patience
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
            os.kill(pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _session(leader: int) -> list[int]:
    """The living processes of the session our child led; its number is not given away while one of them lives."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@dataclass(frozen=True)
class Finished:
    """A load client's JSON, and its use of a core."""

    data: dict[str, Any]
    core: float


def run_json(command: list[str], core: int, deadline: float) -> Finished:
    """Runs a load client to its end and reads the line of JSON it printed."""
    name = Path(command[0]).name
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = spawn(command, core, pipes=True)
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{name} did not end within {deadline:.0f} s") from error
    finally:
        end(process)
    took, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise BenchError(f"{name}: {err.strip() or out.strip() or f'exit code {process.returncode}'}")
    for line in reversed(out.splitlines()):
        if "{" in line:
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return Finished(json.loads(line[line.index("{") :]), used / took)
    raise BenchError(f"{name} printed no result: {out.strip()[-200:]}")
