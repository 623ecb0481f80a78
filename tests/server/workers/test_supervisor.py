"""The supervisor with its workers, as processes: starts, replacement, the end of either, signals."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.processes import COMMAND, environment, now, rest
from tests.server.workers.processes import Site, alive, ask, document, eventually, version, workers


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# -- starts


@pytest.mark.parametrize(("count", "said"), [(1, ""), (2, " (2 workers)")])
def test_workers_serve_and_end_with_the_supervisor(site: Site, count: int, said: str) -> None:
    with site.served("--workers", str(count)) as serving:
        line = serving.wait_for("serving ")
        assert line == f"serving web:app at http://127.0.0.1:{serving.port}{said}\n"
        children = workers(serving)
        assert len(children) == count
        word, pid = version(serving)
        assert (word, pid in children) == ("one", True)
        serving.signal()
        assert serving.ended() == 0
        assert not any(map(alive, children))
        assert serving.stderr.count("serving web:app") == 1
        assert {message["instance"] for message in serving.told("drain_phase_changed")} == {
            f"{socket.gethostname()}:{serving.port}/{number}" for number in range(1, count + 1)
        }


@pytest.mark.parametrize("count", ["1", "3"])
def test_a_start_that_fails_in_all_workers_is_one_line(site: Site, count: str) -> None:
    site.write("broken", "1 / 0")
    with site.served("--workers", count) as serving:
        assert serving.ended() == 3
        expected = f"error: can't import web: ZeroDivisionError: division by zero at {site.folder}/web.py:4\n"
        assert serving.stderr == expected


def test_a_start_takes_as_long_as_it_takes(site: Site) -> None:
    site.write("slow", "time.sleep(1.5)")
    with site.served(worker__heartbeat="0.5") as serving:
        assert version(serving)[0] == "slow"
        serving.signal()
        assert serving.ended() == 0
        assert not serving.told("worker_hung")


def test_a_start_that_hangs_is_ended_and_says_where(site: Site) -> None:
    site.write("hung", "time.sleep(3600)")
    with site.served(worker__start="2.5") as serving:
        assert serving.ended() == 3
        (hung,) = serving.told("worker_hung")
        assert f'File "{site.folder}/web.py", line 4 in <module>' in hung["stacks"]
        assert serving.stderr.endswith("error: a worker was not ready after 2.5 s (worker.start)\n")


def test_workers_that_end_again_and_again_end_the_supervisor(site: Site) -> None:
    site.write("crash", "os._exit(9)")
    with site.served("--workers", "2", worker__failures="4") as serving:
        assert serving.ended() == 7
        assert serving.stderr.splitlines()[-1] == (
            "error: 4 workers in a row ended before they had served for a minute; the last one: it ended with code 9"
        )
        assert len(serving.told("worker_ended")) >= 4


def test_a_signal_during_the_start_ends_it(site: Site) -> None:
    site.write("slow", f"open({str(site.folder / 'begun')!r}, 'w'); time.sleep(3600)")
    with site.served("--workers", "2") as serving:
        eventually((site.folder / "begun").exists)
        serving.signal()
        assert serving.ended() == 0
        assert "Traceback" not in serving.stderr


# -- ends of workers


def test_a_worker_that_keeps_the_interpreter_to_itself_says_where_and_is_replaced(site: Site) -> None:
    with site.served(worker__heartbeat="1") as serving:
        _, pid = version(serving)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
            client.sendall(b"GET /burn HTTP/1.1\r\nHost: a\r\n\r\n")
            serving.wait_for("worker_hung")
        assert "re/__init__.py" in serving.told("worker_hung")[0]["stacks"]
        assert version(serving)[1] != pid


@pytest.mark.parametrize("how", ["SIGKILL", "exit"])
def test_a_worker_that_dies_is_replaced(site: Site, how: str) -> None:
    with site.served("--workers", "2") as serving:
        _, pid = version(serving)
        if how == "exit":
            ask(serving.port, "/exit")
        else:
            os.kill(pid, signal.SIGKILL)
        serving.wait_for("(process", seconds=20)
        eventually(lambda: len(serving.told("worker_ready")) == 3)
        (ended,) = serving.told("worker_ended")
        assert (ended["level"], ended["expected"], ended["again"]) == ("error", False, 0.0)
        assert ended["code"] == (9 if how == "exit" else -9)
        assert version(serving)[0] == "one"
        serving.signal()
        assert serving.ended() == 0


def test_a_worker_that_hangs_says_where_and_is_replaced(site: Site) -> None:
    with site.served(worker__heartbeat="1") as serving:
        _, pid = version(serving)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            serving.wait_for("worker_hung")
        (hung,) = serving.told("worker_hung")
        assert hung["pid"] == pid
        assert 1 <= hung["seconds"] < 10
        assert f'File "{site.folder}/web.py", line ' in hung["stacks"]
        assert "in stand_still" in hung["stacks"].splitlines()[1]
        assert version(serving)[1] != pid
        serving.signal()
        assert serving.ended() == 0


def test_a_worker_that_is_stopped_is_replaced_too(site: Site) -> None:
    with site.served(worker__heartbeat="0.5") as serving:
        _, pid = version(serving)
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: serving.told("worker_ended"))
        assert version(serving)[1] != pid
        assert "it did not say where it stands" in serving.told("worker_hung")[0]["stacks"]


def test_a_worker_that_was_told_to_end_by_somebody_else_is_replaced_before_it_has_drained(site: Site) -> None:
    with site.served(drain__delay="1") as serving:
        _, pid = version(serving)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: len(serving.told("worker_ready")) == 2)
            assert b"one" in rest(client)
        eventually(lambda: serving.told("worker_ended"))
        (ended,) = serving.told("worker_ended")
        assert (ended["expected"], ended["code"], ended["level"]) == (True, 0, "info")
        assert serving.told("worker_started")[0]["why"] == "stopped from outside"
        assert version(serving)[1] != pid


def test_a_worker_retires_after_so_many_requests(site: Site) -> None:
    with site.served(worker__max_requests="20", worker__jitter="0") as serving:
        _, pid = version(serving)
        for _ in range(25):
            version(serving)
        eventually(lambda: serving.told("worker_ended"))
        (retired,) = serving.told("worker_retired")
        assert (retired["pid"], retired["why"]) == (pid, "max_requests")
        (ended,) = serving.told("worker_ended")
        assert (ended["pid"], ended["code"], ended["expected"]) == (pid, 0, True)
        assert version(serving)[1] != pid


# -- the end of the supervisor


def test_workers_end_when_the_supervisor_is_killed(site: Site) -> None:
    with site.served("--workers", "2", drain__delay="30") as serving:
        assert version(serving)
        children = workers(serving)
        serving.signal(signal.SIGKILL)
        eventually(lambda: not any(map(alive, children)), 15)


def test_a_worker_that_hangs_ends_when_the_supervisor_is_killed(site: Site) -> None:
    with site.served(worker__heartbeat="2") as serving:
        _, pid = version(serving)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: "S" in Path(f"/proc/{pid}/stat").read_text())
            serving.signal(signal.SIGKILL)
            eventually(lambda: not alive(pid), 15)
            serving.wait_for("in stand_still")


def test_a_worker_that_keeps_the_interpreter_to_itself_ends_when_the_supervisor_is_killed(site: Site) -> None:
    with site.served(worker__heartbeat="1") as serving:
        _, pid = version(serving)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
            client.sendall(b"GET /burn HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: "R" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3])
            serving.signal(signal.SIGKILL)
            eventually(lambda: not alive(pid), 30)


def test_a_worker_that_still_starts_ends_when_the_supervisor_is_killed(site: Site) -> None:
    site.write("slow", f"open({str(site.folder / 'begun')!r}, 'w'); time.sleep(3600)")
    with site.served() as serving:
        eventually((site.folder / "begun").exists)
        (pid,) = workers(serving)
        serving.signal(signal.SIGKILL)
        eventually(lambda: not alive(pid), 10)


# -- signals


def test_a_signal_to_the_whole_group_is_one_signal(site: Site) -> None:
    """A terminal sends SIGINT to the whole foreground group, systemd SIGTERM to the whole control group."""
    env = environment(drain__delay="0", log__access="json", bind__port="0", app__workers="2")
    command = [COMMAND, "serve", "web:app", "--app-dir", str(site.folder)]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0, text=True
        )
        assert process.stderr is not None
        with process, process.stderr:
            line = next(line for line in process.stderr if line.startswith("serving"))
            port = int(line.split(" (")[0].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert b"one" in ask(port)
                os.killpg(process.pid, number)
                assert b"one" in rest(client)
            assert process.wait(20) == 0


def test_the_second_signal_hurries_and_the_third_kills(site: Site, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with site.served("--workers", "2", drain__report=str(report)) as serving:
        clients = [serving.ask("/resist") for _ in range(3)]
        eventually(lambda: serving.stderr.count("worker_ready") == 2)
        serving.signal()
        serving.wait_for(": finish begins")
        serving.signal()
        serving.wait_for("drain: cut request GET /resist")
        began = now()
        serving.signal()
        assert serving.ended() == 5
        assert now() - began < 4
        assert document(report)["exit_code"] == 5
        for client in clients:
            rest(client)


def test_a_worker_that_is_killed_in_the_drain_means_code_5(site: Site) -> None:
    with site.served("--workers", "2") as serving:
        client = serving.ask("/slow")
        pids = workers(serving)
        eventually(lambda: serving.stderr.count("worker_ready") == 2)
        serving.signal()
        serving.wait_for(": finish begins")
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        assert serving.ended() == 5
        rest(client)


def test_the_report_adds_up_all_workers(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with site.served("--workers", "2", "--instance", "here", drain__report=str(path), drain__requests="0.3") as serving:
        eventually(lambda: serving.stderr.count("worker_ready") == 2)
        clients = [serving.ask("/download") for _ in range(8)]
        assert all(client.recv(1000).startswith(b"HTTP/1.1 200") for client in clients)
        serving.signal()
        for client in clients:
            rest(client)
        assert serving.ended() == 5
        told = {event["instance"]: event["cut"] for event in serving.told("drain_reported")}
        assert told == {"here": 8, "here/1": told["here/1"], "here/2": 8 - told["here/1"]}
    report = document(path)
    assert (report["instance"], report["exit_code"]) == ("here", 5)
    assert {worker["instance"] for worker in report["workers"]} == {"here/1", "here/2"}
    assert report["cut"] == sum(worker["cut"] for worker in report["workers"]) == len(report["cuts"])
    kinds = [worker["kinds"]["requests"] for worker in report["workers"]]
    assert report["kinds"]["requests"] == {name: sum(kind[name] for kind in kinds) for name in kinds[0]}
    assert report["kinds"]["requests"]["open"] == report["cut"] == 8


# -- on a terminal

ON_TERMINAL = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


@contextmanager
def on_terminal(site: Site, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Serve on a terminal of its own: the process, the terminal, and the port."""
    ours, theirs = pty.openpty()
    served = [COMMAND, "serve", "web:app", "--app-dir", str(site.folder), "--port", "0", *flags]
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(theirs), *served], env=environment(), pass_fds=[theirs]
    )
    os.close(theirs)
    try:
        text = ""
        while "Ctrl-C stops it" not in text:
            text += os.read(ours, 10_000).decode()
        yield process, ours, int(text.partition("address    http://127.0.0.1:")[2].split()[0])
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_on_a_terminal_is_quick(site: Site) -> None:
    with on_terminal(site, "--workers", "2") as (process, terminal, port):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"one" in ask(port)
            began = now()
            os.write(terminal, b"\x03")
            assert b"one" in rest(client)
        eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert now() - began < 5  # drain.delay is left out


def test_a_terminal_that_is_closed_is_no_restart(site: Site) -> None:
    with on_terminal(site) as (process, terminal, port):
        assert b"one" in ask(port)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, terminal)
        os.close(null)
        eventually(lambda: process.poll() is not None)


# -- sockets


def test_the_file_of_a_unix_socket_is_removed_at_the_end(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with site.served("--workers", "2", "--uds", str(path)) as serving:
        serving.wait_for(f"serving web:app at unix:{path} (2 workers)")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"one" in rest(client)
        serving.signal()
        assert serving.ended() == 0
        assert not path.exists()


LISTEN_FDS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_of_systemd_are_handed_down(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        served = [COMMAND, "serve", "web:app", "--app-dir", str(site.folder), "--workers", "2"]
        process = subprocess.Popen(
            [sys.executable, "-c", LISTEN_FDS, str(sock.fileno()), *served],
            env=environment(drain__delay="0"),
            pass_fds=[sock.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    with process, process.stderr:
        next(line for line in process.stderr if line.startswith("serving"))
        assert b"one" in ask(port)
        process.terminate()
        assert process.wait(20) == 0
