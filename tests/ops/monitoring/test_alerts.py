"""Each alert fires when it must, and is silent when all that is wrong is close to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sojourn.ops.monitoring.alerts.model import RUNBOOK, Alert
from sojourn.ops.monitoring.files import ALERTS, export
from tests.ops.monitoring.cases import CALM, CASES
from tests.ops.monitoring.prometheus import needs_promtool, promtool, rule_test, series

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / RUNBOOK
EVERY = [alert for alerts in ALERTS.values() for alert in alerts]


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("monitoring")
    return [path for path in export(folder) if path.suffix == ".yml"]


def firing(given: Mapping[str, str], minute: int, select: str, expected: int) -> dict[str, Any]:
    """A test: how many alerts that these matchers choose fire in a minute."""
    samples = [{"labels": "{}", "value": expected}] if expected else []
    asked = {
        "expr": f'count(ALERTS{{alertstate="firing",{select}}})',
        "eval_time": f"{minute}m",
        "exp_samples": samples,
    }
    return {"interval": "1m", "input_series": series(given), "promql_expr_test": [asked]}


def test_every_tier_of_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted((alert.name, alert.severity) for alert in EVERY)


@needs_promtool
@pytest.mark.parametrize(("name", "severity"), CASES)
def test_an_alert_fires_and_is_silent_close_to_it(name: str, severity: str, rules: list[Path], tmp_path: Path) -> None:
    case = CASES[name, severity]
    this = f'alertname="{name}",severity="{severity}"'
    tests = [firing(case.fires, case.minute, this, 1), firing(case.silent, case.quiet or case.minute, this, 0)]
    code, said = rule_test(tmp_path, rules, tests, long=case.long)
    assert code == 0, said


@needs_promtool
def test_a_server_with_which_all_is_well_sets_off_nothing(rules: list[Path], tmp_path: Path) -> None:
    code, said = rule_test(tmp_path, rules, [firing(CALM, minute, 'alertname=~".+"', 0) for minute in (1, 10, 30, 58)])
    assert code == 0, said


@needs_promtool
def test_the_texts_of_every_alert_are_complete_when_it_fires(rules: list[Path], tmp_path: Path) -> None:
    """An expectation that nothing meets makes promtool tell what it got."""
    said = ""
    for long in (False, True):
        tests = [
            {
                "interval": "1m",
                "input_series": series(case.fires),
                "alert_rule_test": [{"alertname": name, "eval_time": f"{case.minute}m", "exp_alerts": []}],
            }
            for (name, _), case in CASES.items()
            if case.long is long
        ]
        said += rule_test(tmp_path, rules, tests, long=long)[1]
    texts = dict(re.findall(r"Labels:\{(.*)\}\n +Annotations:\{(.*)\}", said))
    for name, severity in CASES:
        (text,) = [
            text for labels, text in texts.items() if f'"{name}"' in labels and f'severity="{severity}"' in labels
        ]
        assert "a:9000" in text
        assert not re.search(r"<error|<no value>|\{\{|\}\}", text), text


@needs_promtool
def test_prometheus_accepts_all_rules(rules: list[Path]) -> None:
    code, said = promtool("check", "rules", *map(str, rules))
    assert code == 0, said
    assert said.count("SUCCESS") == 2


@pytest.mark.parametrize("alert", EVERY, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_says_what_is_wrong_where_and_what_to_do(alert: Alert) -> None:
    assert "{{ $labels.instance }}" in alert.summary
    assert alert.description.count(".") >= 1
    assert len(alert.description) > 80


def test_every_alert_has_its_section_on_the_page_it_links_to_and_every_section_its_alert() -> None:
    headings = re.findall(r"^### (Sojourn\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted({alert.name for alert in EVERY})
    assert {heading.lower() for heading in headings} == {alert.anchor for alert in EVERY}
