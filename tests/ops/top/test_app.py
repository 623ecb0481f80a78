"""The live view, driven by keys, against a stand-in for the admin listener."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static
from textual.worker import WorkerCancelled

from sojourn.cli.main import main
from sojourn.clock import SystemClock
from sojourn.ops.client import Admin
from sojourn.ops.top.app import Top
from sojourn.ops.top.views import VIEWS
from tests.ops.fake import Fake, connection, leak, serving, task

Steps = Callable[[Top, Pilot[None]], Awaitable[None]]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with serving(tmp_path) as fake:
        fake.says("/connections", {"connections": [connection(1, idle=9.0), connection(2, age=99.0)]})
        fake.says("/tasks", {"tasks": [task(1), task(2), task(3, coroutine="other")]})
        fake.says("/leaks", {"leaks": [leak()]})
        fake.shows("/metrics", 'sojourn_deadlines_missed_total{deadline="header"} 3\n')
        yield fake


def drive(fake: Fake, steps: Steps) -> None:
    """Run the application without a terminal, and take these steps."""

    async def run() -> None:
        app = Top(Admin(fake.place), SystemClock())
        async with app.run_test(size=(160, 40)) as pilot:
            await settled(app, pilot)
            await steps(app, pilot)

    asyncio.run(run())


async def settled(app: Top, pilot: Pilot[None]) -> None:
    """Wait until what was asked has been shown."""
    while True:
        try:
            await app.workers.wait_for_complete()
            break
        except WorkerCancelled:
            pass  # the next one, which the clock has started, takes its place
    await pilot.pause()


async def press(app: Top, pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await settled(app, pilot)


def rows(app: Top) -> list[list[str]]:
    table: DataTable[Any] = app.query_one("#table", DataTable)
    return [[str(cell) for cell in table.get_row_at(index)] for index in range(table.row_count)]


def text(app: Top, name: str) -> str:
    return str(app.screen.query_one(name, Static).render())


def test_it_begins_with_the_head_and_the_connections(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        assert "web-1:8000   sojourn 0.1.0" in text(app, "#head")
        assert [row[0] for row in rows(app)] == ["1-2", "1-1"]
        assert text(app, "#views").startswith("[1 connections]  2 tasks ")
        assert "2 of 2, by age" in text(app, "#views")

    drive(fake, steps)


def test_each_view_has_its_number(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        first: dict[str, str] = {}
        for index, view in enumerate(VIEWS, 1):
            await press(app, pilot, str(index))
            first[view.name] = " ".join(rows(app)[0]) if rows(app) else ""
        assert first["tasks"].startswith("2 30 s 30 s poll sleep")
        assert first["endings"] == ""
        assert first["deadlines"] == "header 0 3"
        assert first["leaks"].startswith("task 3 7 61 s refresh /srv/web.py:31 in handler")
        assert first["workers"].startswith("1 4001 ready")
        await press(app, pilot, "tab")
        assert app.view.name == "connections"

    drive(fake, steps)


def test_only_what_is_seen_is_asked_for(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        assert set(fake.paths()) == {"/status", "/metrics", "/connections"}
        await press(app, pilot, "2")
        del fake.asked[:]
        await press(app, pilot, "r")
        assert set(fake.paths()) == {"/status", "/metrics", "/tasks"}
        await press(app, pilot, "6")
        del fake.asked[:]
        await press(app, pilot, "r")
        assert set(fake.paths()) == {"/status", "/metrics"}

    drive(fake, steps)


def test_o_takes_the_next_order_and_the_cursor_stays_on_its_row(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await press(app, pilot, "down")
        table: DataTable[Any] = app.query_one("#table", DataTable)
        assert table.cursor_row == 1
        await press(app, pilot, "o")
        assert [row[0] for row in rows(app)] == ["1-1", "1-2"]
        assert table.cursor_row == 0
        assert "by idle" in text(app, "#views")

    drive(fake, steps)


def test_n_takes_the_next_limit(fake: Fake) -> None:
    many = [connection(number, age=float(number)) for number in range(1, 121)]
    fake.says("/connections", {"connections": many})

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        assert len(rows(app)) == 50
        await press(app, pilot, "n")
        assert len(rows(app)) == 100
        await press(app, pilot, "n", "n", "n")
        assert len(rows(app)) == 10
        assert "10 of 120" in text(app, "#views")

    drive(fake, steps)


def test_filters_are_asked_of_the_server_and_switched_off_again(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        for keys in ("a", "s", "x", "s"):
            await press(app, pilot, keys)
        asked = [asked.query for asked in fake.asked if asked.path == "/connections"]
        assert [query for query, _ in groupby(asked)][-4:] == [
            {"older": "60"},
            {"older": "60", "slow": "1"},
            {"older": "60", "slow": "1", "suspicious": "1"},
            {"older": "60", "suspicious": "1"},
        ]
        assert "only older, only suspicious" in text(app, "#views")

    drive(fake, steps)


def test_enter_shows_all_about_a_connection_and_follows_it(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await press(app, pilot, "enter")
        card = text(app, "#lines")
        assert "connection            1-2" in card
        assert "next deadline         response_start in 58 s" in card
        fake.says("/connections", {"connections": [connection(2, deadline="handler", deadline_in=3.0)]})
        app.action_refresh_now()
        await settled(app, pilot)
        assert "handler in 3.0 s" in text(app, "#lines")
        fake.says("/connections", {"connections": []})
        app.action_refresh_now()
        await settled(app, pilot)
        assert text(app, "#lines") == "connection  1-2 is gone"
        await press(app, pilot, "escape")
        assert not app.screen.query("#lines")

    drive(fake, steps)


def test_the_question_mark_explains_the_keys(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await press(app, pilot, "question_mark")
        assert "another order of the connections" in text(app, "#lines")

    drive(fake, steps)


def test_a_server_that_went_away_is_told_and_its_return_too(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        fake.says("/status", {"detail": "is gone"}, status=503)
        await press(app, pilot, "6", "r")
        assert "refused: is gone" in text(app, "#foot")
        assert "web-1:8000" in text(app, "#head")

    drive(fake, steps)


def test_a_view_that_is_refused_says_why_and_the_others_live_on(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        fake.says("/leaks", {"detail": "diagnostics.leaks is off"}, status=404)
        await press(app, pilot, "5", "r")
        assert "diagnostics.leaks is off" in text(app, "#foot")
        await press(app, pilot, "2")
        assert "diagnostics.leaks" not in text(app, "#foot")
        assert len(rows(app)) == 2

    drive(fake, steps)


def test_a_pause_asks_nothing(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await press(app, pilot, "p")
        assert "paused" in text(app, "#foot")
        del fake.asked[:]
        await press(app, pilot, "2")
        assert fake.asked == []
        await press(app, pilot, "p", "2")
        assert set(fake.paths()) - {"/status", "/metrics"} == {"/tasks"}  # and the head, if it was time for that

    drive(fake, steps)


def test_how_often_it_looks_is_chosen_for_each_view(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await press(app, pilot, "plus")
        assert "every 1.0 s" in text(app, "#foot")
        await press(app, pilot, "2", "minus")
        assert "every 10 s" in text(app, "#foot")
        await press(app, pilot, "1")
        assert "every 1.0 s" in text(app, "#foot")

    drive(fake, steps)


def test_what_strangers_sent_is_no_markup(fake: Fake) -> None:
    fake.says("/connections", {"connections": [connection(path="/[red]x[/red]\x1b[2J")]})

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        assert "GET /[red]x[/red]\\x1b[2J" in rows(app)[0]

    drive(fake, steps)


def test_q_ends_it(fake: Fake) -> None:
    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    drive(fake, steps)


# -- The command


def test_once_prints_everything_without_textual(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "sojourn.ops.top.app")
    file = tmp_path / "snapshot.txt"
    arguments = ["top", "--admin", fake.place, "--once", "--seconds", "0.05", "--limit", "1", "--filter", "slow"]
    assert main([*arguments, "-o", str(file)]) == 0
    snapshot = file.read_text()
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0] == snapshot.splitlines()[0]
    headings = [line.partition(",")[0] for line in snapshot.split("\n\n")]
    assert headings[1:] == [view.name for view in VIEWS]
    assert "\nconnections, 1 of 2\n" in snapshot
    assert next(asked.query for asked in fake.asked if asked.path == "/connections") == {"slow": "1"}


def test_once_says_what_was_refused_and_prints_the_rest(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/leaks", {"detail": "diagnostics.leaks is off"}, status=404)
    fake.says("/metrics", {"detail": "diagnostics.metrics is off"}, status=404)
    assert main(["top", "--admin", fake.place, "--once", "--seconds", "0.05"]) == 0
    out = capsys.readouterr().out
    assert f"\n\nleaks\n{fake.place} refused: diagnostics.leaks is off\n\nworkers" in out
    assert "connections 24   accepted -" in out


def test_without_textual_one_line_says_how_to_install_it(
    fake: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "sojourn.ops.top.app")
    assert main(["top", "--admin", fake.place]) == 1
    wanted = "error: `sojourn top` needs Textual: pip install 'sojourn[top]', or use --once\n"
    assert capsys.readouterr().err == wanted


def test_a_server_that_is_not_there_is_told_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--admin", f"unix:{tmp_path}/gone"]) == 1
    assert capsys.readouterr().err.startswith("error: nobody answers at unix:")


def test_a_file_goes_with_once_only(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--admin", fake.place, "-o", "x"]) == 2
    assert "-o goes with --once" in capsys.readouterr().err
