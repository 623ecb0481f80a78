"""What all tests of this folder need."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search in a copy of the process be done: elsewhere it steps back, and tests keep every processor busy."""
    monkeypatch.setattr("sojourn.observe.forked._NICE", 0)
    monkeypatch.setattr("sojourn.observe.leaks.afterlife._SEARCH", 120.0)
