"""``sojourn config``: every key with its value, unit and origin; and the reference page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sojourn.cli.main import main
from sojourn.cli.reference import reference
from sojourn.server.settings import keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["config", *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


def test_every_key_is_listed_with_its_value_unit_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "sojourn.toml").write_text("[limits]\nbody = '1MiB'\n")
    monkeypatch.setenv("SOJOURN_WEBSOCKET_QUEUE", "7")
    listed = lines(capsys, "web:app", "--header-timeout", "5s")
    assert [row[0] for row in listed] == list(keys())
    for row in (
        ["app.target", "web:app", "APP"],
        ["timeouts.header", "5", "s", "--header-timeout"],
        ["limits.body", "1", "MiB", "sojourn.toml:2"],
        ["websocket.queue", "7", "SOJOURN_WEBSOCKET_QUEUE"],
        ["timeouts.handler", "none", "default"],
    ):
        assert row in listed


def test_a_long_value_does_not_push_the_other_origins_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--tls-ciphers", "x" * 300]) == 0
    assert sorted(map(len, capsys.readouterr().out.splitlines()))[-2] < 100


def test_warnings_and_waits_without_a_deadline_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--header-timeout", "none", "--write-idle-timeout", "none", "--drain-requests", "2m"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: drain.requests (120 s) is cut short: drain.total is 90 s",
        "warning: 2 waits without a deadline: timeouts.header, timeouts.write_idle",
    ]


def test_json_has_raw_values_and_masks_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    secret = ["--tls-cert", "c", "--tls-key-password", "hunter2"]
    assert main(["config", "--json", "--header-timeout", "none", "--trusted-proxies", "::1", *secret]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    rows = {row.pop("key"): row for row in found["settings"]}
    assert list(rows) == list(keys())
    assert rows["timeouts.body_idle"] == {
        "value": 30.0,
        "unit": "s",
        "layer": "default",
        "origin": "default",
        "change": "new",
        "doc": keys()["timeouts.body_idle"].doc,
    }
    assert (rows["timeouts.header"]["value"], rows["timeouts.header"]["origin"]) == (None, "--header-timeout")
    assert rows["proxy.trusted"]["value"] == ["::1"]
    assert found["waits_without_deadline"] == ["timeouts.header"]
    assert found["warnings"] == []
    assert rows["tls.key_password"]["value"] == "***"
    assert "hunter2" not in text


def test_the_reference_page_is_the_generated_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == reference()
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: sojourn config --markdown > docs/reference/configuration.md"
    )


def test_the_reference_page_does_not_depend_on_the_settings_of_the_place(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "sojourn.toml").write_text("[bogus]\n")
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == reference()


def test_the_example_of_the_reference_page_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = reference().partition("```toml\n")[2].partition("```")[0]
    (folder / "sojourn.toml").write_text(example)
    listed = lines(capsys)
    assert ["timeouts.handler", "30", "s", "sojourn.toml:3"] in listed
    assert ["routes[0].limits.body", "1", "GiB", "sojourn.toml:12"] in listed
