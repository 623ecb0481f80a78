"""What an alert is, and how it stands in a file of Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

__all__ = ["RUNBOOK", "Alert", "Recorded", "Severity", "group"]

Severity = Literal["info", "warning", "critical"]
#: The page that explains the alerts; the name of one, in small letters, is a section of it.
RUNBOOK: Final = "docs/how-to/monitor.md"


class Recorded(NamedTuple):
    """A recording rule.

    Attributes:
        name: As ``level:metric:operation``.
        expr: PromQL.
    """

    name: str
    expr: str


class Alert(NamedTuple):
    """An alert. One name may stand for several tiers, which differ in severity and bound.

    Attributes:
        name: Its name; the heading of its section in docs/how-to/monitor.md.
        severity: ``critical`` wakes somebody, ``warning`` is for this working day, ``info`` explains other alerts.
        expr: PromQL; what it returns fires.
        lasts: For how long it must be true, such as ``5m``; "" fires at once.
        summary: One line, with the value.
        description: What it means and what to do first.
    """

    name: str
    severity: Severity
    expr: str
    lasts: str
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """The section of the page that explains it."""
        return self.name.lower()


def group(name: str, rules: Sequence[Alert | Recorded], runbook: str = RUNBOOK) -> str:
    """A group of rules as YAML; texts are written as JSON strings, which YAML reads.

    Args:
        name: What it is called.
        rules: Those in it, in the order of their evaluation.
        runbook: Address of the page that explains the alerts.
    """
    lines = [f"  - name: {name}", "    rules:"]
    for rule in rules:
        lines += _recorded(rule) if isinstance(rule, Recorded) else _alert(rule, runbook)
    return "\n".join(lines) + "\n"


def _recorded(rule: Recorded) -> Iterable[str]:
    yield f"      - record: {rule.name}"
    yield f"        expr: {json.dumps(rule.expr)}"


def _alert(rule: Alert, runbook: str) -> Iterable[str]:
    yield f"      - alert: {rule.name}"
    yield f"        expr: {json.dumps(rule.expr)}"
    if rule.lasts:
        yield f"        for: {rule.lasts}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    yield f"          summary: {json.dumps(rule.summary)}"
    yield f"          description: {json.dumps(rule.description)}"
    yield f"          runbook_url: {json.dumps(f'{runbook}#{rule.anchor}')}"
