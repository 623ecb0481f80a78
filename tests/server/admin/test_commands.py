"""Commands: given once, recorded first, and answered with what came of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.config import Admin, Config
from sojourn.errors import ErrandError
from sojourn.server.admin.app import admin_app
from sojourn.server.admin.place import admin_config
from sojourn.testing import MemoryServer
from tests.server.admin.fleet import COUNTDOWN, READY, SECOND, FakeFleet, ask

ACTIONS = Admin(actions=True)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("command", ["drain", "restart", "upgrade"])
def test_a_command_is_accepted_and_given_once(command: str) -> None:
    fleet = FakeFleet()
    answer = ask(fleet, f"/{command}", method="POST")
    assert answer.status == 202
    assert json.loads(answer.body) == {"command": command, "instance": "a:8000"}
    assert fleet.done == [command]


@pytest.mark.parametrize("command", ["restart", "upgrade"])
def test_nothing_is_restarted_in_a_drain(command: str) -> None:
    fleet = FakeFleet(state="draining", countdown=COUNTDOWN)
    assert ask(fleet, f"/{command}", method="POST").status == 409
    assert ask(fleet, "/drain", method="POST").status == 202
    assert fleet.done == ["drain"]


def test_a_command_that_nobody_can_carry_out_says_why() -> None:
    class Alone(FakeFleet):
        def restart(self) -> None:
            raise ErrandError(409, "no_supervisor", "this process serves alone")

    answer = ask(Alone(), "/restart", method="POST")
    assert (answer.status, json.loads(answer.body)["reason"]) == (409, "no_supervisor")


# -- settings


def configure(fleet: FakeFleet, body: object, settings: Admin = ACTIONS, path: str = "/config") -> tuple[int, Any]:
    answer = ask(fleet, path, method="POST", body=json.dumps(body).encode(), settings=settings)
    return answer.status, json.loads(answer.body)


def test_settings_are_changed_and_the_answer_says_from_what_to_what() -> None:
    fleet = FakeFleet()
    status, said = configure(fleet, {"timeouts.header": "5s", "limits.queue": 7})
    assert status == 200
    assert said == {
        "version": 2,
        "changes": {"timeouts.header": [10.0, 5.0], "limits.queue": [100, 7]},
        "live": ["limits.queue"],
        "new": ["timeouts.header"],
        "warnings": ["limits.queue has no effect: limits.requests is none"],
    }
    assert fleet.changed == [({"timeouts.header": "5s", "limits.queue": 7}, "192.0.2.1:1024")]
    assert fleet.config().config.timeouts.header == 5.0


@pytest.mark.parametrize(
    ("body", "status", "reason", "told"),
    [
        ({"timeouts.headr": 5}, 400, "unknown_setting", "did you mean timeouts.header?"),
        ({"timeouts.header": -1}, 400, "bad_setting", "a duration above 0"),
        ({"bind.port": 1, "app.target": "a:b"}, 409, "needs_restart", "bind.port, app.target can't change"),
        ({}, 400, "bad_body", "timeouts.header"),
        ([], 400, "bad_body", "JSON object"),
    ],
)
def test_a_change_that_can_not_be_made_changes_nothing_and_says_why(
    body: Any, status: int, reason: str, told: str
) -> None:
    fleet = FakeFleet()
    got, said = configure(fleet, body)
    assert (got, said["reason"]) == (status, reason)
    assert told in said["detail"]
    assert fleet.changed == []


def test_the_level_of_the_log_can_be_changed_without_admin_actions() -> None:
    fleet = FakeFleet()
    status, said = configure(fleet, {"level": "debug"}, Admin(), "/log-level")
    assert (status, said["changes"]) == (200, {"log.level": ["info", "debug"]})
    assert configure(fleet, {"level": "loud"}, Admin(), "/log-level")[0] == 400
    assert configure(fleet, {"level": "info", "timeouts.header": 1}, Admin(), "/log-level")[0] == 400
    assert fleet.config().config.log.level == "debug"


# -- connections


def test_a_connection_is_ended_by_its_worker() -> None:
    fleet = FakeFleet({"close": lambda *_: {"id": 17, "how": "ended"}})
    answer = ask(fleet, "/connections/1-17/close?now&code=4000", method="POST", settings=ACTIONS)
    assert (answer.status, json.loads(answer.body)) == (200, {"id": 17, "how": "ended"})
    assert fleet.asked == [(1, "close", {"id": 17, "now": True, "code": 4000}, 5.0)]


@pytest.mark.parametrize("path", ["/connections/17/close", "/connections/a-b/close", "/connections/1-2-3/close"])
def test_what_is_no_name_of_a_connection_is_no_path(path: str) -> None:
    assert ask(FakeFleet(), path, method="POST", settings=ACTIONS).status == 404


# -- members of hubs


def test_members_are_ended_on_all_workers_and_counted_together() -> None:
    fleet = FakeFleet({"hub_disconnect": lambda worker, _: {"ended": worker}}, workers=(READY, SECOND))
    answer = ask(fleet, "/hub/disconnect?user=ada&code=4000", method="POST", settings=ACTIONS)
    assert (answer.status, json.loads(answer.body)) == (200, {"ended": 3, "workers": {"1": "ok", "2": "ok"}})
    assert [asked[:3] for asked in fleet.asked] == [
        (worker, "hub_disconnect", {"user": "ada", "code": 4000}) for worker in (1, 2)
    ]


def test_a_worker_that_does_not_answer_is_named_and_the_others_do_it() -> None:
    gone = ErrandError(504, "no_answer", "there was no answer within 5 s")
    answers = {"hub_disconnect": lambda worker, _: {"ended": 1} if worker == 1 else gone}
    answer = ask(
        FakeFleet(answers, workers=(READY, SECOND)), "/hub/disconnect?member=m7", method="POST", settings=ACTIONS
    )
    assert json.loads(answer.body) == {"ended": 1, "workers": {"1": "ok", "2": gone.detail}}


# -- records


def test_each_command_leaves_a_line_with_who_what_and_what_came_of_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = Admin(actions=True, audit=str(path))
    gone = ErrandError(404, "no_such_connection", "connection 9 is not open")
    fleet = FakeFleet({"close": lambda _, arguments: gone if arguments["id"] == 9 else {}})
    ask(fleet, "/drain", method="POST", settings=settings)
    configure(fleet, {"timeouts.header": 5}, settings)
    configure(fleet, {"bind.port": 5}, settings)
    for number in (8, 9):
        ask(fleet, f"/connections/1-{number}/close", method="POST", settings=settings)
    ask(fleet, "/status", settings=settings)
    ask(fleet, "/drain", "origin: http://localhost", method="POST", settings=settings)
    drained, changed, refused, closed, missing = lines(path)
    assert (drained["who"], drained["what"], drained["result"]) == ("192.0.2.1:1024", "drain", "ok")
    assert (changed["changes"], changed["result"]) == ({"timeouts.header": [10.0, 5.0]}, "ok")
    assert refused["keys"] == ["bind.port"]
    assert refused["result"].startswith("needs_restart: ")
    assert (closed["connection"], closed["result"]) == ("1-8", "ok")
    assert missing["result"] == "no_such_connection: connection 9 is not open"


def test_a_command_that_can_not_be_recorded_is_not_carried_out(tmp_path: Path) -> None:
    settings = Admin(actions=True, audit=str(tmp_path / "absent" / "audit.jsonl"))
    fleet = FakeFleet({"close": lambda *_: {}})
    for path, body in (("/drain", b""), ("/config", b'{"timeouts.header": 5}'), ("/connections/1-1/close", b"")):
        answer = ask(fleet, path, method="POST", body=body, settings=settings)
        assert (answer.status, json.loads(answer.body)["reason"]) == (503, "not_recorded")
    assert fleet.done == fleet.changed == fleet.asked == []


def test_a_secret_in_a_refused_change_is_in_no_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    configure(FakeFleet(), {"tls.key_password": "hidden"}, Admin(actions=True, audit=str(path)))
    assert "hidden" not in path.read_text()
    assert lines(path)[0]["keys"] == ["tls.key_password"]


def test_a_command_whose_body_does_not_come_whole_is_not_given() -> None:
    fleet = FakeFleet()

    async def main() -> None:
        settings = Admin()
        async with MemoryServer(admin_app(fleet, settings), admin_config(Config(admin=settings))) as server:
            client = server.connect()
            client.send(b"POST /drain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf")
            await server.settle()
            client.peer.close()
            await server.settle()

    asyncio.run(main())
    assert fleet.done == []
