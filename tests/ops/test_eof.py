"""``sojourn eof``: who hangs up, and after how long without a byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sojourn.cli.main import main
from sojourn.observe.endings.reading import Settings
from sojourn.observe.endings.report import report
from sojourn.observe.endings.tally import Kind
from sojourn.ops.eof import age_of
from tests.ops.fake import Fake, serving

MINUTE = 1_700_000_040
IDLE = Kind("http", "keep_alive_closed_by_client", "idle", 60.0)
LEFT = Kind("http", "client_closed_request", "handler", 2.0)


def told(*kinds: tuple[Kind, int]) -> dict[str, Any]:
    """The report of all workers, as the admin listener passes it on."""
    counted = [(MINUTE, dict(kinds))] if kinds else []
    made = report(counted, MINUTE - 600.0, MINUTE + 60.0, Settings(75.0, 60.0, 20.0))
    rows = [row._asdict() for row in made.rows]
    minutes = [{**minute._asdict(), "counts": [each._asdict() for each in minute.counts]} for minute in made.minutes]
    document = {**msgspec.structs.asdict(made), "rows": rows, "minutes": minutes, "workers": {"1": "ok", "2": "ok"}}
    return document


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as fake:
        monkeypatch.setenv("SOJOURN_ADMIN_BIND", fake.place)
        fake.says("/eof", told((IDLE, 90), (LEFT, 10)))
        yield fake


def test_each_way_to_end_has_its_share_and_how_long_nothing_was_said_before(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eof"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "100 connections ended in the last 11 min"
    assert out[3].split() == "90 90% keep_alive_closed_by_client idle http client none 60 s 60 s".split()
    assert out[4].split()[:4] == ["10", "10%", "client_closed_request", "handler"]


def test_what_it_means_is_said_below(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eof"]) == 0
    assert "90 of 90 idle HTTP connections were closed by the other side after about 60 s" in capsys.readouterr().out


def test_minutes_are_shown_when_asked_for(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eof", "--minutes", "--worker", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[7].split() == "22:14 100 90 keep_alive_closed_by_client, 10 client_closed_request".split()
    assert fake.asked[0].query == {"worker": "1"}


def test_json_is_what_the_server_said(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eof", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 100


def test_an_hour_without_an_end_is_one_line(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/eof", told())
    assert main(["eof", "--minutes"]) == 0
    assert capsys.readouterr().out == "0 connections ended in the last 11 min\n"


def test_an_age_is_the_first_that_the_share_does_not_exceed() -> None:
    ages = [(1.0, 5), (2.0, 4), (60.0, 1)]
    assert [age_of(ages, share) for share in (0.5, 0.51, 0.9, 1.0)] == [1.0, 2.0, 2.0, 60.0]
    assert age_of([], 0.5) is None
