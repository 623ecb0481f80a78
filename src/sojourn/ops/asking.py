"""What all commands share that ask a running server: where it is, the token, and how answers are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from sojourn.errors import ConfigError
from sojourn.ops.client import Admin
from sojourn.ops.words import plain
from sojourn.server.settings import load

__all__ = ["as_json", "asks", "find", "tell", "token", "unanswered", "with_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The option of commands that read.
as_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, with exact values.")


def asks(function: _Function) -> _Function:
    """Give a command the options that say whom to ask; it gets ``admin``, the client.

    Args:
        function: The command, before ``click.command``.
    """

    @wraps(function)
    def asking(
        *, place: str | None, token_file: Path | None, config_file: Path | None, timeout: float, **more: Any
    ) -> Any:
        return function(admin=find(place, token_file, config_file, timeout, os.environ), **more)

    result: _Function = with_options(asking)
    return result


def with_options(function: Any) -> Any:
    """Give a command the options that say whom to ask, as ``place``, ``token_file``, ``config_file`` and ``timeout``.

    Args:
        function: The command, before ``click.command``.
    """
    options = (
        click.option("--admin", "place", metavar="PLACE", help="Whom to ask: unix:PATH or HOST:PORT. [admin.bind]"),
        click.option("--token-file", type=click.Path(path_type=Path), help="File with the token. [admin.token]"),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings to find both in."),
        click.option(
            "--timeout",
            type=click.FloatRange(0.1, 600),
            default=10.0,
            metavar="SECONDS",
            help="Seconds for an answer. [10]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def find(
    place: str | None, token_file: Path | None, config_file: Path | None, seconds: float, environ: Mapping[str, str]
) -> Admin:
    """The client of the server that is meant.

    Args:
        place: What ``--admin`` says; None reads ``admin.bind`` from the environment, then from the settings' file. The
            file is not read when the place is named: its token is for another server.
        token_file: A file whose content is the token; None takes ``admin.token``.
        config_file: The settings' file; None looks for one in the working folder.
        seconds: For one answer.
        environ: The environment.

    Raises:
        ConfigError: Nobody says where, or a file can't be read.
    """
    secret = environ.get("SOJOURN_ADMIN_TOKEN")
    if place is None:
        settings = load(file=config_file, environ=environ, flags={}, cwd=Path.cwd()).config.admin
        place, secret = settings.bind, settings.token
    if place is None:
        where = "give --admin, or set SOJOURN_ADMIN_BIND, or admin.bind in sojourn.toml"
        raise ConfigError(f"where is the admin listener? {where}")
    return Admin(place, token=token(token_file) if token_file else secret, seconds=seconds)


def token(file: Path) -> str:
    """The token in a file, without blanks around it.

    Raises:
        ConfigError: It can't be read, or there is none.
    """
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigError(f"the token can't be read: {reason}", origin=str(file)) from error
    if not text or not text.isprintable():
        raise ConfigError("holds no token, which is one line", origin=str(file))
    return text


def tell(document: object) -> None:
    """Print a document as JSON."""
    click.echo(json.dumps(document, indent=2))


def unanswered(document: Mapping[str, Any]) -> int:
    """Say on standard error which workers did not answer.

    Returns:
        The exit code: 0 when at least one worker answered, 1 otherwise.
    """
    workers = document.get("workers")
    if not isinstance(workers, dict):
        return 0
    missing = {number: problem for number, problem in workers.items() if problem != "ok"}
    for number, problem in missing.items():
        click.echo(f"warning: worker {number}: {plain(problem)}", err=True)
    return 1 if missing and len(missing) == len(workers) else 0
