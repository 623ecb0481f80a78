"""In CI a skipped test is a failed run: `-p tests.plugins.no_skips` (in addopts) lists each skip and exits 1.

On a laptop a missing browser may skip its tests. In CI everything is installed, so a skip there means that a promise
was not checked while the run looks green. Expected failures (xfail) are not skips.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def in_ci() -> bool:
    """True when CI is set to anything but an explicit no."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


class NoSkips:
    """Collects skips of tests and of whole modules, and turns them into a failed session."""

    def __init__(self) -> None:
        self.skips: list[tuple[str, str]] = []

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        # A skip's longrepr is (path, line, "Skipped: reason").
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.skips.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        # Set before the terminal reporter prints its summary; a worse status (interrupted, internal error) stays.
        if self.skips and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.skips:
            return
        terminalreporter.section(f"{len(self.skips)} skipped: not allowed when CI is set", red=True)
        for nodeid, reason in self.skips:
            terminalreporter.line(f"{nodeid}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if in_ci():
        config.pluginmanager.register(NoSkips(), "sojourn-no-skips")
