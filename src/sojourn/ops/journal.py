"""``sojourn journal``: durable tasks of a running server, or in a journal: which there are, and changing them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from sojourn.clock import SystemClock
from sojourn.errors import ConfigError
from sojourn.observe.log.text import message
from sojourn.ops.asking import as_json, tell, unanswered
from sojourn.ops.journal_source import Source, looks
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, plain

__all__ = ["KINDS", "RUNS", "SERVICES", "TASKS", "cancel", "journal", "listed", "retry", "show"]

_Row = Mapping[str, Any]
#: Runs of a service, and tasks, that are shown unless somebody asks for more.
_RUNS: Final = 20
_TASKS: Final = 50
_STATES: Final = ("pending", "running", "completed", "failed", "cancelled")
_FROM: Final = {"cancel": ("pending", "running"), "retry": ("failed", "cancelled")}


def _engine(row: _Row) -> str:
    return str(row["engine"]) if row["away"] is None else f"{row['engine']}, away for {duration(row['away'])}"


def _count(row: _Row, group: str, *names: str) -> str:
    return number(sum(row[group].get(name, 0) for name in names))


#: What a list of services shows: a row for each worker.
SERVICES: Final = (
    Column("SERVICE", lambda s: s["name"], cut="end"),
    Column("WORKER", lambda s: str(s["worker"]), right=True),
    Column("ENGINE", _engine),
    Column("RUN", lambda s: number(sum(s["running"].values())), right=True),
    Column("AHEAD", lambda s: number(s["held"] - sum(s["running"].values())), right=True, rank=3),
    Column("ROOM", lambda s: number(s["room"]), right=True, rank=2),
    Column("STARTED", lambda s: number(s["submitted"]), right=True, rank=1),
    Column("COMPLETED", lambda s: _count(s, "ended", "completed"), right=True),
    Column("RETRIED", lambda s: _count(s, "ended", "retry"), right=True, rank=1),
    Column("FAILED", lambda s: _count(s, "ended", "failed"), right=True),
    Column("HANDED OVER", lambda s: _count(s, "interrupted", "drain"), right=True, rank=2),
    Column("TAKEN UP", lambda s: _count(s, "interrupted", "crash"), right=True, rank=2),
    Column("LOST", lambda s: number(s["lost"]), right=True, rank=1),
)

#: What a list of kinds shows: what is in the journal, of all nodes.
KINDS: Final = (
    Column("KIND", lambda k: k["kind"], cut="end"),
    *(Column(state.upper(), lambda k, state=state: number(k.get(state, 0)), right=True) for state in _STATES),  # type: ignore[misc]
    Column("OLDEST DUE", lambda k: duration(k["oldest"]), right=True),
    Column("SERVICE", lambda k: k["service"], cut="end", rank=1),
)

#: What a list of runs shows.
RUNS: Final = (
    Column("TASK", lambda r: r["id"]),
    Column("KIND", lambda r: r["kind"], cut="end"),
    Column("FOR", lambda r: duration(r["age"]), right=True),
    Column("OF", lambda r: duration(r["deadline"]), right=True, rank=1),
    Column("ATTEMPT", lambda r: str(r["attempt"]), right=True, rank=2),
    Column("INTERRUPTED", lambda r: number(r["interruptions"]) if r["interruptions"] else "-", right=True, rank=3),
    Column("OWNER", lambda r: r["owner"], cut="end", rank=4),
    Column("WORKER", lambda r: str(r["worker"]), right=True),
    Column("", lambda r: "stuck: it should have ended" if r["stuck"] else "", rank=1),
)

#: What a list of tasks shows; ``age`` and ``due`` are added to what was answered.
TASKS: Final = (
    Column("TASK", lambda t: t["id"]),
    Column("KIND", lambda t: t["kind"], cut="end"),
    Column("STATE", lambda t: "cancelling" if t["cancelling"] else t["state"]),
    Column("AGE", lambda t: duration(t["age"]), right=True),
    Column("DUE IN", lambda t: duration(t["due"]), right=True, rank=2),
    Column("FAILURES", lambda t: number(t["failures"]) if t["failures"] else "-", right=True, rank=1),
    Column("INTERRUPTED", lambda t: number(t["interruptions"]) if t["interruptions"] else "-", right=True, rank=2),
    Column("OWNER", lambda t: t["owner"], cut="end", rank=4),
    Column("NODE", lambda t: t["node"], cut="end", rank=3),
    Column("PROBLEM", lambda t: t["problem"], cut="end", rank=1),
)

_name: Final = click.option("--name", metavar="NAME", help="Only of services of this name.")


@click.command()
@_name
@click.option("--limit", type=click.IntRange(min=1), default=_RUNS, help=f"So many runs of each worker. [{_RUNS}]")
@looks
@as_json
def journal(source: Source, as_json: bool, name: str | None, limit: int) -> int:
    """Show durable tasks: what runs where, how many there are of each kind, and how long the oldest due one has waited.

    `sojourn journal list` and `show` look closer; `sojourn journal retry` and `cancel` change what there is.
    """
    document = source.overview(name=name, limit=limit)
    if as_json:
        tell(document)
    else:
        for line in _overview(document, screen()):
            click.echo(line)
        if not document["journals"] and not document["tasks"]:
            click.echo("no durable tasks", err=True)
        if document["problem"]:
            click.echo(f"warning: {plain(document['problem'])}", err=True)
    return unanswered(document)


def _overview(document: Mapping[str, Any], target: Screen) -> Iterator[str]:
    services = sorted(document["journals"], key=lambda row: (row["name"], row["worker"]))
    runs = [{**run, "worker": row["worker"]} for row in services for run in row["runs"]]
    kinds = [
        {"kind": kind, "service": service, "oldest": amounts["oldest"].get(kind), **states}
        for service, amounts in sorted(document["tasks"].items())
        for kind, states in sorted(amounts["states"].items())
    ]
    tables = ((SERVICES, services), (KINDS, kinds), (RUNS, sorted(runs, key=lambda run: -run["age"])))
    first = True
    for columns, rows in tables:
        if rows:
            if not first:
                yield ""
            yield from table(columns, rows, target)
            first = False


@click.command("journal list")
@_name
@click.option("--state", type=click.Choice(_STATES), help="In this state.")
@click.option("--kind", metavar="KIND", help="Of this kind.")
@click.option("--owner", metavar="OWNER", help="Of this principal; '' for nobody.")
@click.option("--before", metavar="ID", help="Those made before this one: the next page.")
@click.option("--limit", type=click.IntRange(min=1, max=10_000), default=_TASKS, help=f"At most so many. [{_TASKS}]")
@looks
@as_json
def listed(source: Source, as_json: bool, **query: Any) -> int:
    """List durable tasks, newest first."""
    document = source.tasks(**query)
    if as_json:
        tell(document)
    elif not document["tasks"]:
        click.echo("no such task", err=True)
    else:
        now = SystemClock.wall()
        for line in table(TASKS, [_aged(task, now) for task in document["tasks"]], screen()):
            click.echo(line)
    return 0


def _aged(task: _Row, now: float) -> dict[str, Any]:
    """With what depends on the time; a clock that differs from the journal's makes nothing negative."""
    waits = task["run_at"] - now if task["state"] == "pending" else 0.0
    return {**task, "age": max(0.0, now - task["created"]), "due": waits if waits > 0.0 else None}


@click.command("journal show")
@click.argument("task", metavar="ID")
@looks
@as_json
def show(source: Source, as_json: bool, task: str) -> int:
    """Show a durable task with all that is known of it: arguments, result, error, and what it has said last."""
    document = source.task(task)
    if as_json:
        tell(document)
    else:
        for line in _whole(document, SystemClock.wall()):
            click.echo(line)
    return 0


def _whole(task: _Row, now: float) -> Iterator[str]:
    state = "running, to be cancelled" if task["cancelling"] else task["state"]
    yield f"{'task':14}{plain(task['id'])}"
    yield f"{'kind':14}{plain(task['kind'])}"
    yield f"{'state':14}{plain(state)}"
    for name in ("owner", "key", "node", "problem"):
        if task[name]:
            yield f"{name:14}{plain(task[name])}"
    for name in ("priority", "failures", "interruptions", "crashes", "epoch"):
        if task[name]:
            yield f"{name:14}{number(task[name])}"
    for title, name in (("created", "created"), ("due", "run_at"), ("begun", "begun"), ("updated", "updated")):
        yield from _moment(title, task[name], now)
    yield from _moment("leased until", task["lease_until"], now)
    yield from _moment("ended", task["ended"], now)
    for title, name in (("arguments", "payload"), ("result", "result"), ("checkpoint", "checkpoint"), ("how", "spec")):
        if task[name] is not None:
            yield f"{title:14}{plain(json.dumps(task[name], ensure_ascii=False))}"
    trace = task["error"].get("trace") if isinstance(task["error"], Mapping) else None
    for line in str(trace or "").splitlines():
        yield f"    {message(line)}"
    for moment in task["said"]:
        yield f"{'said ' + str(moment['seq']):14}{plain(json.dumps(moment['data'], ensure_ascii=False))}"


def _moment(title: str, at: float, now: float) -> Iterator[str]:
    if at:
        yield f"{title:14}{duration(now - at)} ago" if at <= now else f"{title:14}in {duration(at - now)}"


@click.command("journal retry")
@click.argument("tasks", metavar="ID...", nargs=-1)
@click.option("--kind", metavar="KIND", help="All of this kind.")
@click.option("--state", type=click.Choice(_FROM["retry"]), help="Those in this state, with --kind. [failed]")
@_name
@looks
@as_json
def retry(source: Source, as_json: bool, tasks: tuple[str, ...], **query: Any) -> int:
    """Try durable tasks again that failed or were cancelled: some by their ids, or all of a kind.

    They begin with all their attempts. A running server must allow it with admin.actions.
    """
    return _change(source, "retry", tasks, query, as_json)


@click.command("journal cancel")
@click.argument("tasks", metavar="ID...", nargs=-1)
@click.option("--kind", metavar="KIND", help="All of this kind.")
@click.option("--state", type=click.Choice(_FROM["cancel"]), help="Those in this state, with --kind. [pending]")
@_name
@looks
@as_json
def cancel(source: Source, as_json: bool, tasks: tuple[str, ...], **query: Any) -> int:
    """End durable tasks that have not ended: some by their ids, or all of a kind. Those that run end a moment later.

    A running server must allow it with admin.actions.
    """
    return _change(source, "cancel", tasks, query, as_json)


def _change(source: Source, what: str, tasks: Sequence[str], query: Mapping[str, Any], as_json: bool) -> int:
    if bool(tasks) == bool(query["kind"]) or (tasks and query["state"]):
        raise ConfigError(f"say which: `sojourn journal {what} ID...`, or --kind KIND and perhaps --state STATE")
    if not tasks:
        return _change_all(source, what, query, as_json)
    answers = []
    for task in tasks:
        answers.append(after := source.change(what, task))
        if not as_json:  # at once: the next one may be refused
            click.echo(f"{plain(task)}: {'cancelling' if after['cancelling'] else plain(after['state'])}")
    if as_json:
        tell(answers)
    return 0


def _change_all(source: Source, what: str, query: Mapping[str, Any], as_json: bool) -> int:
    changed, before = 0, ""
    while True:
        answer = source.change_all(what, before=before or None, **query)
        changed, before = changed + answer["changed"], answer["before"]
        if not before:
            break
    if as_json:
        tell({"changed": changed})
    else:
        word = "cancelled" if what == "cancel" else "to be tried again"
        click.echo(f"{number(changed)} {'task' if changed == 1 else 'tasks'} {word}")
    return 0
