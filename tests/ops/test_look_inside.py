"""The page that tells operators which command answers which question."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from sojourn.cli.main import SECTIONS, main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "look-inside.md").read_text(encoding="utf-8")
#: Those that begin with ``$`` in an example, and those in the text.
LINES = sorted(
    {
        *re.findall(r"^\$ sojourn (.+)$", PAGE, re.MULTILINE),
        *(found for found in re.findall(r"`sojourn ([^`]+)`", PAGE) if found.split()[0] != "serve"),
    }
)


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("serve")])
def test_every_command_on_the_page_has_only_options_that_exist(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(click.Command, "invoke", parsed)
    words = shlex.split(line.partition("|")[0], comments=True)
    assert main(words) == 0, capsys.readouterr().err


def parsed(command: click.Command, context: click.Context) -> int:
    """In the place of running a command, whose arguments have been read by now."""
    return 0


def test_every_command_that_asks_a_running_server_is_on_the_page() -> None:
    asking = [name for title, section in SECTIONS.items() if "running server" in title for name in section]
    assert {"ps", "close"} <= set(asking)
    assert [name for name in asking if not any(f"{line} ".startswith(f"{name} ") for line in LINES)] == []
