"""Probes about all workers, the state of the whole, its settings: answered without asking a worker."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sojourn.config import Admin, Config, Registration, Route, Timeouts
from sojourn.server.reconfigure import plan
from tests.server.admin.fleet import COUNTDOWN, LEAVING, READY, STARTING, FakeFleet, ask

# -- probes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_all_is_well_in_two_letters(path: str, method: str) -> None:
    answer = ask(FakeFleet(), path, method=method)
    assert (answer.status, answer.body) == (200, b"ok" if method == "GET" else b"")


def test_all_is_well_in_json_for_who_accepts_it() -> None:
    assert json.loads(ask(FakeFleet(), "/readyz", "accept: application/json").body) == {"status": "ok"}


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
    answer = ask(FakeFleet(**status), "/readyz")
    said = json.loads(answer.body)
    assert (answer.status, said["reason"], said["instance"]) == (503, reason, "a:8000")
    assert answer.header("content-type") == "application/problem+json"
    assert ask(FakeFleet(**status), "/livez").status == 200


def test_readiness_in_a_drain_shows_the_countdown() -> None:
    said = json.loads(ask(FakeFleet(state="draining", countdown=COUNTDOWN), "/readyz").body)
    assert said["countdown"] == COUNTDOWN._asdict()


def test_a_worker_that_is_replaced_does_not_make_the_whole_unready() -> None:
    assert ask(FakeFleet(workers=(LEAVING, READY)), "/readyz").status == 200


def test_the_start_is_over_once_the_first_workers_were_ready_whatever_comes_then() -> None:
    assert ask(FakeFleet(state="starting", started=False), "/startupz").status == 503
    assert ask(FakeFleet(workers=()), "/startupz").status == 200
    assert ask(FakeFleet(state="draining"), "/startupz").status == 200


# -- state


def test_status_shows_the_supervisor_and_its_workers() -> None:
    answer = ask(FakeFleet(workers=(READY, STARTING)), "/status")
    assert answer.header("content-type") == "application/json"
    assert json.loads(answer.body) == {
        "instance": "a:8000",
        "pid": 100,
        "version": "1.2.3",
        "state": "serving",
        "started": True,
        "ready": True,
        "config_version": 1,
        "workers": [READY._asdict(), STARTING._asdict()],
        "countdown": None,
        "upgrades": 0,
        "changing": False,
        "problem": None,
    }


def test_pretty_is_the_same_document_in_lines() -> None:
    plain, pretty = (ask(FakeFleet(), path).body for path in ("/status", "/status?pretty"))
    assert json.loads(plain) == json.loads(pretty)
    assert b"\n" not in plain
    assert pretty.startswith(b'{\n  "instance"')


def test_the_page_of_metrics_is_made_for_what_the_client_accepts() -> None:
    answer = ask(FakeFleet(), "/metrics", "accept: application/openmetrics-text")
    assert (answer.body, answer.header("content-type")) == (
        b"up 1\n",
        "text/plain; accept=application/openmetrics-text",
    )


def test_every_setting_is_shown_with_its_origin_and_when_a_change_takes_effect() -> None:
    document = json.loads(ask(FakeFleet(), "/config").body)
    shown = {each["key"]: each for each in document["settings"]}
    assert document["version"] == 1
    assert shown["timeouts.header"] == {
        "key": "timeouts.header",
        "value": 10.0,
        "text": "10 s",
        "unit": "s",
        "default": 10.0,
        "layer": "default",
        "origin": "default",
        "change": "new",
        "doc": shown["timeouts.header"]["doc"],
    }


def test_a_setting_that_was_changed_by_hand_names_who_did_it() -> None:
    fleet = FakeFleet()
    running = fleet.config()
    running.adopt(plan(running.config, {"timeouts.header": 5}), "uid 1000 (pid 7)")
    document = json.loads(ask(fleet, "/config?key=timeouts.header").body)
    (shown,) = document["settings"]
    assert (document["version"], shown["value"], shown["origin"]) == (2, 5.0, "version 2 by uid 1000 (pid 7)")


def test_settings_can_be_had_by_group_or_only_those_that_differ() -> None:
    config = Config(timeouts=Timeouts(header=3.0), routes=(Route(path="/slow", timeouts={"handler": 1.0}),))
    groups = {each["key"].partition(".")[0] for each in _settings(config, "/config?key=timeouts")}
    assert groups == {"timeouts"}
    differ = [each["key"] for each in _settings(config, "/config?changed")]
    assert differ == ["timeouts.header", "routes[0].path", "routes[0].timeouts.handler"]


def _settings(config: Config, path: str) -> Any:
    return json.loads(ask(FakeFleet(config=config), path).body)["settings"]


@pytest.mark.parametrize("path", ["/config", "/debug/vars"])
def test_secrets_are_never_shown(path: str) -> None:
    secrets = {"admin.token": "hidden-1", "registration.token": "hidden-2", "tls.key_password": "hidden-3"}
    config = Config(admin=Admin(token="hidden-1"), registration=Registration(token="hidden-2"))
    config = msgspec.structs.replace(config, tls=msgspec.structs.replace(config.tls, key_password="hidden-3"))
    answer = ask(FakeFleet(config=config), path)
    assert answer.status == 200
    assert [secret for secret in secrets.values() if secret.encode() in answer.body] == []


def test_vars_hold_all_that_is_known_without_a_worker() -> None:
    document = json.loads(ask(FakeFleet(), "/debug/vars").body)
    assert document["status"]["instance"] == "a:8000"
    assert document["config"]["settings"]["timeouts.header"] == 10.0
    assert document["process"]["memory_peak_bytes"] > 1 << 20
    assert document["cmdline"]


# -- paths


@pytest.mark.parametrize("path", ["/livez", "/status"])
def test_what_is_read_is_not_posted(path: str) -> None:
    answer = ask(FakeFleet(), path, method="POST")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    assert answer.header("content-type") == "application/problem+json"


def test_an_unknown_path_is_told_what_there_is() -> None:
    answer = ask(FakeFleet(), "/unknown")
    assert answer.status == 404
    detail = json.loads(answer.body)["detail"]
    assert "/readyz" in detail
    assert "POST /drain" in detail


def test_an_unknown_argument_is_told_what_there_is() -> None:
    answer = ask(FakeFleet(), "/config?keys=timeouts")
    assert answer.status == 400
    assert "changed, key, pretty, worker" in json.loads(answer.body)["detail"]


def test_a_websocket_is_refused() -> None:
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    assert ask(FakeFleet(), "/status", *upgrade, "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==").status == 403
