"""A command line is shown without its secrets."""

from __future__ import annotations

import pytest

from sojourn.observe.tasks.command import command_line, redacted

SHOWN = [
    ["sojourn", "serve", "app:app", "--port", "8000", "--tls-key", "/etc/key.pem"],
    ["python", "-m", "sojourn", "--workers=4", "path/with=equals"],
    ["app", "http://example.org/a?b=c", "user@host"],
    ["--password", "--next", "shown"],
]
HIDDEN = [
    (["--admin-token", "s3cret", "x"], ["--admin-token", "<hidden>", "x"]),
    (["--admin-token=s3cret"], ["--admin-token=<hidden>"]),
    (["DATABASE_PASSWORD=s3cret"], ["DATABASE_PASSWORD=<hidden>"]),
    (["--tls.key_password=a=b"], ["--tls.key_password=<hidden>"]),
    (["--api-key", "s3cret"], ["--api-key", "<hidden>"]),
    (["--secret=a\nb"], ["--secret=<hidden>"]),
    (["redis://user:s3cret@db/0"], ["redis://<hidden>@db/0"]),
    (["--db=postgresql://me:s3cret@db/x"], ["--db=postgresql://<hidden>@db/x"]),
    (["https://e.org/hook?token=s3cret&a=1"], ["https://e.org/hook?token=<hidden>&a=1"]),
]


@pytest.mark.parametrize("arguments", SHOWN)
def test_what_is_no_secret_is_shown(arguments: list[str]) -> None:
    assert redacted(arguments) == arguments


@pytest.mark.parametrize(("arguments", "shown"), HIDDEN)
def test_what_looks_like_a_secret_is_hidden(arguments: list[str], shown: list[str]) -> None:
    assert redacted(arguments) == shown


def test_arguments_are_separated_by_nul() -> None:
    assert command_line(["a", "b c", "\udc80"]) == b"a\0b c\0\\udc80"
