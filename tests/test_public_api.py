"""The public face: every name is there, costs nothing until it is used, and is documented by an example that runs."""

from __future__ import annotations

import importlib
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sojourn

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
SECTIONS = re.split(r"^#{2,3} ", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def code(section: str) -> str:
    """The examples of a section."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE))


#: The application that all examples use.
APP = code(SECTIONS[0])
EXAMPLES = {section.split()[0]: code(section) for section in SECTIONS[1:] if section.split()[0] in sojourn.__all__}


@pytest.mark.parametrize("name", sojourn.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(sojourn, name)
    assert value is getattr(importlib.import_module(sojourn._HOMES[name]), name)
    assert name in dir(sojourn)
    assert EXAMPLES[name]
    assert name == "REASONS" or value.__doc__


def test_the_names_are_listed_once_each_with_its_home() -> None:
    assert len(sojourn.__all__) == len(set(sojourn.__all__))
    assert set(sojourn._HOMES) == set(sojourn.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sojourn' has no attribute 'nothing'"):
        _ = sojourn.nothing


def test_importing_sojourn_loads_no_heavy_part() -> None:
    script = "import sys, sojourn; print(*{'asyncio', 'uvloop', 'httptools', 'ssl', 'msgspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name: str) -> None:
    exec(compile(f"{APP}\n{EXAMPLES[name]}", f"{REFERENCE} {name}", "exec"), {"__name__": "example"})


def test_the_example_of_run_serves_until_a_signal() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(f"{APP}\n{EXAMPLES['run']}")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
