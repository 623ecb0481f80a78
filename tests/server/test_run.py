"""The real command as a process: signals, exit codes, and what it says when it had to cut."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from tests.server.processes import Serving, launched, now, rest, until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


class Notes:
    """What the application noted down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def wait_for(self, line: str) -> None:
        end = now() + 20
        while line not in self.lines:
            assert now() < end, self.lines
            threading.Event().wait(0.01)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    path = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(path))
    return Notes(path)


def refuses(serving: Serving) -> bool:
    """Whether it takes no new connection any more."""
    serving.wait_for("finish begins")
    try:
        serving.connect().close()
    except ConnectionRefusedError:
        return True
    return False


# -- clean ends


@both_loops
@both_signals
def test_a_signal_lets_everybody_finish_and_the_exit_is_clean(loop: str, number: int, notes: Notes) -> None:
    with launched(app__loop=loop, timeouts__disconnect_grace="0.3") as serving:
        slow = serving.ask("/slow?seconds=0.7")
        download = serving.ask("/download?seconds=0.7")
        events = serving.ask("/events")
        until(events, b"data: 1\n\n\r\n")
        idle = serving.ask("/")
        until(idle, b"done")
        with websockets.sync.client.connect(f"ws://127.0.0.1:{serving.port}/", proxy=None) as websocket:
            notes.wait_for("begun")
            serving.signal(number)
            assert refuses(serving)
            with pytest.raises(ConnectionClosed):
                websocket.recv(10)
            assert (websocket.protocol.close_code, websocket.protocol.close_reason) == (1012, "service restart")
        assert rest(events).endswith(b"0\r\n\r\n")
        assert rest(idle) == b""
        assert rest(slow).endswith(b"done")
        assert rest(download).endswith(b"4\r\nhalf\r\n0\r\n\r\n")
        assert serving.ended() == 0
        assert notes.lines == ["startup", "begun", "websocket 1012", "shutdown"]
        assert serving.told("server_stopped")[0]["cut"] == 0
        assert not serving.told("drain_cut")
        assert {line["reason"] for line in serving.access if line["event"] == "request"} == {
            "completed",
            "drain_goodbye",
        }


def test_signals_for_a_supervisor_cut_nobody_where_there_is_none() -> None:
    with launched(app__workers="0") as serving:
        slow = serving.ask("/slow?seconds=0.5")
        serving.signal(signal.SIGUSR2)
        assert "this process serves alone" in serving.wait_for("restart_failed")
        serving.ask("/").close()
        serving.signal(signal.SIGHUP)
        assert rest(slow).endswith(b"done")
        assert serving.ended() == 0


def test_an_idle_server_stops_at_once() -> None:
    with launched() as serving:
        serving.ask("/").close()
        began = now()
        serving.signal()
        assert serving.ended() == 0
        assert now() - began < 5


def test_the_last_requests_are_in_the_access_log() -> None:
    with launched() as serving:
        clients = [serving.ask("/slow?seconds=0.3") for _ in range(20)]
        threading.Event().wait(0.1)
        serving.signal()
        assert all(rest(client).endswith(b"done") for client in clients)
        assert serving.ended() == 0
        assert len([line for line in serving.access if line["event"] == "request"]) == 20


def test_background_tasks_are_waited_for(notes: Notes) -> None:
    with launched() as serving:
        client = serving.ask("/background?seconds=0.5")
        assert client.recv(1000)
        serving.signal()
        assert serving.ended() == 0
        assert notes.lines == ["startup", "background done", "shutdown"]


def test_the_applications_own_tasks_are_cancelled_at_the_end() -> None:
    with launched() as serving:
        assert serving.ask("/own_task?resists=no").recv(1000)
        serving.signal()
        assert serving.ended() == 0
        assert "Task was destroyed" not in serving.stderr


# -- ends with a cut


@both_loops
def test_what_does_not_finish_in_time_is_cut_and_named(loop: str, notes: Notes) -> None:
    with launched(app__loop=loop, drain__total="1", log__access="json") as serving:
        slow, download = serving.ask("/slow?seconds=3600"), serving.ask("/download?seconds=3600")
        background = serving.ask("/background?seconds=3600")
        assert background.recv(1000)
        notes.wait_for("begun")
        began = now()
        serving.signal()
        assert rest(slow).startswith(b"HTTP/1.1 503")
        assert not rest(download).endswith(b"0\r\n\r\n")
        assert serving.ended() == 5
        assert now() - began < 6
        cuts = {cut["route"]: cut for cut in serving.told("drain_cut")}
        assert set(cuts) == {"GET /slow", "GET /download", "connection 3 GET /background"}
        cut = cuts["GET /slow"]
        assert (cut["level"], cut["what"], cut["connection"], cut["phase"]) == ("warning", "request", 1, "H")
        assert cut["peer"].startswith("127.0.0.1:")
        assert 0.4 < cut["age"] < 10
        assert "await asyncio.sleep(float(seconds))" in cut["stack"]
        assert cut["message"].startswith("drain: cut request GET /slow, connection 1 of 127.0.0.1:")
        assert serving.told("server_stopped")[0]["cut"] == 3
        assert notes.lines[-1] == "shutdown"
        assert {line["reason"] for line in serving.access if line["event"] == "request"} == {
            "completed",
            "drain_forced",
        }


def test_a_person_reads_who_was_cut_and_where_it_stood() -> None:
    with launched("app", "--access-log", "human", drain__total="0.5") as serving:
        client = serving.ask("/slow?seconds=3600")
        threading.Event().wait(0.2)
        serving.signal()
        rest(client)
        assert serving.ended() == 5
        assert "WARNING  drain: cut request GET /slow, connection 1 of 127.0.0.1:" in serving.stderr
        assert "s old, in phase H; it was at\n" in serving.stderr
        assert "await asyncio.sleep(float(seconds))" in serving.stderr
        assert "stopped: 0 connections finished, 1 cut" in serving.stderr


@both_loops
def test_a_second_signal_gives_nobody_more_time(loop: str, notes: Notes) -> None:
    with launched(app__loop=loop) as serving:
        client = serving.ask("/slow?seconds=3600")
        notes.wait_for("begun")
        serving.signal()
        serving.wait_for("finish begins")
        serving.signal(signal.SIGINT)
        assert rest(client).startswith(b"HTTP/1.1 503")
        assert serving.ended() == 5
        assert notes.lines[-1] == "shutdown"


def test_a_third_signal_exits_at_once(notes: Notes) -> None:
    with launched() as serving:
        client = serving.ask("/resist")
        notes.wait_for("begun")
        serving.signal()
        serving.wait_for("finish begins")
        serving.signal()
        notes.wait_for("resisted")
        began = now()
        serving.signal()
        assert serving.ended() == 5
        assert now() - began < 3
        assert "shutdown" not in notes.lines
        rest(client)


def test_a_task_that_resists_is_named_and_does_not_keep_the_process(notes: Notes) -> None:
    with launched(drain__total="0.4") as serving:
        client = serving.ask("/resist")
        notes.wait_for("begun")
        serving.signal()
        assert rest(client).startswith(b"HTTP/1.1 503")
        assert serving.ended() == 5
        (survived,) = (line for line in serving.told("task_survived") if line["owner"] != "the application")
        assert survived["owner"] == "connection 1 GET /resist"
        assert "await asyncio.sleep(3600)" in survived["stack"]
        assert notes.lines[-1] != "startup"
        assert "shutdown" in notes.lines


def test_a_task_of_the_applications_own_that_resists_is_named_as_well() -> None:
    with launched() as serving:
        assert serving.ask("/own_task?resists=yes").recv(1000)
        serving.signal()
        assert serving.ended() == 5
        (survived,) = serving.told("task_survived")
        assert (survived["name"], survived["owner"]) == ("own", "the application")


def test_a_thread_that_hangs_is_named_and_does_not_keep_the_process(notes: Notes) -> None:
    with launched(drain__total="0.4") as serving:
        client = serving.ask("/thread")
        notes.wait_for("begun")
        serving.signal()
        assert rest(client).startswith(b"HTTP/1.1 503")
        assert serving.ended() == 5
        assert "does not end; it is at" in serving.stderr
        assert "in hang" in serving.stderr


# -- starts that fail


@pytest.mark.parametrize(
    ("app", "line"),
    [
        ("fails_to_start", "error: the application's startup failed: ConnectionRefusedError: no database at "),
        ("exits", "error: the application's startup failed: SystemExit: DATABASE_URL is not set at "),
        (
            "starts_for_ever",
            "error: the application's startup took longer than 0.2 s (timeouts.lifespan_startup)",
        ),
    ],
)
def test_a_startup_that_fails_is_one_line_and_exit_code_3(app: str, line: str) -> None:
    with launched(app, timeouts__lifespan_startup="0.2") as serving:
        assert serving.ended() == 3
        assert serving.stderr.startswith(line)
        assert serving.stderr.count("\n") == 1


def test_a_busy_port_is_one_line_and_exit_code_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with launched("app", "--port", str(port)) as serving:
            assert serving.ended() == 4
            assert serving.stderr.startswith(f"error: 127.0.0.1:{port} is in use by another process;")
            assert serving.stderr.count("\n") == 1


def test_a_bad_certificate_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing\n")
    for path, problem in ((bad, "has no certificate in PEM form"), (tmp_path / "no.pem", "can't read")):
        with launched("app", tls__cert=str(path)) as serving:
            assert serving.ended() == 2
            assert serving.stderr.startswith("error: tls.cert: ")
            assert problem in serving.stderr
            assert serving.stderr.count("\n") == 1


@both_signals
def test_a_signal_during_the_startup_ends_it(number: int, notes: Notes) -> None:
    with launched("starts_for_ever") as serving:
        notes.wait_for("begun")
        serving.signal(number)
        assert serving.ended() == 0
        assert notes.lines == ["begun", "cancelled"]
        assert "Traceback" not in serving.stderr


# -- applications that can't stop


def test_a_failed_shutdown_of_the_application_is_told_and_exit_code_1() -> None:
    with launched("fails_to_stop") as serving:
        assert serving.port
        serving.signal()
        assert serving.ended() == 1
        (failed,) = serving.told("lifespan_failed")
        assert failed["level"] == "error"
        assert failed["message"].startswith("the application raised while it stopped: RuntimeError: the queue")
        assert "raise RuntimeError" in failed["traceback"]


def test_a_shutdown_of_the_application_that_takes_too_long_is_told_and_exit_code_1() -> None:
    with launched("stops_for_ever", timeouts__lifespan_shutdown="0.2") as serving:
        assert serving.port
        serving.signal()
        assert serving.ended() == 1
        assert "took longer than 0.2 s to stop" in serving.told("lifespan_failed")[0]["message"]


# -- from Python

RUN = """
import sys, sojourn
sys.path.insert(0, "tests/server")
from sojourn.config import Bind, Log
{more}
config = sojourn.Config(bind=Bind(port=0))
announce = lambda addresses: print(f"serving at {{addresses}}", file=sys.stderr, flush=True)
sys.exit(sojourn.run({app}, config, announce=announce))
"""


@pytest.mark.parametrize(
    ("app", "more"), [('"served_app:app"', ""), ("served_app.app", "import served_app")], ids=["a name", "an object"]
)
def test_run_serves_from_python(app: str, more: str) -> None:
    with launched(script=RUN.format(app=app, more=more)) as serving:
        assert serving.ask("/").recv(1000).startswith(b"HTTP/1.1 200")
        serving.signal()
        assert serving.ended() == 0
        assert serving.stderr.count("\n") == 1  # no handler is set up, and nothing went wrong
        assert serving.access[0]["path"] == "/"


IN_A_THREAD = """
import os, sys, threading, sojourn
sys.path.insert(0, "tests/server")
from sojourn.config import Bind
from served_app import app
announce = lambda addresses: print(f"serving at {addresses}", file=sys.stderr, flush=True)
thread = threading.Thread(
    target=sojourn.run, args=(app, sojourn.Config(bind=Bind(port=0))), kwargs={"announce": announce}, daemon=True
)
thread.start()
thread.join()
"""


def test_run_serves_in_a_thread_without_touching_signals() -> None:
    with launched(script=IN_A_THREAD) as serving:
        assert serving.ask("/").recv(1000).startswith(b"HTTP/1.1 200")
        serving.signal()
        assert serving.ended() == -signal.SIGTERM
