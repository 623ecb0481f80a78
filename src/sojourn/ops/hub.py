"""``sojourn hub`` and ``sojourn hub disconnect``: who is in the hubs of a running server, and ending members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import click

from sojourn.errors import ConfigError
from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, size

__all__ = ["CHANNELS", "HUBS", "SLOW", "disconnect", "hub", "largest"]

_Row = Mapping[str, Any]
#: Channels and slow members that are shown, unless somebody asks for more.
_SHOWN: Final = 20


def _engine(row: _Row) -> str:
    return str(row["engine"]) if row["away"] is None else f"{row['engine']}, away for {duration(row['away'])}"


def _transports(row: _Row) -> str:
    return ", ".join(f"{number(count)} {name}" for name, count in row["members"].items() if count)


#: What a list of hubs shows: a row for each worker.
HUBS: Final = (
    Column("HUB", lambda h: h["name"], cut="end"),
    Column("WORKER", lambda h: str(h["worker"]), right=True),
    Column("MEMBERS", lambda h: number(sum(h["members"].values())), right=True),
    Column("BY", _transports, cut="end", rank=3),
    Column("USERS", lambda h: number(h["users"]), right=True, rank=2),
    Column("CHANNELS", lambda h: number(h["channels"]), right=True),
    Column("SLOW", lambda h: number(h["slow"]), right=True),
    Column("SUSPECT", lambda h: number(h["suspect"]), right=True),
    Column("WAITS", lambda h: size(h["buffered"]), right=True),
    Column("ENGINE", _engine),
    Column("LAG", lambda h: duration(h["lag"]) if h["lag"] else "-", right=True, rank=1),
)

#: What a list of channels shows: a row for each channel of each hub.
CHANNELS: Final = (
    Column("CHANNEL", lambda c: c["channel"], cut="end"),
    Column("MEMBERS", lambda c: number(c["members"]), right=True),
    Column("HUB", lambda c: c["hub"], cut="end", rank=2),
    Column("AT", lambda c: c["position"], rank=1),
)

#: What a list of slow members shows.
SLOW: Final = (
    Column("MEMBER", lambda m: m["member"]),
    Column("USER", lambda m: m["user"], cut="end"),
    Column("PEER", lambda m: m["peer"], cut="start", rank=2),
    Column("BY", lambda m: m["transport"]),
    Column("STATE", lambda m: m["state"], rank=3),
    Column("CHANNELS", lambda m: number(m["channels"]), right=True, rank=3),
    Column("MESSAGES", lambda m: number(m["messages"]), right=True),
    Column("WAITS", lambda m: size(m["bytes"]), right=True),
    Column("FOR", lambda m: duration(m["waits"]), right=True),
    Column("HUB", lambda m: m["hub"], cut="end", rank=4),
    Column("WORKER", lambda m: str(m["worker"]), right=True, rank=1),
)


@click.command()
@click.option("--name", metavar="NAME", help="Only hubs of this name.")
@click.option("--worker", type=int, help="Of this worker.")
@click.option("--limit", type=click.IntRange(min=1), default=_SHOWN, help=f"So many channels and members. [{_SHOWN}]")
@asks
@as_json
def hub(admin: Admin, as_json: bool, name: str | None, worker: int | None, limit: int) -> int:
    """Show the hubs: members, the largest channels, slow members with what waits for them, and the engine.

    `sojourn hub disconnect` ends members.
    """
    document = admin.get("/hub", name=name, worker=worker, limit=limit)
    if as_json:
        tell(document)
    elif not document["hubs"]:
        click.echo("no hub", err=True)
    else:
        for line in _lines(document["hubs"], limit, screen()):
            click.echo(line)
    return unanswered(document)


def _lines(hubs: Sequence[_Row], limit: int, target: Screen) -> Iterator[str]:
    yield from table(HUBS, sorted(hubs, key=lambda row: (row["name"], row["worker"])), target)
    channels = largest(hubs)[:limit]
    if channels:
        yield ""
        yield from table(CHANNELS, channels, target)
    slow = [{**member, "hub": row["name"], "worker": row["worker"]} for row in hubs for member in row["waiting"]]
    if slow:
        yield ""
        yield from table(SLOW, sorted(slow, key=lambda member: -member["bytes"])[:limit], target)


def largest(hubs: Iterable[_Row]) -> list[dict[str, Any]]:
    """The channels of all workers together, those with most members first.

    A channel that is among the largest of one worker only is counted there alone.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in hubs:
        for channel in row["largest"]:
            whole = found.setdefault(
                (row["name"], channel["channel"]),
                {"hub": row["name"], "channel": channel["channel"], "members": 0, "position": ""},
            )
            whole["members"] += channel["members"]
            whole["position"] = max(whole["position"], channel["position"], key=_place)
    return sorted(found.values(), key=lambda channel: (-channel["members"], channel["channel"]))


def _place(position: str) -> int:
    """The number in a cursor; workers of one engine have the same epoch."""
    seq = position.rpartition(".")[2]
    return int(seq) if seq.isdecimal() else -1


@click.command("hub disconnect")
@click.option("--user", metavar="USER", help="All members of this user.")
@click.option("--member", metavar="ID", help="This member, as `sojourn hub` names it.")
@click.option("--name", metavar="NAME", help="Only in hubs of this name.")
@click.option("--worker", type=int, help="Only of this worker.")
@click.option(
    "--code", type=click.IntRange(1000, 4999), metavar="CODE", help="Close code; below 4500: come back. [4503]"
)
@asks
@as_json
def disconnect(admin: Admin, as_json: bool, **given: Any) -> int:
    """End members of hubs on all workers of this server, by user or by id.

    They are told not to come back, unless the code says otherwise. The server must allow it with admin.actions.
    """
    if not given["user"] and not given["member"]:
        raise ConfigError("say whom: --user USER or --member ID")
    document = admin.post("/hub/disconnect", **given)
    if as_json:
        tell(document)
    else:
        ended = document["ended"]
        click.echo(f"{number(ended)} {'member' if ended == 1 else 'members'} ended")
    return unanswered(document)
