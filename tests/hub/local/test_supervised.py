"""Workers of one supervisor share a hub without anything being set up, also after the supervisor was replaced."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server.processes import COMMAND, Serving, environment, now, rest

APP = """
import json, os
from sojourn.hub.engine import Publish
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.publication import Kind
from sojourn.hub.rules import History
class Seen:
    def __init__(self):
        self.data, self.lost_count = [], 0
    def deliver(self, publication):
        self.data.append(publication.data.decode())
    def lost(self, channels):
        self.lost_count += 1
    def away(self, error): pass
    def told(self, data): pass
    def changed(self, channel, came, left): pass
engine, seen = LocalEngine(), Seen()
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await engine.start(seen)
        await engine.subscribe("c")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await engine.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/publish":
        data = scope["query_string"]
        await engine.publish(Publish("c", Kind.TEXT, data, History(size=10)))
    told = {"pid": os.getpid(), "data": seen.data, "lost": seen.lost_count, "hosting": engine.hosting}
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@contextmanager
def served(folder: Path, workers: int) -> Iterator[Serving]:
    (folder / "web.py").write_text(APP)
    command = [COMMAND, "serve", "web:app", "--app-dir", str(folder), "--port", "0", "--workers", str(workers)]
    serving = Serving(command, environment())
    try:
        yield serving
    finally:
        serving.close()


def ask(serving: Serving, path: str = "/") -> dict[str, Any]:
    answer = rest(serving.ask(path, version="1.0"))
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def both(serving: Serving, right: Callable[[dict[str, Any]], bool], count: int = 2) -> set[int]:
    """Ask until so many workers have said what is right; their process ids."""
    end = now() + 20.0
    found: set[int] = set()
    while len(found) < count:
        told = ask(serving)
        if right(told):
            found.add(told["pid"])
        assert now() < end, told
    return found


def test_workers_share_what_is_published_also_after_an_upgrade(tmp_path: Path) -> None:
    with served(tmp_path, 2) as serving:
        ask(serving, "/publish?one")
        old = both(serving, lambda told: told["data"] == ["one"] and not told["hosting"])
        serving.signal(signal.SIGUSR2)
        new = both(serving, lambda told: told["data"] == [] and told["pid"] not in old)
        ask(serving, "/publish?two")
        assert both(serving, lambda told: told["data"] == ["two"]) == new
        serving.signal()
        assert serving.ended() == 0


def test_a_process_without_a_supervisor_is_its_own(tmp_path: Path) -> None:
    with served(tmp_path, 0) as serving:
        ask(serving, "/publish?one")
        told = ask(serving)
        assert (told["data"], told["hosting"]) == (["one"], True)
        serving.signal()
        assert serving.ended() == 0
