"""The files of Grafana: complete, consistent, and what the descriptions say."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import sojourn.ops.monitoring
from sojourn.cli.main import main
from sojourn.ops.monitoring.dashboards.grafana import as_json
from sojourn.ops.monitoring.dashboards.model import Dashboard
from sojourn.ops.monitoring.files import DASHBOARDS, export, files

HERE = Path(sojourn.ops.monitoring.__file__).parent
#: Grafana's ids of units.
UNITS = {"short", "s", "bytes", "Bps", "percentunit", "reqps", "ops"}
each_board = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)


def document(board: Dashboard) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(as_json(board, DASHBOARDS))
    return read


def test_the_files_in_the_package_are_what_the_descriptions_say() -> None:
    there = {
        str(path.relative_to(HERE)): path.read_text() for path in HERE.rglob("*") if path.suffix in (".json", ".yml")
    }
    assert there == files(), "run: sojourn monitoring src/sojourn/ops/monitoring"


def test_an_export_writes_all_files_and_links_to_the_page_it_is_given(tmp_path: Path) -> None:
    written = export(tmp_path / "new", "https://wiki.example/sojourn")
    assert sorted(str(path.relative_to(tmp_path / "new")) for path in written) == sorted(files())
    alerts = (tmp_path / "new" / "prometheus" / "alerts.yml").read_text()
    assert '"https://wiki.example/sojourn#sojournleak"' in alerts
    assert export(tmp_path / "new", "https://wiki.example/sojourn") == written  # over the old ones


def test_the_command_writes_to_the_folder_it_is_given_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitoring", str(tmp_path)]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(str(tmp_path / name) for name in files())
    (tmp_path / "file").touch()
    assert main(["monitoring", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file'}")
    assert main(["monitoring"]) == 2
    assert "Missing argument 'DIR'" in capsys.readouterr().err


def test_the_command_links_to_the_page_it_is_given(tmp_path: Path) -> None:
    assert main(["monitoring", str(tmp_path), "--runbook", "https://wiki.example/sojourn"]) == 0
    assert '"https://wiki.example/sojourn#sojournleak"' in (tmp_path / "prometheus" / "alerts.yml").read_text()


@each_board
def test_every_panel_says_what_it_means_and_in_which_unit(board: Dashboard) -> None:
    panels = [panel for row in board.rows for panel in row.panels]
    for panel in panels:
        assert len(panel.description) > 15, panel.title
        assert panel.description != panel.title
        assert panel.unit in UNITS, panel.title
        assert [bound.value for bound in panel.bounds] == sorted(bound.value for bound in panel.bounds)
    titles = [(row.title, panel.title) for row in board.rows for panel in row.panels]
    assert len(titles) == len(set(titles))


@each_board
def test_panels_have_places_of_their_own(board: Dashboard) -> None:
    panels = document(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@each_board
def test_every_query_asks_the_chosen_source_about_the_chosen_servers(board: Dashboard) -> None:
    read = document(board)
    variables = {variable["name"]: variable for variable in read["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    for panel in read["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


@each_board
def test_a_dashboard_leads_to_the_others_and_keeps_time_and_servers(board: Dashboard) -> None:
    links = document(board)["links"]
    assert [link["url"] for link in links] == [f"/d/{other.uid}" for other in DASHBOARDS if other is not board]
    assert all(link["keepTime"] and link["includeVars"] for link in links)


def test_uids_are_what_grafana_allows() -> None:
    uids = [board.uid for board in DASHBOARDS]
    assert len(set(uids)) == len(DASHBOARDS) == 6
    assert all(len(uid) <= 40 for uid in uids)
