"""RESULTS.md and results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.figures import DURABLE_MEASURES, DURABLE_STORES, FIGURES, THROUGHPUT, Figure
from bench.figures.deadlines import KINDS
from bench.figures.diagnostics import FLAGS as WATCHED
from bench.figures.fanout import NAMES as FANNED
from bench.figures.nodes import NAMES as NODES
from bench.gates import GATES
from bench.results import Results, Span

SATURATED = 0.90
DISTURBED = 0.10

LEGEND = f"""The three core columns are the largest of the rounds: the server's use of its core, the load client's use
of its core, and what else ran on the more disturbed of the two. † the load client used {SATURATED:.0%} or more of its
core: a lower bound. ‡ other work took {DISTURBED:.0%} or more of a core."""


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _cell(found: Span | None, figure: Figure, mark: str) -> str:
    if found is None:
        return "-"
    low, high = _number(found.low, figure.digits), _number(found.high, figure.digits)
    return f"{_number(found.median, figure.digits)}{mark} ({low} to {high})"


def _mark(results: Results, figure: str, server: str) -> str:
    mark = "†" if (results.worst(figure, server, "client_core") or 0) >= SATURATED else ""
    return mark + ("‡" if (results.worst(figure, server, "others") or 0) >= DISTURBED else "")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows), ""]


def gates(results: Results) -> list[str]:
    """The table of gates."""
    rows = []
    for gate in GATES:
        found, met = gate.span(results), gate.met(results)
        against = f"cost of {gate.cost}" if gate.cost else f"sojourn / {gate.peer}" if gate.peer else "sojourn"
        shape = ".1%" if gate.cost else ".2f"
        measured = f"{found.median:{shape}} ({found.low:{shape}} to {found.high:{shape}})" if found else "-"
        bound = f"{gate.sign} " + (f"{gate.bound:.0%}" if gate.cost else f"{gate.bound:.2f}")
        state = "not measured" if met is None else ("yes" if met else "**no**")
        rows.append([f"{FIGURES[gate.figure].title}, {against}", bound, measured, state])
    return _table(["gate", "bound", "measured", "met"], rows)


def figures(results: Results, servers: list[str]) -> list[str]:
    """Every server's median with the span of the rounds, and its ratio to sojourn."""
    lines: list[str] = []
    for figure in FIGURES.values():
        measured = [name for name in servers if results.of(figure.name, name)]
        if not measured or figure.name in BY_CALL:
            continue
        rows, loaded = [], figure.name in THROUGHPUT
        for name in measured:
            ratio = results.ratio(figure.name, "sojourn", name) if name != "sojourn" else None
            fields = ("server_core", "client_core", "others") if loaded else ()
            cores = [results.worst(figure.name, name, field) for field in fields]
            rows.append(
                [
                    name,
                    _cell(results.span(figure.name, name), figure, _mark(results, figure.name, name)),
                    f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-",
                    *("-" if core is None else f"{core:.0%}" for core in cores),
                ]
            )
        lines += [f"### {figure.title} ({figure.unit})", ""]
        head = ["server", "median (min to max)", "sojourn / it"]
        lines += _table(head + (["server core", "client core", "others"] if loaded else []), rows)
    return lines


class Column(NamedTuple):
    """A column of a table of settings: its head, its detail of a sample (None: the value), divided by what, digits."""

    head: str
    detail: str | None
    per: float
    digits: int


_DURABLE = (
    "client",
    Column("submits/s, one caller", "turn", 1.0, 0),
    Column("100 callers", "together", 1.0, 0),
    Column("done/s", "done", 1.0, 0),
    Column("to start, P50 ms", "p50", 1.0, 2),
    Column("P99 ms", "p99", 1.0, 2),
    Column("processor, us a task", "cpu", 1.0, 0),
    Column("producer", "producer_us", 1.0, 0),
    Column("worker", "worker_us", 1.0, 0),
    Column("store", "store_us", 1.0, 0),
)

#: Figures whose rows are no servers, and their columns.
SETTINGS = {
    "dumps": (
        "dump",
        Column("ms", None, 1.0, 1),
        Column("longest turn of the loop, ms", "longest", 1.0, 2),
        Column("KiB", "bytes", 1024.0, 0),
    ),
    "route": (
        "router",
        *(Column(f"{count:,}", f"found_{count}", 1.0, 2) for count in (10, 100, 1_000, 10_000)),
        *(Column(f"{count:,}, hardly repeating", f"spread_{count}", 1.0, 2) for count in (10, 1_000, 10_000)),
    ),
    "fan_calls": (
        "server",
        *(
            Column(f"{members:,} x {messages}, {what}", f"{key}_{members}_{messages}", 1.0, 1)
            for members in (2_000, 5_000)
            for messages in (20, 1)
            for key, what in (("cpu", "processor"), ("wall", "all have it"))
        ),
    ),
    "collector": (
        "thresholds",
        Column("P99, ms", None, 1.0, 2),
        Column("longest, ms", "max_us", 1000.0, 1),
        Column("requests/s", "rate", 1.0, 0),
    ),
    **{f"durable_{store}": _DURABLE for store in DURABLE_STORES},
}


#: Figures with a row for each server that only have such a table.
BY_CALL = (
    "fan_calls",
    *(f"durable_{store}" for store in DURABLE_STORES),
    *(f"durable_{store}_{key}" for store in DURABLE_STORES for key in DURABLE_MEASURES),
)


def settings(results: Results, figure: str) -> list[str]:
    """A figure of one server, by what was asked of it or how it was set; medians of the rounds."""
    first, *columns = SETTINGS[figure]
    rows = []
    for name in dict.fromkeys(sample.server for sample in results.samples if sample.figure == figure):
        samples = list(results.of(figure, name).values())
        row = [name]
        for column in columns:
            values = [sample.value if column.detail is None else sample.detail.get(column.detail) for sample in samples]
            known = [value for value in values if value is not None]
            row.append(f"{statistics.median(known) / column.per:,.{column.digits}f}" if known else "-")
        rows.append(row)
    if not rows:
        return []
    return [f"### {FIGURES[figure].title}", "", *_table([first, *(column.head for column in columns)], rows)]


def markdown(results: Results, facts: Mapping[str, Any], servers: list[str]) -> str:
    """The whole report."""
    lines = [
        "# Benchmark results",
        "",
        f"{facts['machine']['date']}: `{facts['command']}`",
        "",
        "## Gates",
        "",
        "A ratio is taken within each round; the median of the rounds counts, with the smallest and largest.",
        "",
        *gates(results),
        "## Figures",
        "",
    ]
    lines += [LEGEND, ""]
    lines += figures(
        results, [*servers, *(name for name in (*WATCHED, *KINDS, *FANNED, *NODES) if name not in servers)]
    )
    for figure in SETTINGS:
        lines += settings(results, figure)
    if results.errors:
        lines += ["## Not measured", "", *(f"- {what}: {error}" for what, error in results.errors.items()), ""]
    lines += ["## Conditions", "", *(f"- {note}" for note in results.notes)]
    lines += [f"- {key}: {value}" for key, value in facts["machine"].items() if key != "date"]
    lines += [f"- {key}: {value}" for key, value in facts["versions"].items()]
    return "\n".join(lines) + "\n"


def write(results: Results, facts: Mapping[str, Any], servers: list[str], folder: Path) -> None:
    """RESULTS.md and results.json in `folder`."""
    (folder / "RESULTS.md").write_text(markdown(results, facts, servers))
    whole = {
        **facts,
        **results.as_json(),
        "gates": [
            {
                "figure": gate.figure,
                "peer": gate.peer,
                "cost": bool(gate.cost),
                "sign": gate.sign,
                "bound": gate.bound,
                "measured": found.median if (found := gate.span(results)) else None,
                "met": gate.met(results),
            }
            for gate in GATES
        ],
    }
    (folder / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
