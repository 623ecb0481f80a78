"""The admin listener: probes about all workers, the state of the whole, commands that no browser can give."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sojourn.config import Admin, App, Config
from sojourn.errors import BindError, ConfigError
from sojourn.net.bind import release
from sojourn.server.server import Server
from sojourn.server.workers.admin import Countdown, Status, WorkerStatus, admin_app, admin_config, bind_admin
from sojourn.testing import MemoryServer, Response

READY = WorkerStatus(1, 101, 0, "ready", 60.0, 0.1, 5, 42)
STARTING = WorkerStatus(2, 102, 0, "starting", 1.0, None, 0, 0)
LEAVING = WorkerStatus(3, 103, 0, "draining", 90.0, 0.2, 7, 99)
COUNTDOWN = Countdown("a:8000", "notice", 4.5, 3, 2, 1, 8)


class Supervisor:
    """Stands as it is told to, and remembers what it was asked to do."""

    def __init__(self, **status: Any) -> None:
        said = {"state": "serving", "started": True, "workers": (READY,), "countdown": None, **status}
        self._status = Status("a:8000", 100, "1.2.3", **said)
        self.done: list[str] = []

    def status(self) -> Status:
        return self._status

    def drain(self) -> None:
        self.done.append("drain")

    def restart(self) -> None:
        self.done.append("restart")

    def upgrade(self) -> None:
        self.done.append("upgrade")


def ask(
    supervisor: Supervisor, path: str, *headers: str, method: str = "GET", host: str | None = "localhost"
) -> Response:
    """What the admin listener answers over TCP."""

    async def main() -> Response:
        async with MemoryServer(admin_app(supervisor), admin_config(Config())) as server:
            client = server.connect()
            version = "1.1" if host is not None else "1.0"
            lines = [f"{method} {path} HTTP/{version}", *([f"host: {host}"] if host is not None else []), *headers]
            client.send("\r\n".join([*lines, "", ""]).encode())
            await server.settle()
            return client.response(method=method)

    return asyncio.run(main())


# -- probes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_all_is_well_in_two_letters(path: str, method: str) -> None:
    answer = ask(Supervisor(), path, method=method)
    assert (answer.status, answer.body) == (200, b"ok" if method == "GET" else b"")


def test_all_is_well_in_json_for_who_accepts_it() -> None:
    assert json.loads(ask(Supervisor(), "/readyz", "accept: application/json").body) == {"status": "ok"}


NOT_READY: dict[str, tuple[dict[str, Any], str]] = {
    "while the first workers start": ({"state": "starting", "started": False, "workers": (STARTING,)}, "starting"),
    "without a worker": ({"workers": ()}, "no_worker"),
    "without a worker that is ready": ({"workers": (STARTING, LEAVING)}, "no_worker"),
    "in a drain, although workers serve on": ({"state": "draining", "countdown": COUNTDOWN}, "draining"),
    "in a drain without figures": ({"state": "draining"}, "draining"),
}


@pytest.mark.parametrize("when", NOT_READY)
def test_readiness_says_no_and_why(when: str) -> None:
    status, reason = NOT_READY[when]
    answer = ask(Supervisor(**status), "/readyz")
    said = json.loads(answer.body)
    assert (answer.status, said["reason"], said["instance"]) == (503, reason, "a:8000")
    assert answer.header("content-type") == "application/problem+json"
    assert ask(Supervisor(**status), "/livez").status == 200


def test_readiness_in_a_drain_shows_the_countdown() -> None:
    said = json.loads(ask(Supervisor(state="draining", countdown=COUNTDOWN), "/readyz").body)
    assert said["countdown"] == {
        "instance": "a:8000",
        "phase": "notice",
        "left": 4.5,
        "requests": 3,
        "streams": 2,
        "sockets": 1,
        "idle": 8,
    }


def test_a_worker_that_is_replaced_does_not_make_the_whole_unready() -> None:
    assert ask(Supervisor(workers=(LEAVING, READY)), "/readyz").status == 200


def test_the_start_is_over_once_the_first_workers_were_ready_whatever_comes_then() -> None:
    assert ask(Supervisor(state="starting", started=False), "/startupz").status == 503
    assert ask(Supervisor(workers=()), "/startupz").status == 200
    assert ask(Supervisor(state="draining"), "/startupz").status == 200


# -- state and commands


def test_status_shows_the_supervisor_and_its_workers() -> None:
    answer = ask(Supervisor(workers=(READY, STARTING)), "/status")
    assert answer.header("content-type") == "application/json"
    assert json.loads(answer.body) == {
        "instance": "a:8000",
        "pid": 100,
        "version": "1.2.3",
        "state": "serving",
        "started": True,
        "ready": True,
        "workers": [READY._asdict(), STARTING._asdict()],
        "countdown": None,
        "upgrades": 0,
        "changing": False,
        "problem": None,
    }


@pytest.mark.parametrize("command", ["drain", "restart", "upgrade"])
def test_a_command_is_accepted_and_given_once(command: str) -> None:
    supervisor = Supervisor()
    answer = ask(supervisor, f"/{command}", method="POST")
    assert answer.status == 202
    assert json.loads(answer.body) == {"command": command, "instance": "a:8000"}
    assert supervisor.done == [command]


@pytest.mark.parametrize("command", ["restart", "upgrade"])
def test_nothing_is_restarted_in_a_drain(command: str) -> None:
    supervisor = Supervisor(state="draining")
    assert ask(supervisor, f"/{command}", method="POST").status == 409
    assert ask(supervisor, "/drain", method="POST").status == 202
    assert supervisor.done == ["drain"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_command_needs_post(method: str) -> None:
    supervisor = Supervisor()
    answer = ask(supervisor, "/drain", method=method)
    assert (answer.status, answer.header("allow")) == (405, "POST")
    assert supervisor.done == []


@pytest.mark.parametrize("path", ["/livez", "/status"])
def test_what_is_read_is_not_posted(path: str) -> None:
    answer = ask(Supervisor(), path, method="POST")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    assert answer.header("content-type") == "application/problem+json"


def test_an_unknown_path_is_told_what_there_is() -> None:
    answer = ask(Supervisor(), "/metrics")
    assert answer.status == 404
    assert "/readyz" in json.loads(answer.body)["detail"]


# -- who may ask


@pytest.mark.parametrize("header", ["origin: http://localhost", "origin: null", "sec-fetch-site: same-origin"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/drain"), ("GET", "/status")])
def test_a_browser_is_refused(method: str, path: str, header: str) -> None:
    supervisor = Supervisor()
    assert ask(supervisor, path, header, method=method).status == 403
    assert supervisor.done == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9000", "localhost.evil.example", "192.0.2.2", "[::2]"])
def test_a_name_that_anybody_can_give_to_this_machine_is_refused(host: str) -> None:
    supervisor = Supervisor()
    assert ask(supervisor, "/drain", method="POST", host=host).status == 403
    assert ask(supervisor, "/status", host=host).status == 403
    assert supervisor.done == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:9000", "127.1.2.3", "[::1]:9000", None])
def test_the_names_of_this_machine_are_accepted(host: str | None) -> None:
    assert ask(Supervisor(), "/drain", method="POST", host=host).status == 202


def test_a_websocket_is_refused() -> None:
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    assert ask(Supervisor(), "/status", *upgrade, "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==").status == 403


# -- where it listens


def test_without_admin_bind_there_is_no_listener() -> None:
    assert bind_admin(Config()) == []


def test_a_unix_socket_is_for_its_owner_only_and_its_clients_need_no_name(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    config = Config(admin=Admin(bind=f"unix:{path}"))

    async def main() -> list[bytes]:
        sockets = bind_admin(config)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        server = Server(admin_app(supervisor), admin_config(config), sockets=sockets)
        async with asyncio.timeout(10):
            async with server:
                answers = []
                for headers in ("Host: sojourn\r\n", "Host: localhost\r\nOrigin: http://localhost\r\n"):
                    reader, writer = await asyncio.open_unix_connection(str(path))
                    writer.write(f"POST /drain HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                    answers.append(await reader.read())
                    writer.close()
                    await writer.wait_closed()
            release(sockets, admin_config(config).bind)
        return answers

    supervisor = Supervisor()
    accepted, browser = asyncio.run(main())
    assert accepted.startswith(b"HTTP/1.1 202 ")
    assert browser.startswith(b"HTTP/1.1 403 ")
    assert supervisor.done == ["drain"]
    assert not path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_a_loopback_address_is_listened_on(host: str) -> None:
    sockets = bind_admin(Config(admin=Admin(bind=f"{host}:0")))
    try:
        assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "127.0.0.2", "::1"}
        assert sockets
    finally:
        for sock in sockets:
            sock.close()


def test_an_ipv6_address_is_written_in_brackets() -> None:
    bind = admin_config(Config(admin=Admin(bind="[::1]:9000"))).bind
    assert (bind.host, bind.port, bind.uds) == ("::1", 9000, None)


@pytest.mark.parametrize(
    "bind",
    [
        *["", "9000", ":9000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "::1:9000", "unix:"],
        *["0.0.0.0:9000", "[::]:9000", "192.0.2.1:9000", "example.com:9000", "127.0.0.1,0.0.0.0:9000"],
    ],
)
def test_what_is_not_this_machine_alone_is_refused_with_the_key(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"^admin\.bind: ") as caught:
        bind_admin(Config(admin=Admin(bind=bind)))
    assert caught.value.key == "admin.bind"
    assert "\n" not in str(caught.value)


def test_an_address_in_use_is_told_with_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port} is in use .* admin\.bind"):
            bind_admin(Config(admin=Admin(bind=f"127.0.0.1:{port}")))


def test_a_name_that_is_no_loopback_address_here_is_not_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(BindError, match=r"0\.0\.0\.0 here, which is no loopback address"):
        bind_admin(Config(admin=Admin(bind="localhost:0")))


def test_its_server_is_small_quick_and_silent() -> None:
    config = admin_config(Config(app=App(instance="a:8000"), admin=Admin(bind="127.0.0.1:0")))
    assert config.log.access == "off"
    assert config.drain.delay == 0
    assert config.limits.connections is not None
    assert config.limits.connections <= 100
    timeouts = config.timeouts
    for wait in (timeouts.header, timeouts.keep_alive, timeouts.response_start, timeouts.write_idle):
        assert wait is not None
        assert wait <= 5
