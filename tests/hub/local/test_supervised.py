"""Workers of one supervisor share a hub without anything being set up, also after the supervisor was replaced."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.server.processes import COMMAND, Serving, environment, rest
from tests.server.workers.processes import eventually

APP = """
import os
from sojourn.hub.engine import Publish
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.publication import Kind
from sojourn.hub.rules import History
def note(text):
    with open({notes!r}, "a") as notes:
        notes.write(f"{{os.getpid()}} {{text}}\\n")
class Seen:
    def deliver(self, publication):
        note(publication.data.decode())
    def __getattr__(self, name):
        return lambda *arguments: None
engine = LocalEngine()
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await engine.start(Seen())
        await engine.subscribe("c")
        await send({{"type": "lifespan.startup.complete"}})
        note(f"hosting {{engine.hosting}}")
        await receive()
        await engine.aclose()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await engine.publish(Publish("c", Kind.TEXT, scope["query_string"], History(size=10)))
    await send({{"type": "http.response.start", "status": 204, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})
"""


class Site:
    """The application, served, and what its workers have noted."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._notes = folder / "notes"
        (folder / "web.py").write_text(APP.format(notes=str(self._notes)))
        command = [COMMAND, "serve", "web:app", "--app-dir", str(folder), "--port", "0", "--workers", str(workers)]
        self.serving = Serving(command, environment())

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.serving.close()

    def publish(self, text: str) -> None:
        assert rest(self.serving.ask(f"/?{text}", version="1.0")).startswith(b"HTTP/1.1 204")

    def noted(self, text: str, count: int) -> set[str]:
        """Wait until so many processes have noted this; which."""

        def found() -> set[str]:
            lines = self._notes.read_text().splitlines() if self._notes.exists() else []
            return {line.partition(" ")[0] for line in lines if line.partition(" ")[2] == text}

        return eventually(lambda: len(pids := found()) >= count and pids)


def test_workers_share_what_is_published_also_after_an_upgrade(tmp_path: Path) -> None:
    with Site(tmp_path, 2) as site:
        old = site.noted("hosting False", 2)
        site.publish("one")
        assert site.noted("one", 2) == old
        site.serving.signal(signal.SIGUSR2)
        new = site.noted("hosting False", 4) - old
        site.publish("two")
        eventually(lambda: site.noted("two", 2) >= new)
        site.serving.signal()
        assert site.serving.ended() == 0


def test_a_process_without_a_supervisor_is_its_own(tmp_path: Path) -> None:
    with Site(tmp_path, 0) as site:
        own = site.noted("hosting True", 1)
        site.publish("one")
        assert site.noted("one", 1) == own
        site.serving.signal()
        assert site.serving.ended() == 0
