"""The load clients: wrk for HTTP, ws_load for echo; each run on the load's core with a deadline."""

from __future__ import annotations

from bench import build, machine, process
from bench.machine import BENCH
from bench.process import BenchError, Finished

BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Connection": "keep-alive",
    "Referer": "http://localhost/start",
    "Cookie": "session=6f1c2b7ad09e4c53; theme=dark",
}
POST_BYTES = 10_000
ECHO_BYTES = 100
CONNECTIONS = 64


def wrk(
    port: int,
    path: str,
    seconds: float,
    connections: int = CONNECTIONS,
    headers: dict[str, str] | None = None,
    post: int = 0,
) -> Finished:
    """Runs wrk with one thread; a failed request is an error, not a figure."""
    whole = max(1, round(seconds))
    command = [
        build.wrk(),
        "-t1",
        f"-c{connections}",
        f"-d{whole}s",
        "--timeout",
        "5s",
        "-s",
        str(BENCH / "load" / "wrk.lua"),
    ]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    command += [f"http://127.0.0.1:{port}{path}"]
    if post:
        command += ["--", "post", str(post)]
    done = process.run_json(command, machine.cores()[0], whole + 15.0)
    if done.data["bad"] or not done.data["requests"]:
        raise BenchError(f"wrk: {done.data['requests']} requests, {done.data['bad']} errors")
    done.data["rate"] = done.data["requests"] / done.data["seconds"]
    return done


def echo(port: int, seconds: float, connections: int = CONNECTIONS, size: int = ECHO_BYTES) -> Finished:
    """Runs the WebSocket client: one message in flight per connection, every byte compared."""
    command = [build.client("ws_load"), str(port), "/ws", str(connections), str(size), str(seconds), "0.3"]
    done = process.run_json(command, machine.cores()[0], seconds + 15.0)
    return Finished(done.data, float(done.data["client_core"]))
