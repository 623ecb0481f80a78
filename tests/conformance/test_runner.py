"""The runner of the conformance suite: what counts as a failure, and what is said when it can't be run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance import autobahn
from conformance.suite import SuiteError, find_python2, stop
from conformance.verdicts import Section, table


def verdict(behavior: str, close: str = "OK") -> dict[str, object]:
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": 1000}


def test_a_failed_case_and_a_wrong_close_are_failures_and_the_rest_is_counted_apart() -> None:
    section = Section("7 close", 6)
    section.add(
        {
            "7.1.10": verdict("OK"),
            "7.1.2": verdict("NON-STRICT"),
            "7.1.3": verdict("INFORMATIONAL", "INFORMATIONAL"),
            "7.1.4": verdict("FAILED"),
            "7.1.5": verdict("OK", "UNCLEAN"),
            "7.1.6": verdict("UNIMPLEMENTED"),
        }
    )
    assert dict(section.counts) == {"passed": 1, "non-strict": 1, "informational": 1, "failed": 3}
    assert [remark.partition(":")[0] for remark in section.remarks] == ["7.1.2", "7.1.3", "7.1.4", "7.1.5", "7.1.6"]
    assert not section.good


def test_a_section_with_missing_cases_is_not_good() -> None:
    section = Section("1 framing", 2)
    section.add({"1.1.1": verdict("OK")})
    assert not section.good
    assert "| 1 framing | 1 of 2 | 1 | 0 | 0 | 0 | 0 |" in table([section])
    section.add({"1.1.2": verdict("NON-STRICT")})
    assert section.good
    section.problem = "9.*: not finished"
    assert not section.good


def test_the_plan_has_all_sections_once_and_again_with_takeover() -> None:
    parts = autobahn.plan(False, "")
    assert sum(part.expected for part in parts) == 301 + 2 * 216
    assert len({(part.cases, part.takeover) for part in parts}) == len(parts)
    assert {part.cases for part in autobahn.plan(True, "")} == {f"{number}.*" for number in (1, 2, 3, 4, 5, 6, 7, 10)}
    assert {part.section for part in autobahn.plan(False, "3,10")} == {"3 reserved bits", "10 automatic fragmentation"}
    with pytest.raises(SystemExit, match="no section 8"):
        autobahn.plan(False, "8")


def test_without_python_2_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert autobahn.main(["--quick"]) == 2
    assert "no Python 2.7 was found" in capsys.readouterr().err
    with pytest.raises(SuiteError, match=r"is no Python 2\.7"):
        find_python2(sys.executable)


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    began = time.monotonic()
    stop(child, patience=0.2)
    child.stdout.close()
    assert child.returncode == -9
    assert time.monotonic() - began < 30
