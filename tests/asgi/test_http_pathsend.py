"""The ``http.response.pathsend`` extension."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sojourn.events import ApplicationFailed, RequestEnded
from tests.asgi.harness import Cut, get, on_both_loops, serving, settings


def file_app(path: Path, *headers: tuple[bytes, bytes], before: bytes = b"") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["extensions"]["http.response.pathsend"] == {}
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if before:
            await send({"type": "http.response.body", "body": before, "more_body": True})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return app


def open_files(path: Path) -> int:
    """How often this process has the file open."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    return count


@on_both_loops
@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 3_000_000])
def test_a_file_is_sent_whole(size: int, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(size)
    path.write_bytes(data)
    length = (b"content-length", b"%d" % size)
    for headers in ([], [length]):
        with serving(file_app(path, *headers), loop=loop) as served, served.connect() as client:
            for _ in range(2):
                client.send(get())
                assert client.answer().body == data
            client.send(get(method="HEAD"))
            assert client.answer("HEAD").body == b""
            client.send(get(version="1.0"))
            assert client.answer().body == data
            assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_file_may_follow_a_part_of_the_body(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"the file")
    with serving(file_app(path, before=b"before "), loop=loop) as served, served.connect() as client:
        client.send(get())
        assert client.answer().body == b"before the file"


@on_both_loops
def test_a_file_that_is_not_there_is_a_500(loop: str, tmp_path: Path) -> None:
    with serving(file_app(tmp_path / "none"), loop=loop) as served, served.connect() as client:
        client.send(get() + get())
        assert [client.answer().status for _ in range(2)] == [500, 500]
        failed = served.of(ApplicationFailed)
        assert [type(each.error) for each in failed] == [FileNotFoundError] * 2


@on_both_loops
def test_a_file_that_is_shorter_than_its_length_is_cut(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 500_000)
    app = file_app(path, (b"content-length", b"500001"))
    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get())
        with pytest.raises(Cut):
            client.answer()
        (request,) = served.wait(RequestEnded)
        assert request.ending.reason == "response_content_length_mismatch"


@on_both_loops
def test_a_client_that_leaves_or_does_not_read_leaves_no_open_file(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 30_000_000)
    with serving(file_app(path), settings(timeouts={"disconnect_grace": 0.1}), loop) as served:
        with served.connect() as client:
            client.send(get())
            client.head()
        served.ended()
        for number in range(5):
            client = served.connect(receive_buffer=10_000).send(get())
            served.until(lambda: [each for each in served.connections() if each.blocked])
            client.reset() if number % 2 else client.close()
            served.ended(number + 2)
        served.until(lambda: open_files(path) == 0)
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_slow_disk_holds_up_nobody_else(loop: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        if scope["path"] == "/slow":
            await send({"type": "http.response.pathsend", "path": str(pipe)})
        else:
            await send({"type": "http.response.body", "body": b"quick"})

    with serving(app, loop=loop) as served, served.connect() as slow, served.connect() as quick:
        slow.send(get("/slow"))
        time.sleep(0.05)
        quick.send(get())
        assert quick.answer().body == b"quick"
        pipe.write_bytes(b"at last")
        assert slow.answer().body == b"at last"


@on_both_loops
def test_a_request_that_is_cancelled_while_its_file_is_opened_closes_it(loop: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    config = settings(timeouts={"response_start": 0.2})
    with serving(file_app(pipe), config, loop) as served, served.connect() as client:
        client.send(get())
        assert client.answer().status == 504
        writer = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)))
        writer.start()  # now it can be opened; nobody wants it any more
        writer.join()
        served.until(lambda: open_files(pipe) == 0)
