"""Dashboards as Grafana's JSON (schema 38, Grafana 10 and newer)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sojourn.ops.monitoring.dashboards.model import SERVERS, Dashboard, Panel, Row

__all__ = ["as_json"]

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24
_HEIGHT: Final = {"timeseries": 8, "stat": 4, "bargauge": 8, "table": 8}
#: What happened to a server, drawn as marks over all panels: title, query, colour, text.
_MARKS: Final = (
    ("Drain", f"max by (instance) (sojourn_drain_phase{{{SERVERS}}}) > 0", "orange", "{{instance}} drains"),
    (
        "Worker replaced",
        f"sum by (instance, cause) (increase(sojourn_worker_restarts_total{{{SERVERS}}}[$__interval])) > 0",
        "red",
        "{{instance}}: {{cause}}",
    ),
    (
        "Settings changed",
        f"max by (instance) (changes(sojourn_config_version{{{SERVERS}}}[$__interval])) > 0",
        "blue",
        "{{instance}}",
    ),
)


def as_json(board: Dashboard, every: Iterable[Dashboard]) -> str:
    """The text of a file that Grafana imports or provisions.

    Args:
        board: The dashboard.
        every: All of them; each links to the others.
    """
    document = {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": ["sojourn"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "links": [_link(other) for other in every if other.uid != board.uid],
        "annotations": {"list": [_mark(*mark) for mark in _MARKS]},
        "templating": {"list": _variables()},
        "panels": _panels(board.rows),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _link(other: Dashboard) -> dict[str, Any]:
    return {
        "type": "link",
        "title": other.title,
        "tooltip": other.description,
        "url": f"/d/{other.uid}",
        "keepTime": True,
        "includeVars": True,
        "targetBlank": False,
        "icon": "dashboard",
        "asDropdown": False,
        "tags": [],
    }


def _mark(name: str, expr: str, colour: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": _SOURCE,
        "enable": True,
        "expr": expr,
        "iconColor": colour,
        "titleFormat": name,
        "textFormat": text,
        "step": "60s",
    }


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "refresh": 1,
    }
    return [
        source,
        _labels("job", "Job", "label_values(sojourn_build_info, job)"),
        _labels("instance", "Instance", 'label_values(sojourn_build_info{job=~"$job"}, instance)'),
    ]


def _labels(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "regex": "",
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "refresh": 2,  # when the time range changes: instances come and go
        "sort": 1,
    }


def _panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Panels from left to right, row by row; a panel that does not fit goes below."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            }
        )
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            height = _HEIGHT[panel.kind]
            found.append(_panel(panel, len(found) + 1, {"x": x, "y": y, "w": panel.width, "h": height}))
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest
    return found


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("bargauge", "table")
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _field(panel: Panel) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *({"color": b.colour, "value": b.value} for b in panel.bounds)]
    field: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "mappings": [],
    }
    if panel.top is not None:
        field["max"] = panel.top
    if panel.kind == "timeseries":
        field["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.bounds else "off"},
        }
    return field


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {"reduceOptions": last, "colorMode": "background", "graphMode": "area", "textMode": "auto"}
    if panel.kind == "bargauge":
        return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
