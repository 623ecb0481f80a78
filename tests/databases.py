"""Real servers for tests: PostgreSQL and Redis of Debian's packages, each its own, on a free port of the loopback."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["PostgresServer", "RedisServer", "free_port", "postgres_server", "redis_server"]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 30
    while not ready():
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < limit, "the server is not ready"
        time.sleep(0.02)


class RedisServer:
    """A Redis that keeps nothing, unless options say otherwise.

    Args:
        options: Of redis-server, after those that it always has.

    Attributes:
        port: Where it listens.
        url: The same as an address.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = shutil.which("redis-server")
        if command is None:
            pytest.skip("Redis is not installed (Debian: redis-server)")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command_line = [command, *options, *self._options]
        self._process = subprocess.Popen(command_line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self._answers, self._process)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis that runs."""
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class PostgresServer:
    """A PostgreSQL with the user ``postgres`` and no password; what it has kept is there when it is started again.

    Attributes:
        port: Where it listens.
    """

    def __init__(self) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
        self._bin = found[-1]
        as_user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._folder = tempfile.mkdtemp(prefix="pg-")
        self._options = {"cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if not os.geteuid():
            shutil.chown(self._folder, "postgres", "postgres")
            self._options |= as_user
        initdb = [f"{self._bin}/initdb", "-D", f"{self._folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, timeout=60, **self._options)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it does not run, and wait until it takes connections."""
        if self._process is not None:
            return
        folder, port = self._folder, str(self.port)
        settings = ["listen_addresses=127.0.0.1", f"port={port}", "fsync=off", f"unix_socket_directories={folder}"]
        flags = [word for setting in settings for word in ("-c", setting)]
        self._process = subprocess.Popen([f"{self._bin}/postgres", "-D", f"{folder}/data", *flags], **self._options)
        asks = [f"{self._bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        _wait_for(lambda: subprocess.run(asks, check=False).returncode == 0, self._process)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: fast, so that sessions are ended; with SIGQUIT as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def postgres_server() -> Iterator[int]:
    """A PostgreSQL with the user ``postgres`` and no password; its port."""
    server = PostgresServer()
    try:
        server.start()
        yield server.port
    finally:
        server.remove()
