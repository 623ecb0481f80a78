"""What Python warns of when the collector takes it is counted, and shown as it would have been."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sojourn.observe.leaks.warned import Warned
from tests.observe.leaks.scene import Bench

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import socket, sys, warnings
from sojourn.bus import Bus
from sojourn.clock import SystemClock
from sojourn.observe.leaks.ledger import Ledger
from sojourn.observe.leaks.warned import Warned

ledger = Ledger(Bus(), SystemClock())
warned = Warned(ledger, origins={origins})
{before}

async def forgotten():
    pass

def forgets():
    forgotten()

forgets()
forgets()
def opens():
    socket.socket()
opens()
warned.close()
forgets()
for record in ledger.records.values():
    print(record.kind, record.what, record.created, record.waiting, record.known, sep="|")
"""


def run(tmp_path: Path, *options: str, before: str = "", origins: bool = False) -> tuple[list[str], str]:
    """The findings, and what was written to standard error."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(before=before, origins=origins))
    done = subprocess.run(
        [sys.executable, *options, str(script)],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines(), done.stderr


def line(tmp_path: Path, text: str) -> str:
    lines = (tmp_path / "script.py").read_text().splitlines()
    return f"{tmp_path}/script.py:{lines.index(text) + 1}"


REPLACED = "warnings.showwarning = lambda *args, **kwargs: None"


@pytest.mark.parametrize(
    ("options", "before"),
    [((), ""), (("-W", "error"), ""), ((), REPLACED), (("-W", "ignore::DeprecationWarning"), "")],
    ids=["plain", "-W error", "showwarning replaced", "other filters"],
)
def test_each_forgotten_coroutine_and_unclosed_socket_is_counted_with_its_line(
    tmp_path: Path, options: tuple[str, ...], before: str
) -> None:
    found, _ = run(tmp_path, *options, before=before)
    assert f"coroutine|forgotten|{line(tmp_path, '    forgotten()')}||2" in found
    assert f"resource|unclosed socket.socket||{line(tmp_path, '    socket.socket()')}|1" in found
    assert len(found) == 2


def test_with_origins_the_line_is_where_the_coroutine_was_made(tmp_path: Path) -> None:
    found, _ = run(tmp_path, origins=True)
    where = line(tmp_path, "    forgotten()")
    assert f"coroutine|forgotten|{where} in forgets|{where}|2" in found


def test_what_the_user_sees_stays_as_it_was(tmp_path: Path) -> None:
    _, shown = run(tmp_path)
    assert shown.count("was never awaited") == 2  # once for the place; once more after the end, as Python does
    assert "unclosed" not in shown
    _, shown = run(tmp_path, "-W", "error")
    assert shown.count("was never awaited") == 3
    assert shown.count("unclosed") == 1
    _, shown = run(tmp_path, "-W", "always")
    assert shown.count("RuntimeWarning: coroutine 'forgotten' was never awaited") == 3
    assert shown.count("ResourceWarning: unclosed") == 1
    found, shown = run(tmp_path, "-W", "ignore")
    assert (found, shown) == ([], "")


def test_everything_is_put_back() -> None:
    bench = Bench()
    with warnings.catch_warnings():
        state = (list(warnings.filters), warnings._showwarnmsg, sys.unraisablehook)  # type: ignore[attr-defined]
        depth = sys.get_coroutine_origin_tracking_depth()
        warned = Warned(bench.ledger, origins=True)
        assert sys.get_coroutine_origin_tracking_depth() == 1
        warned.close()
        warned.close()
        after = (list(warnings.filters), warnings._showwarnmsg, sys.unraisablehook)  # type: ignore[attr-defined]
        assert after == state
        assert sys.get_coroutine_origin_tracking_depth() == depth


def test_a_hook_that_somebody_stands_in_front_of_lets_everything_pass_after_the_end() -> None:
    bench = Bench()
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        plain = warnings._showwarnmsg  # type: ignore[attr-defined]
        warned = Warned(bench.ledger)
        ours = warnings._showwarnmsg  # type: ignore[attr-defined]
        warnings._showwarnmsg = lambda message: ours(message)  # type: ignore[attr-defined]
        warned.close()
        asyncio.sleep(0)  # type: ignore[unused-coroutine]
        gc.collect()
        warnings._showwarnmsg = plain  # type: ignore[attr-defined]
    assert bench.events == []
    assert len(shown) == 1


def test_other_warnings_are_none_of_its_business() -> None:
    bench = Bench()
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        warned = Warned(bench.ledger)
        warnings.warn("invalid value encountered in divide", RuntimeWarning, stacklevel=1)
        warnings.warn("gone in 3.0", DeprecationWarning, stacklevel=1)
        warned.close()
    assert bench.events == []
    assert len(shown) == 2
