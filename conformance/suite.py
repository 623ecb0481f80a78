"""Autobahn|Testsuite on this machine: a Python 2.7 to run it, its packages in a cache folder, one run of some cases."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "autobahn"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VERSION = "0.8.2"
_INSTALL_SECONDS = 600
_HELP = """no Python 2.7 was found: Autobahn|Testsuite runs on nothing newer.
Install one (`pyenv install 2.7.18`), or name it: python -m conformance.autobahn --python2 /path/to/python2.7"""


class SuiteError(Exception):
    """The suite could not be installed or run; nothing is known about the server."""


def find_python2(named: str | None = None) -> str:
    """The Python 2.7 that runs the suite.

    Args:
        named: A path; None looks at pyenv and PATH.

    Raises:
        SuiteError: There is none.
    """
    candidates = [named] if named else [*_pyenv(), shutil.which("python2.7"), shutil.which("python2")]
    for candidate in candidates:
        if candidate and _version(candidate).startswith("Python 2.7"):
            return candidate
    raise SuiteError(f"{named} is no Python 2.7" if named else _HELP)


def _pyenv() -> list[str]:
    folders = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions" / "2.7.18"]
    pyenv = shutil.which("pyenv")
    if pyenv:
        asked = subprocess.run([pyenv, "prefix", "2.7.18"], check=False, capture_output=True, text=True, timeout=30)
        if asked.returncode == 0:
            folders.insert(0, Path(asked.stdout.strip()))
    return [str(folder / "bin" / "python2.7") for folder in folders]


def _version(python: str) -> str:
    try:
        # Python 2 writes its version to standard error.
        asked = subprocess.run([python, "-V"], check=False, capture_output=True, text=True, timeout=30)
    except OSError:
        return ""
    return (asked.stderr or asked.stdout).strip()


class Suite:
    """Autobahn|Testsuite, installed.

    Args:
        python: A Python 2.7 with pip.
        folder: Where its packages and reports are kept.
    """

    def __init__(self, python: str, folder: Path = CACHE) -> None:
        self._python = python
        self._folder = folder
        # A user base of its own keeps the packages apart, and unlike `pip --target` works with namespace packages.
        self._environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("PYTHON")},
            "PYTHONUSERBASE": str(folder / "packages"),
            "PYTHONWARNINGS": "ignore",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    @property
    def versions(self) -> str:
        """For the report."""
        return f"Autobahn|Testsuite {VERSION} on {_version(self._python)}"

    def install(self) -> None:
        """Install the packages, unless they are there.

        Raises:
            SuiteError: pip failed; its last lines are the message.
        """
        stamp = self._folder / "installed"
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + self._python.encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        command = [self._python, "-m", "pip", "install", "--user", "--ignore-installed", "--no-warn-script-location"]
        done = subprocess.run(
            [*command, "-r", str(REQUIREMENTS)],
            check=False,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=_INSTALL_SECONDS,
        )
        if done.returncode:
            raise SuiteError("pip failed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-15:]))
        stamp.write_text(wanted)

    def run(self, part: str, url: str, cases: Sequence[str], seconds: float) -> dict[str, dict[str, Any]]:
        """Run cases against a server.

        Args:
            part: Name of the report's folder.
            url: Where the server listens.
            cases: Patterns such as ``12.1.*``.
            seconds: The bound of the whole run.

        Returns:
            The suite's verdict by case; only those that ended within the bound.

        Raises:
            SuiteError: It did not start, or ended with an error.
        """
        folder = self._folder / "reports" / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        specification = folder / "fuzzingclient.json"
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(folder),
                    "servers": [{"agent": "sojourn", "url": url, "options": {"version": 18}}],
                    "cases": list(cases),
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        program = "import sys; from autobahntestsuite.wstest import run; sys.argv[0] = 'wstest'; run()"
        log = folder / "wstest.log"
        with log.open("w") as output:
            child = subprocess.Popen(
                [self._python, "-c", program, "-m", "fuzzingclient", "-s", str(specification)],
                env=self._environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                raise SuiteError(f"not finished within {seconds:.0f} s; see {log}") from None
            finally:
                stop(child)
        index = folder / "index.json"
        if code or not index.exists():
            raise SuiteError(f"the suite ended with exit code {code}; see {log}")
        verdicts: dict[str, dict[str, Any]] = json.loads(index.read_text()).get("sojourn", {})
        return verdicts


def stop(child: subprocess.Popen[Any], patience: float = 10.0) -> None:
    """End a process of our own: by SIGTERM, after ``patience`` seconds by SIGKILL."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(10)
