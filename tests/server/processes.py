"""``sojourn serve`` as a process of its own, with what it wrote."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sojourn.clock import SystemClock

__all__ = ["COMMAND", "Serving", "environment", "launched", "now", "rest", "until"]

#: The real command, as it is installed beside this interpreter.
COMMAND = str(Path(sys.executable).with_name("sojourn"))
HERE = Path(__file__).parent

now = SystemClock().monotonic


def environment(**settings: str) -> dict[str, str]:
    """The environment of a server; settings are ``timeouts_header="1"``."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("SOJOURN_")}
    root = str(HERE.parents[1])
    return (
        inherited
        | {"PYTHONPATH": root, "SOJOURN_DRAIN_DELAY": "0"}
        | {f"SOJOURN_{name.upper().replace('__', '_')}": text for name, text in settings.items()}
    )


class Serving:
    """A process that runs. It is killed at the end of the test, whatever happens."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._news = threading.Condition()
        self._clients: list[socket.socket] = []
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in self._lines]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        for line in stream:
            with self._news:
                self._lines[name].append(line.decode())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, text: str, stream: str = "stderr", seconds: float = 20.0) -> str:
        """Wait for a line with this text in it."""
        end = now() + seconds
        with self._news:
            while True:
                for line in self._lines[stream]:
                    if text in line:
                        return line
                assert now() < end, f"no {text!r} in {''.join(self._lines[stream])}"
                self._news.wait(0.5)

    @property
    def port(self) -> int:
        return int(self.wait_for("serving ").split(" (")[0].rpartition(":")[2])

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def connect(self) -> socket.socket:
        self._clients.append(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        return self._clients[-1]

    def ask(self, path: str, *, version: str = "1.1") -> socket.socket:
        """Send a request."""
        client = self.connect()
        client.sendall(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        return client

    def close(self) -> None:
        """Kill it if it has not ended, and close everything."""
        self.process.kill()
        self.ended()
        for closed in (*self._clients, self.process.stdout, self.process.stderr):
            if closed is not None:
                closed.close()

    def ended(self, seconds: float = 20.0) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code

    @property
    def stderr(self) -> str:
        return "".join(self._lines["stderr"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages on standard error."""
        return [json.loads(line) for line in self._lines["stderr"] if line.startswith("{")]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]

    @property
    def access(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in self._lines["stdout"]]


@contextmanager
def launched(app: str = "app", *flags: str, script: str | None = None, **settings: str) -> Iterator[Serving]:
    """Serve ``served_app:<app>``, or run a script of one's own."""
    if script is None:
        command = [COMMAND, "serve", f"served_app:{app}", "--app-dir", str(HERE), "--port", "0", *flags]
    else:
        command = [sys.executable, "-c", script]
    serving = Serving(command, environment(**settings))
    try:
        yield serving
    finally:
        serving.close()


def until(client: socket.socket, end: bytes) -> bytes:
    """What comes, until it ends like this."""
    data = b""
    while not data.endswith(end):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def rest(client: socket.socket) -> bytes:
    """All that comes until the end."""
    with client:
        data = b""
        try:
            while piece := client.recv(65536):
                data += piece
        except ConnectionError:
            pass  # a reset is an end
        return data
