"""``sojourn serve``: settings, the start message, then the supervisor with its workers.

With ``--workers 0`` one process serves without a supervisor; with ``--reload`` a parent starts such a one anew.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn.cli.flags import SERVED
from sojourn.cli.options import SettingsCommand, load_settings, parameters
from sojourn.cli.version import sojourn_version
from sojourn.config import Config
from sojourn.errors import ConfigError, SojournError
from sojourn.server.settings import Loaded, waits_without_deadline
from sojourn.server.settings.layers import Origin

if TYPE_CHECKING:
    from socket import socket

    from sojourn.server.workers.upgrade import Handed, Successor

__all__ = ["CHECK", "CHILD", "deadline_notice", "launch", "serve", "working_folder"]

#: How the parent of a reload tells its child which descriptor to serve on, and who its parent is.
CHILD: Final = "--reload-child"
#: Asks new code whether it could take over the state behind a descriptor.
CHECK: Final = "--check-upgrade"


@click.command(cls=SettingsCommand, params=parameters(SERVED))
@click.option(CHILD, metavar="FD:PID", hidden=True)
@click.option(CHECK, type=int, hidden=True)
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    config_file: Path | None,
    reload_child: str | None,
    check_upgrade: int | None,
    **given: Any,
) -> int:
    """Serve the ASGI application APP, written module:attribute.

    Without the attribute, app and application are tried. Stops cleanly on SIGTERM and Ctrl-C: requests finish, streams
    and WebSockets are told; a second signal hurries, a third exits at once.
    """
    folder = working_folder()

    def load() -> Loaded:
        os.chdir(folder)  # anew each time: it may be a link that meanwhile leads elsewhere
        return load_settings(config_file, given, os.environ, Path.cwd())

    return launch(load, ctx.find_root().obj or ("serve",), reload_child, check_upgrade)


def launch(
    load: Callable[[], Loaded], arguments: Sequence[str], reload_child: str | None, check_upgrade: int | None
) -> int:
    """Run what the settings ask for: a supervisor, one process, or the parent of a reload.

    Args:
        load: Reads the settings; again for each restart.
        arguments: The command line, from the command's name on.
        reload_child: The value of :data:`CHILD`.
        check_upgrade: The value of :data:`CHECK`.

    Returns:
        The exit code.

    Raises:
        SojournError: It could not start.
    """
    if check_upgrade is not None:
        return _check_upgrade(load(), check_upgrade)
    handed = _handed()
    if handed is not None:
        return _supervise(handed.config(), {}, load, arguments, handed)
    loaded = load()
    config = loaded.config
    if config.app.reload and reload_child is None:
        return _reload(loaded, arguments)
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    if reload_child is not None:
        return _run(_child_config(config, reload_child))
    if config.app.workers == 0:
        return _run(config)
    return _supervise(config, loaded.origins, load, arguments, None)


def deadline_notice(config: Config) -> str:
    """``2 waits without a deadline: ...``; "" when every wait has one."""
    waits = waits_without_deadline(config)
    return f"{len(waits)} wait{'s' * (len(waits) > 1)} without a deadline: {', '.join(waits)}" if waits else ""


def _run(config: Config) -> int:
    from sojourn.observe.log.console import configure
    from sojourn.server.process import exit_soon
    from sojourn.server.server import run  # the heavy part: event loop, parser, TLS

    console = configure(config.log)
    try:
        announce = _announcer(config)
        code = run(config.app.target, config, announce=lambda addresses: announce(addresses, 0))
    except SojournError:
        if config.app.traceback or config.log.level == "debug":
            traceback.print_exc()
        raise
    finally:
        console.close()
    exit_soon(code)
    return code


def _supervise(
    config: Config,
    origins: Mapping[str, Origin],
    load: Callable[[], Loaded],
    arguments: Sequence[str],
    handed: Handed | None,
) -> int:
    from sojourn.observe.log.console import configure
    from sojourn.server.workers.supervisor import Settings, supervise

    console = configure(config.log)

    def again() -> Loaded:
        loaded = load()
        for warning in loaded.warnings:
            _say(f"warning: {warning}")
        return loaded

    settings = Settings(
        config,
        origins=origins,
        load=again,
        announce=_announcer(config),
        warn=lambda text: _say(f"warning: {text}"),
        terminal=sys.stderr.isatty(),
        successor=_successor(arguments, console.handler.flush),
    )
    try:
        return supervise(settings, handed)
    finally:
        console.close()


def _handed() -> Handed | None:
    """What a supervisor that became this process has left."""
    from sojourn.server.workers.upgrade import VARIABLE, take_over

    return take_over(os.environ) if VARIABLE in os.environ else None


def _successor(arguments: Sequence[str], farewell: Callable[[], None]) -> Successor:
    """This command once more, by the interpreter and the script that it was called by."""
    count = len(arguments)
    as_called = count and sys.orig_argv[-count:] == list(arguments)
    before = [sys.executable, *sys.orig_argv[1:-count]] if as_called else [sys.executable, "-m", "sojourn.cli"]
    command, *rest = arguments
    from sojourn.server.workers.upgrade import Successor

    def check(state: int) -> list[str]:
        return [*before, command, f"{CHECK}={state}", *rest]

    return Successor([*before, command, *rest], check=check, farewell=farewell)


def _check_upgrade(loaded: Loaded, state: int) -> int:
    """Whether this code could take over a supervisor, with the settings as they are now."""
    import sojourn.server.workers.supervisor  # noqa: F401 - it must be there, with all it needs
    from sojourn.server.workers.board import Board
    from sojourn.server.workers.upgrade import read_state

    if loaded.config.app.workers == 0 or loaded.config.app.reload:
        raise ConfigError("a supervisor can't become one process: app.workers is 0, or app.reload is on")
    board = Board.attach(read_state(state).board)
    board.close()
    return 0


def working_folder() -> str:
    """The working folder by the name the shell has for it: the name of a link, where that leads here."""
    real, named = os.getcwd(), os.environ.get("PWD", "")
    try:
        return named if os.path.isabs(named) and os.path.samefile(named, real) else real
    except OSError:
        return real


def _announcer(config: Config) -> Callable[[str, int], None]:
    """What is called with the addresses and the number of workers once they are served."""
    notice = deadline_notice(config)
    works = config.app.interface == "tasks"
    target = config.app.target or "the application"
    kinds = ", ".join(config.work.kinds) if works else ""

    def announce(addresses: str, workers: int) -> None:
        if not sys.stderr.isatty():
            what = f"running tasks of {target}" if works else f"serving {target} at {addresses}"
            notes = [note for note in (kinds, f"{workers} workers" if workers > 1 else "", notice) if note]
            more = f" ({'; '.join(notes)})" if notes else ""
            _say(f"{what}{more}")
            return
        lines = [f"Sojourn {sojourn_version()} {'runs tasks of' if works else 'serves'} {target}"]
        if addresses:
            lines.append(f"  address    {addresses}")
        if kinds:
            lines.append(f"  kinds      {kinds}")
        if workers > 1:
            lines.append(f"  workers    {workers}")
        if notice:
            lines.append(f"  deadlines  {notice}")
        click.echo("\n".join([*lines, "  Ctrl-C stops it"]), err=True)

    return announce


def _reload(loaded: Loaded, arguments: Sequence[str]) -> int:
    from sojourn.net.bind import addresses, listening, release
    from sojourn.server.reload import Reloader, Watch

    config = loaded.config
    folders = [Path(folder) for folder in config.app.reload_dirs or (config.app.dir,)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder", key="app.reload_dirs")
    files = [*loaded.files, *([Path(config.app.env_file)] if config.app.env_file else [])]
    sockets = listening(config)
    try:
        sock = sockets[0] if sockets else None
        if sockets[1:]:
            served, *left_out = addresses(sockets, "https" if config.tls.cert else "http")
            _say(f"reload: one address is served: {served}, not {', '.join(left_out)}")
        command = _child_command(arguments, sock)
        return Reloader(command, sock, Watch(folders, files), say=_say).run()
    finally:
        release(sockets, config.bind)


def _child_command(arguments: Sequence[str], sock: socket | None) -> list[str]:
    """The same command line, with the descriptor right after the command's name; none where nothing listens."""
    command, *rest = arguments
    fd = "" if sock is None else sock.fileno()
    return [sys.executable, "-m", "sojourn.cli", command, CHILD, f"{fd}:{os.getpid()}", *rest]


def _child_config(config: Config, reload_child: str) -> Config:
    from sojourn.server.parent import die_with_parent
    from sojourn.server.reload import in_child

    fd, _, parent = reload_child.partition(":")
    if not ((fd.isdecimal() or not fd) and parent.isdecimal()):
        raise click.UsageError(f"{CHILD} is for the parent of a reload only")
    die_with_parent(int(parent))
    return in_child(config, int(fd) if fd else None)


def _say(line: str) -> None:
    click.echo(line, err=True)
