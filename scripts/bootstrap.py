"""Prepare .venv for one make target: `bootstrap.py runtime | test | bench | docs | system`.

Runs on a bare Debian 12 with the system's python3 and nothing else, so: standard library only, and no syntax newer than
the check for Python 3.11 in main(). Everything pip and apt say goes to .venv/setup.log; the terminal gets one line per
step and, when a step fails, one line that says what to do.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
LOG = os.path.join(VENV, "setup.log")

# Command -> Debian package. Tests that need one skip themselves by name when the command is missing.
SYSTEM_PACKAGES = {
    "curl": "curl",
    "chromium": "chromium",
    "promtool": "prometheus",
    "go": "golang-go",
    "pg_ctlcluster": "postgresql",
    "redis-server": "redis-server",
}

# Without Error-Mode=any an update that reached no server counts as a success.
APT_UPDATE = ["apt-get", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=1"]
APT_INSTALL = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]

# What pip and apt print when the network, not the package, is the problem.
OFFLINE_MARKS = (
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Network is unreachable",
    "Connection refused",
    "connection broken by",
    "timed out",
)


class SetupError(Exception):
    """Ends the set-up with one line for the person at the terminal."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(command: list[str], cwd: str | None = None) -> str | None:
    """Run a command quietly. Returns None on success, else its output, which is also in the log."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=cwd,
        check=False,
    )
    os.makedirs(VENV, exist_ok=True)
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}[exit {done.returncode}]\n")
    return None if done.returncode == 0 else done.stdout


def is_offline(output: str) -> bool:
    return any(mark in output for mark in OFFLINE_MARKS)


def explain(what: str, output: str) -> SetupError:
    """Turn the output of a failed command into the one line that helps: offline, or where the details are."""
    log = os.path.relpath(LOG, ROOT)
    if is_offline(output):
        return SetupError(f"offline: cannot reach the package servers to {what}; connect and run make again ({log})")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E:", "Error"))]
    reason = (errors or lines or ["no output"])[0 if errors else -1]
    return SetupError(f"could not {what}: {reason} (log: {log})")


def is_root() -> bool:
    return os.geteuid() == 0


def works(*arguments: str) -> bool:
    return os.path.exists(PYTHON) and run([PYTHON, *arguments]) is None


def apt_install(packages: list[str]) -> str | None:
    """Install as root. The package lists of a fresh machine are empty or old, so a first failure refreshes them."""
    if run([*APT_INSTALL, *packages]) is None:
        return None
    refreshed = run(APT_UPDATE)
    return run([*APT_INSTALL, *packages]) if refreshed is None else refreshed


def create_venv() -> None:
    """Make .venv with a working pip, whatever part of Python the distribution left out."""
    if works("-m", "pip", "--version"):
        return
    say(f"creating .venv with Python {sys.version.split()[0]}")
    # The log is inside .venv, so `venv --clear` would delete it; only what a half-made venv left behind must go.
    for leftover in ("bin", "include", "lib", "lib64", "pyvenv.cfg"):
        path = os.path.join(VENV, leftover)
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
        else:
            shutil.rmtree(path, ignore_errors=True)

    # Debian ships venv but keeps ensurepip, which venv needs for pip, in a package of its own: python3-venv.
    no_ensurepip = [sys.executable, "-c", "import ensurepip"]
    if run(no_ensurepip) is not None and is_root() and shutil.which("apt-get"):
        say("this Python has no ensurepip: installing Debian's python3-venv")
        failure = apt_install(["python3-venv"])
        if failure is not None and is_offline(failure):
            raise explain("install python3-venv", failure)
    if run(no_ensurepip) is None:
        failure = run([sys.executable, "-m", "venv", VENV])
        if failure is not None:
            raise explain("create .venv", failure)
        return

    # No root, or a Python that is not Debian's: the venv starts empty and pip comes from elsewhere.
    failure = run([sys.executable, "-m", "venv", "--without-pip", VENV])
    if failure is not None:
        raise explain("create .venv", failure)
    if run([sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip"]) is None:
        return
    pip_from_debian()


def pip_from_debian() -> None:
    """Unpack pip's wheel from its Debian package and let it install itself: needs no root, and apt checks the hash."""
    if not shutil.which("apt-get"):
        raise SetupError("this Python has no ensurepip: install python3-venv and run make again")
    say("this Python has no ensurepip: taking pip from Debian's python3-pip-whl")
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", "python3-pip-whl"]
        if run(download, cwd=folder) is not None:
            # Only root may refresh the system's package lists, so refresh private ones.
            lists, cache = os.path.join(folder, "lists"), os.path.join(folder, "cache")
            os.makedirs(os.path.join(lists, "partial"))
            os.makedirs(os.path.join(cache, "archives", "partial"))
            private = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
            failure = run([*APT_UPDATE, *private]) or run([*download, *private], cwd=folder)
            if failure is not None:
                raise explain("get pip", failure)
        for package in glob.glob(os.path.join(folder, "*.deb")):
            failure = run(["dpkg-deb", "-x", package, folder])
            if failure is not None:
                raise explain("unpack pip", failure)
        wheels = glob.glob(os.path.join(folder, "usr", "share", "python-wheels", "pip-*.whl"))
        if not wheels:
            raise SetupError("Debian's python3-pip-whl holds no pip: install python3-venv as root and run again")
        # A wheel is a zip file, so pip can run from its own wheel and install that wheel.
        failure = run([PYTHON, os.path.join(wheels[0], "pip"), "install", "--no-index", wheels[0]])
        if failure is not None:
            raise explain("install pip", failure)


def install(extra: str) -> None:
    """Install sojourn from the work tree, with one extra ("runtime" is none)."""
    create_venv()
    target = "." if extra == "runtime" else f".[{extra}]"
    say(f"installing the {extra} dependencies")
    failure = run([PYTHON, "-m", "pip", "install", "--quiet", "--retries", "2", "-e", target], cwd=ROOT)
    if failure is not None:
        raise explain(f"install the {extra} dependencies", failure)


def install_system() -> None:
    """Install the Debian packages that tests use; without root, name what will be skipped and go on."""
    missing = {command: package for command, package in SYSTEM_PACKAGES.items() if not shutil.which(command)}
    if not missing:
        return
    names = ", ".join(missing)
    if not (is_root() and shutil.which("apt-get")):
        say(f"{names} missing and only root can install: the tests that need them will be skipped by name")
        return
    say(f"installing Debian packages for tests: {names}")
    failure = apt_install(list(missing.values()))
    if failure is not None:
        raise explain(f"install {names}", failure)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("runtime", "test", "bench", "docs", "system"):
        print("usage: bootstrap.py runtime | test | bench | docs | system", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything has checked the version
            found = sys.version.split()[0]
            raise SetupError(f"Python 3.11 or newer is needed, {found} found; run make with PYTHON=/path/to/python3.11")
        if arguments[0] == "system":
            install_system()
        else:
            install(arguments[0])
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    say(f"{arguments[0]} ready in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
