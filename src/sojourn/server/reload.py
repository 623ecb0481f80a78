"""Reload for development: a parent that watches files and keeps the listening socket, a child that serves.

The socket is opened once, in the parent, and the child inherits it: while no child runs, the kernel keeps new
connections in the backlog, so a restart refuses nobody. A child that fails does not end the parent; it waits for the
next change.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any, Final

import msgspec

from sojourn.clock import Clock, SystemClock
from sojourn.config import Config

__all__ = ["POLL", "STOP_LIMIT", "Reloader", "Watch", "in_child"]

#: Seconds between two looks at the files.
POLL: Final = 0.5
#: Seconds a child has from SIGTERM to SIGKILL. Longer than what ``in_child`` leaves it.
STOP_LIMIT: Final = 10.0

#: Seconds a developer waits for connections and for the lifespan to end; shorter settings stay.
_DRAIN: Final = 3.0
_WAITS: Final = ("requests", "streams", "sockets", "persist", "total")

#: Exit code of a server that had to be cut.
_CUT: Final = 5

_SKIPPED: Final = frozenset({"__pycache__", "node_modules"})


class Watch:
    """Tells which files changed since the last look, by their modification time and size.

    Args:
        folders: Watched with all below them for ``*.py``; hidden folders, virtual environments, ``__pycache__`` and
            ``node_modules`` are skipped.
        files: Watched too, whatever their name is.
    """

    def __init__(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        self._folders = [os.fspath(folder) for folder in folders]
        self._files = [os.fspath(file) for file in files]
        self._seen = self._look()

    def changes(self) -> list[str]:
        """The paths that changed, appeared or went since the last call."""
        before, self._seen = self._seen, self._look()
        return sorted(path for path in before.keys() | self._seen.keys() if before.get(path) != self._seen.get(path))

    def _look(self) -> Mapping[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for path in self._paths():
            try:
                status = os.stat(path)
            except OSError:
                continue  # gone, or not ours to read: as if it were not there
            found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def _paths(self) -> Iterator[str]:
        yield from self._files
        pending = list(self._folders)
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    listed = list(entries)
            except OSError:
                continue  # gone since it was listed
            if any(entry.name == "pyvenv.cfg" for entry in listed):
                continue
            for entry in listed:
                if entry.name.startswith(".") or entry.name in _SKIPPED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.endswith(".py"):
                    yield entry.path


class Reloader:
    """Runs one child after another on the same listening socket until a signal comes.

    Args:
        command: The child's command line; it inherits the socket under ``sock.fileno()``.
        sock: The listening socket; None where nothing listens.
        watch: What a restart depends on.
        say: Gets one line for each thing that happens.
        stop_limit: Seconds from SIGTERM to SIGKILL.
        clock: Measures ``stop_limit``.
    """

    def __init__(
        self,
        command: Sequence[str],
        sock: socket | None,
        watch: Watch,
        *,
        say: Callable[[str], None],
        stop_limit: float = STOP_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self._command = list(command)
        self._sock = sock
        self._watch = watch
        self._say = say
        self._stop_limit = stop_limit
        self._clock = clock or SystemClock()
        self._child: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        self._woken = threading.Event()

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM; a second signal kills the child at once.

        Returns:
            The exit code of the last child; 0 when none ran, 5 when it had to be killed.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start()
            while not self._signals:
                self._woken.wait(POLL)
                if not self._signals:
                    self._turn()
            return self._stop(told=self._signals[0] == signal.SIGINT and _typed())
        finally:
            if self._child is not None:  # an error of our own: leave nobody behind
                self._child.kill()
                self._child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        self._woken.set()

    def _turn(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._say(f"reload: the server ended with {_ending(self._child.returncode)}; waiting for a change")
            self._child = None
        changed = self._watch.changes()
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            self._say(f"reload: {os.path.relpath(changed[0])}{more} changed, starting anew")
            self._stop()
            if not self._signals:
                self._start()

    def _start(self) -> None:
        self._child = subprocess.Popen(self._command, pass_fds=[self._sock.fileno()] if self._sock else [])

    def _stop(self, told: bool = False) -> int:
        """End the child and return its exit code. ``told`` says that the signal reached it already."""
        child = self._child
        if child is None:
            return 0
        if not told:
            child.terminate()
        deadline = self._clock.monotonic() + self._stop_limit
        while child.poll() is None and self._clock.monotonic() < deadline and len(self._signals) < 2:
            self._woken.clear()
            self._woken.wait(0.02)
        killed = child.poll() is None
        if killed:
            self._say(f"reload: the server did not stop within {self._stop_limit:g} s and is killed")
            child.kill()
        code = child.wait()
        self._child = None
        return _CUT if killed else max(code, 0)


def in_child(config: Config, fd: int | None) -> Config:
    """The configuration of the child: it serves on the inherited descriptor, if any, and is quick to stop."""
    drain = config.drain
    shorter: dict[str, Any] = {name: min(getattr(drain, name), _DRAIN) for name in _WAITS}
    shorter |= {"delay": 0.0, "close_rate": None}
    shutdown = config.timeouts.lifespan_shutdown
    return msgspec.structs.replace(
        config,
        app=msgspec.structs.replace(config.app, reload=False),
        bind=msgspec.structs.replace(config.bind, fd=fd, uds=None),
        drain=msgspec.structs.replace(drain, **shorter),
        timeouts=msgspec.structs.replace(
            config.timeouts, lifespan_shutdown=_DRAIN if shutdown is None else min(shutdown, _DRAIN)
        ),
    )


def _typed() -> bool:
    """Whether a SIGINT came from a terminal, which sends it to the child as well: both are in its foreground group."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # no terminal
        return False


def _ending(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name
