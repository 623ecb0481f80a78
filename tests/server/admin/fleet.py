"""A fleet that stands as it is told to, and remembers what it was asked; and who asks it over the admin listener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sojourn.config import Admin, Config
from sojourn.errors import ErrandError
from sojourn.server.admin.app import admin_app
from sojourn.server.admin.fleet import Countdown, Status, WorkerStatus
from sojourn.server.admin.place import admin_config
from sojourn.server.reconfigure import ConfigVersion, Running, plan
from sojourn.testing import MemoryServer, Response

__all__ = ["COUNTDOWN", "LEAVING", "READY", "SECOND", "STARTING", "FakeFleet", "ask"]

READY = WorkerStatus(1, 101, 0, "ready", 60.0, 0.1, 5, 42)
SECOND = WorkerStatus(2, 102, 0, "ready", 60.0, 0.1, 6, 43)
STARTING = WorkerStatus(2, 102, 0, "starting", 1.0, None, 0, 0)
LEAVING = WorkerStatus(3, 103, 0, "draining", 90.0, 0.2, 7, 99)
COUNTDOWN = Countdown("a:8000", "notice", 4.5, 3, 2, 1, 8)

Answers = Mapping[str, Callable[[int, Mapping[str, Any]], Any]]


class FakeFleet:
    """Whom the admin listener asks.

    Args:
        answers: What workers answer, by the name of the question; an ErrandError is raised, None never comes.
        config: The settings in force.
        status: Fields of the status that are not as usual.
    """

    def __init__(self, answers: Answers | None = None, config: Config | None = None, **status: Any) -> None:
        said = {"state": "serving", "started": True, "workers": (READY,), "countdown": None, **status}
        self._status = Status("a:8000", 100, "1.2.3", **said)
        self._running = Running(config or Config())
        self._answers = answers or {}
        self.done: list[str] = []
        self.asked: list[tuple[int, str, dict[str, Any], float]] = []
        self.changed: list[tuple[dict[str, Any], str]] = []

    def status(self) -> Status:
        return self._status

    def config(self) -> Running:
        return self._running

    def drain(self) -> None:
        self.done.append("drain")

    def restart(self) -> None:
        self.done.append("restart")

    def upgrade(self) -> None:
        self.done.append("upgrade")

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        return f"text/plain; accept={accept}", b"up 1\n"

    async def ask(self, worker: int, name: str, arguments: Mapping[str, Any], seconds: float) -> bytes:
        self.asked.append((worker, name, dict(arguments), seconds))
        if name not in self._answers:
            raise ErrandError(404, "unknown_errand", f"this worker does not answer {name!r}")
        answer = self._answers[name](worker, arguments)
        if isinstance(answer, ErrandError):
            raise answer
        if answer is None:
            await asyncio.get_running_loop().create_future()
        return msgspec.msgpack.encode(answer)

    async def stacks(self, worker: int) -> str:
        return f"Current thread of {worker}"

    async def configure(self, changes: Mapping[str, Any], who: str) -> ConfigVersion:
        self.changed.append((dict(changes), who))
        change = plan(self._running.config, changes)
        change.check()
        return self._running.adopt(change, who)


def ask(
    fleet: FakeFleet,
    path: str,
    *headers: str,
    method: str = "GET",
    host: str | None = "localhost",
    body: bytes = b"",
    settings: Admin | None = None,
    seconds: float = 0.0,
) -> Response:
    """What the admin listener answers over TCP, after so many seconds of its time."""
    settings = settings or Admin()

    async def main() -> Response:
        config = admin_config(Config(admin=settings))
        async with MemoryServer(admin_app(fleet, settings), config) as server:
            client = server.connect()
            lines = [f"{method} {path} HTTP/{'1.1' if host is not None else '1.0'}"]
            lines += [f"host: {host}"] if host is not None else []
            lines += [*headers, *([f"content-length: {len(body)}"] if body else [])]
            client.send("\r\n".join([*lines, "", ""]).encode() + body)
            await server.settle()
            if seconds:
                await server.advance(seconds)
            return client.response(method=method)

    return asyncio.run(main())
