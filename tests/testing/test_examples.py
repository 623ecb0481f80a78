"""The examples of the testing kit run as they are printed."""

from __future__ import annotations

import doctest
import importlib

import pytest

import sojourn.testing


@pytest.mark.parametrize("module", ["http", "memory", "raw", "server", "channel"])
def test_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"sojourn.testing.{module}")).failed == 0


def test_the_public_names_are_those_that_can_be_imported() -> None:
    assert all(hasattr(sojourn.testing, name) for name in sojourn.testing.__all__)
