"""A stand-in for a server's admin listener, and command lines that meet it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sojourn.cli.main import main
from tests.ops.fake import Fake, Run, Works, serving


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """What answers in place of a server; commands ask it unless they are told otherwise."""
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as fake:
        monkeypatch.setenv("SOJOURN_ADMIN_BIND", fake.place)
        yield fake


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line: exit code, lines on standard output, standard error."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


@pytest.fixture
def works(run: Run) -> Works:
    """Runs a command line that must work; its lines."""

    def works(*arguments: str) -> list[str]:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return works
