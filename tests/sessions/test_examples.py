"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest

from sojourn.sessions.middleware import Sessions

MODULES = ["memory", "sqlite", "redis", "middleware", "content", "seal", "cookies", "user"]


@pytest.mark.parametrize("module", [*(f"sessions.{name}" for name in MODULES), "testing.session_store"])
def test_the_examples_run(module: str) -> None:
    found = importlib.import_module(f"sojourn.{module}")
    result = doctest.testmod(found, extraglobs={"Sessions": Sessions, **_neighbours(module)})
    assert result.attempted
    assert not result.failed


def _neighbours(module: str) -> dict[str, object]:
    """What an application imports from the public face."""
    if not module.startswith("sessions"):
        return {}
    return {"MemorySessions": importlib.import_module("sojourn.sessions.memory").MemorySessions}
