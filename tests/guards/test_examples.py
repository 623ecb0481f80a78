"""The examples in the documentation of guards run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ["guards.breaker", "guards.bulkhead", "guards.retry", "guards.workers", "policy.retry"]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"sojourn.{module}"))
    assert result.attempted
    assert not result.failed
