"""``sojourn work``: what ``sojourn serve`` does for an application, for durable tasks; nothing listens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import click
import msgspec

from sojourn.cli.flags import SECTIONS, WORKED
from sojourn.cli.options import SettingsCommand, load_settings, parameters
from sojourn.cli.serve import CHECK, CHILD, launch, working_folder
from sojourn.config import Bind, Config, Registration, Tls
from sojourn.server.settings import Loaded

__all__ = ["work"]


class _Work(SettingsCommand):
    """The same settings, told for work."""

    target = "TASKS"
    sections: ClassVar = {"work": "Tasks", **SECTIONS, "app": "Process", "drain": "End", "deadlines": "Budgets"}
    groups: ClassVar = {
        "work": "What is done, and how much of it at the same time.",
        "app": "Where the tasks are, and the processes that run them.",
        "drain": "SIGTERM and Ctrl-C: what runs may finish, what is left is handed over.",
        "deadlines": "How long what tasks call may take.",
        "timeouts": "The longest that beginning and end may last.",
        "admin": "Probes and commands.",
    }
    words: ClassVar = {
        "app.target": "The Tasks object as module:attribute.",
        "app.factory": "The attribute is a function that returns it.",
        "app.workers": "Processes under a supervisor; 0 runs tasks in the process itself.",
        "app.instance": "Name of this instance in logs and probes; None: host name and process.",
        "timeouts.lifespan_startup": "Opening the journal, and all that makes ready to work.",
        "timeouts.lifespan_shutdown": "Closing it.",
        "drain.requests": "For tasks to finish by themselves.",
        "drain.persist": "For those that are left: to save where they are, and to be handed over.",
        "drain.total": "All together before that; then everything is cut.",
        "admin.actions": "Allow what can hurt: cancelling a task, changing a setting.",
        "worker.start": "From its start until it works, imports included.",
        "worker.max_memory": "Resident memory at which a worker that has worked for a minute is replaced.",
        "worker.failures": "Workers in a row that ended before they had worked for a minute: the supervisor gives up.",
    }


@click.command(cls=_Work, params=parameters(WORKED, target="[TASKS]", uvicorn=False))
@click.option(CHILD, metavar="FD:PID", hidden=True)
@click.option(CHECK, type=int, hidden=True)
@click.pass_context
def work(
    ctx: click.Context,
    /,
    config_file: Path | None,
    reload_child: str | None,
    check_upgrade: int | None,
    **given: Any,
) -> int:
    """Run durable tasks in processes of their own, without serving anybody.

    TASKS is a Tasks object, written module:attribute; without the attribute, tasks is tried. The processes that serve
    the application run tasks as well, unless it is made with Tasks(..., work=False).

    Stops cleanly on SIGTERM and Ctrl-C: nothing new is begun, what runs may finish, and what is left is cancelled and
    handed over; a second signal hurries, a third exits at once.
    """
    folder = working_folder()

    def load() -> Loaded:
        os.chdir(folder)
        loaded = load_settings(config_file, given, os.environ, Path.cwd())
        return loaded._replace(config=_without_listening(loaded.config))

    return launch(load, ctx.find_root().obj or ("work",), reload_child, check_upgrade)


def _without_listening(config: Config) -> Config:
    """What is meant for those who connect is left out: the file may be that of ``sojourn serve``."""
    return msgspec.structs.replace(
        config,
        app=msgspec.structs.replace(config.app, interface="tasks", lifespan="on", check_layers="off"),
        bind=Bind(),
        tls=Tls(),
        registration=Registration(),
        # No balancer has to look away first.
        drain=msgspec.structs.replace(config.drain, strategy="fixed", delay=0.0),
        routes=(),
        rate_limits=(),
    )
