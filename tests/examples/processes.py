"""The server in a process of its own, started as a person would start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ROOT", "Served", "served"]

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """A server that runs.

    Args:
        process: The process.
        url: Where it listens, such as ``http://127.0.0.1:40123``.
        log: What it writes.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self.log = log

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return self.url.replace("http", "ws", 1)

    @property
    def address(self) -> tuple[str, int]:
        """The same for sockets."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 20.0) -> tuple[int, float]:
        """Send a signal and wait for the end; returns the exit code and how long it took."""
        began = time.monotonic()
        self._process.send_signal(number)
        return self._process.wait(seconds), time.monotonic() - began


@contextmanager
def served(target: str, folder: Path, *flags: str) -> Iterator[Served]:
    """Run ``sojourn serve`` on a free port until the block ends; ``folder`` takes its log."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "sojourn.cli", "serve", target, "--app-dir", str(ROOT), "--port", "0", *flags]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("SOJOURN_")}
    environ["SOJOURN_DRAIN_DELAY"] = "0"
    environ["SOJOURN_DRAIN_DELAY"] = "0"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Served(process, _address(process, log), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path, seconds: float = 30.0) -> str:
    end = time.monotonic() + seconds
    while True:
        text = log.read_text()
        if (found := re.search(r"^serving .* at (http://[0-9.:]+)", text, re.MULTILINE)) is not None:
            return found[1]
        assert process.poll() is None, text
        assert time.monotonic() < end, f"not serving after {seconds} s: {text}"
        time.sleep(0.02)
