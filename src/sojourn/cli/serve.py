"""``sojourn serve``: settings, the start message, then the server; with ``--reload`` a parent that starts it anew."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from sojourn.cli.options import SettingsCommand, load_settings, parameters
from sojourn.cli.version import sojourn_version
from sojourn.config import Config
from sojourn.errors import ConfigError, SojournError
from sojourn.server.settings import Loaded, waits_without_deadline

__all__ = ["deadline_notice", "serve"]

#: How the parent of a reload tells its child which descriptor to serve on, and who its parent is.
_CHILD: Final = "--reload-child"
#: Seconds for threads that the application left running, when everything else has ended.
_LAST_THREADS: Final = 3.0


@click.command(cls=SettingsCommand, params=parameters())
@click.option(_CHILD, metavar="FD:PID", hidden=True)
@click.pass_context
def serve(ctx: click.Context, /, config_file: Path | None, reload_child: str | None, **given: Any) -> int:
    """Serve the ASGI application APP, written module:attribute.

    Without the attribute, app and application are tried. Stops cleanly on SIGTERM and Ctrl-C: requests finish, streams
    and WebSockets are told; a second signal hurries, a third exits at once.
    """
    loaded = load_settings(config_file, given, os.environ, Path.cwd())
    _refuse_workers(loaded)
    if loaded.config.app.reload and reload_child is None:
        return _reload(loaded, ctx.find_root().obj or ())
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    config = loaded.config if reload_child is None else _child_config(loaded.config, reload_child)
    return _run(config)


def deadline_notice(config: Config) -> str:
    """``2 waits without a deadline: ...``; "" when every wait has one."""
    waits = waits_without_deadline(config)
    return f"{len(waits)} wait{'s' * (len(waits) > 1)} without a deadline: {', '.join(waits)}" if waits else ""


def _refuse_workers(loaded: Loaded) -> None:
    """There is one process so far. Remove this, and its call, when the supervisor is there."""
    if loaded.config.app.workers > 1:
        origin = str(loaded.origins["app.workers"])
        raise ConfigError("workers > 1 comes with the supervisor; write 1", key="app.workers", origin=origin)


def _run(config: Config) -> int:
    from sojourn.observe.console import configure
    from sojourn.server.process import exit_soon
    from sojourn.server.server import run  # the heavy part: event loop, parser, TLS

    console = configure(config.log)
    try:
        code = run(config.app.target, config, announce=_announcer(config))
    except SojournError:
        if config.app.traceback or config.log.level == "debug":
            traceback.print_exc()
        raise
    finally:
        console.close()
    exit_soon(code, _LAST_THREADS)
    return code


def _announcer(config: Config) -> Callable[[str], None]:
    """What the server calls with its addresses once it listens."""
    notice = deadline_notice(config)
    target = config.app.target or "the application"

    def announce(addresses: str) -> None:
        if not sys.stderr.isatty():
            click.echo(f"serving {target} at {addresses}{f' ({notice})' if notice else ''}", err=True)
            return
        lines = [f"Sojourn {sojourn_version()} serves {target}", f"  address    {addresses}"]
        if notice:
            lines.append(f"  deadlines  {notice}")
        click.echo("\n".join([*lines, "  Ctrl-C stops it"]), err=True)

    return announce


def _reload(loaded: Loaded, arguments: Sequence[str]) -> int:
    from sojourn.net.bind import addresses, bind, release
    from sojourn.server.reload import Reloader, Watch

    config = loaded.config
    folders = [Path(folder) for folder in config.app.reload_dirs or (config.app.dir,)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder", key="app.reload_dirs")
    files = [*loaded.files, *([Path(config.app.env_file)] if config.app.env_file else [])]
    sockets = bind(config.bind)
    try:
        sock, *others = sockets
        if others:
            served, *left_out = addresses(sockets, "https" if config.tls.cert else "http")
            _say(f"reload: one address is served: {served}, not {', '.join(left_out)}")
        command = _child_command(arguments, sock.fileno())
        return Reloader(command, sock, Watch(folders, files), say=_say).run()
    finally:
        release(sockets, config.bind)


def _child_command(arguments: Sequence[str], fd: int) -> list[str]:
    """The same command line, with the descriptor right after the command's name."""
    command, *rest = arguments or ("serve",)
    return [sys.executable, "-m", "sojourn.cli", command, _CHILD, f"{fd}:{os.getpid()}", *rest]


def _child_config(config: Config, reload_child: str) -> Config:
    from sojourn.server.reload import die_with_parent, in_child

    fd, _, parent = reload_child.partition(":")
    if not (fd.isdecimal() and parent.isdecimal()):
        raise click.UsageError(f"{_CHILD} is for the parent of a reload only")
    die_with_parent(int(parent))
    return in_child(config, int(fd))


def _say(line: str) -> None:
    click.echo(line, err=True)
