"""A stand-in for the admin listener on a Unix socket: says what it was given, and remembers what it was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "Asked",
    "Fake",
    "Run",
    "Works",
    "connection",
    "leak",
    "leaks",
    "problem",
    "serving",
    "setting",
    "status",
    "task",
    "worker",
]


#: Runs a command line: exit code, lines on standard output, standard error.
Run = Callable[..., tuple[int, list[str], str]]
#: Runs a command line that must work; its lines.
Works = Callable[..., list[str]]


class Asked(NamedTuple):
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class Reply(NamedTuple):
    """What is answered."""

    status: int
    kind: str
    body: bytes


class Fake:
    """What is answered at which path, and what was asked."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.asked: list[Asked] = []
        self._replies: dict[tuple[str, str], Callable[[Asked], Reply]] = {}

    def says(self, path: str, document: Any, *, method: str = "GET", status: int = 200) -> None:
        """Answer with JSON; a callable makes the document from the request."""

        def reply(asked: Asked) -> Reply:
            found = document(asked) if callable(document) else document
            kind = "application/json" if status < 300 else "application/problem+json"
            return Reply(status, kind, json.dumps(found).encode())

        self._replies[method, path] = reply

    def shows(self, path: str, body: str | bytes, kind: str = "text/plain; charset=utf-8") -> None:
        """Answer with a text or bytes."""
        data = body.encode() if isinstance(body, str) else body
        self._replies["GET", path] = lambda _: Reply(200, kind, data)

    def reply(self, asked: Asked) -> Reply:
        """The answer to a request."""
        self.asked.append(asked)
        known = self._replies.get((asked.method, asked.path))
        if known is None:
            lost = json.dumps(problem(404, "not_found", "no such path"))
            return Reply(404, "application/problem+json", lost.encode())
        return known(asked)

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [asked.path for asked in self.asked]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 16


@contextmanager
def serving(folder: Path) -> Iterator[Fake]:
    """Serve on ``admin.sock`` in a folder, with a status and a page of metrics that are as good as any."""
    path = folder / "admin.sock"
    fake = Fake(f"unix:{path}")
    fake.says("/status", status())
    fake.shows("/metrics", "")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def answer(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): text for name, text in self.headers.items()}
            asked = Asked(
                self.command, split.path, dict(parse_qsl(split.query)), json.loads(body) if body else None, headers
            )
            reply = fake.reply(asked)
            self.send_response(reply.status)
            self.send_header("content-type", reply.kind)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = answer

    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


# -- Documents, as the admin listener makes them


def problem(status: int, reason: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": "No", "status": status, "reason": reason, "detail": detail}


def worker(number: int = 1, **more: Any) -> dict[str, Any]:
    plain = {
        "number": number,
        "pid": 4000 + number,
        "generation": 0,
        "state": "ready",
        "age": 3600.0,
        "beat_age": 0.2,
        "connections": 12,
        "served": 3456,
    }
    return plain | more


def status(**more: Any) -> dict[str, Any]:
    plain = {
        "instance": "web-1:8000",
        "pid": 4000,
        "version": "0.1.0",
        "state": "serving",
        "started": True,
        "ready": True,
        "workers": [worker(1), worker(2)],
        "countdown": None,
        "upgrades": 0,
        "changing": False,
        "problem": None,
    }
    return plain | more


def connection(number: int = 17, **more: Any) -> dict[str, Any]:
    plain = {
        "worker": 1,
        "id": number,
        "peer": "192.0.2.7:50123",
        "listener": "127.0.0.1:8000",
        "protocol": "http",
        "kind": "request",
        "phase": "handler",
        "method": "GET",
        "path": f"/items/{number}",
        "route": "/items/{id}",
        "age": 75.25,
        "idle": 1.5,
        "requests": 3,
        "bytes_in": 812,
        "bytes_out": 1_234_567,
        "buffered": 0,
        "blocked": False,
        "reading_paused": False,
        "deadline": "response_start",
        "deadline_in": 58.5,
        "rtt": None,
        "suspicious": "",
    }
    return plain | more


def task(number: int = 5, **more: Any) -> dict[str, Any]:
    plain = {
        "worker": 1,
        "id": number,
        "name": f"Task-{number}",
        "coroutine": "poll",
        "created": "/srv/web.py:12 in start",
        "age": 30.0,
        "owner": "application",
        "connection": None,
        "route": "",
        "state": "waiting",
        "waiting": "/srv/web.py:20 in poll",
        "waits_for": "sleep",
        "parent": None,
        "retained": False,
        "stack": [["poll", "/srv/web.py", 20]],
    }
    return plain | more


def leak(**more: Any) -> dict[str, Any]:
    plain = {
        "worker": 1,
        "kind": "task",
        "what": "refresh",
        "created": "/srv/web.py:31 in handler",
        "waiting": "/srv/web.py:40 in refresh",
        "owner": "connection 12 GET /slow",
        "age": 61.0,
        "known": 7,
        "alive": 3,
        "first_seen": 1_700_000_000.0,
        "last_seen": 1_700_000_100.0,
        "holder": "",
        "stack": [["refresh", "/srv/web.py", 40]],
    }
    return plain | more


def leaks(*found: dict[str, Any], overdue: tuple[dict[str, Any], ...] = (), **counts: Any) -> dict[str, Any]:
    plain = {
        "worker": 1,
        "leases": {},
        "descriptors": {"open": 23, "limit": 1024, "unexplained": 3, "noting": False},
        "growth": [],
        "retained": 0,
        "left_out": 0,
    }
    return {"leaks": list(found), "overdue": list(overdue), "counts": [plain | counts], "workers": {"1": "ok"}}


def setting(key: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": value, "unit": "", "text": str(value), "origin": "default", "change": "live"} | more
