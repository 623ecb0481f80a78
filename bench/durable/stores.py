"""The stores, each fresh and pinned to a core: what is acknowledged is durable in the same way for every client.

Redis flushes its append-only file once a second, as most run it; PostgreSQL at each commit, as it comes; SQLite is a
file, and how it is flushed is the client's own business.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import machine, process
from bench.process import BenchError
from bench.servers import free_port

__all__ = ["STORES", "Store"]

READY = 20.0


class Store(NamedTuple):
    """A store that runs.

    Attributes:
        address: For clients.
        pid: Of its process; 0 for a file.
    """

    address: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        return machine.cpu_seconds(self.pid) if self.pid else 0.0


def _until(ready: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + READY
    while not ready():
        if time.monotonic() > limit:
            raise BenchError(f"{what} was not ready")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def redis(core: int) -> Iterator[Store]:
    """A Redis with an append-only file, flushed once a second."""
    command = shutil.which("redis-server")
    if command is None:
        raise BenchError("redis-server is not installed (Debian: redis-server)")
    machine.BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        port = free_port()
        words = f"--port {port} --bind 127.0.0.1 --dir {folder} --save  --appendonly yes --appendfsync everysec"
        server = process.spawn([command, *words.split(" ")], core, machine.BUILD / "redis.log")
        try:
            _until(lambda: _listens(port), "redis-server")
            yield Store(f"redis://127.0.0.1:{port}/0", server.pid)
        finally:
            process.end(server)


@contextmanager
def postgres(core: int) -> Iterator[Store]:
    """A PostgreSQL as it comes: fsync and synchronous_commit on."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not found:
        raise BenchError("PostgreSQL is not installed (Debian: postgresql)")
    folder = tempfile.mkdtemp(prefix="bench-pg-")
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if drop:
        shutil.chown(folder, "postgres", "postgres")
    machine.BUILD.mkdir(exist_ok=True)
    port = free_port()
    initdb = [*drop, f"{found[-1]}/initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
    flags = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={folder}"]
    try:
        subprocess.run(initdb, check=True, timeout=60, stdout=subprocess.DEVNULL, cwd=folder)
        server = process.spawn(
            [*drop, f"{found[-1]}/postgres", "-D", f"{folder}/data", *flags], core, machine.BUILD / "postgres.log"
        )
        try:
            asks = [f"{found[-1]}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            _until(lambda: subprocess.run(asks, check=False).returncode == 0, "PostgreSQL")
            yield Store(f"postgresql://postgres@127.0.0.1:{port}/postgres", server.pid)
        finally:
            process.end(server, 10.0)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"PostgreSQL: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sqlite(core: int) -> Iterator[Store]:
    """A file that is not there yet, on the disk of the repository's build folder."""
    machine.BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sqlite-", dir=machine.BUILD) as folder:
        yield Store(str(Path(folder) / "tasks.db"), 0)


STORES = {"redis": redis, "postgres": postgres, "sqlite": sqlite}
