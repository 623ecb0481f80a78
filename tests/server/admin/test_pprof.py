"""``go tool pprof`` asks a real server itself, for every profile there is, and shows the lines of its application."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sojourn.server.admin.profiles import PROFILES
from tests.server.processes import COMMAND, Serving, environment
from tests.server.workers.processes import ask

pytestmark = pytest.mark.skipif(
    shutil.which("go") is None, reason="go is not installed (Debian package golang-go): go tool pprof can't be asked"
)

APP = """
import asyncio, time

KEPT = []

class Crumb:
    pass

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/wait":
        await asyncio.sleep(3600)
    if scope["path"] == "/block":
        stand_still()
    if scope["path"] == "/compute":
        compute()
    if scope["path"] == "/keep":
        keep()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def stand_still():
    time.sleep(0.6)

def compute():
    end = time.thread_time() + 0.03
    while time.thread_time() < end:
        pass

def keep():
    KEPT.extend(Crumb() for _ in range(5000))
"""


class Shown(NamedTuple):
    """What must be seen of a profile.

    Attributes:
        kind: What ``go tool pprof`` calls its first line.
        names: Of whom it tells.
        path: What is asked of the application meanwhile; "" for nothing.
        seconds: For how long it is gathered; 0 when it is there at once.
    """

    kind: str
    names: str
    path: str = ""
    seconds: int = 0


SHOWN = {
    "goroutine": Shown("goroutine", "sleep"),
    "profile": Shown("cpu", "compute", "/compute", 2),
    "heap": Shown("inuse_space", "Crumb"),
    "allocs": Shown("grown_space", "web.py:", "/keep", 2),
    "block": Shown("delay", "sleep", seconds=3),
    "stall": Shown("delay", "stand_still"),
    "thread": Shown("thread", "Watchdog._watch"),
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, str]]:
    """A server with a past (somebody waits, somebody has blocked it, somebody keeps much), and its admin listener."""
    folder = tmp_path_factory.mktemp("pprof")
    (folder / "web.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"admin_bind": f"127.0.0.1:{port}", "diagnostics_stall": "0.1"}
    command = [COMMAND, "serve", "web:app", "--app-dir", str(folder), "--port", "0", "--workers", "1"]
    served = Serving(command, environment(**settings))
    try:
        waiting = served.ask("/wait")
        for path in ("/keep", "/block"):
            assert ask(served.port, path).startswith(b"HTTP/1.1 200 ")
        served.wait_for("stand_still")
        yield served, f"http://127.0.0.1:{port}/debug/pprof/"
        waiting.close()
        served.signal()
        assert served.ended() == 0
    finally:
        served.close()


def go_tool_pprof(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["go", "tool", "pprof", "-symbolize=none", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin:/usr/local/go/bin", "HOME": str(folder), "PPROF_TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def asking(port: int, path: str) -> Iterator[None]:
    """One request after the other, without a pause; none when there is no path."""
    over = threading.Event()

    def run() -> None:
        while path and not over.wait(0.01):
            ask(port, path)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def test_there_is_an_example_of_every_profile() -> None:
    assert SHOWN.keys() == PROFILES.keys()


@pytest.mark.parametrize("name", SHOWN)
def test_go_tool_pprof_fetches_and_opens(serving: tuple[Serving, str], name: str, tmp_path: Path) -> None:
    served, place = serving
    shown = SHOWN[name]
    waiting = [f"-seconds={shown.seconds}"] if shown.seconds else []
    with asking(served.port, shown.path):
        top = go_tool_pprof(tmp_path, "-top", "-nodecount=500", *waiting, place + name)
    assert f"Type: {shown.kind}\n" in top
    rows = [line.split()[-1] for line in top.splitlines() if re.match(r" +[\d.]+", line)]
    assert any(shown.names in row for row in rows), top
