"""``sojourn close``, ``drain``, ``restart`` and ``log-level``: what changes a server that runs."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from sojourn.errors import ConfigError
from sojourn.ops.asking import as_json, asks, tell
from sojourn.ops.client import Admin
from sojourn.ops.settings import value
from sojourn.ops.words import plain

__all__ = ["close", "drain", "log_level", "restart"]

_CONNECTION: Final = re.compile(r"[0-9]{1,9}-[0-9]{1,18}")
_LEVELS: Final = ("debug", "info", "warning", "error")


@click.command()
@click.argument("connections", metavar="ID...", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Don't wait for the answer that is under way.")
@click.option("--code", type=click.IntRange(1000, 4999), metavar="CODE", help="Of a WebSocket's close frame. [4503]")
@asks
@as_json
def close(admin: Admin, connections: tuple[str, ...], now: bool, code: int | None, as_json: bool) -> int:
    """End connections, named as `sojourn ps` names them: 1-17 is number 17 of worker 1.

    A WebSocket gets a close frame (4503), a request is answered first. The server must allow it with admin.actions.
    """
    wrong = [name for name in connections if not _CONNECTION.fullmatch(name)]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is no connection: write WORKER-NUMBER, as `sojourn ps` shows it")
    answers = []
    for name in connections:
        answers.append(answer := admin.post(f"/connections/{name}/close", now=now, code=code))
        if not as_json:  # at once: the next one may be refused
            click.echo(f"connection {name}: {plain(answer['how'])}")
    if as_json:
        tell(answers)
    return 0


@click.command()
@asks
@as_json
def drain(admin: Admin, as_json: bool) -> int:
    """End the server cleanly, as SIGTERM does. `sojourn status` shows how far it is."""
    return _command(admin, "drain", "drains", as_json)


@click.command()
@asks
@as_json
def restart(admin: Admin, as_json: bool) -> int:
    """Replace all workers one by one, as SIGHUP does; no connection is refused."""
    return _command(admin, "restart", "restarts its workers one by one", as_json)


def _command(admin: Admin, name: str, what: str, as_json: bool) -> int:
    document = admin.post(f"/{name}")
    if as_json:
        tell(document)
    else:
        click.echo(f"{plain(document['instance'])} {what}")
    return 0


@click.command("log-level")
@click.argument("level", type=click.Choice(_LEVELS), required=False)
@asks
@as_json
def log_level(admin: Admin, level: str | None, as_json: bool) -> int:
    """Show the level of the log, or change it until the next restart."""
    if level is not None:
        document: Any = admin.post("/log-level", {"level": level})
        said = f"the log's level is {level}"
    else:
        document = {"level": value(admin.get("/config"), "log.level")}
        said = str(document["level"])
    if as_json:
        tell(document)
    else:
        click.echo(said)
    return 0
