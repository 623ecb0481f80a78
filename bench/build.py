"""Compiles the C load clients and the Go peer into bench/.build, when their source is newer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.machine import BENCH, BUILD
from bench.process import BenchError

GOPATH = "/usr/share/gocode"


def _stale(target: Path, *sources: Path) -> bool:
    return not target.exists() or any(s.stat().st_mtime > target.stat().st_mtime for s in sources)


def _compile(command: list[str], env: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BenchError(f"{command[0]}: {done.stderr.strip()[-400:]}")


def client(name: str) -> str:
    """Path of the compiled load client bench/load/NAME.c."""
    source, target = BENCH / "load" / f"{name}.c", BUILD / name
    if _stale(target, source, BENCH / "load" / "ws_wire.h"):
        BUILD.mkdir(exist_ok=True)
        _compile(["cc", "-O2", "-Wall", "-o", str(target), str(source)])
    return str(target)


def gin() -> str:
    """Path of the compiled Gin application; it needs Debian's Go, Gin and gorilla packages."""
    if not shutil.which("go"):
        raise BenchError("go is not installed (Debian: golang-go)")
    if not Path(GOPATH, "src/github.com/gin-gonic/gin").is_dir():
        raise BenchError("Gin is not installed (Debian: golang-github-gin-gonic-gin-dev)")
    if not Path(GOPATH, "src/github.com/gorilla/websocket").is_dir():
        raise BenchError("gorilla/websocket is not installed (Debian: golang-github-gorilla-websocket-dev)")
    source, target = BENCH / "apps" / "gin.go", BUILD / "gin"
    if _stale(target, source):
        BUILD.mkdir(exist_ok=True)
        _compile(["go", "build", "-o", str(target), str(source)], {"GO111MODULE": "off", "GOPATH": GOPATH})
    return str(target)


def fan() -> str:
    """Path of the compiled gorilla/websocket side of the fan-out."""
    if not shutil.which("go"):
        raise BenchError("go is not installed (Debian: golang-go)")
    if not Path(GOPATH, "src/github.com/gorilla/websocket").is_dir():
        raise BenchError("gorilla/websocket is not installed (Debian: golang-github-gorilla-websocket-dev)")
    source, target = BENCH / "apps" / "fan.go", BUILD / "fan_go"
    if _stale(target, source):
        BUILD.mkdir(exist_ok=True)
        _compile(["go", "build", "-o", str(target), str(source)], {"GO111MODULE": "off", "GOPATH": GOPATH})
    return str(target)


def overshoot() -> str:
    """Path of the compiled Go side of the figure ``overshoot``."""
    if not shutil.which("go"):
        raise BenchError("go is not installed (Debian: golang-go)")
    source, target = BENCH / "apps" / "overshoot.go", BUILD / "overshoot"
    if _stale(target, source):
        BUILD.mkdir(exist_ok=True)
        _compile(["go", "build", "-o", str(target), str(source)], {"GO111MODULE": "off", "GOPATH": GOPATH})
    return str(target)


def wrk() -> str:
    """Path of wrk."""
    found = shutil.which("wrk")
    if not found:
        raise BenchError("wrk is not installed (Debian: wrk)")
    return found
