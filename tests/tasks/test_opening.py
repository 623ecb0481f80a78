"""Which journal a text means."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.errors import ConfigError
from sojourn.tasks.opening import file_of, journal_of


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("tasks.db", "tasks.db"),
        ("/var/lib/tasks.db", "/var/lib/tasks.db"),
        ("sqlite:tasks.db", "tasks.db"),
        ("sqlite:///var/lib/tasks.db", "/var/lib/tasks.db"),
        ("file:tasks.db", "tasks.db"),
        ("shop:tasks.db", "shop:tasks.db"),
        ("postgresql://localhost/shop", None),
        ("postgres://localhost/shop", None),
        ("redis://localhost:6379/0", None),
        ("VALKEY://localhost", None),
        ("unix:///run/redis.sock", None),
        ("mysql://localhost", None),
    ],
)
def test_a_text_is_the_path_of_a_file_or_the_url_of_a_server(text: str, path: str | None) -> None:
    assert file_of(text) == path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tasks.db", "sqlite"),
        ("postgresql://localhost/shop", "postgres"),
        ("redis://localhost:6379/0", "redis"),
        ("rediss://localhost:6379/0", "redis"),
        ("valkey://localhost:6379/0", "redis"),
        ("unix:///run/redis.sock", "redis"),
    ],
)
def test_a_journal_is_made_and_not_opened(text: str, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert journal_of(text).name == name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "told"), [("", "which journal"), ("  ", "which journal"), ("mysql://a", "mysql: keeps")]
)
def test_what_is_no_journal_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        journal_of(text)
