"""Rolling restarts and upgrades in place, on processes: nobody is refused, and what can't start changes nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.server.processes import COMMAND, Serving, environment, rest
from tests.server.workers.processes import Load, Site, alive, eventually, version, workers


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ready(serving: Serving, count: int) -> bool:
    """Whether so many workers have served."""
    return len(serving.told("worker_ready")) >= count


# -- restarts


@pytest.mark.parametrize("count", [1, 2])
def test_a_restart_under_load_refuses_nobody(site: Site, count: int) -> None:
    with site.served("--workers", str(count)) as serving, Load(serving.port) as load:
        old = workers(serving)
        eventually(lambda: len(load.answers) > 20)
        site.write("two")
        serving.signal(signal.SIGHUP)
        eventually(lambda: not any(map(alive, old)))
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
        load.__exit__()
        assert load.failures == []
        assert {answer.split()[0] for answer in load.answers[before + 10 :]} == {"two"}
        ended = eventually(lambda: len(found := serving.told("worker_ended")) == count and found)
        assert [(end["code"], end["expected"]) for end in ended] == [(0, True)] * count
        assert [event["why"] for event in serving.told("worker_retired")] == ["restart"] * count
        serving.signal()
        assert serving.ended() == 0


def test_a_restart_lets_long_requests_finish(site: Site) -> None:
    with site.served() as serving:
        _, pid = version(serving)
        slow = serving.ask("/slow")
        site.write("two")
        serving.signal(signal.SIGHUP)
        assert rest(slow).endswith(f"one {pid}".encode())
        eventually(lambda: version(serving)[0] == "two")


@pytest.mark.parametrize("count", [1, 2])
def test_a_restart_to_broken_code_leaves_the_old_serving(site: Site, count: int) -> None:
    with site.served("--workers", str(count)) as serving:
        assert version(serving)
        old = workers(serving)
        site.write("broken", "1 / 0")
        serving.signal(signal.SIGHUP)
        line = serving.wait_for("restart_failed")
        assert f"ZeroDivisionError: division by zero at {site.folder}/web.py:4" in line
        (failed,) = serving.told("restart_failed")
        assert failed["message"].startswith("restart given up, what served before serves on: can't import web: ")
        assert workers(serving) == old
        assert version(serving)[1] in old
        site.write("three")
        serving.signal(signal.SIGHUP)
        eventually(lambda: not any(map(alive, old)))
        assert version(serving)[0] == "three"
        serving.signal()
        assert serving.ended() == 0


def test_a_restart_with_a_configuration_that_is_wrong_leaves_the_old_serving(site: Site) -> None:
    config = site.folder / "sojourn.toml"
    config.write_text("[app]\nworkers = 1\n")
    with site.served("--config", str(config)) as serving:
        assert version(serving)
        old = workers(serving)
        config.write_text("[app]\nworkers = 'many'\n")
        serving.signal(signal.SIGHUP)
        assert "app.workers: 'many' is not a whole number" in serving.wait_for("restart_failed")
        assert workers(serving) == old
        config.write_text("[app]\nworkers = 3\n[bind]\nbacklog = 7\n")
        serving.signal(signal.SIGHUP)
        eventually(lambda: len(workers(serving)) == 3 and not any(map(alive, old)))
        serving.wait_for("warning: bind.* can't change while serving: what was there stays until a new start")
        config.write_text("[app]\nworkers = 1\n")
        serving.signal(signal.SIGHUP)
        eventually(lambda: len(workers(serving)) == 1)
        assert version(serving)[0] == "one"
        serving.signal()
        assert serving.ended() == 0


def test_restarts_that_are_asked_for_meanwhile_are_one_more(site: Site) -> None:
    site.write("slow", "time.sleep(0.5)")
    with site.served() as serving:
        assert version(serving)
        serving.signal(signal.SIGHUP)
        serving.wait_for("starts: restart")
        for _ in range(5):
            serving.signal(signal.SIGHUP)
        eventually(lambda: ready(serving, 3))
        eventually(lambda: len(workers(serving)) == 1)
        assert len(serving.told("worker_ready")) == 3
        serving.signal()
        assert serving.ended() == 0
        assert len(serving.told("worker_ready")) == 3


def test_a_signal_during_a_restart_ends_everything(site: Site) -> None:
    with site.served() as serving:
        assert version(serving)
        site.write("slow", f"open({str(site.folder / 'begun')!r}, 'w'); time.sleep(3600)")
        serving.signal(signal.SIGHUP)
        eventually((site.folder / "begun").exists)
        serving.signal()
        assert serving.ended() == 0
        assert not serving.told("restart_failed")


def test_a_worker_that_dies_while_another_starts_leaves_no_slot_empty(site: Site) -> None:
    with site.served("--workers", "2") as serving:
        assert version(serving)
        old = workers(serving)
        site.write("two", "time.sleep(0.5)")
        serving.signal(signal.SIGHUP)
        serving.wait_for("starts: restart")
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(serving.told("worker_ready")) >= 4 and len(workers(serving)) == 2)
        assert version(serving)[0] == "two"
        serving.signal()
        assert serving.ended() == 0


# -- upgrades


@pytest.mark.parametrize("count", [1, 2])
def test_an_upgrade_under_load_refuses_nobody(site: Site, count: int) -> None:
    with site.served("--workers", str(count)) as serving, Load(serving.port) as load:
        old = workers(serving)
        eventually(lambda: len(load.answers) > 20)
        site.write("two")
        serving.signal(signal.SIGUSR2)
        eventually(lambda: not any(map(alive, old)))
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
        load.__exit__()
        assert load.failures == []
        assert {answer.split()[0] for answer in load.answers[before + 10 :]} == {"two"}
        assert len(workers(serving)) == count
        assert b"_SOJOURN_STATE" in Path(f"/proc/{serving.process.pid}/environ").read_bytes()
        ended = eventually(lambda: len(found := serving.told("worker_ended")) == count and found)
        assert [(end["code"], end["expected"]) for end in ended] == [(0, True)] * count
        serving.signal()
        assert serving.ended() == 0


def test_an_upgrade_that_can_not_work_changes_nothing(site: Site) -> None:
    config = site.folder / "sojourn.toml"
    config.write_text("[app]\nworkers = 1\n")
    with site.served("--config", str(config)) as serving:
        _, old = version(serving)
        config.write_text("[app]\nworkers = 'many'\n")
        serving.signal(signal.SIGUSR2)
        line = serving.wait_for("restart_failed")
        assert (
            "upgrade given up, what served before serves on: the new code does not start: app.workers: 'many'" in line
        )
        assert version(serving) == ("one", old)
        serving.signal()
        assert serving.ended() == 0


def test_what_an_upgrade_takes_over_is_as_it_was(site: Site) -> None:
    """Workers that drain, long requests, the death of a worker, the next upgrade, and the last signal."""
    with site.served("--workers", "2") as serving:
        assert version(serving)
        slow = [serving.ask("/slow") for _ in range(4)]
        serving.signal(signal.SIGUSR2)
        for client in slow:
            assert rest(client).startswith(b"HTTP/1.1 200")
        eventually(lambda: ready(serving, 4) and len(workers(serving)) == 2)
        os.kill(workers(serving)[0], signal.SIGKILL)
        eventually(lambda: ready(serving, 5) and len(workers(serving)) == 2)
        serving.signal(signal.SIGUSR2)
        eventually(lambda: ready(serving, 7) and len(workers(serving)) == 2)
        assert version(serving)[0] == "one"
        assert {message["worker"] for message in serving.told("worker_ready")} == {1, 2, 3, 4, 5, 6, 7}
        serving.signal()
        assert serving.ended() == 0
        assert serving.stderr.count("serving web:app") == 1


# -- the command


def upgrade(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "upgrade", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_the_command_upgrade_says_what_came_of_it(site: Site, tmp_path: Path) -> None:
    admin = f"unix:{tmp_path}/admin.sock"
    with site.served("--workers", "2", "--admin", admin, "--instance", "here") as serving:
        assert version(serving)
        old = workers(serving)
        site.write("two")
        done = upgrade("--admin", admin)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"here was replaced in process {serving.process.pid}, with 2 new workers\n"
        assert version(serving)[0] == "two"
        eventually(lambda: not any(map(alive, old)))
        site.write("broken", "1 / 0")
        done = upgrade("--admin", admin)
        assert done.returncode == 1
        assert done.stderr.startswith("error: here serves on as it was: can't import web: ZeroDivisionError")
        site.write("three")
        done = upgrade("--pid", str(serving.process.pid))
        assert (done.returncode, done.stderr) == (0, "")
        eventually(lambda: version(serving)[0] == "three")
        serving.signal()
        assert serving.ended() == 0
        assert not (tmp_path / "admin.sock").exists()


def test_the_command_upgrade_finds_only_supervisors(tmp_path: Path) -> None:
    ended = upgrade()
    assert (ended.returncode, ended.stderr) == (
        2,
        "error: name the supervisor by either --pid or --admin (see sojourn upgrade --help)\n",
    )
    other = subprocess.Popen(["sleep", "60"])
    try:
        ended = upgrade("--pid", str(other.pid))
        assert ended.returncode == 2
        assert ended.stderr == f"error: process {other.pid} does not know SIGUSR2: it is no supervisor of Sojourn\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert upgrade("--admin", f"unix:{tmp_path}/none").returncode == 1
    assert upgrade("--admin", "elsewhere").stderr == "error: 'elsewhere' is no place: write unix:PATH or HOST:PORT\n"


def test_probes_answer_while_a_worker_hangs(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with site.served("--admin", f"unix:{path}", worker__heartbeat="3600") as serving:
        _, pid = version(serving)
        blocking = serving.ask("/block")
        eventually(lambda: "S" in Path(f"/proc/{pid}/stat").read_text())
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert rest(client).startswith(b"HTTP/1.1 200")
        blocking.close()
