"""The examples in the documentation of rate limits run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["limiter", "memory", "middleware", "quota", "redis"])
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"sojourn.guards.rates.{module}"))
    assert result.attempted
    assert not result.failed
