"""``sojourn version``."""

from __future__ import annotations

import platform

import click

__all__ = ["sojourn_version", "version", "versions"]

_RUNS_ON = ("uvloop", "httptools", "msgspec", "click")


def sojourn_version() -> str:
    """The installed version of Sojourn; ``unknown`` when it runs from a folder."""
    return _installed("sojourn")


def versions() -> str:
    """The versions of Sojourn and of what it runs on, in one line."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    others = ", ".join(f"{name} {_installed(name)}" for name in _RUNS_ON)
    return f"sojourn {sojourn_version()} ({python} on {platform.system()}, {others})"


@click.command()
def version() -> int:
    """Show the versions of Sojourn and of what it runs on."""
    click.echo(versions())
    return 0


def _installed(name: str) -> str:
    from importlib import metadata  # as slow to import as all the rest of the command line

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
