"""Tables fit a terminal, and are whole everywhere else."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.ops.table import Column, Screen, screen, table

COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("PATH", lambda row: row["path"], cut="end"),
    Column("AT", lambda row: row["at"], cut="start", rank=1),
    Column("BYTES", lambda row: row["bytes"], right=True, rank=2),
)
ROW = {"id": "1-17", "path": "/items/with/a/long/path", "at": "/srv/app/web.py:12 in f", "bytes": "12"}


def lines(target: Screen, *rows: dict[str, Any]) -> list[str]:
    return list(table(COLUMNS, rows or (ROW,), target))


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    assert lines(Screen()) == [
        "ID    PATH                     AT                       BYTES",
        "1-17  /items/with/a/long/path  /srv/app/web.py:12 in f     12",
    ]


def test_texts_are_cut_before_a_column_goes_and_a_path_keeps_its_end() -> None:
    cut = lines(Screen(45))[1]
    assert len(cut) == 45
    assert cut.startswith("1-17  /items/")
    assert cut.endswith(" in f     12")
    assert cut.count("…") == 2


def test_the_least_important_column_goes_first() -> None:
    headings = [lines(Screen(width))[0].split() for width in (60, 35, 20, 3)]
    assert headings == [["ID", "PATH", "AT", "BYTES"], ["ID", "PATH", "AT"], ["ID", "PATH"], ["ID", "PATH"]]


def test_a_column_that_says_nothing_is_left_out_unless_it_always_matters() -> None:
    assert lines(Screen(), ROW | {"bytes": "-", "at": "", "path": ""}) == ["ID    PATH", "1-17"]


def test_headings_are_bold_where_colours_are_wanted() -> None:
    assert lines(Screen(80, True))[0] == click.style(lines(Screen(80))[0], bold=True)
    assert Screen(80, False).red("x") == "x"


def test_control_characters_of_strangers_are_escaped() -> None:
    assert lines(Screen(), ROW | {"path": "/\x1b]0;mine\x07"})[1].split()[1] == "/\\x1b]0;mine\\x07"


@given(
    width=st.integers(25, 200),
    rows=st.lists(st.fixed_dictionaries({name: st.text(max_size=40) for name in ROW}), max_size=5),
)
def test_no_line_is_wider_than_the_terminal(width: int, rows: list[dict[str, str]]) -> None:
    small = [row | {"id": row["id"][:1], "bytes": row["bytes"][:1]} for row in rows]
    assert all(len(line) <= width for line in table(COLUMNS, small, Screen(width)))


def test_a_pipe_has_no_width_and_no_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert screen() == Screen(None, False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen() == Screen(77, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen() == Screen(77, False)
