"""Prometheus' own tool, as the judge of rules and queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["needs_promtool", "promtool", "rule_test", "series"]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)
_LABELS: Final = 'job="web",instance="a:9000"'


def promtool(*arguments: str) -> tuple[int, str]:
    """Run it; exit code, and all it says."""
    done = subprocess.run(
        ["promtool", *arguments], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return done.returncode, done.stdout


def series(given: Mapping[str, str]) -> list[dict[str, str]]:
    """Input series of a test; each gets a job and an instance, and says that it comes from a Sojourn."""
    found = {"sojourn_build_info": "1x500", "up": "1x500"} | dict(given)
    return [{"series": _labelled(name), "values": values} for name, values in found.items()]


def _labelled(name: str) -> str:
    metric, own = re.fullmatch(r"(\w+)(?:\{(.*)\})?", name).groups()  # type: ignore[union-attr]
    return f"{metric}{{{_LABELS}{',' + own if own else ''}}}"


def rule_test(
    folder: Path, rules: Sequence[Path], tests: Sequence[Mapping[str, Any]], *, long: bool = False
) -> tuple[int, str]:
    """Test rules, which are evaluated once a minute; every five in a long test. The file is JSON, which is YAML."""
    file = folder / "test.yml"
    interval = "5m" if long else "1m"
    document = {"rule_files": [str(path) for path in rules], "evaluation_interval": interval, "tests": list(tests)}
    file.write_text(json.dumps(document))
    return promtool("test", "rules", str(file))
