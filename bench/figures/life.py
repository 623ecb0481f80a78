"""Workers: what a connection costs under the supervisor, how they share connections, how long a drain takes."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import clients, machine
from bench.holder import Holder
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec

Say = Callable[[str], None]
#: Seconds of short connections.
CONNECT_SECONDS = 2.0
#: Seconds a server has to end after SIGTERM before it is killed and counted as not ending.
END = 45.0
BALANCED, RATE = 2000, 500


def _connect(spec: Spec, number: int, results: Results, say: Say) -> None:
    """Short connections: one request each, with `Connection: close`."""
    with Running(spec) as running:
        clients.wrk(running.port, "/", 1.0)
        cpu = machine.cpu_seconds(running.pid)
        done = clients.wrk(running.port, "/", CONNECT_SECONDS, headers={"Connection": "close"})
        used = machine.cpu_seconds(running.pid) - cpu
    each = 1e6 * used / done.data["requests"]
    results.samples.append(Sample("connect", spec.name, number, each))
    say(f"round {number} connect  {spec.name:20} {each:8.1f} us per connection")


def _balance(spec: Spec, number: int, results: Results, say: Say) -> None:
    """Two workers on the cores of this machine; the admin listener says what each has."""
    admin = machine.BUILD / "admin.sock"

    def command(port: int) -> list[str]:
        return [*spec.command(port), "--workers", "2", "--admin", f"unix:{admin}"]

    with (
        Running(replace(spec, command=command)) as running,
        Holder("ws", running.port, BALANCED, 120.0, RATE) as holder,
    ):
        holder.ask()
        open_now = [worker["connections"] for worker in _status(admin)["workers"]]
    if len(open_now) != 2 or sum(open_now) < BALANCED:
        raise BenchError(f"the workers tell of {open_now} connections")
    share = 100 * max(open_now) / sum(open_now)
    results.samples.append(Sample("balance", spec.name, number, share))
    say(f"round {number} balance  {spec.name:20} {share:8.1f} %")


def _status(admin: Path) -> dict[str, list[dict[str, int]]]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(admin))
        client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    return json.loads(data.partition(b"\r\n\r\n")[2])  # type: ignore[no-any-return]


def _drain(spec: Spec, connections: int, number: int, results: Results, say: Say) -> None:
    """From SIGTERM to the end of the process, and how many clients got a close frame."""
    with Running(spec) as running, Holder("ws", running.port, connections, 300.0) as holder:
        holder.ask()
        start = time.monotonic()
        running.process.terminate()
        try:
            code = running.process.wait(END)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{spec.name} did not end within {END:.0f} s of SIGTERM") from None
        took = time.monotonic() - start
        time.sleep(0.5)
        closes = holder.look().closes
    detail = {"closes": closes, "connections": connections, "code": code}
    results.samples.append(Sample("drain", spec.name, number, took, detail=detail))
    say(f"round {number} drain    {spec.name:20} {took:8.2f} s, {closes} close frames, code {code}")
    if number == 1:
        told = f"{closes:,} of {connections:,} WebSockets got a close frame"
        results.notes.append(f"{spec.name} after SIGTERM: {told}, exit code {code}.")


def run(
    specs: Sequence[Spec], wanted: Sequence[str], connections: int, rounds: int, results: Results, say: Say
) -> None:
    """All rounds of these figures."""
    for number in range(1, rounds + 1):
        for name in wanted:
            for spec in specs:
                if name not in spec.figures or spec.name in results.errors:
                    continue
                try:
                    if name == "connect":
                        _connect(spec, number, results, say)
                    elif name == "balance":
                        _balance(spec, number, results, say)
                    else:
                        _drain(spec, connections, number, results, say)
                except (BenchError, OSError) as error:
                    results.fail(f"{spec.name}, {name}", BenchError(str(error)))
                    say(f"{spec.name}, {name}: {error}")
