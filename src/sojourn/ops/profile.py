"""``sojourn profile``: takes a profile, and shows where most of it is or writes it to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from sojourn.errors import ConfigError, SojournError
from sojourn.observe.log.text import message
from sojourn.ops.asking import asks
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, parts, place, size

__all__ = ["KINDS", "Hot", "hottest", "profile"]

#: What people call a profile -> its name at the admin listener.
KINDS: Final = {
    "cpu": "profile",
    "wait": "block",
    "stall": "stall",
    "heap": "heap",
    "allocs": "allocs",
    "tasks": "goroutine",
    "threads": "thread",
    "trace": "trace",
}
#: Those that are gathered over a time, and for how long when nobody says.
_GATHERED: Final = {"cpu": 10.0, "allocs": 10.0, "trace": 5.0}
#: Seconds more for the answer: a census of a large heap is made by a child process.
_MORE: Final = 75.0

#: How a file's name ends -> its format.
_ENDINGS: Final = {
    ".speedscope.json": "speedscope",
    ".json": "json",
    ".pb.gz": "pb",
    ".pprof": "pb",
    ".collapsed": "collapsed",
    ".folded": "collapsed",
    ".txt": "text",
}
_FORMATS: Final = ("pb", "text", "full", "collapsed", "speedscope", "json")
#: Formats that are no text, so that they are not for a terminal.
_BINARY: Final = frozenset({"pb"})
#: What stands for a stack without frames, such as that of a stall in which the machine gave no processor time.
_NO_STACK: Final = "(no stack)"
_COLUMNS: Final = (
    Column("FLAT", lambda row: row["flat"], right=True),
    Column("FLAT%", lambda row: row["flat_share"], right=True),
    Column("SUM%", lambda row: row["sum_share"], right=True),
    Column("CUM", lambda row: row["cum"], right=True),
    Column("CUM%", lambda row: row["cum_share"], right=True),
    Column("WHERE", lambda row: row["where"], cut="start"),
)


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)), default="cpu")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 300), metavar="SECONDS", help="How long to gather. [10; trace: 5]"
)
@click.option("--format", "form", type=click.Choice(_FORMATS), help="What to write. [by the name of the file]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File, such as cpu.pb.gz for `go tool pprof`.")
@click.option("--top", "most", type=click.IntRange(min=1), default=30, metavar="N", help="Lines of the table. [30]")
@click.option("--engine", metavar="NAME", help="How to take it, where there is a choice, such as wall for cpu.")
@click.option("--worker", type=int, help="Of this worker. [all together]")
@asks
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON, as --format json does.")
def profile(admin: Admin, kind: str, form: str | None, output: Path | None, most: int, **more: Any) -> int:
    """Take a profile: cpu, wait, stall, heap, allocs, tasks, threads, or a trace (for Perfetto, with -o).

    Without a file it shows the functions that most of it is in. FLAT is what the function itself took, CUM what it took
    with all it called. A file can be opened with `go tool pprof`, and most formats with speedscope.app.
    """
    form = "json" if more["as_json"] else form or (_form(output) if output and kind != "trace" else None)
    if output is None and (form in _BINARY or (kind == "trace" and not more["as_json"])):
        raise ConfigError(f"a {kind if kind == 'trace' else form} is not for a terminal: name a file with -o")
    seconds = more["seconds"] or _GATHERED.get(kind)
    query = {name: more[name] for name in ("worker", "engine")} | {"seconds": seconds}
    if kind != "trace":
        query["format"] = form or "json"
    patience = admin.seconds + (seconds or 0.0) + _MORE
    answer = admin.ask("GET", f"/debug/pprof/{KINDS[kind]}", query=query, seconds=patience)
    if output is not None:
        _write(output, answer.body)
        click.echo(f"{output}: {kind}, {size(len(answer.body))}", err=True)
        return 0
    text = answer.body.decode("utf-8", "replace")
    lines = _table(json.loads(text), kind, most, screen()) if form is None else _plain(text)
    for line in lines:
        click.echo(line)
    return 0


def _form(output: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        ConfigError: It names none.
    """
    for ending, form in _ENDINGS.items():
        if output.name.endswith(ending):
            return form
    raise ConfigError(f"{output.name} names no format: let it end with {', '.join(_ENDINGS)}, or give --format")


def _write(output: Path, data: bytes) -> None:
    try:
        output.write_bytes(data)
    except OSError as error:
        raise SojournError(f"{output} can't be written: {error.strerror}") from error


def _plain(text: str) -> Iterator[str]:
    return (message(line.expandtabs(4)) for line in text.splitlines())


# -- The table


class Hot(NamedTuple):
    """A function in a profile.

    Attributes:
        where: Its name and file.
        flat: What it took itself.
        cum: What it took with everything it called or awaited.
    """

    where: str
    flat: int
    cum: int


def hottest(samples: Iterable[tuple[Sequence[str], int]]) -> list[Hot]:
    """The functions of a profile, those first that took most themselves.

    Args:
        samples: The stacks, innermost first, each with its value.
    """
    flat: dict[str, int] = {}
    cum: dict[str, int] = {}
    for frames, value in samples:
        if frames:
            flat[frames[0]] = flat.get(frames[0], 0) + value
        for frame in set(frames):  # a function that calls itself counts once
            cum[frame] = cum.get(frame, 0) + value
    found = [Hot(where, flat.get(where, 0), total) for where, total in cum.items()]
    return sorted(found, key=lambda hot: (-hot.flat, -hot.cum, hot.where))


def _table(document: Mapping[str, Any], kind: str, most: int, target: Screen) -> Iterator[str]:
    index = document["default"]
    name, unit = _pair(document["kinds"][index])
    stacks = [_pair_of(sample) for sample in document["samples"]]
    samples = [([_function(frame) for frame in frames] or [_NO_STACK], values[index]) for frames, values in stacks]
    found = hottest(samples)
    total = sum(value for _, value in samples)
    over = f" over {duration(document['seconds'])}" if document["seconds"] else ""
    yield target.bold(f"{kind}{over}: {_amount(total, unit)} ({name}) in {len(samples)} stacks")
    yield from (f"  {message(comment)}" for comment in document["comments"])
    if not total:
        return
    rows = []
    above = 0
    for hot in found[:most]:
        above += hot.flat
        rows.append(
            {
                "flat": _amount(hot.flat, unit),
                "flat_share": f"{hot.flat / total:.1%}",
                "sum_share": f"{above / total:.1%}",
                "cum": _amount(hot.cum, unit),
                "cum_share": f"{hot.cum / total:.1%}",
                "where": hot.where,
            }
        )
    yield ""
    yield from table(_COLUMNS, rows, target)
    if len(found) > most:
        yield f"{len(found) - most} more functions"


def _function(frame: Any) -> str:
    function, file, _ = parts(frame)
    return f"{function}  {place(file)}" if file else function


def _pair(kind: Any) -> tuple[str, str]:
    """Name and unit of a kind of value, which comes as a pair or as an object."""
    return (kind["name"], kind["unit"]) if isinstance(kind, dict) else (kind[0], kind[1])


def _pair_of(sample: Any) -> tuple[Sequence[Any], Sequence[int]]:
    return (sample["stack"], sample["values"]) if isinstance(sample, dict) else (sample[0], sample[1])


def _amount(value: int, unit: str) -> str:
    if unit == "nanoseconds":
        return duration(value / 1e9)
    if unit == "seconds":
        return duration(value)
    return size(value) if unit == "bytes" else number(value)
