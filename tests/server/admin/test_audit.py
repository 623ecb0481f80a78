"""The audit file: one line for each command, there before it is carried out."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import ErrandError
from sojourn.server.admin.audit import Audit


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_command_is_in_the_file_before_it_is_carried_out_and_its_result_after(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), ManualClock(wall=1_700_000_000.5))
    entry = audit.begin("uid 0", "config", {"changes": {"timeouts.header": (10.0, 5.0)}})
    known = {
        "time": "2023-11-14T22:13:20.500Z",
        "who": "uid 0",
        "what": "config",
        "changes": {"timeouts.header": [10.0, 5.0]},
    }
    assert lines(path) == [{**known, "result": "unfinished"}]
    entry.end("ok")
    entry.end("never")
    assert lines(path) == [{**known, "result": "ok"}]


def test_lines_are_appended_and_results_find_their_own(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), ManualClock())
    first, second = audit.begin("a", "drain", {}), audit.begin("b", "restart", {})
    second.end("ok")
    first.end("refused")
    assert [(line["who"], line["result"]) for line in lines(path)] == [("a", "refused"), ("b", "ok")]


@pytest.mark.parametrize("result", ["x" * 1000, "ü" * 150, '"\\' * 300, "\n" * 500])
def test_a_long_result_is_cut_and_spoils_no_line(tmp_path: Path, result: str) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), ManualClock())
    audit.begin("a", "drain", {}).end(result)
    audit.begin("b", "drain", {}).end("ok")
    first, second = lines(path)
    assert result.startswith(first["result"])
    assert len(first["result"]) >= 60
    assert second["result"] == "ok"


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    Audit(str(path), ManualClock()).begin("a", "drain", {}).end("ok")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_renamed_gets_the_result_of_its_line_and_a_new_one_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), ManualClock())
    entry = audit.begin("a", "drain", {})
    path.rename(tmp_path / "audit.1")
    audit.begin("b", "drain", {}).end("ok")
    entry.end("ok")
    assert [line["who"] for line in lines(tmp_path / "audit.1")] == ["a"]
    assert lines(tmp_path / "audit.1")[0]["result"] == "ok"
    assert [line["who"] for line in lines(path)] == ["b"]


@pytest.mark.parametrize("place", ["absent/audit.jsonl", ".", "pipe"])
def test_what_can_not_be_recorded_is_refused(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ErrandError, match="nothing was done, because it can't be recorded") as caught:
        Audit(str(tmp_path / place), ManualClock()).begin("a", "drain", {})
    assert (caught.value.status, caught.value.reason) == (503, "not_recorded")


def test_a_full_disk_refuses_the_command() -> None:
    with pytest.raises(ErrandError, match="can't be recorded"):
        Audit("/dev/full", ManualClock()).begin("a", "drain", {})


def test_without_a_file_nothing_is_recorded_and_nothing_refused() -> None:
    Audit(None, ManualClock()).begin("a", "drain", {}).end("ok")


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    audit = Audit(str(tmp_path / "audit.jsonl"), ManualClock())
    for _ in range(5):
        audit.begin("a", "drain", {}).end("ok")
    for place in (tmp_path, "/dev/full"):
        with pytest.raises(ErrandError):
            Audit(str(place), ManualClock()).begin("a", "drain", {})
    assert len(os.listdir("/proc/self/fd")) == before
