"""``sojourn tasks``: the asyncio tasks, flat, as a tree of who awaits whom, or grouped by what they do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, place, plain, stack

__all__ = ["GROUPED", "grouped", "tasks"]

_Task = Mapping[str, Any]


#: What varies from one look to the next: seconds that are left, numbers of tasks and connections.
_NUMBERS: Final = re.compile(r"\s*\d.*")


def _waits(task: _Task) -> str:
    state = f"waits for {task['waits_for']}" if task["waits_for"] else str(task["state"])
    return f"{state}, outlived its owner" if task["retained"] else state


def _age(task: _Task) -> float:
    """Its age; nobody noted that of a task that is older than the server's watch, which makes it the oldest."""
    return math.inf if task["age"] is None else float(task["age"])


_COLUMNS: Final = (
    Column("TASK", lambda t: f"{t['worker']}-{t['id']}"),
    Column("AGE", lambda t: duration(t["age"]), right=True),
    Column("STATE", _waits, cut="end"),
    Column("COROUTINE", lambda t: t["coroutine"], cut="end"),
    Column("AT", lambda t: place(t["waiting"]), cut="start"),
    Column("OWNER", lambda t: t["owner"], cut="end", rank=1),
    Column("CREATED", lambda t: place(t["created"]), cut="start", rank=2),
)

#: What a list of groups shows.
GROUPED: Final = (
    Column("TASKS", lambda g: number(g["count"]), right=True),
    Column("OLDEST", lambda g: duration(g["oldest"]), right=True),
    Column("MEDIAN", lambda g: duration(g["median"]), right=True),
    Column("COROUTINE", lambda g: g["coroutine"], cut="end"),
    Column("WAITS FOR", lambda g: g["waits_for"], cut="end", rank=3),
    Column("AT", lambda g: place(g["waiting"]), cut="start"),
    Column("CREATED", lambda g: place(g["created"]), cut="start", rank=2),
)


@click.command()
@click.option("--tree", "form", flag_value="tree", help="Each task below the one that awaits it.")
@click.option("--group", "form", flag_value="group", help="Count those that were made and wait at the same places.")
@click.option("--stacks", is_flag=True, help="With the stack of each, innermost first.")
@click.option("--older", type=float, metavar="SECONDS", help="Made at least so long ago.")
@click.option("--owner", metavar="OWNER", help="Of this owner: request, connection, server, application.")
@click.option("--worker", type=int, help="Of this worker.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@asks
@as_json
def tasks(admin: Admin, as_json: bool, form: str | None, stacks: bool, **filters: Any) -> int:
    """List the asyncio tasks: who made them, who owns them, how old they are and what they wait for."""
    document = admin.get("/tasks", stacks=stacks, **filters)
    found: list[_Task] = document["tasks"]
    if as_json:
        tell(document)
    elif not found:
        click.echo("no task", err=True)
    else:
        for line in _lines(found, form, stacks, screen()):
            click.echo(line)
    return unanswered(document)


def _lines(found: Sequence[_Task], form: str | None, stacks: bool, target: Screen) -> Iterator[str]:
    if form == "tree":
        yield from _tree(found, stacks, target)
    elif form == "group":
        yield from table(GROUPED, grouped(found), target)
    else:
        found = sorted(found, key=_age, reverse=True)
        lines = table(_COLUMNS, found, target)
        yield next(lines)
        for task, line in zip(found, lines, strict=True):
            yield line
            if stacks:
                yield from (f"    {frame}" for frame in stack(task["stack"]))


def grouped(found: Sequence[_Task]) -> list[dict[str, Any]]:
    """Tasks counted by what they run, where they were made and where they wait; the largest group first.

    Args:
        found: The tasks.
    """
    groups: dict[tuple[str, str, str], list[_Task]] = {}
    for task in found:
        groups.setdefault((task["coroutine"], task["created"], task["waiting"]), []).append(task)
    rows = []
    for (coroutine, created, waiting), members in groups.items():
        ages = sorted(task["age"] for task in members if task["age"] is not None)
        reasons = {_NUMBERS.sub("", task["waits_for"]) for task in members}
        rows.append(
            {
                "count": len(members),
                "oldest": ages[-1] if ages else None,
                "median": ages[len(ages) // 2] if ages else None,
                "coroutine": coroutine,
                "created": created,
                "waiting": waiting,
                "waits_for": reasons.pop() if len(reasons) == 1 else "",
                "owners": sorted({task["owner"] for task in members}),
            }
        )
    return sorted(rows, key=lambda row: (-row["count"], -(row["oldest"] or math.inf)))


def _tree(found: Sequence[_Task], stacks: bool, target: Screen) -> Iterator[str]:
    """Tasks below the tasks that await them, those that nobody awaits by their owner."""
    known = {(task["worker"], task["id"]) for task in found}
    below: dict[tuple[int, int], list[_Task]] = {}
    roots: list[_Task] = []
    for task in sorted(found, key=_age, reverse=True):
        above = (task["worker"], task["parent"])
        if task["parent"] is not None and above in known:
            below.setdefault(above, []).append(task)
        else:
            roots.append(task)
    left = {(task["worker"], task["id"]): task for task in found}
    owner = None
    for task in sorted(roots, key=lambda task: (task["worker"], task["owner"])):
        if (task["worker"], task["owner"]) != owner:
            owner = (task["worker"], task["owner"])
            yield target.bold(f"worker {task['worker']}, {plain(task['owner']) or 'no owner'}")
        yield from _branch(task, "  ", "", below, left, stacks)
    while left:  # they await each other in a ring: nobody is on top
        first = next(iter(left.values()))
        yield target.red(f"worker {first['worker']}, tasks that wait for each other")
        yield from _branch(first, "  ", "", below, left, stacks)


def _branch(
    task: _Task,
    indent: str,
    mark: str,
    below: Mapping[tuple[int, int], Sequence[_Task]],
    left: dict[tuple[int, int], _Task],
    stacks: bool,
) -> Iterator[str]:
    """A task and those it awaits, without recursion: chains may be deep."""
    pending = [(task, indent, mark)]
    while pending:
        task, indent, mark = pending.pop()
        key = (task["worker"], task["id"])
        if left.pop(key, None) is None:
            yield f"{indent}{mark}task {task['id']}, again"
            continue
        at = f" at {place(task['waiting'])}" if task["waiting"] else ""
        name = "" if task["name"] == f"Task-{task['id']}" else f" {plain(task['name'])!r}"
        yield (
            f"{indent}{mark}task {task['id']}{name} {plain(task['coroutine'])}, "
            f"{duration(task['age'])}, {plain(_waits(task))}{at}"
        )
        inner = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
        children = below.get(key, ())
        if stacks:
            bar = "│    " if children else "     "
            yield from (f"{inner}{bar}{frame}" for frame in stack(task["stack"]))
        last = len(children) - 1
        pending.extend(
            (child, inner, "└─ " if index == last else "├─ ") for index, child in reversed([*enumerate(children)])
        )
