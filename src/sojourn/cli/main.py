"""The console entry: finds the command, and turns every expected error into one line and an exit code.

Commands are imported when they are called, so that ``sojourn --help`` stays quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import click

from sojourn.errors import SojournError

__all__ = ["COMMANDS", "main"]

_USAGE: Final = 2
_INTERRUPTED: Final = 130


class Command(NamedTuple):
    """Where a command is and what it does.

    Attributes:
        module: Module that holds it.
        name: Its name there.
        help: One line for ``sojourn --help``.
    """

    module: str
    name: str
    help: str


#: Every command by its name.
COMMANDS: Final = {
    "serve": Command("sojourn.cli.serve", "serve", "Serve an ASGI application."),
    "upgrade": Command("sojourn.cli.upgrade", "upgrade", "Replace a running supervisor and its workers by new code."),
    "config": Command("sojourn.cli.config", "config", "Show every setting with its value, unit and origin."),
    "version": Command("sojourn.cli.version", "version", "Show the versions of Sojourn and of what it runs on."),
}


class _Lazy(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and ":" in args[0] and args[0] not in COMMANDS:
            ctx.fail(f"no such command {args[0]!r}: did you mean sojourn serve {args[0]}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        return cast(click.Command, getattr(importlib.import_module(command.module), command.name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option("--version", is_flag=True, help="Show the versions and exit.")
@click.pass_context
def _sojourn(ctx: click.Context, /, version: bool) -> int:
    """An ASGI server for connections that last: every wait has a deadline, every shutdown drains.

    `sojourn serve module:app` serves an application; `sojourn COMMAND --help` explains a command.
    """
    if version:
        from sojourn.cli.version import versions

        click.echo(versions())
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its name and arguments; None takes those of the process.

    Returns:
        The exit code: 0 clean, 2 usage or configuration, 3 startup, 4 bind, 130 interrupted, and what serving returns.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _sojourn.main(arguments, prog_name="sojourn", standalone_mode=False, obj=tuple(arguments))
    except click.ClickException as exc:
        return _fail(_described(exc), _USAGE)
    except SojournError as exc:
        return _fail(str(exc), exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code


def _described(exc: click.ClickException) -> str:
    """Click's message, with the way to the help where the usage was wrong."""
    text = exc.format_message()
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        text += f" (see {exc.ctx.command_path} --help)"
    return text
