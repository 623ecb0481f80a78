"""New code and new supervisors under load: nobody notices."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from drills.crowd import Crowd, Load, WebSocket, all_ended, play
from drills.served import end_of, serving, until
from tests.server.processes import Serving

SOURCE = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"version %d"})
"""
SETTINGS = {"drain_sockets": "4", "websocket_close": "1", "drain_close_rate": "1000"}


def write(folder: Path, version: int) -> None:
    (folder / "changing.py").write_text(SOURCE.replace("%d", str(version)))


def ready(served: Serving) -> int:
    """How many workers have been ready so far."""
    return len(served.told("worker_ready"))


def ended(served: Serving) -> int:
    """How many have ended."""
    return len(served.told("worker_ended"))


async def restarted(served: Serving, load: Load, workers: int, version: int) -> None:
    """Wait until all workers are new, the old ones are gone, and the new code has answered for a while."""
    await until(lambda: ready(served) >= workers * version, 30, "new workers are ready", served)
    await until(lambda: ended(served) >= workers * (version - 1), 30, "old workers have ended", served)
    answered = load.answers[f"version {version}"]
    await until(lambda: load.answers[f"version {version}"] > answered + 50, 20, "the new code answers", served)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
@pytest.mark.parametrize("workers", [1, 2])
def test_under_load_a_restart_loses_no_request(workers: int, number: signal.Signals, tmp_path: Path) -> None:
    write(tmp_path, 1)

    async def main(served: Serving, crowd: Crowd) -> None:
        pid = served.process.pid
        sockets = await crowd.join(lambda: WebSocket("/ws"), 50)
        async with Load(served.port) as load:
            await until(lambda: load.answers["version 1"] > 50, 20, "load", served)
            for version in (2, 3, 4):
                write(tmp_path, version)
                served.signal(number)
                await restarted(served, load, workers, version)
            await asyncio.sleep(0.5)
        assert load.failures == []
        assert set(load.answers) == {f"version {version}" for version in (1, 2, 3, 4)}
        assert load.retried == 0
        await all_ended(sockets, 10)
        assert Counter(socket.closed[1] for socket in sockets if socket.closed) == {1012: 50}
        assert served.process.pid == pid
        assert served.process.poll() is None
        assert all(message["code"] == 0 for message in served.told("worker_ended")), served.told("worker_ended")
        served.signal(signal.SIGTERM)
        code, _ = await end_of(served, 30)
        assert code == 0, served.stderr[-3000:]

    with serving("changing:app", app_dir=str(tmp_path), app_workers=str(workers), **SETTINGS) as served:
        play(main, served)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
@pytest.mark.parametrize("broken", ["raise LookupError('a bug at import')", "def app(:", "import os; os._exit(9)"])
def test_broken_code_leaves_the_old_serving_and_mended_code_is_taken(
    number: signal.Signals, broken: str, tmp_path: Path
) -> None:
    write(tmp_path, 1)

    async def main(served: Serving, crowd: Crowd) -> None:
        (socket,) = await crowd.join(lambda: WebSocket("/ws"), 1)
        async with Load(served.port) as load:
            await until(lambda: load.answers["version 1"] > 50, 20, "load", served)
            (tmp_path / "changing.py").write_text(broken)
            served.signal(number)
            await until(lambda: served.told("restart_failed"), 30, "the restart has failed", served)
            answered = load.answers["version 1"]
            await until(lambda: load.answers["version 1"] > answered + 100, 20, "the old code serves on", served)
            assert not socket.ended.done()
            write(tmp_path, 2)
            served.signal(number)
            await until(lambda: load.answers["version 2"] > 50, 30, "the mended code serves", served)
        assert load.failures == []
        assert set(load.answers) == {"version 1", "version 2"}
        served.signal(signal.SIGTERM)
        code, _ = await end_of(served, 30)
        assert code == 0, served.stderr[-3000:]

    with serving("changing:app", app_dir=str(tmp_path), app_workers="1", **SETTINGS) as served:
        play(main, served)
