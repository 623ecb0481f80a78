"""Options of one task: what engines can hold, and nothing else."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from sojourn.errors import TaskArguments
from sojourn.tasks.wish import Wish


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "order 7 äöü", "delay": 3600, "priority": -5, "expires": 0},
        {"delay": -0.5},
        {"run_at": datetime(2030, 1, 1, tzinfo=UTC).timestamp(), "expires": math.inf},
        {"priority": 2**31 - 1, "key": "k" * 1000},
    ],
)
def test_what_can_be_written_down_is_taken(options: dict[str, Any]) -> None:
    Wish(**options).check("export")


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ({"key": "k" * 1001}, "at most 1000 characters, not 'kkk"),
        ({"key": None}, "key is text"),
        ({"key": 7}, "key is text .*, not 7"),
        ({"key": "a\0b"}, "without NUL"),
        ({"key": "\ud800"}, "halves of characters"),
        ({"delay": "5"}, "delay is a number of seconds, not '5'"),
        ({"delay": math.nan}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC)}, "run_at is a time in seconds since 1970"),
        ({"run_at": 1e300}, "run_at"),
        ({"run_at": math.nan}, "run_at"),
        ({"priority": 1.5}, "priority is a whole number"),
        ({"priority": 2**31}, "priority"),
        ({"callback": None}, "callback is a URL"),
        ({"expires": -1}, "expires"),
        ({"expires": math.nan}, "expires"),
    ],
    ids=str,
)
def test_what_can_not_be_is_said_before_anything_is_written(options: dict[str, Any], detail: str) -> None:
    with pytest.raises(TaskArguments, match=detail):
        Wish(**options).check("export")
