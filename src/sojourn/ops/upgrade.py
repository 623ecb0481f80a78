"""``sojourn upgrade``: tells a running supervisor to become its successor, waits, and says what came of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from sojourn.clock import SystemClock
from sojourn.errors import ConfigError, SojournError
from sojourn.ops.asking import find
from sojourn.ops.client import Admin, Unreachable

__all__ = ["upgrade"]

#: Seconds between two looks, and for one answer.
_LOOK: Final = 0.2
_ANSWER: Final = 5.0


@click.command()
@click.option("--pid", type=click.IntRange(min=2), help="Process id of the supervisor.")
@click.option("--admin", metavar="PLACE", help="Its admin listener: unix:PATH or HOST:PORT.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token. [SOJOURN_ADMIN_TOKEN]")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait for the outcome.")
def upgrade(pid: int | None, admin: str | None, token_file: Path | None, timeout: float) -> int:
    """Replace a running supervisor in place, and then its workers one by one, by the code that is there now.

    The listening sockets stay open all the time. When the new code does not start, the old one serves on. With --admin
    the whole of it is waited for; with --pid only the supervisor's own replacement can be seen from outside.
    """
    if (pid is None) == (admin is None):
        raise click.UsageError("name the supervisor by either --pid or --admin")
    if admin is not None:
        return _by_admin(find(admin, token_file, None, _ANSWER, os.environ), timeout)
    assert pid is not None
    return _by_signal(pid, timeout)


def _by_signal(pid: int, timeout: float) -> int:
    if not _handles(pid, signal.SIGUSR2):
        raise ConfigError(f"process {pid} does not know SIGUSR2: it is no supervisor of Sojourn")
    before = _incarnation(pid)
    try:
        os.kill(pid, signal.SIGUSR2)
    except PermissionError as error:
        raise ConfigError(f"process {pid} belongs to somebody else") from error
    if before is None:
        click.echo(f"supervisor {pid} was told; its log says what comes of it")
        return 0

    def replaced() -> bool:
        now = _incarnation(pid)
        if now is None:
            raise SojournError(f"supervisor {pid} has ended; its log says why")
        return now != before

    if not _until(replaced, timeout):
        raise SojournError(f"supervisor {pid} was not replaced within {timeout:g} s; its log says why")
    click.echo(f"supervisor {pid} was replaced, its workers follow; its log says how far they are")
    return 0


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; True where nobody can tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        if Path("/proc/self/status").exists():
            raise ConfigError(f"there is no process {pid}") from None
        return True
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def _incarnation(pid: int) -> str | None:
    """What a supervisor's process was last started with; None where nobody can tell."""
    from sojourn.server.workers.upgrade import VARIABLE

    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    name = f"{VARIABLE}=".encode()
    return next((entry.decode() for entry in environ if entry.startswith(name)), "")


def _by_admin(admin: Admin, timeout: float) -> int:
    before = admin.get("/status")
    admin.post("/upgrade")
    status: dict[str, Any] = before

    def over() -> bool:
        nonlocal status
        try:
            status = admin.get("/status")
        except Unreachable:
            return False  # it answers again when it has become the new one
        return not status["changing"]

    if not _until(over, timeout):
        raise SojournError(f"the upgrade of {before['instance']} was not over within {timeout:g} s; its log says more")
    if status["problem"] is not None:
        raise SojournError(f"{before['instance']} serves on as it was: {status['problem']}")
    if status["upgrades"] == before["upgrades"]:
        raise SojournError(f"{before['instance']} was not replaced; its log says why")
    ready = sum(worker["state"] == "ready" for worker in status["workers"])
    workers = "1 new worker" if ready == 1 else f"{ready} new workers"
    click.echo(f"{before['instance']} was replaced in process {status['pid']}, with {workers}")
    return 0


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    """Look again and again; whether it happened in time."""
    clock, nap = SystemClock(), threading.Event()
    end = clock.monotonic() + seconds
    while not happened():
        if clock.monotonic() >= end:
            return False
        nap.wait(_LOOK)
    return True
