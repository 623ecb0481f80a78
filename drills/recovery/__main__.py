"""``python -m drills.recovery``: run all, print the table, and write it into ``docs/durability.md``."""

from __future__ import annotations

import argparse
import datetime
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from threading import Lock

from drills.recovery.cases import CASES, Case
from drills.recovery.experiment import WATCHED, Outcome, Stuck, run
from drills.served import ROOT
from scripts.peers import PeerError, python_of, version_of
from tests.databases import postgres_server

PAGE = ROOT / "docs" / "durability.md"
LOGS = ROOT / ".cache" / "recovery"
STORES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_MARKS = re.compile(r"(<!-- recovery -->\n).*?(<!-- /recovery -->)", re.DOTALL)
Found = Outcome | str


def words(found: Found) -> str:
    """An outcome as a cell of the table."""
    if isinstance(found, str):
        return found
    parts = []
    if found.cancelled is not None:
        parts.append(f"cancelled (+{found.cancelled:.1f})")
    if found.finished is not None:
        parts.append(f"A finishes (+{found.finished:.1f})")
    if found.exited is not None and (found.finished is not None or found.cancelled is not None):
        parts.append(f"A exits (+{found.exited:.1f})")
    if found.again is not None:
        parts.append(f"**B +{found.again:.1f}**" + (f", begun {found.runs} times" if found.runs > 1 else ""))
        if found.done is None:
            parts.append("not done")
    elif found.finished is None:
        parts.append(f"**never** ({WATCHED:.0f} s)")
    return ", ".join(parts)


def table(cases: list[Case], found: dict[tuple[Case, signal.Signals], Found]) -> str:
    """The table of the page."""
    lines = ["| engine (version) | store | setting [default] | kill -9 | SIGTERM |", "| --- | --- | --- | --- | --- |"]
    for case in cases:
        version = version_of(case.venv, case.package) if case.venv else metadata.version(case.package)
        cells = " | ".join(words(found[case, how]) for how in SIGNALS)
        lines.append(f"| {case.name} {version} | {STORES[case.store]} | {case.setting} | {cells} |")
    return "\n".join(lines) + "\n"


def _said(command: str) -> str:
    return subprocess.run([command, "--version"], check=True, capture_output=True, text=True, timeout=10).stdout


def conditions() -> str:
    """One line on what it ran on."""
    redis, postgres = re.search(r"v=(\S+)", _said("redis-server")), _said("psql").split()
    today = datetime.datetime.now(datetime.UTC).date()
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{today}, CPython {python}, Redis {redis[1] if redis else '?'}, PostgreSQL {postgres[2]}.\n"


def experiment(case: Case, how: signal.Signals, postgres: int, quiet: Lock) -> Found:
    """An outcome, or why there is none."""
    log = LOGS / f"{case.module}-{case.name.lower().replace(', ', '-').replace(' ', '-')}-{case.store}-{how.name}.log"
    try:
        found: Found = run(case, how, postgres, log, quiet)
    except (Stuck, subprocess.SubprocessError, OSError, AssertionError) as error:
        found = f"not measured: {type(error).__name__}"
        print(f"{case.name}: {error}", file=sys.stderr, flush=True)
    print(f"{case.name:22} {case.store:8} {how.name:7} {words(found)}", flush=True)
    return found


def main() -> int:
    """Returns 0 when all of them could be made."""
    parser = argparse.ArgumentParser(prog="python -m drills.recovery", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose names have one of these words, by commas")
    parser.add_argument("--jobs", type=int, default=8, help="experiments at the same time (8): they wait mostly")
    args = parser.parse_args()
    chosen = [case for case in CASES if any(word in case.name.lower() for word in args.only.lower().split(","))]
    try:
        for venv in dict.fromkeys(case.venv for case in chosen if case.venv):
            python_of(venv)
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    quiet = Lock()
    LOGS.mkdir(parents=True, exist_ok=True)
    with postgres_server() as postgres, ThreadPoolExecutor(args.jobs) as pool:
        asked = {(case, how): pool.submit(experiment, case, how, postgres, quiet) for case in chosen for how in SIGNALS}
        found = {key: future.result() for key, future in asked.items()}
    text = f"{conditions()}\n{table(chosen, found)}"
    print(text)
    if not args.only and PAGE.exists():
        PAGE.write_text(_MARKS.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", PAGE.read_text()))
    return int(any(isinstance(outcome, str) for outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
