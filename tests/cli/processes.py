"""Runs the command line in its own process, with a stand-in for the server where one is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["STAND_IN", "environment", "run"]

#: What ``sojourn.server.server.run`` promises, with the least that can serve: ``app.answer`` on one socket at a time.
STAND_IN = """
    import json, signal, socket, sys, types

    def run(app, config=None, *, announce):
        from sojourn.net.bind import addresses, bind, release
        from sojourn.server.importer import load_app
        app = load_app(config.app)
        sockets = bind(config.bind)
        stopped = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
        announce(", ".join(addresses(sockets)))
        print(json.dumps({"header": config.timeouts.header, "lifespan": config.app.lifespan}), flush=True)
        sockets[0].settimeout(0.05)
        while not stopped and getattr(app, "answer", None) is not None:
            try:
                peer, _ = sockets[0].accept()
            except TimeoutError:
                continue
            with peer:
                peer.sendall(app.answer.encode())
        release(sockets, config.bind)
        return getattr(app, "code", 0)

    module = types.ModuleType("sojourn.server.server")
    module.run = run
    sys.modules["sojourn.server.server"] = module
"""


def environment(*first: Path, **more: str) -> dict[str, str]:
    """The environment of a process; the folders come first on its import path."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("SOJOURN_")}
    path = os.pathsep.join([*map(str, first), *filter(None, [inherited.get("PYTHONPATH")])])
    return inherited | {"PYTHONPATH": path, "COLUMNS": "100"} | more


def run(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``sojourn`` in a folder, with the stand-in for the server: in one process, unless it is asked for others."""
    one_process = {"SOJOURN_APP_WORKERS": "0"} if arguments[:1] == ["serve"] else {}
    stand_in = folder / "stand_in"
    stand_in.mkdir(exist_ok=True)
    (stand_in / "sitecustomize.py").write_text(textwrap.dedent(STAND_IN))
    return subprocess.run(
        [sys.executable, "-m", "sojourn.cli", *arguments],
        cwd=folder,
        env=environment(stand_in, **one_process, **(environ or {})),
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
