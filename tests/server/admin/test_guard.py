"""Who may use the admin listener: no browser, no stranger, nobody without the token, and who may hurt clients."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from sojourn.config import Admin, Config
from sojourn.net.bind import release
from sojourn.server.admin.app import admin_app
from sojourn.server.admin.place import admin_config, bind_admin
from sojourn.server.server import Server
from tests.server.admin.fleet import FakeFleet, ask

TOKEN = Admin(token="s3cret-token")
REMOTE = Admin(token="s3cret-token", bind="0.0.0.0:9000")
BEARER = "authorization: Bearer s3cret-token"


@pytest.mark.parametrize("header", ["origin: http://localhost", "origin: null", "sec-fetch-site: same-origin"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/drain"), ("GET", "/status")])
@pytest.mark.parametrize("settings", [Admin(), TOKEN, REMOTE])
def test_a_browser_is_refused(method: str, path: str, header: str, settings: Admin) -> None:
    fleet = FakeFleet()
    assert ask(fleet, path, header, BEARER, method=method, settings=settings).status == 403
    assert fleet.done == []


def test_an_address_typed_into_a_browser_is_read_and_never_carried_out() -> None:
    fleet = FakeFleet()
    assert ask(fleet, "/status", "sec-fetch-site: none", settings=Admin()).status == 200
    assert ask(fleet, "/drain", "sec-fetch-site: none", method="POST", settings=Admin()).status == 403
    assert ask(fleet, "/status", "sec-fetch-site: none", "origin: null", settings=Admin()).status == 403
    assert fleet.done == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9000", "localhost.evil.example", "192.0.2.2", "[::2]"])
@pytest.mark.parametrize("settings", [Admin(), TOKEN])
def test_a_name_that_anybody_can_give_to_this_machine_is_refused(host: str, settings: Admin) -> None:
    fleet = FakeFleet()
    assert ask(fleet, "/drain", BEARER, method="POST", host=host, settings=settings).status == 403
    assert ask(fleet, "/status", BEARER, host=host, settings=settings).status == 403
    assert fleet.done == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:9000", "127.1.2.3", "[::1]:9000", None])
def test_the_names_of_this_machine_are_accepted(host: str | None) -> None:
    assert ask(FakeFleet(), "/drain", method="POST", host=host).status == 202


def test_where_others_connect_any_name_will_do_and_the_token_decides() -> None:
    assert ask(FakeFleet(), "/status", BEARER, host="admin.internal:9000", settings=REMOTE).status == 200
    assert ask(FakeFleet(), "/status", host="admin.internal:9000", settings=REMOTE).status == 401


@pytest.mark.parametrize(
    "header", ["x: y", "authorization: Bearer wrong", "authorization: Bearer", "authorization: Basic s3cret-token"]
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/drain"), ("GET", "/status"), ("GET", "/nothing")])
def test_without_the_token_nothing_is_shown_and_nothing_done(method: str, path: str, header: str) -> None:
    fleet = FakeFleet()
    answer = ask(fleet, path, header, method=method, settings=TOKEN)
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    assert json.loads(answer.body)["reason"] == "unauthorized"
    assert b"s3cret" not in answer.body
    assert fleet.done == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_token_all_is_as_usual(scheme: str) -> None:
    assert ask(FakeFleet(), "/status", f"authorization: {scheme} s3cret-token", settings=TOKEN).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_probes_need_no_token(path: str) -> None:
    assert ask(FakeFleet(), path, settings=TOKEN).status == 200


@pytest.mark.parametrize(
    "path", ["/config", "/connections/1-7/close", "/hub/disconnect?user=ada", "/journal/retry?kind=export"]
)
def test_what_can_hurt_who_is_connected_needs_the_key_that_is_named(path: str) -> None:
    fleet = FakeFleet({"close": lambda *_: {}})
    answer = ask(fleet, path, method="POST", body=b'{"timeouts.header": 5}')
    said = json.loads(answer.body)
    assert (answer.status, said["reason"]) == (403, "actions_off")
    assert "admin.actions" in said["detail"]
    assert fleet.asked == fleet.changed == []


@pytest.mark.parametrize("command", ["drain", "restart", "upgrade"])
def test_what_a_signal_does_needs_no_such_key(command: str) -> None:
    assert ask(FakeFleet(), f"/{command}", method="POST").status == 202


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/drain", "/restart", "/upgrade", "/log-level", "/connections/1-7/close", "/hub/disconnect"]
)
def test_a_command_needs_post(path: str, method: str) -> None:
    fleet = FakeFleet()
    answer = ask(fleet, path, method=method, settings=Admin(actions=True))
    assert (answer.status, answer.header("allow")) == (405, "POST")
    assert fleet.done == []
    assert fleet.asked == []


def test_over_a_unix_socket_a_client_needs_no_name_and_is_known_by_its_user(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    audit = tmp_path / "audit.jsonl"
    config = Config(admin=Admin(bind=f"unix:{path}", audit=str(audit)))
    fleet = FakeFleet()

    async def main() -> list[bytes]:
        sockets = bind_admin(config)
        server = Server(admin_app(fleet, config.admin), admin_config(config), sockets=sockets)
        answers = []
        async with asyncio.timeout(10):
            async with server:
                for headers in ("Host: sojourn\r\n", "Host: localhost\r\nOrigin: http://localhost\r\n"):
                    reader, writer = await asyncio.open_unix_connection(str(path))
                    writer.write(f"POST /drain HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                    answers.append(await reader.read())
                    writer.close()
                    await writer.wait_closed()
            release(sockets, admin_config(config).bind)
        return answers

    accepted, browser = asyncio.run(main())
    assert accepted.startswith(b"HTTP/1.1 202 ")
    assert browser.startswith(b"HTTP/1.1 403 ")
    assert fleet.done == ["drain"]
    assert not path.exists()
    (line,) = audit.read_text().splitlines()
    assert json.loads(line)["who"] == f"uid {os.getuid()} (pid {os.getpid()})"
