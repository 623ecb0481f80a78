"""All files, by their path in a folder of monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sojourn.ops.monitoring.alerts import connections as on_connections
from sojourn.ops.monitoring.alerts import hub as on_hub
from sojourn.ops.monitoring.alerts import journal as on_tasks
from sojourn.ops.monitoring.alerts import runtime as on_runtime
from sojourn.ops.monitoring.alerts import service as on_service
from sojourn.ops.monitoring.alerts.model import RUNBOOK, Alert, group
from sojourn.ops.monitoring.dashboards import connections, hub, journal, overload, overview, runtime
from sojourn.ops.monitoring.dashboards.grafana import as_json

__all__ = ["ALERTS", "DASHBOARDS", "export", "files"]

ALERTS: Final[Mapping[str, tuple[Alert, ...]]] = {
    "sojourn-service": on_service.ALERTS,
    "sojourn-connections": on_connections.ALERTS,
    "sojourn-hub": on_hub.ALERTS,
    "sojourn-tasks": on_tasks.ALERTS,
    "sojourn-runtime": on_runtime.ALERTS,
}
DASHBOARDS: Final = (
    overview.DASHBOARD,
    connections.DASHBOARD,
    hub.DASHBOARD,
    journal.DASHBOARD,
    overload.DASHBOARD,
    runtime.DASHBOARD,
)


def files(runbook: str = RUNBOOK) -> dict[str, str]:
    """Texts by path: ``grafana/*.json``, ``prometheus/rules.yml`` and ``prometheus/alerts.yml``.

    Args:
        runbook: Address of the page that explains the alerts; each links to its section there.
    """
    groups = "".join(group(name, rules, runbook) for name, rules in ALERTS.items())
    return {
        **{f"grafana/{board.uid}.json": as_json(board, DASHBOARDS) for board in DASHBOARDS},
        "prometheus/rules.yml": "groups:\n" + group("sojourn-recorded", on_service.RECORDED),
        "prometheus/alerts.yml": "groups:\n" + groups,
    }


def export(folder: Path, runbook: str = RUNBOOK) -> list[Path]:
    """Write all files to a folder, which is made; what stands there under these names is replaced.

    Args:
        folder: Where.
        runbook: Address of the page that explains the alerts.

    Returns:
        What was written.

    Raises:
        OSError: It can't be written.
    """
    written = []
    for name, text in files(runbook).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
