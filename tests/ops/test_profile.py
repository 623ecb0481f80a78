"""``sojourn profile``: the table on the terminal, and files by the format their name asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.cli.main import main
from sojourn.ops.profile import KINDS, Hot, hottest
from tests.ops.fake import Fake, problem

OUTER, INNER = ["handle", "/srv/web.py", 10], ["work", "/srv/web.py", 20]
CPU = {
    "name": "profile",
    "kinds": [["samples", "count"], ["cpu", "nanoseconds"]],
    "samples": [[[INNER, OUTER], [30, 300_000_000], [["route", "/x"]]], [[OUTER], [10, 100_000_000], []]],
    "seconds": 10.0,
    "default": 1,
    "comments": ["cost: 2 % while it ran"],
}


def test_functions_are_ordered_by_what_they_took_themselves() -> None:
    assert hottest([(["work", "handle"], 30), (["handle"], 10)]) == [Hot("work", 30, 30), Hot("handle", 10, 40)]


def test_a_function_that_calls_itself_counts_once() -> None:
    assert hottest([(["f", "g", "f"], 5), ([], 3)]) == [Hot("f", 5, 5), Hot("g", 0, 5)]


def test_the_table_shows_shares_of_the_default_value(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/debug/pprof/profile", CPU)
    assert main(["profile", "--top", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["cpu over 10 s: 400 ms (cpu) in 2 stacks", "  cost: 2 % while it ran"]
    assert out[3].split() == ["FLAT", "FLAT%", "SUM%", "CUM", "CUM%", "WHERE"]
    assert out[4].split() == ["300", "ms", "75.0%", "75.0%", "300", "ms", "75.0%", "work", "/srv/web.py"]
    assert out[5:] == ["1 more functions"]
    assert fake.asked[0].query == {"seconds": "10.0", "format": "json"}


def test_objects_are_read_as_well_as_lists(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    frame = {"function": "dict", "file": "", "line": 0}
    heap: dict[str, Any] = {
        "name": "heap",
        "kinds": [{"name": "space", "unit": "bytes"}],
        "samples": [{"stack": [frame], "values": [2048], "labels": []}],
        "seconds": 0,
        "default": 0,
        "comments": [],
    }
    fake.says("/debug/pprof/heap", heap)
    assert main(["profile", "heap"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "heap: 2.0 KiB (space) in 1 stacks"
    assert out[3].split() == ["2.0", "KiB", "100.0%", "100.0%", "2.0", "KiB", "100.0%", "dict"]
    assert fake.asked[0].query == {"format": "json"}


def test_a_sample_without_frames_is_not_lost(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/debug/pprof/stall", CPU | {"samples": [[[], [1, 273_000_000], [["cause", "machine"]]]]})
    assert main(["profile", "stall"]) == 0
    assert capsys.readouterr().out.splitlines()[4].split()[-2:] == ["(no", "stack)"]


def test_an_empty_profile_is_no_table(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/debug/pprof/stall", CPU | {"samples": [], "seconds": 0.0})
    assert main(["profile", "stall"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "stall: 0 s (cpu) in 0 stacks"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "trace"])
@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("x.pb.gz", "pb"),
        ("x.pprof", "pb"),
        ("x.speedscope.json", "speedscope"),
        ("x.json", "json"),
        ("x.collapsed", "collapsed"),
        ("x.folded", "collapsed"),
        ("x.txt", "text"),
    ],
)
def test_the_name_of_the_file_says_the_format(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, file: str, form: str
) -> None:
    fake.shows(f"/debug/pprof/{KINDS[kind]}", b"\x1f\x8bbytes", "application/octet-stream")
    assert main(["profile", kind, "-o", file]) == 0
    assert (tmp_path / file).read_bytes() == b"\x1f\x8bbytes"
    assert fake.asked[0].query["format"] == form
    assert capsys.readouterr().err == f"{file}: {kind}, 7 B\n"


def test_a_trace_is_a_file_of_its_own_format(fake: Fake, tmp_path: Path) -> None:
    fake.says("/debug/pprof/trace", {"traceEvents": []})
    assert main(["profile", "trace", "--seconds", "2", "-o", "x.anything"]) == 0
    assert json.loads((tmp_path / "x.anything").read_text()) == {"traceEvents": []}
    assert fake.asked[0].query == {"seconds": "2.0"}


def test_a_trace_is_json_for_a_program_that_asks_for_it(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.says("/debug/pprof/trace", {"traceEvents": []})
    assert main(["profile", "trace", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"traceEvents": []}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trace"], 2, "a trace is not for a terminal: name a file with -o"),
        (["cpu", "--format", "pb"], 2, "a pb is not for a terminal"),
        (["cpu", "-o", "x.unknown"], 2, "x.unknown names no format"),
        (["cpu", "--seconds", "301"], 2, "is not in the range"),
        (["cpu", "-o", "gone/x.txt"], 1, "gone/x.txt can't be written: No such file"),
        (["heap"], 1, "refused: one profile at a time"),
    ],
)
def test_what_can_not_be_is_one_line(
    fake: Fake, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    fake.says("/debug/pprof/profile", CPU)
    fake.says("/debug/pprof/heap", problem(409, "busy", "one profile at a time"), status=409)
    assert main(["profile", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_text_and_json_are_printed_as_the_server_wrote_them(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.shows("/debug/pprof/goroutine", "2 @\n#\tweb.py:20\n\n")
    assert main(["profile", "tasks", "--format", "text"]) == 0
    assert capsys.readouterr().out == "2 @\n#   web.py:20\n\n"
    fake.says("/debug/pprof/profile", CPU)
    assert main(["profile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == CPU
