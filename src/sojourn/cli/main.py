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

__all__ = ["COMMANDS", "SECTIONS", "main"]

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


#: Every command by its name, in the sections of ``sojourn --help``. Those that ask a running server live in ``ops``.
SECTIONS: Final = {
    "Serve": {
        "serve": Command("sojourn.cli.serve", "serve", "Serve an ASGI application."),
        "work": Command("sojourn.cli.work", "work", "Run durable tasks, without serving anybody."),
        "config": Command("sojourn.cli.config", "config", "Show every setting with its value, unit and origin."),
        "version": Command("sojourn.cli.version", "version", "Show the versions of Sojourn and of what it runs on."),
    },
    "Look into a running server": {
        "status": Command("sojourn.ops.status", "status", "Show the instance, its workers, and how far a drain is."),
        "top": Command("sojourn.ops.top.command", "top", "Watch it live: connections, tasks, endings, deadlines."),
        "ps": Command("sojourn.ops.ps", "ps", "List the connections, each with its next deadline."),
        "tasks": Command("sojourn.ops.tasks", "tasks", "List the asyncio tasks: who made them, what they wait for."),
        "stacks": Command("sojourn.ops.stacks", "stacks", "Print the stacks of all threads, also of a hung worker."),
        "profile": Command("sojourn.ops.profile", "profile", "Profile it: cpu, wait, stall, heap, allocs, tasks."),
        "leaks": Command("sojourn.ops.leaks", "leaks", "Name what outlived its owner, with file and line."),
        "eof": Command("sojourn.ops.eof", "eof", "Say who hangs up, when, and after how long idle."),
        "hub": Command("sojourn.ops.hub", "hub", "Show hubs: members, channels, who is slow, the engine."),
        "journal": Command("sojourn.ops.journal", "journal", "Show durable tasks: what runs where, what waits."),
        "journal list": Command("sojourn.ops.journal", "listed", "List durable tasks by state and kind."),
        "journal show": Command("sojourn.ops.journal", "show", "Show all that is known of a durable task."),
        "metrics": Command("sojourn.ops.metrics", "metrics", "Print the metrics of all workers."),
        "config --running": Command("sojourn.ops.settings", "running", "Show the settings that are in force there."),
    },
    "Change a running server": {
        "close": Command("sojourn.ops.act", "close", "End connections."),
        "hub disconnect": Command("sojourn.ops.hub", "disconnect", "End members of hubs: of a user, or one."),
        "journal retry": Command("sojourn.ops.journal", "retry", "Try durable tasks again: some, or all of a kind."),
        "journal cancel": Command("sojourn.ops.journal", "cancel", "End durable tasks: some, or all of a kind."),
        "config set": Command("sojourn.ops.settings", "change", "Change settings without a restart."),
        "log-level": Command("sojourn.ops.act", "log_level", "Show or change the level of the log."),
        "drain": Command("sojourn.ops.act", "drain", "End it cleanly."),
        "restart": Command("sojourn.ops.act", "restart", "Replace its workers one by one."),
        "upgrade": Command("sojourn.ops.upgrade", "upgrade", "Replace the supervisor and its workers by new code."),
    },
    "Prepare": {
        "monitoring": Command(
            "sojourn.ops.monitoring.command", "monitoring", "Write dashboards and alerts to a folder."
        ),
    },
}

#: Every command by its name.
COMMANDS: Final = {name: command for section in SECTIONS.values() for name, command in section.items()}

#: Commands of two words; the first alone is another command.
_OF_TWO: Final = (
    "config set",
    "hub disconnect",
    *("journal list", "journal show", "journal retry", "journal cancel"),
)


class _Lazy(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and ":" in args[0] and args[0] not in COMMANDS:
            ctx.fail(f"no such command {args[0]!r}: did you mean sojourn serve {args[0]}?")
        words = " ".join(args[:2])
        if words in _OF_TWO:
            return words, self.get_command(ctx, words), args[2:]
        if args[:1] == ["config"] and "--running" in args:
            rest = [word for word in args[1:] if word != "--running"]
            return "config --running", self.get_command(ctx, "config --running"), rest
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        return cast(click.Command, getattr(importlib.import_module(command.module), command.name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), command.help) for name, command in commands.items()])


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
        The exit code: 0 clean, 1 a running server said no or does not answer, 2 usage or configuration, 3 startup, 4
        bind, 9 leaks (where asked for), 130 interrupted, and what serving returns.
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
