"""The servers: how each is started, what it can do, its version, its readiness and its end."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType

from bench import build, machine, process
from bench.process import BenchError

APP = "bench.apps.asgi:app"
BIN = Path(sys.executable).parent
HTTP = frozenset({"get", "get7", "get1000", "idle_http"})
ALL = HTTP | {"post", "echo", "idle_ws", "idle_cpu", "connect", "drain"}
UVICORN_WS = ("websockets-sansio", "wsproto", "websockets")


@dataclass(frozen=True)
class Spec:
    """One server of the comparison; `command` gets the port."""

    name: str
    command: Callable[[int], list[str]]
    version: Callable[[], str]
    figures: frozenset[str] = ALL
    env: tuple[tuple[str, str], ...] = ()


def _packages(*names: str) -> Callable[[], str]:
    def read() -> str:
        found = []
        for name in names:
            try:
                found.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                found.append(f"{name} not installed")
        return ", ".join(found)

    return read


def _command(tool: str, arguments: str, app: str = APP) -> Callable[[int], list[str]]:
    """A command of this environment; `{app}` and `{port}` are filled in."""

    def fill(port: int) -> list[str]:
        if not (BIN / tool).exists():
            raise BenchError(f"{tool} is not installed in this environment")
        return [str(BIN / tool), *arguments.format(app=app, port=port).split()]

    return fill


SOJOURN = (
    "serve {app} --host 127.0.0.1 --port {port} --app-dir . --access-log off --drain-delay 0 --drain-close-rate none"
)
UVICORN = (
    "{app} --host 127.0.0.1 --port {port} --app-dir . --no-access-log --log-level warning --loop uvloop"
    " --http httptools --backlog 8192 --timeout-keep-alive 75 --ws "
)
# No worker process: it serves in the process itself, as the others do. Its pings are off by default.
HYPERCORN = (
    "{app} -b 127.0.0.1:{port} -k uvloop -w 0 --backlog 8192 --keep-alive 75 --websocket-ping-interval 20"
    " --log-level WARNING"
)
# An idle connection counts against --backpressure and ends by the header timeout (ms, at most 60 s).
GRANIAN = (
    "{app} --interface asgi --host 127.0.0.1 --port {port} --workers 1 --runtime-threads 1 --loop uvloop --http 1"
    " --no-access-log --log-level warning --backlog 8192 --backpressure 8192 --http1-header-read-timeout 60000"
)


def _go_version() -> str:
    go = shutil.which("go")
    packages = "golang-github-gin-gonic-gin-dev", "golang-github-gorilla-websocket-dev"
    words = subprocess.run(
        [go or "go", "version"], check=False, capture_output=True, text=True, timeout=20
    ).stdout.split()
    found = ["Go " + words[2].removeprefix("go")]
    for package, label in zip(packages, ("Gin", "gorilla/websocket"), strict=True):
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], check=False, capture_output=True, text=True, timeout=20
        )
        found.append(f"{label} {asked.stdout.strip() or 'unknown'}")
    return ", ".join(found)


def catalogue(ws: str) -> dict[str, Spec]:
    """All servers in the order of a round; `ws` is uvicorn's WebSocket implementation."""
    own = _packages("sojourn", "uvloop", "httptools")
    specs = [
        Spec("sojourn", _command("sojourn", SOJOURN), own, figures=ALL | {"balance"}),
        Spec(
            "sojourn-unsupervised",
            _command("sojourn", SOJOURN + " --workers 0"),
            own,
            figures=frozenset({"connect", "drain"}),
        ),
        Spec(
            "sojourn-unprotected",
            _command("sojourn", SOJOURN + " --config bench/unprotected.toml"),
            own,
            figures=frozenset({"get", "echo"}),
        ),
        Spec(
            "uvicorn",
            _command("uvicorn", UVICORN + ws),
            _packages("uvicorn", "uvloop", "httptools", "websockets", "wsproto"),
        ),
        Spec("hypercorn", _command("hypercorn", HYPERCORN), _packages("hypercorn", "uvloop", "h11", "wsproto")),
        Spec("granian", _command("granian", GRANIAN), _packages("granian", "uvloop")),
        Spec(
            "gin",
            lambda port: [build.gin(), str(port)],
            _go_version,
            env=(("GOMAXPROCS", "1"), ("GIN_MODE", "release")),
        ),
        Spec(
            "bare",
            lambda port: [sys.executable, "bench/apps/bare.py", str(port)],
            _packages("uvloop"),
            figures=HTTP | {"connect"},
        ),
    ]
    return {spec.name: spec for spec in specs}


def fan_catalogue(ws: str) -> dict[str, Spec]:
    """The servers of the fan-out, in the order of a round."""
    own, loop = _packages("sojourn", "uvloop"), "bench.apps.fan_asgi:app"

    def gorilla(form: str) -> Callable[[int], list[str]]:
        return lambda port: [build.fan(), form, str(port)]

    def module(name: str) -> Callable[[int], list[str]]:
        return lambda port: [sys.executable, "-m", f"bench.apps.{name}", str(port)]

    specs = [
        Spec("sojourn", _command("sojourn", SOJOURN, "bench.apps.fan_hub:app"), own),
        Spec("sojourn-loop", _command("sojourn", SOJOURN, loop), own),
        Spec(
            "uvicorn", _command("uvicorn", UVICORN + ws, loop), _packages("uvicorn", "uvloop", "websockets", "wsproto")
        ),
        Spec("websockets", module("fan_websockets"), _packages("websockets", "uvloop")),
        Spec("gorilla-hub", gorilla("hub"), _go_version),
        Spec("gorilla-loop", gorilla("loop"), _go_version),
        Spec("bare", module("fan_bare"), _packages("uvloop")),
    ]
    return {spec.name: spec for spec in specs}


def uvicorn_candidates() -> dict[str, Spec]:
    """uvicorn once per WebSocket implementation."""
    return {ws: Spec(f"uvicorn-{ws}", _command("uvicorn", UVICORN + ws), lambda: "") for ws in UVICORN_WS}


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A started server; a context manager that always ends it."""

    def __init__(self, spec: Spec, deadline: float = 20.0) -> None:
        self.spec, self.port = spec, free_port()
        self.log = machine.BUILD / f"{spec.name}.log"
        machine.BUILD.mkdir(exist_ok=True)
        command = spec.command(self.port)
        self.process = process.spawn(
            command, machine.cores()[1], self.log, {"PYTHONPATH": str(machine.ROOT), **dict(spec.env)}
        )
        try:
            self._wait_ready(deadline)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Id of the process that was started; its workers are below it."""
        return self.process.pid

    def _wait_ready(self, deadline: float) -> None:
        """Polls with real requests until one is answered 200."""
        until, last = time.monotonic() + deadline, "no answer"
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise BenchError(f"{self.spec.name} ended with code {self.process.returncode}: {self.tail()}")
            try:
                if self.get("/") == 200:
                    return
                last = "the answer was not 200"
            except (OSError, http.client.HTTPException) as error:
                last = str(error) or type(error).__name__
            time.sleep(0.05)
        raise BenchError(f"{self.spec.name} was not ready after {deadline:.0f} s ({last}): {self.tail()}")

    def get(self, path: str) -> int:
        """One request on its own connection; the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            return connection.getresponse().status
        finally:
            connection.close()

    def alive(self) -> None:
        """Raises when the server has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.spec.name} died with code {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The last words of its log."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-400:].replace(str(machine.ROOT), ".") or "(no output)"

    def end(self) -> None:
        """Ends the server and its workers."""
        process.end(self.process)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
