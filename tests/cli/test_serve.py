"""``sojourn serve`` as a process: exit codes, messages, the start block, reload."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from sojourn.clock import SystemClock
from tests.cli.processes import STAND_IN, environment, run

APP = "async def app(scope, receive, send): ...\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "web.py").write_text(APP)
    return tmp_path


def serve(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run(["serve", "--port", "0", *arguments], folder, environ)


# --- exit codes and messages


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--bogus"], 2, "error: No such option '--bogus'"),
        (["serve", "web:app", "more"], 2, "error: Got unexpected extra argument (more)"),
        (["serve", "web:app", "--header-timeout"], 2, "error: Option '--header-timeout' requires an argument."),
        (["serve", "web:app", "--header-timeout", "x"], 2, "error: timeouts.header: 'x' is not a duration above 0"),
        (["serve", "web:app", "--config", "gone.toml"], 2, "error: the configuration file can't be read"),
        (["serve"], 2, "error: app.target: no application is named: write sojourn serve module:attribute"),
        (["serve", "web:app", "--limit-max-requests-jitter", "9"], 2, "error: --limit-max-requests-jitter is not"),
        (["serve", "web:app", "--workers", "-1"], 2, "error: app.workers: '-1' is not a whole number"),
        (["serve", "web:app", "--check-upgrade", "x"], 2, "error: Invalid value for '--check-upgrade': 'x' is not"),
        (["serve", "web:app", "--reload", "--reload-dir", "gone"], 2, "error: app.reload_dirs: gone is no folder"),
        (["serve", "web:app", "--reload-child", "x"], 2, "error: --reload-child is for the parent of a reload only"),
        (["serve", "web:absent"], 3, "error: module web ("),
        (["serve", "absent:app"], 3, "error: can't import absent: there is no module absent"),
        (["serve", "web:app", "--host", "192.0.2.1"], 4, "error: 192.0.2.1:8000: "),
        (["serve", "web:app", "--reload", "--host", "192.0.2.1"], 4, "error: 192.0.2.1:8000: "),
        (["web:app"], 2, "error: no such command 'web:app': did you mean sojourn serve web:app?"),
        (["srve"], 2, "error: No such command 'srve'"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = run(arguments, folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_several_problems_are_listed(folder: Path) -> None:
    done = serve(folder, "web:app", "--header-timeout", "x", SOJOURN_BOGUS="1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: 2 settings can't be used:"
    assert done.stderr.count("\n") == 3


@pytest.mark.parametrize("more", [["--traceback"], ["--log-level", "debug"]])
def test_the_traceback_is_shown_when_asked_for(folder: Path, more: list[str]) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    plain, asked = serve(folder, "broken:app"), serve(folder, "broken:app", *more)
    line = f"error: can't import broken: ZeroDivisionError: division by zero at {folder}/broken.py:1"
    assert plain.stderr.splitlines() == [line]
    assert "Traceback" in asked.stderr
    assert asked.stderr.splitlines()[-1] == line
    assert plain.returncode == asked.returncode == 3


def test_the_exit_code_is_what_serving_returns(folder: Path) -> None:
    (folder / "web.py").write_text(f"{APP}app.code = 5\n")
    assert serve(folder, "web:app").returncode == 5


def test_the_server_gets_the_configuration_of_all_layers(folder: Path) -> None:
    (folder / "sojourn.toml").write_text("[timeouts]\nheader = 3\n[app]\ntarget = 'web:app'\n")
    done = serve(folder, "--lifespan", "off", SOJOURN_TIMEOUTS_HEADER="4s")
    assert json.loads(done.stdout) == {"header": 4.0, "lifespan": "off"}


def test_warnings_come_first_and_do_not_stop_the_start(folder: Path) -> None:
    done = serve(folder, "web:app", "--trusted-proxies", "*")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "warning: proxy.trusted is *: every client can claim any address"


# --- the start message


def test_the_start_is_one_line_when_nobody_watches(folder: Path) -> None:
    done = serve(folder, "web:app", "--header-timeout", "none")
    first, _, rest = done.stderr.partition(" at http://127.0.0.1:")
    assert first == "serving web:app"
    assert rest.endswith(" (1 wait without a deadline: timeouts.header)\n")
    assert done.stderr.count("\n") == 1


def test_the_start_is_a_block_on_a_terminal(folder: Path) -> None:
    stand_in = folder / "stand_in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(textwrap.dedent(STAND_IN))
    ours, theirs = pty.openpty()
    try:
        command = [
            sys.executable,
            "-m",
            "sojourn.cli",
            "serve",
            "web:app",
            "--port",
            "0",
            "--workers",
            "0",
            "--write-idle-timeout",
            "none",
        ]
        done = subprocess.run(
            command, cwd=folder, env=environment(stand_in), stderr=theirs, stdout=subprocess.DEVNULL, timeout=30
        )
        text = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    lines = text.splitlines()
    assert lines[0].startswith("Sojourn ")
    assert lines[0].endswith(" serves web:app")
    assert lines[1].startswith("  address    http://127.0.0.1:")
    assert lines[2:] == ["  deadlines  1 wait without a deadline: timeouts.write_idle", "  Ctrl-C stops it"]


# --- version and help


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_names_what_it_runs_on(folder: Path, arguments: list[str]) -> None:
    done = run(arguments, folder)
    assert done.returncode == 0
    assert done.stdout.startswith("sojourn ")
    assert "uvloop" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_lists_the_commands(folder: Path, arguments: list[str]) -> None:
    done = run(arguments, folder)
    assert done.returncode == 0
    for word in ("serve", "config", "version"):
        assert f"\n  {word} " in done.stdout


def test_a_reader_who_leaves_is_no_traceback(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m sojourn.cli config | head -1",
        shell=True,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.startswith("app.target")
    assert done.stderr == ""


# --- reload


def test_reload_serves_the_changed_application_on_the_same_socket(folder: Path) -> None:
    stand_in = folder / "stand_in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(textwrap.dedent(STAND_IN))
    web = folder / "src" / "web.py"
    web.parent.mkdir()
    web.write_text(f"{APP}app.answer = 'one'\n")
    command = ["serve", "web:app", "--app-dir", "src", "--port", "0", "--reload"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sojourn.cli", *command],
        cwd=folder,
        env=environment(stand_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        port = int(process.stderr.readline().rpartition(":")[2])
        assert ask(port) == "one"
        web.write_text("broken here\n")
        assert [process.stderr.readline().strip() for _ in range(3)] == [
            "reload: src/web.py changed, starting anew",
            f"error: can't import web: invalid syntax at {web}:1",
            "reload: the server ended with code 3; waiting for a change",
        ]
        web.write_text(f"{APP}app.answer = 'three'\n")
        assert ask(port) == "three"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_no_server_is_left_when_the_parent_of_a_reload_is_killed(folder: Path) -> None:
    stand_in = folder / "stand_in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(textwrap.dedent(STAND_IN))
    (folder / "web.py").write_text(f"import os\n{APP}app.answer = str(os.getpid())\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "sojourn.cli", "serve", "web:app", "--port", "0", "--reload"],
        cwd=folder,
        env=environment(stand_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        port = int(process.stderr.readline().rpartition(":")[2])
        child = int(ask(port))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    clock = SystemClock()
    end = clock.monotonic() + 10
    while running(child) and clock.monotonic() < end:
        threading.Event().wait(0.02)
    assert not running(child)


def ask(port: int) -> str:
    """The answer of whoever serves now; a connection waits while nobody does."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        return b"".join(iter(lambda: peer.recv(100), b"")).decode()


def running(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped by somebody else has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
