"""Signs of life and stacks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from sojourn.server.workers.hang import DUMP, Beats, Stacks
from tests.server.workers.processes import Site, eventually, workers


def test_a_beat_that_changes_is_a_sign_of_life_whatever_its_value() -> None:
    beats = Beats(100.0)
    assert beats.silent(101.0, 0.0) == 0.0  # the first value is news
    assert beats.silent(103.0, 0.0) == 2.0
    assert beats.silent(104.0, 7.0) == 0.0
    assert beats.silent(106.5, 7.0) == 2.5
    assert beats.silent(107.0, 3.0) == 0.0  # also when it goes back


HANGS = """
import sys, threading
from sojourn.server.workers.hang import dump_on_signal
kept = dump_on_signal(int(sys.argv[1]))
def waits(): threading.Event().wait(60)
threading.Thread(target=waits, daemon=True).start()
def spins():
    print("begun", flush=True)
    while True: pass
spins()
"""


def test_the_thread_that_hangs_comes_first_each_time_it_is_asked() -> None:
    stacks = Stacks.create()
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(stacks.fd)], pass_fds=[stacks.fd], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process, process.stdout:
        try:
            process.stdout.readline()
            for _ in range(2):
                stacks.ask(process.pid)
                text = eventually(lambda: "in <module>" in (said := stacks.read()) and "in waits" in said and said)
                assert text.splitlines()[1].endswith("in spins")
                assert text.count("in spins") == 1
        finally:
            process.kill()
    stacks.ask(process.pid)  # nobody answers any more, and what was said before is gone
    assert stacks.read() == ""
    stacks.close()


def test_who_asks_a_worker_that_has_only_just_been_made_does_no_harm(tmp_path: Path) -> None:
    with Site(tmp_path).served("--workers", "1") as serving:
        (pid,) = eventually(lambda: workers(serving))
        for _ in range(20):
            os.kill(pid, DUMP)
            threading.Event().wait(0.01)
        eventually(lambda: serving.told("worker_ready"))
        assert workers(serving) == [pid]
