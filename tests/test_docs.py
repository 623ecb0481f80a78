"""The documentation: every example runs, every table is what the code says, every link leads somewhere.

A fenced ``python`` block has ``<!-- example: NAME -->`` on the line before it, and a check of that name in
``tests/examples/documented.py``. The block is executed as it stands, and the check uses what it defined.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from click.testing import CliRunner

import sojourn
from scripts.docs_tables import WAITS, pages
from sojourn.cli.config import config as config_command
from sojourn.config import Config
from sojourn.server.settings import keys, load
from tests.examples.documented import CHECKS, late
from tests.examples.serving import serving

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that others generate, with tests of their own.
GENERATED = {ROOT / "docs" / "reference" / "configuration.md", ROOT / "docs" / "reference" / "api.md"}

_FENCE = re.compile(r"(?:<!-- example: ([\w-]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(*languages: str) -> Iterator[tuple[Path, str, str]]:
    """Fenced blocks of these languages in the pages written by hand: page, example name, code."""
    for page in PAGES:
        if page not in GENERATED:
            for name, language, code in _FENCE.findall(page.read_text()):
                if language in languages:
                    yield page, name, code


def named(page: Path) -> str:
    """A page as messages call it."""
    return str(page.relative_to(ROOT))


# -- examples


@pytest.mark.parametrize("name", CHECKS)
def test_every_example_runs_and_does_what_its_page_says(name: str) -> None:
    (code,) = [code for _, found, code in blocks("python") if found == name]
    module = ModuleType(f"example_{name}")
    sys.modules[module.__name__] = module  # where FastAPI looks the annotations of endpoints up
    try:
        if name == "half-close":  # the only one that is a client
            with serving(late) as url:
                host, _, port = url.removeprefix("http://").partition(":")
                module.__dict__.update(host=host, port=int(port))
                exec(compile(code, name, "exec"), module.__dict__)
        else:
            exec(compile(code, name, "exec"), module.__dict__)
        CHECKS[name](module.__dict__)
    finally:
        del sys.modules[module.__name__]


def test_every_python_block_has_a_name_and_a_check() -> None:
    found = [(named(page), name) for page, name, _ in blocks("python")]
    assert [page for page, name in found if not name] == []
    assert sorted(name for _, name in found) == sorted(CHECKS)


# -- settings, commands, words


@pytest.mark.parametrize(("page", "text"), [(named(page), code) for page, _, code in blocks("toml")])
def test_every_toml_block_is_a_configuration_that_loads(page: str, text: str, tmp_path: Path) -> None:
    for name in ("cert", "key", "clients"):
        (tmp_path / f"{name}.pem").touch()
    file = tmp_path / "sojourn.toml"
    file.write_text(text)
    loaded = load(file=file, environ={}, flags={}, cwd=tmp_path)
    assert loaded.config != Config(), page


def commands() -> list[str]:
    """The lines that call ``sojourn`` in shell blocks and unit files."""
    found = [
        re.search(r"\bsojourn ((?:serve|work|config)\b.*)", line)
        for _, _, code in blocks("sh", "ini")
        for line in code.splitlines()
    ]
    return [match[1] for match in found if match is not None]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_line_has_only_flags_that_exist(line: str, tmp_path: Path) -> None:
    (tmp_path / "sojourn.toml").touch()
    arguments = [
        str(tmp_path / "sojourn.toml") if part == "sojourn.toml" else part
        for part in shlex.split(line, comments=True)[1:]
    ]
    shown = CliRunner().invoke(config_command, arguments, standalone_mode=False)
    assert shown.exception is None, shown.output


def test_every_key_that_is_named_exists() -> None:
    groups = "timeouts|limits|websocket|drain|proxy|log|tls|bind"
    wrong = [
        f"{named(page)}: {word}"
        for page in PAGES
        for word in re.findall(rf"`((?:{groups})\.[a-z_]+)`", page.read_text())
        if word not in keys() and word != "websocket.disconnect"  # an ASGI message
    ]
    assert wrong == []


def test_every_reason_in_the_log_and_in_tables_is_a_word_of_the_list() -> None:
    suffixes = ("_timeout", "_closed_request", "_no_data", "_header", "_consumer", "_on_tls", "_deadline", "_data_rate")
    words = {
        word
        for page in PAGES
        if page not in GENERATED
        for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page.read_text())
        if word.endswith(suffixes)
    }
    allowed = (
        set(sojourn.REASONS)
        | {key.name for key in keys().values()}
        | {"proxy_read_timeout", "keepalive_timeout", "statement_timeout"}
    )
    assert words - allowed == set()


# -- tables and links


def test_generated_tables_are_what_the_code_says() -> None:
    stale = [named(page) for page, text in pages().items() if not page.exists() or page.read_text() != text]
    assert stale == [], "run: python scripts/docs_tables.py"


def test_the_list_of_waits_has_every_duration_of_the_configuration() -> None:
    durations = {
        path for path, key in keys().items() if key.unit == "s" and not path.startswith(("log.", "diagnostics."))
    }
    measures = {"admission.target", "admission.standing", "admission.lag"}  # nobody waits for them
    assert durations - set(WAITS) == {"limits.retry_after"} | measures  # what a client is asked to wait


def test_the_table_of_endings_has_every_reason_once() -> None:
    text = (ROOT / "docs" / "reference" / "endings.md").read_text()
    assert re.findall(r"^\| `([a-z_]{3,})` \|", text, re.MULTILINE) == list(sojourn.REASONS)


def test_every_relative_link_leads_to_a_file() -> None:
    broken = []
    for page in PAGES:
        for target in _LINK.findall(page.read_text()):
            if "://" not in target and not target.startswith("#"):
                file = (page.parent / target.partition("#")[0]).resolve()
                if not file.exists():
                    broken.append(f"{named(page)}: {target}")
    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    missing = [named(page) for page in PAGES[1:] if str(page.relative_to(ROOT / "docs")) not in nav]
    assert missing == []


def test_the_defaults_named_in_prose_are_the_defaults() -> None:
    """Words such as "30 s (`timeouts.write_idle`)" and "`timeouts.write_idle` (30 s)" are compared with the code."""
    config = Config()
    wrong = []
    for page in PAGES:
        text = page.read_text()
        said = re.findall(r"`(timeouts|websocket|drain)\.([a-z_]+)` \((\d+) s\)", text)
        said += [(g, k, n) for n, g, k in re.findall(r"(\d+) s \(`(timeouts|websocket|drain)\.([a-z_]+)`\)", text)]
        for group, key, number in said:
            if msgspec.to_builtins(getattr(config, group))[key] != float(number):
                wrong.append(f"{named(page)}: {group}.{key} is not {number} s")
    assert wrong == []
