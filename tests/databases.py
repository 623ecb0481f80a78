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

__all__ = ["RedisServer", "free_port", "postgres_server", "redis_server"]


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
    """A Redis that keeps nothing.

    Attributes:
        port: Where it listens.
        url: The same as an address.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = shutil.which("redis-server")
        if command is None:
            pytest.skip("Redis is not installed (Debian: redis-server)")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
def redis_server() -> Iterator[RedisServer]:
    """A Redis that runs."""
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgres_server() -> Iterator[int]:
    """A PostgreSQL with the user ``postgres`` and no password; its port."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    as_user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.geteuid() else {}
    folder = tempfile.mkdtemp(prefix="pg-")
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    options = {**as_user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    initdb = [f"{found[-1]}/initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, timeout=60, **options)
    port = free_port()
    settings = ["listen_addresses=127.0.0.1", f"port={port}", "fsync=off", f"unix_socket_directories={folder}"]
    flags = [word for setting in settings for word in ("-c", setting)]
    process = subprocess.Popen([f"{found[-1]}/postgres", "-D", f"{folder}/data", *flags], **options)
    try:
        asks = [f"{found[-1]}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        _wait_for(lambda: subprocess.run(asks, check=False).returncode == 0, process)
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: sessions are ended
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
