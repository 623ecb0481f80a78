"""Environments of other projects' packages, to measure beside ours: ``python scripts/peers.py modern arq``.

They need versions of common packages that exclude each other, and ours. Each is a venv in the cache of the user,
outside the repository; it is made again when its list changes. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["REQUIREMENTS", "PeerError", "python_of", "version_of"]

#: By environment: what is installed. pydocket and SAQ want other clients of Redis; arq one below 6.
REQUIREMENTS: Final = {
    "modern": (
        "streaq==7.2.0",
        "saq[redis]==0.26.4",
        "procrastinate==3.10.0",
        "psycopg[binary,pool]",
        "pgqueuer==1.6.0",
        "asyncpg",
        "huey==3.5.4",
        "dbos==3.4.0",
        "uvloop",
    ),
    "brokers": ("celery[redis]==5.7.0", "dramatiq[redis]==2.2.1", "taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop"),
    "docket": ("pydocket==0.27.0",),
    "arq": ("arq==0.28.0", "uvloop"),
}
PATIENCE = 600.0


class PeerError(Exception):
    """An environment can't be made; the text says why."""


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn" / "peers"


def python_of(name: str) -> str:
    """The interpreter of an environment, which is made first if it is not there."""
    wanted, folder = "\n".join(REQUIREMENTS[name]) + "\n", _folder() / name
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], name)
    _run([str(python), "-m", "pip", "install", "--quiet", "--retries", "2", *REQUIREMENTS[name]], name)
    stamp.write_text(wanted)
    return str(python)


def _run(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"environment {name}: {error}") from error
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("ERROR")]
        raise PeerError(f"environment {name}: {said[0] if said else f'exit code {done.returncode}'}")


def version_of(name: str, package: str) -> str:
    """Version of a package in an environment."""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python_of(name), "-c", ask], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        for each in sys.argv[1:] or REQUIREMENTS:
            print(python_of(each))
    except PeerError as wrong:
        sys.exit(f"peers: {wrong}")
