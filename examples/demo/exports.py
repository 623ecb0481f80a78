"""A long export as a durable task: answered at once with 202, watched from anywhere, and finished whatever happens to
the process that does it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from examples.demo.web import respond, respond_json
from sojourn import Tasks, current_task
from sojourn.typing import Receive, Scope, Send

__all__ = ["PATH", "Exports"]

#: Where tasks are asked for.
PATH: Final = "/_tasks"
#: Pages of an export unless more or fewer are asked for; rows of each, and seconds that one takes.
_PAGES: Final = 40
_MOST: Final = 400
_ROWS: Final = 250
_TAKES: Final = 0.25
#: Seconds after which another process may take up what a dead one had: short, because on this page people wait for it.
_LEASE: Final = 3.0
#: How the folders of all demos of this user begin.
_OURS: Final = f"sojourn-demo-{os.getuid()}-"
#: What runs under a supervisor that replaces it.
_WORKER: Final = "sojourn.server.workers.worker"


class Exports:
    """The tasks of the demo, in a file that the workers of one supervisor share."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"{_OURS}{os.getppid()}"
        self.tasks = Tasks(str(self._folder / "tasks.db"), lease=_LEASE, path=PATH)
        self.tasks.define(deadline=300.0)(export)

    def make_room(self) -> None:
        """Make the folder, for nobody else to read, and remove those of supervisors that are gone."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for folder in self._folder.parent.glob(f"{_OURS}*"):
            if not Path("/proc", folder.name.removeprefix(_OURS)).exists():
                shutil.rmtree(folder, ignore_errors=True)

    async def start(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write an export down, and say where it can be watched."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("pages", [str(_PAGES)])[0]
        if not given.isdecimal() or not 1 <= int(given) <= _MOST:
            await respond(send, 400, b"pages is a number from 1 to 400\n", b"text/plain")
            return
        started = await self.tasks.start(export, pages=int(given))
        await started.response()(scope, receive, send)

    async def kill(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Kill the process that answers this, without a word to anybody; its supervisor makes another."""
        if getattr(sys.modules["__main__"].__spec__, "name", "") != _WORKER:
            await respond(send, 409, b"nobody would replace this process\n", b"text/plain")
            return
        await respond_json(send, {"killed": os.getpid()})
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGKILL)


async def export(pages: int) -> dict[str, Any]:
    """Write so many pages, and remember after each where to go on."""
    task = current_task()
    for page in range(task.checkpoint or 0, pages):
        await asyncio.sleep(_TAKES)
        await task.progress({"page": page + 1, "pages": pages, "process": os.getpid(), "run": task.interruptions + 1})
        await task.save(page + 1)
    return {"rows": pages * _ROWS, "runs": task.interruptions + 1}
