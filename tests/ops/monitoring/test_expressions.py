"""Every query and rule asks for metrics, labels and words that exist, in PromQL that Prometheus reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sojourn.ending import REASONS, Fault
from sojourn.observe.metrics.families import TABLE, Family, Join, Kind
from sojourn.ops.monitoring.alerts.service import RECORDED
from sojourn.ops.monitoring.dashboards.grafana import as_json
from sojourn.ops.monitoring.files import ALERTS, DASHBOARDS
from tests.ops.monitoring.prometheus import needs_promtool, promtool

#: Labels that Prometheus adds, and that of a histogram's buckets.
ADDED = {"job", "instance", "le", "severity"}
QUERIES = {
    f"{board.uid}: {panel.title} {index}": query
    for board in DASHBOARDS
    for row in board.rows
    for panel in row.panels
    for index, query in enumerate(panel.queries)
}
EXPRESSIONS = (
    {name: query.expr for name, query in QUERIES.items()}
    | {f"{rule.name} {rule.severity}": rule.expr for rules in ALERTS.values() for rule in rules}
    | {rule.name: rule.expr for rule in RECORDED}
)
_SELECTED = re.compile(r'(?<![:\w])((?:sojourn_|http_server_)\w+)(?:\{((?:[^"{}]|"[^"]*")*)\})?')
_MATCHER = re.compile(r'(\w+)(?:=~|!~|=|!=)"([^"]*)"')


def selected(expr: str) -> list[tuple[Family, dict[str, str]]]:
    """Families an expression asks for, and what it asks of their labels."""
    return [(family_of(name), dict(_MATCHER.findall(matchers))) for name, matchers in _SELECTED.findall(expr)]


def family_of(series: str) -> Family:
    """The family that a series belongs to."""
    for name in (series, re.sub("_(bucket|sum|count)$", "", series)):
        if name in TABLE and (name == series) != (TABLE[name].kind is Kind.HISTOGRAM):
            return TABLE[name]
    raise AssertionError(f"there is no metric {series}")


def labels(family: Family) -> set[str]:
    return {*family.labels, *ADDED, *(["worker"] if family.join is Join.WORKER else [])}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_and_label_that_is_asked_for_exists(name: str) -> None:
    expr = EXPRESSIONS[name]
    asked = selected(expr)
    assert asked or "sojourn:" in expr, "it asks for nothing"
    for family, matchers in asked:
        assert set(matchers) <= labels(family), family.name
    kept = {label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr) for label in re.findall(r"\w+", group)}
    known = ADDED.union(*(labels(family) for family, _ in asked))
    assert kept <= known


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_reason_and_fault_that_is_asked_for_exists(name: str) -> None:
    for _, matchers in selected(EXPRESSIONS[name]):
        for label, words in (("reason", set(REASONS)), ("fault", {fault.value for fault in Fault})):
            pattern = matchers.get(label, ".+")
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, word) for word in words), part


def test_rates_are_of_counters_and_histograms_alone() -> None:
    rated = re.compile(r"\b(?:rate|increase)\((\w+)")
    asked = {series for expr in EXPRESSIONS.values() for series in rated.findall(expr)}
    assert {series for series in asked if family_of(series).kind is Kind.GAUGE} == set()


def test_every_recorded_series_that_is_asked_for_is_recorded() -> None:
    asked = {found for expr in EXPRESSIONS.values() for found in re.findall(r"\bsojourn:\w+:\w+", expr)}
    assert asked <= {rule.name for rule in RECORDED}


@pytest.mark.parametrize("name", QUERIES)
def test_a_legend_names_labels_that_the_query_keeps(name: str) -> None:
    query = QUERIES[name]
    kept = {label for group in re.findall(r"\bby \(([^)]*)\)", query.expr) for label in re.findall(r"\w+", group)}
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= kept


def test_every_metric_is_shown_on_a_dashboard() -> None:
    shown = {family.name for query in QUERIES.values() for family, _ in selected(query.expr)}
    assert set(TABLE) - shown == set()


@needs_promtool
def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query{index}", "expr": expr.replace("$__rate_interval", "5m").replace("$__interval", "5m")}
        for index, expr in enumerate([*EXPRESSIONS.values(), *marks()])
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    code, said = promtool("check", "rules", str(file))
    assert code == 0, said
    assert f"{len(rules)} rules found" in said


def marks() -> list[str]:
    """Queries of the annotations."""
    board = json.loads(as_json(DASHBOARDS[0], DASHBOARDS))
    return [mark["expr"] for mark in board["annotations"]["list"]]
