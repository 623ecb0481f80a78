"""``python -m conformance.autobahn``: Autobahn|Testsuite against ``sojourn serve``, all sections, one table."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from conformance.suite import CACHE, ROOT, Suite, SuiteError, find_python2, stop
from conformance.verdicts import Section, table

_START_SECONDS = 30.0
#: Section 9 sends messages up to 16 MiB. Its slowest cases send them in pieces of 64 bytes.
_SERVER = ["--ws-max-message", "20MiB", "--access-log", "off", "--log-level", "warning"]


class Part(NamedTuple):
    """Cases that are run in one go.

    Attributes:
        section: The row of the table they count in.
        cases: A pattern of the suite.
        expected: How many there are.
        seconds: The bound, generous: other work on the machine is normal.
        takeover: Whether the server keeps its deflate contexts.
    """

    section: str
    cases: str
    expected: int
    seconds: float
    takeover: bool = False


_NAMES = {
    "1": "1 framing",
    "2": "2 pings and pongs",
    "3": "3 reserved bits",
    "4": "4 opcodes",
    "5": "5 fragmentation",
    "6": "6 UTF-8",
    "7": "7 close",
    "9": "9 limits and speed",
    "10": "10 automatic fragmentation",
    "12": "12 compression",
    "13": "13 compression parameters",
}
_TAKEOVER = ", with takeover"
QUICK = [
    Part(_NAMES[number], f"{number}.*", expected, 300)
    for number, expected in (("1", 16), ("2", 11), ("3", 7), ("4", 10), ("5", 20), ("6", 145), ("7", 37), ("10", 1))
]
# Long sections in parts, so that one that hangs costs its own bound only.
_LIMITS = [
    Part(_NAMES["9"], f"9.{number}.*", expected, 900) for number, expected in enumerate((6, 6, 9, 9, 6, 6, 6, 6), 1)
]


def _compression(takeover: bool) -> list[Part]:
    suffix = _TAKEOVER if takeover else ""
    return [
        Part(_NAMES[section] + suffix, f"{section}.{number}.*", 18, 1200, takeover)
        for section, groups in (("12", 5), ("13", 7))
        for number in range(1, groups + 1)
    ]


def plan(quick: bool, only: str) -> list[Part]:
    """What to run.

    Args:
        quick: Sections 1 to 7 and 10 only.
        only: Numbers of sections, separated by commas; "" for all.
    """
    parts = QUICK if quick else [*QUICK[:-1], *_LIMITS, QUICK[-1], *_compression(False), *_compression(True)]
    chosen = [number.strip() for number in only.split(",") if number.strip()]
    if unknown := sorted(set(chosen) - set(_NAMES)):
        raise SystemExit(f"conformance: there is no section {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return [part for part in parts if not chosen or part.cases.partition(".")[0] in chosen]


@contextmanager
def server(loop: str, takeover: bool) -> Iterator[str]:
    """``sojourn serve`` with the echo application, from its first answer to its end; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "serve",
        "conformance.echo:app",
        "--app-dir",
        str(ROOT),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--drain-delay",
        "0",
    ]
    if takeover:
        arguments.append("--ws-compression-takeover")
    # Settings come from this command line alone, whatever the environment says.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SOJOURN_")}
    with (CACHE / "server.log").open("w") as log:
        child = subprocess.Popen(
            [str(Path(sys.executable).with_name("sojourn")), *arguments, "--loop", loop, *_SERVER],
            cwd=CACHE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, child)
        yield f"ws://127.0.0.1:{port}"
    finally:
        stop(child)


def _wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if child.poll() is not None or time.monotonic() > until:
                raise SuiteError(
                    f"the server did not start (exit code {child.poll()}); see {CACHE / 'server.log'}"
                ) from error
        time.sleep(0.05)


def run(suite: Suite, parts: list[Part], loop: str) -> list[Section]:
    """Run the parts, each against a fresh server; parts of one section count together."""
    sections: dict[str, Section] = {}
    for part in parts:
        section = sections.setdefault(part.section, Section(part.section, 0))
        section.expected += part.expected
        began = time.monotonic()
        try:
            with server(loop, part.takeover) as url:
                folder = part.cases.rstrip(".*") + ("-takeover" if part.takeover else "")
                section.add(suite.run(folder, url, [part.cases], part.seconds))
        except SuiteError as error:
            section.problem = f"{part.cases}: {error}"
        took = time.monotonic() - began
        section.seconds += took
        print(f"{part.section}: cases {part.cases} took {took:.0f} s {section.problem}", flush=True)
    return list(sections.values())


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit("conformance: terminated")  # so that children are ended on the way out


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when every case was run and none failed, 1 when not, 2 when the suite can't be run here."""
    parser = argparse.ArgumentParser(prog="python -m conformance.autobahn", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="sections 1 to 7 and 10 only: a minute")
    parser.add_argument("--only", default="", help=f"sections: {','.join(_NAMES)}")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="event loop (uvloop)")
    parser.add_argument("--python2", help="a Python 2.7 with pip; found in pyenv or on PATH when absent")
    parser.add_argument("--out", type=Path, help="file to write the table to as well")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    parts = plan(options.quick, options.only)
    try:
        suite = Suite(find_python2(options.python2))
        suite.install()
    except (SuiteError, subprocess.TimeoutExpired) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    sections = run(suite, parts, options.loop)
    named = [f"sojourn {metadata.version('sojourn')}", f"CPython {platform.python_version()}", suite.versions]
    lines = [", ".join([*named, f"loop {options.loop}"]), "", table(sections), ""]
    for section in sections:
        lines += [f"- {section.name}: {text}" for text in [section.problem, *section.remarks] if text]
    report = "\n".join(lines)
    print(f"\n{report}\nreports: {CACHE / 'reports'}")
    if options.out is not None:
        options.out.write_text(report + "\n")
    return 0 if all(section.good for section in sections) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("conformance: interrupted")
