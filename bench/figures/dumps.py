"""What a look at a crowded server costs: 10,000 tasks and 5,000 WebSockets, one dump after the other.

Time is from the request to the last byte of the admin listener's answer. The longest turn is processor time that the
worker's event loop spent on one thing meanwhile, as its own probe saw it (`apps/crowd.py`).
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import replace

from bench import machine
from bench.holder import Holder
from bench.process import BenchError
from bench.results import Results, Sample
from bench.scraper import get
from bench.servers import Running, Spec

Say = Callable[[str], None]
TASKS, SOCKETS = 10_000, 5_000
DEADLINE = 90.0
#: What is asked for, by its name in the report.
DUMPS = {
    "goroutine, protobuf": "/debug/pprof/goroutine",
    "goroutine, grouped text": "/debug/pprof/goroutine?debug=1",
    "goroutine, full text": "/debug/pprof/goroutine?debug=2",
    "tasks, JSON": f"/tasks?limit={TASKS}",
    "tasks with stacks, JSON": f"/tasks?limit={TASKS}&stacks",
    "connections, JSON": f"/connections?limit={SOCKETS}",
    "thread stacks": "/debug/pprof/thread?debug=1",
    "heap census": "/debug/pprof/heap?debug=1",
    "leaks": "/leaks",
    "metrics page": "/metrics",
}


def run(sojourn: Spec, rounds: int, results: Results, say: Say) -> None:
    """All rounds; a dump that fails is reported and the others go on."""
    admin = machine.BUILD / "crowd-admin.sock"

    def command(port: int) -> list[str]:
        words = [word if word != "bench.apps.asgi:app" else "bench.apps.crowd:app" for word in sojourn.command(port)]
        return [*words, "--admin", f"unix:{admin}", "--leak-grace", "3600"]

    spec = replace(sojourn, name="sojourn-crowd", command=command)
    for number in range(1, rounds + 1):
        try:
            with Running(spec, 30.0) as running, Holder("ws", running.port, SOCKETS, 300.0):
                _ask(running, f"/crowd/{TASKS}")
                for name, path in DUMPS.items():
                    try:
                        _dump(running, str(admin), name, path, number, results, say)
                    except (BenchError, OSError) as error:
                        results.fail(f"dump of {name}", BenchError(str(error)))
                        say(f"{name}: {error}")
        except (BenchError, OSError) as error:
            results.fail("dumps", BenchError(str(error)))
            say(f"dumps: {error}")
            return


def _dump(running: Running, admin: str, name: str, path: str, number: int, results: Results, say: Say) -> None:
    time.sleep(0.3)
    _ask(running, "/longest")
    time.sleep(0.1)
    calm = float(_ask(running, "/longest"))
    start = time.monotonic()
    status, body = get(path, admin, DEADLINE)
    took = time.monotonic() - start
    longest = float(_ask(running, "/longest"))
    if status != 200:
        raise BenchError(f"{path} answered {status}: {body[:300].decode(errors='replace')}")
    detail = {"longest": 1000 * longest, "calm": 1000 * calm, "bytes": len(body)}
    results.samples.append(Sample("dumps", name, number, 1000 * took, detail=detail))
    turn = f"longest turn {1000 * longest:6.2f} ms"
    say(f"round {number} dump {name:26} {1000 * took:8.1f} ms, {turn}, {len(body):>10,} B")


def _ask(running: Running, path: str) -> bytes:
    """One request to the application."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise BenchError(f"{path} answered {answer.status}")
        return answer.read()
    finally:
        connection.close()
