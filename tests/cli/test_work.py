"""``sojourn work`` as processes: tasks are run, nothing listens, and the end hands over what is left."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sojourn.tasks.record import ENDED, State, Task
from tests.cli.processes import environment
from tests.server.processes import COMMAND, Serving
from tests.server.processes import environment as settings
from tests.server.workers.processes import eventually, workers

JOBS = """
    import asyncio, os, pathlib
    from sojourn.tasks.current import current_task
    from sojourn.tasks.tasks import Tasks

    tasks = Tasks(str(pathlib.Path(__file__).with_name("tasks.db")), lease=3.0, work=False)
    idle = Tasks(str(pathlib.Path(__file__).with_name("tasks.db")))
    lost = Tasks(str(pathlib.Path(__file__).with_name("gone") / "tasks.db"))

    @lost.define
    @tasks.define
    async def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b, "pid": os.getpid()}

    @tasks.define
    async def wait(seconds: float) -> str:
        task = current_task()
        await task.progress({"from": task.checkpoint})
        try:
            await asyncio.sleep(0.05 if task.checkpoint else seconds)
        except asyncio.CancelledError:
            await task.save("half")
            raise
        return f"interrupted {task.interruptions} times"

    def make() -> Tasks:
        return tasks
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    return tmp_path


@contextmanager
def working(folder: Path, *arguments: str, target: str = "jobs:tasks") -> Iterator[Serving]:
    """Work in a folder; it ends with the block."""
    env = settings() | {"PYTHONDONTWRITEBYTECODE": "1"}
    serving = Serving([COMMAND, "work", target, "--app-dir", str(folder), *arguments], env)
    try:
        serving.wait_for(f"running tasks of {target}")
        yield serving
    finally:
        serving.close()


def ask(folder: Path, question: Callable[[Any], Any]) -> Any:
    """Await something of the tasks of a folder, in this process."""

    async def asked() -> Any:
        spec = importlib.util.spec_from_file_location("jobs", folder / "jobs.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        async with module.tasks, asyncio.timeout(20):
            return await question(module.tasks)

    with asyncio.Runner() as runner:
        return runner.run(asked())


def start(folder: Path, kind: str, *arguments: Sequence[Any]) -> list[str]:
    """Start a task for each set of arguments."""

    async def started(tasks: Any) -> list[str]:
        return [(await tasks.start(kind, *each)).id for each in arguments]

    ids: list[str] = ask(folder, started)
    return ids


def task(folder: Path, task_id: str, *states: State) -> Task:
    """A task, when it is in one of these states."""

    def look() -> Task | None:
        found: Task = ask(folder, lambda tasks: tasks.get(task_id))
        return found if found.state in states else None

    found: Task = eventually(look)
    return found


def listening(pid: int) -> set[str]:
    """The sockets of a process that listen for TCP."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{words[9]}]" for words in lines if words[3] == "0A"}
    return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists()} & inodes


def test_tasks_are_done_in_processes_of_their_own_and_nothing_listens(folder: Path) -> None:
    ids = start(folder, "add", *[(n, 1) for n in range(10)])
    with working(folder, "--workers", "2") as serving:
        assert serving.wait_for("running") == "running tasks of jobs:tasks (2 workers)\n"
        children = workers(serving)
        done = [task(folder, each, *ENDED) for each in ids]  # type: ignore[arg-type]
        results = [msgspec.json.decode(each.result) for each in done]
        assert [result["sum"] for result in results] == list(range(1, 11))
        assert {result["pid"] for result in results} <= set(children)
        assert not any(listening(pid) for pid in (serving.process.pid, *children))
        serving.signal()
        assert serving.ended() == 0
        assert not re.search("error|warning", serving.stderr)


def test_a_restart_takes_up_new_code_and_a_named_kind_is_the_only_one(folder: Path) -> None:
    with working(folder, "--kinds", "add", "--concurrency", "3") as serving:
        assert serving.wait_for("running") == "running tasks of jobs:tasks (add)\n"
        (other,) = start(folder, "wait", (0.0,))
        (before,) = workers(serving)
        source = (folder / "jobs.py").read_text()
        (folder / "jobs.py").write_text(source.replace("a + b", "a * b"))
        serving.signal(signal.SIGHUP)
        (after,) = eventually(lambda: (now := workers(serving)) != [before] and len(now) == 1 and now)
        (product,) = start(folder, "add", (3, 5))
        result = msgspec.json.decode(task(folder, product, "completed").result)
        assert result == {"sum": 15, "pid": after}
        assert task(folder, other, "pending").epoch == 0
        serving.signal()
        assert serving.ended() == 0


def test_at_its_end_what_runs_may_finish(folder: Path) -> None:
    with working(folder, "--workers", "0") as serving:
        (first,) = start(folder, "wait", (0.8,))
        task(folder, first, "running")
        (late,) = start(folder, "wait", (0.0,)) if serving.signal() is None else ()
        assert serving.ended() == 0
    assert msgspec.json.decode(task(folder, first, "completed").result) == "interrupted 0 times"
    assert task(folder, late, "pending", "completed").interruptions == 0


def test_what_does_not_finish_is_handed_over_and_goes_on_elsewhere(folder: Path) -> None:
    (task_id,) = start(folder, "wait", (60.0,))
    with working(folder, "--factory", "--drain-requests", "0.2", target="jobs:make") as serving:
        task(folder, task_id, "running")
        serving.signal()
        assert serving.ended() == 0
    left = task(folder, task_id, "pending")
    assert (left.interruptions, left.failures, left.crashes, left.checkpoint) == (1, 0, 0, b'"half"')
    with working(folder, "--workers", "0"):
        assert msgspec.json.decode(task(folder, task_id, "completed").result) == "interrupted 1 times"


def test_the_file_of_serve_may_be_used_too(folder: Path) -> None:
    file = folder / "sojourn.toml"
    file.write_text(
        "[tls]\ncert = 'gone.pem'\n[bind]\nuds = '/gone/a.sock'\n[drain]\ndelay = 60\n"
        "[registration]\nwebhook = 'http://127.0.0.1:1/'\n[work]\nkinds = ['add']\n"
    )
    with working(folder, "--config", str(file), "--workers", "0") as serving:
        serving.signal()
        assert serving.ended(5.0) == 0


def test_reload_begins_anew_when_a_file_changes(folder: Path) -> None:
    with working(folder, "--reload") as serving:
        (folder / "jobs.py").write_text((folder / "jobs.py").read_text().replace("a + b", "a - b"))
        serving.wait_for("changed, starting anew")
        (task_id,) = start(folder, "add", (7, 5))
        assert msgspec.json.decode(task(folder, task_id, "completed").result)["sum"] == 2
        serving.signal()
        assert serving.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "error: app.target: no tasks are named: write sojourn work module:attribute"),
        (["jobs:tasks", "--port", "1"], 2, "error: No such option '--port'"),
        (["jobs:tasks", "--kinds", "ad"], 2, "error: work.kinds: jobs:tasks has no task 'ad'; did you mean add?"),
        (["jobs:tasks", "--kinds", "xyz"], 2, "error: work.kinds: jobs:tasks has no task 'xyz'; there are add, wait"),
        (["jobs:idle"], 3, "error: jobs:idle has no tasks: is the module imported that defines them?"),
        (["jobs:current_task"], 3, "error: jobs:current_task is a function, not a Tasks object: sojourn serve runs"),
        (["absent"], 3, "error: can't import absent: there is no module absent"),
        (["json"], 3, "error: module json ("),
        (["jobs:lost"], 3, "error: the application's startup failed: "),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sojourn.cli", "work", *arguments, *(["--workers", "0"] if arguments else [])],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
