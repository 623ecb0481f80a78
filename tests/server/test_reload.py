"""Reload: what is watched, and a real parent with real children on one listening socket."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sojourn.clock import SystemClock
from sojourn.config import App, Bind, Config, Drain, Timeouts
from sojourn.server.reload import STOP_LIMIT, Watch, in_child

# --- what is watched


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["a.py", "pkg/sub/b.py"])
def test_a_source_file_that_appears_changes_or_goes_is_a_change(tmp_path: Path, name: str) -> None:
    watch = Watch([tmp_path])
    assert watch.changes() == []
    file = touch(tmp_path / name)
    assert watch.changes() == [str(file)]
    assert watch.changes() == []
    touch(file, "x = 1")
    assert watch.changes() == [str(file)]
    os.utime(file, ns=(1, 1))
    assert watch.changes() == [str(file)]
    file.unlink()
    assert watch.changes() == [str(file)]
    assert watch.changes() == []


@pytest.mark.parametrize(
    "name",
    ["a.txt", ".venv/a.py", "__pycache__/a.py", ".git/a.py", "pkg/node_modules/a.py", "env/lib/a.py", ".#a.py"],
)
def test_what_is_no_source_of_the_application_is_no_change(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "env" / "pyvenv.cfg")
    watch = Watch([tmp_path])
    touch(tmp_path / name)
    assert watch.changes() == []


def test_a_named_file_is_watched_whatever_its_name_is_and_while_it_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "conf" / ".env"
    watch = Watch([tmp_path / "src"], [file])
    touch(file)
    assert watch.changes() == [str(file)]


def test_a_link_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    touch(tmp_path / "pkg" / "a.py")
    (tmp_path / "pkg" / "loop").symlink_to(tmp_path)
    assert Watch([tmp_path]).changes() == []


# --- the child's configuration


def test_a_child_serves_on_the_inherited_descriptor_and_is_quick_to_stop() -> None:
    config = Config(
        app=App(target="web:app", reload=True),
        bind=Bind(uds="/s", backlog=7),
        timeouts=Timeouts(header=4.0, lifespan_shutdown=None),
        drain=Drain(delay=0, streams=0.5),
    )
    child = in_child(config, 5)
    assert child.bind == Bind(fd=5, backlog=7)
    assert child.app == App(target="web:app")
    assert child.drain.streams == 0.5
    assert child.timeouts.header == 4.0
    assert child.timeouts.lifespan_shutdown is not None
    assert max(child.drain.requests, child.drain.total) + child.timeouts.lifespan_shutdown < STOP_LIMIT


# --- a real parent

#: Answers each connection with the text of version.py and its process id; at SIGTERM it ends between two of them.
CHILD = """
    import os, signal, socket, sys
    exec(open(sys.argv[1]).read())
    sock = socket.socket(fileno=int(sys.argv[2]))
    sock.settimeout(0.05)
    stop = []
    signal.signal(signal.SIGTERM, globals().get("on_term", lambda *_: stop.append(1)))
    while not stop:
        try:
            peer, _ = sock.accept()
        except TimeoutError:
            continue
        with peer:
            peer.sendall(f"{version} {os.getpid()}".encode())
"""

PARENT = """
    import socket, sys
    from pathlib import Path
    from sojourn.server.reload import Reloader, Watch
    folder = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        print(sock.getsockname()[1], flush=True)
        command = [sys.executable, str(folder / "child.txt"), str(folder / "version.py"), str(sock.fileno())]
        say = lambda line: print(line, flush=True)
        code = Reloader(command, sock, Watch([folder]), say=say, stop_limit=float(sys.argv[2])).run()
    sys.exit(code)
"""

CLOCK = SystemClock()


def take_terminal() -> None:
    """Make standard input the controlling terminal of this session, as a shell's is."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Parent:
    """A reloader in its own process; its lines are collected as they come."""

    def __init__(self, folder: Path, version: str, stop_limit: float = 5.0, terminal: int | None = None) -> None:
        self.version = touch(folder / "version.py", version)
        touch(folder / "child.txt", textwrap.dedent(CHILD))
        parent = touch(folder / "parent.txt", textwrap.dedent(PARENT))
        self.process = subprocess.Popen(
            [sys.executable, str(parent), str(folder), str(stop_limit)],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=None if terminal is None else take_terminal,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip() for line in self.process.stdout)

    def ask(self) -> tuple[str, int]:
        """Version and process id of whoever serves; waits as long as nobody does, but is never refused."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer:
            answer = b"".join(iter(lambda: peer.recv(100), b"")).decode()
        version, _, pid = answer.partition(" ")
        return version, int(pid)

    def change(self, text: str) -> None:
        touch(self.version, text)

    def wait_for(self, words: str) -> str:
        end = CLOCK.monotonic() + 10
        while CLOCK.monotonic() < end:
            for line in self.lines:
                if words in line:
                    return line
            threading.Event().wait(0.02)
        raise AssertionError(f"{words!r} not said in {self.lines}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.join()

    def join(self) -> int:
        code = self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def parents() -> Iterator[list[Parent]]:
    started: list[Parent] = []
    yield started
    for parent in started:
        parent.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_connection_is_refused_while_the_server_is_started_anew(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "version = 1")
    parents.append(parent)
    first, old = parent.ask()
    assert first == "1"
    parent.change("version = 22")
    end = CLOCK.monotonic() + 10
    answers = [parent.ask()]
    while answers[-1][0] != "22" and CLOCK.monotonic() < end:
        answers.append(parent.ask())  # raises when refused or reset
    assert answers[-1][0] == "22"
    assert not alive(old)
    assert "version.py changed, starting anew" in parent.wait_for("changed")
    assert parent.stop() == 0


def test_a_child_that_fails_waits_for_the_next_change(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "raise SystemExit(3)")
    parents.append(parent)
    assert parent.wait_for("ended") == "reload: the server ended with code 3; waiting for a change"
    assert parent.process.poll() is None
    parent.change("version = 4")
    assert parent.ask()[0] == "4"


def test_a_child_that_is_killed_is_named_by_its_signal(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "version = 1")
    parents.append(parent)
    os.kill(parent.ask()[1], signal.SIGKILL)
    assert parent.wait_for("ended") == "reload: the server ended with SIGKILL; waiting for a change"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(tmp_path: Path, parents: list[Parent], number: int) -> None:
    parent = Parent(tmp_path, "version = 1")
    parents.append(parent)
    _, child = parent.ask()
    assert parent.stop(number) == 0
    assert not alive(child)


def test_the_exit_code_is_that_of_the_child(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "version = 1\ndef on_term(*_): sys.exit(7)")
    parents.append(parent)
    parent.ask()
    assert parent.stop() == 7


def test_a_child_that_does_not_stop_is_killed_when_its_time_is_over(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "version = 1\non_term = signal.SIG_IGN", stop_limit=0.3)
    parents.append(parent)
    _, child = parent.ask()
    parent.change("version = 2")
    assert parent.wait_for("killed") == "reload: the server did not stop within 0.3 s and is killed"
    assert parent.ask()[0] == "2"
    assert not alive(child)


def test_a_second_signal_does_not_wait_for_the_child(tmp_path: Path, parents: list[Parent]) -> None:
    parent = Parent(tmp_path, "version = 1\non_term = signal.SIG_IGN", stop_limit=60)
    parents.append(parent)
    _, child = parent.ask()
    parent.process.send_signal(signal.SIGINT)
    threading.Event().wait(0.3)
    assert parent.process.poll() is None
    assert parent.stop(signal.SIGINT) == 5
    assert not alive(child)


#: Counts SIGTERMs for a while after Ctrl-C.
COUNT = """
version = 1
import time
terms = []
def on_term(*_): terms.append(1)
def on_int(*_):
    time.sleep(0.5)
    os._exit(20 + len(terms))
signal.signal(signal.SIGINT, on_int)
"""


def test_ctrl_c_at_a_terminal_reaches_the_server_once(tmp_path: Path, parents: list[Parent]) -> None:
    ours, theirs = pty.openpty()
    try:
        parent = Parent(tmp_path, COUNT, terminal=theirs)
        parents.append(parent)
        parent.ask()
        os.write(ours, b"\x03")
        assert parent.join() == 20
    finally:
        os.close(ours)
        os.close(theirs)
