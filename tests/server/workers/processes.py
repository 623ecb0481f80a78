"""A supervisor with workers as processes, serving an application in a file that a test may change."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server.processes import COMMAND, Serving, environment, now

__all__ = ["Load", "Site", "alive", "eventually", "version", "workers"]

#: Longest time for anything that is bound to happen, on a machine that is busy with something else.
PATIENCE = 30.0

APP = """
import asyncio, os, re, signal, time
VERSION = {version!r}
{more}
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    body = f"{{VERSION}} {{os.getpid()}}".encode()
    path = scope["path"]
    if path == "/exit":
        os._exit(9)
    if path == "/block":
        stand_still()
    if path == "/burn":
        re.match("(a*)*b", "a" * 60)
    if path == "/slow":
        await asyncio.sleep(1.0)
    if path == "/download":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"half", "more_body": True}})
        await asyncio.sleep(3600)
    while path == "/resist":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})

def stand_still():
    time.sleep(3600)
"""


class Site:
    """The application, and who serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("one")

    def write(self, version: str, more: str = "") -> None:
        """Write the application anew; ``more`` runs at its import."""
        new = self.folder / "web.new"
        new.write_text(APP.format(version=version, more=more))
        new.rename(self.folder / "web.py")

    @contextmanager
    def served(self, *flags: str, **settings: str) -> Iterator[Serving]:
        """Serve it with these flags and settings, from its folder."""
        chosen = {"drain__delay": "0", "log__access": "json", "bind__port": "0"} | settings
        here = str(self.folder)
        env = environment(**chosen) | {"PYTHONDONTWRITEBYTECODE": "1"}
        serving = Serving([COMMAND, "serve", "web:app", "--app-dir", here, *flags], env)
        left = set[int]()
        try:
            yield serving
            left.update(workers(serving))
        finally:
            left.update(workers(serving))
            serving.process.kill()
            for pid in left:
                kill(pid)
            serving.close()


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def workers(serving: Serving) -> list[int]:
    """The processes below a supervisor, those excluded that wait to be reaped."""
    pid = serving.process.pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children if alive(int(child))]


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(happened: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something that is bound to happen; returns what it was."""
    end = now() + seconds
    while not (result := happened()):
        assert now() < end, "it did not happen"
        threading.Event().wait(0.02)
    return result


def version(serving: Serving, path: str = "/") -> tuple[str, int]:
    """Which version of the application answers, in which process."""
    answer = ask(serving.port, path)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    word, pid = answer.rpartition(b"\r\n\r\n")[2].decode().split()
    return word, int(pid)


def ask(port: int, path: str = "/") -> bytes:
    """One request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


class Load:
    """Clients that ask without a pause, each request on a new connection or on one that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(kept,)) for kept in (False, False, True)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, kept: bool) -> None:
        while not self._over.is_set():
            try:
                if kept:
                    self._keep()
                else:
                    answer = ask(self._port)
                    assert answer.startswith(b"HTTP/1.1 200"), answer
                    self.answers.append(answer.rpartition(b"\r\n\r\n")[2].decode())
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            self._over.wait(0.002)

    def _keep(self) -> None:
        """Several requests on one connection, until the server says that it closes it."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as client:
            while not self._over.is_set():
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.recv(65536)
                if not answer:
                    return  # an idle connection may be closed at any time (RFC 9112 section 9.5)
                assert answer.startswith(b"HTTP/1.1 200"), answer
                self.answers.append(answer.rpartition(b"\r\n\r\n")[2].decode())
                if b"connection: close" in answer.lower():
                    return


def document(path: Path) -> dict[str, Any]:
    """What is in a file of JSON."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
