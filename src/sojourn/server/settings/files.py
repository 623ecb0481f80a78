"""The configuration file: which one is read, and in which line each of its keys stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sojourn.errors import ConfigError

__all__ = ["NAME", "Source", "find"]

#: The file that is read when none is named.
NAME: Final = "sojourn.toml"
_PROJECT: Final = "pyproject.toml"
_TABLE: Final = "tool.sojourn"


class Source(NamedTuple):
    """One configuration file.

    Attributes:
        path: Where it is.
        shown: Its name in messages.
        data: Its keys; of ``pyproject.toml`` only those below ``[tool.sojourn]``.
        lines: The line of each key by its dotted path; items of arrays carry their index (``routes[0].path``).
    """

    path: Path
    shown: str
    data: dict[str, Any]
    lines: Mapping[str, int]

    def where(self, path: str) -> str:
        """``file:line`` of a key; the file alone when the key has no line of its own."""
        line = self.lines.get(path)
        return f"{self.shown}:{line}" if line else self.shown


def find(file: Path | None, cwd: Path) -> tuple[Source | None, list[str]]:
    """The file to read, and what must be said about the choice.

    Args:
        file: The file somebody named; None looks for ``sojourn.toml``, then for ``pyproject.toml``.
        cwd: The folder to look in, and the one a relative ``file`` is relative to.

    Raises:
        ConfigError: The named file is absent or has no ``[tool.sojourn]``; a file can't be read or isn't TOML.
    """
    if file is not None:
        source = _read(cwd / file, str(file))
        if source is None:
            raise ConfigError(f"there is no [{_TABLE}] in it", origin=str(file))
        return source, []
    own, project = cwd / NAME, cwd / _PROJECT
    if not own.is_file():
        return (_read(project, _PROJECT) if project.is_file() else None), []
    warnings = []
    if project.is_file() and _read(project, _PROJECT) is not None:
        warnings.append(f"[{_TABLE}] in {_PROJECT} is not read because {NAME} is there too")
    return _read(own, NAME), warnings


def _read(path: Path, shown: str) -> Source | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise ConfigError(f"the configuration file can't be read: {what}", origin=shown) from exc
    in_project = path.name == _PROJECT
    if in_project and "sojourn" not in text:
        return None  # saves most projects the reading
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line = re.search(r"at line (\d+)", str(exc))
        raise ConfigError(f"not TOML: {exc}", origin=f"{shown}:{line[1]}" if line else shown) from exc
    lines = dict(_lines(text))
    if in_project:
        tool = data.get("tool")
        if not isinstance(tool, dict) or "sojourn" not in tool:
            return None
        data, prefix = tool["sojourn"], _TABLE + "."
        if not isinstance(data, dict):
            raise ConfigError(f"is a table: write [{_TABLE}]", key=_TABLE, origin=shown)
        lines = {key.removeprefix(prefix): line for key, line in lines.items() if key.startswith(prefix)}
    return Source(path, shown, data, lines)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Each key of a valid TOML text with the number of the line it starts in.

    ``tomllib`` tells no positions, so the text is cut into statements: a statement is complete once it parses alone.
    """
    table: list[str] = []
    sizes: dict[str, int] = {}
    statement = ""
    start = 1
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            data = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # a text or an array that goes on in the next line
        if statement.lstrip().startswith("["):
            table = _table(data, sizes)
            yield ".".join(table), start
        else:
            for path in _flatten(data):
                yield ".".join([*table, path]), start
        statement = ""


def _table(header: Any, sizes: dict[str, int]) -> list[str]:
    """The path of a table's header. Arrays of tables get the index of their newest item; ``sizes`` counts the items."""
    path: list[str] = []
    while header:
        ((name, header),) = header.items()
        path.append(name)
        full = ".".join(path)
        if isinstance(header, list):
            sizes[full] = sizes.get(full, 0) + 1
            header = header[0]
        if full in sizes:
            path[-1] = f"{name}[{sizes[full] - 1}]"
            full = ".".join(path)
    return path


def _flatten(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        yield name
        items = [("", value)]
        if isinstance(value, list):
            items = [(f"[{index}]", item) for index, item in enumerate(value)]
        for index, item in items:
            if isinstance(item, dict):
                yield from (f"{name}{index}.{inner}" for inner in _flatten(item))
