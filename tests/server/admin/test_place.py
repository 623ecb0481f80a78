"""Where the admin listener listens, and how its own server is set."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sojourn.asgi.overrides import RouteTable
from sojourn.clock import SystemClock
from sojourn.config import Admin, App, Config
from sojourn.errors import BindError, ConfigError
from sojourn.net.bind import release
from sojourn.server.admin.app import routes
from sojourn.server.admin.audit import Audit
from sojourn.server.admin.place import admin_config, bind_admin
from sojourn.server.admin.profiles import MOST_SECONDS


def test_without_admin_bind_there_is_no_listener() -> None:
    assert bind_admin(Config()) == []


def test_a_unix_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    config = Config(admin=Admin(bind=f"unix:{path}"))
    sockets = bind_admin(config)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for sock in sockets:
        sock.close()
    release(sockets, admin_config(config).bind)


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


NONSENSE = ["", "9000", ":9000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "::1:9000", "unix:"]
OTHERS = ["0.0.0.0:9000", "[::]:9000", "192.0.2.1:9000", "example.com:9000"]


@pytest.mark.parametrize("bind", [*NONSENSE, *OTHERS, "127.0.0.1,0.0.0.0:9000"])
def test_what_is_not_this_machine_alone_is_refused_with_the_key(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"^admin\.bind: ") as caught:
        bind_admin(Config(admin=Admin(bind=bind)))
    assert caught.value.key == "admin.bind"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bind", OTHERS)
def test_where_others_can_connect_a_token_is_needed_and_enough(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"set admin\.token"):
        admin_config(Config(admin=Admin(bind=bind)))
    assert admin_config(Config(admin=Admin(bind=bind, token="s3cret"))).bind.port == 9000


@pytest.mark.parametrize("bind", [*NONSENSE, "127.0.0.1,0.0.0.0:9000"])
def test_a_token_does_not_make_sense_of_nonsense(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"^admin\.bind: "):
        admin_config(Config(admin=Admin(bind=bind, token="s3cret")))


@pytest.mark.parametrize("token", ["", "two words", "grün", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match=r"^admin\.token: ") as caught:
        admin_config(Config(admin=Admin(bind="127.0.0.1:9000", token=token)))
    assert not token or token not in str(caught.value)


def test_with_a_token_every_address_is_listened_on() -> None:
    (sock,) = bind_admin(Config(admin=Admin(bind="0.0.0.0:0", token="s3cret")))
    with sock:
        assert sock.getsockname()[0] == "0.0.0.0"


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
    watched = config.diagnostics
    assert [watched.metrics, watched.tasks, watched.leaks, watched.watchdog] == [False] * 4


def test_answers_may_take_as_long_as_what_they_wait_for() -> None:
    table = RouteTable(admin_config(Config()))
    quick = {"/livez", "/readyz", "/startupz", "/status", "/drain", "/restart", "/upgrade"}
    for route in routes(Audit(None, SystemClock())):
        overrides = table.match(route.method, route.path)
        seconds = overrides.timeouts.get("response_start") if overrides is not None else None
        if route.path in quick:
            assert seconds is None, route.path  # 5 s, as all else of this listener
        elif route.path.startswith("/debug/pprof/"):
            assert seconds is not None
            assert seconds > MOST_SECONDS + 77, route.path
        else:
            assert seconds is not None
            assert seconds >= 30, route.path
