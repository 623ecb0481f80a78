"""The plugin that keeps skipped tests out of a green CI run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SKIPS_A_TEST = """
import pytest

@pytest.mark.skip(reason="no browser here")
def test_page(): ...

def test_other(): ...
"""

SKIPS_A_MODULE = """
import pytest
pytest.skip("no redis here", allow_module_level=True)
"""

XFAILS = """
import pytest

@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert False
"""


def run_pytest(folder: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "tests.plugins.no_skips", "-p", "no:cacheprovider", "-q", "."]
    # Without other plugins the inner run starts fast and only this one can change its result.
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("source", "reason"), [(SKIPS_A_TEST, "no browser here"), (SKIPS_A_MODULE, "no redis here")], ids=["test", "module"]
)
def test_a_skip_fails_the_session_in_ci_and_names_test_and_reason(tmp_path: Path, source: str, reason: str) -> None:
    done = run_pytest(tmp_path, source, ci="true")
    assert done.returncode == 1, done.stdout
    assert "not allowed when CI is set" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.endswith(f": {reason}") and line.startswith("test_")]
    assert line.startswith("test_sample.py")


@pytest.mark.parametrize("ci", ["", "0", "false"])
def test_a_skip_outside_ci_is_only_a_skip(tmp_path: Path, ci: str) -> None:
    done = run_pytest(tmp_path, SKIPS_A_TEST, ci=ci)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout


def test_an_expected_failure_is_not_a_skip(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, XFAILS, ci="true")
    assert done.returncode == 0, done.stdout
