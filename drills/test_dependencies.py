"""Dependencies that accept everything and answer nothing: real ones, behind a proxy that swallows what it reads."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from drills.dependent import CONNECTIONS
from drills.served import serving
from sojourn.testing import FaultProxy
from tests.databases import postgres_server, redis_server

#: Seconds of each phase of a drill.
PHASE = 4.0
#: Requests at once for each path.
CLIENTS = 10
BUDGETS = {"/price": 0.1, "/orders": 0.3}
#: What a request may take beyond its budget: this machine is shared with the load, the databases and the proxy.
SLACK = 0.7


class Watched:
    """What the requests of a phase were answered, and how long they took."""

    def __init__(self) -> None:
        self.answers: dict[str, Counter[str]] = {}
        self.took: dict[str, list[float]] = {}

    async def ask(self, client: httpx.AsyncClient, path: str, until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            answer = await client.get(path)
            told = answer.json() if "json" in answer.headers["content-type"] else {}
            word = f"{answer.status_code} {told.get('deadline', told.get('price', ''))}"
            self.took.setdefault(path, []).append(time.monotonic() - began)
            self.answers.setdefault(path, Counter())[word if "old" in word or answer.is_error else "fresh"] += 1
            await asyncio.sleep(0.1)

    def fresh(self, path: str) -> float:
        """The share of answers that are what was asked for."""
        return self.answers[path]["fresh"] / self.answers[path].total()

    def p99(self, path: str) -> float:
        took = sorted(self.took[path])
        return took[len(took) * 99 // 100]


async def _phase(client: httpx.AsyncClient) -> Watched:
    watched, end = Watched(), time.monotonic() + PHASE
    paths = ["/price"] * CLIENTS + ["/orders"] * CLIENTS + ["/plain"]
    await asyncio.gather(*(watched.ask(client, path, end) for path in paths))
    return watched


@pytest.mark.parametrize("fault", ["timeout", "reset_peer"])
def test_a_black_holed_redis_and_postgresql_bound_every_request_and_leave_pools_whole(
    fault: str, tmp_path: Path
) -> None:
    async def main(redis_port: int, postgres_port: int) -> None:
        async with (
            FaultProxy(("127.0.0.1", redis_port)) as cache,
            FaultProxy(("127.0.0.1", postgres_port)) as database,
        ):
            (tmp_path / "env").write_text(
                f"DRILL_REDIS=redis://127.0.0.1:{cache.address[1]}/0\n"
                f"DRILL_POSTGRES=postgres://postgres@127.0.0.1:{database.address[1]}/postgres\n"
            )
            # Started from a thread: its lifespan connects through the proxies, which live in this loop.
            settings = {
                "app_env_file": str(tmp_path / "env"),
                "deadlines_budgets": ",".join(f"{name}={seconds}" for name, seconds in _budgets()),
            }
            context = serving("drills.dependent:app", **settings)
            served = await asyncio.to_thread(context.__enter__)
            try:
                port = await asyncio.to_thread(lambda: served.port)
                limits = httpx.Limits(max_connections=None)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30) as client:
                    await _drill(client, cache, database, fault)
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)

    with redis_server() as redis, postgres_server() as postgres_port:
        asyncio.run(main(redis.port, postgres_port))


def _budgets() -> list[tuple[str, float]]:
    return [("cache", BUDGETS["/price"]), ("database", BUDGETS["/orders"])]


async def _drill(client: httpx.AsyncClient, cache: FaultProxy, database: FaultProxy, fault: str) -> None:
    await _phase(client)  # connections are made
    before = await _phase(client)
    assert before.fresh("/price") > 0.98
    assert before.fresh("/orders") > 0.98
    toxics = [getattr(proxy, fault)() for proxy in (cache, database)]
    during = await _phase(client)
    for toxic in toxics:
        toxic.remove()
    await asyncio.sleep(1.0)
    after = await _phase(client)
    for path, seconds in BUDGETS.items():
        assert during.p99(path) < seconds + SLACK, path
        assert max(during.took[path]) < seconds + 3 * SLACK, path
    if fault == "timeout":
        assert set(during.answers["/price"]) <= {"200 old", "fresh"}
        assert during.answers["/orders"]["504 database"] > 0.9 * during.answers["/orders"].total()
    # Nobody else feels it, and it passes.
    assert during.p99("/plain") < before.p99("/plain") + 0.25
    assert after.fresh("/price") > 0.98
    assert after.fresh("/orders") > 0.98
    pools = (await client.get("/pools")).json()
    assert pools["cache_in_use"] == 0
    assert pools["database"] == pools["database_idle"]
    assert 1 <= pools["database"] <= CONNECTIONS
