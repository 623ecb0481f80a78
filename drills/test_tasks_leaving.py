"""Who leaves while the journal of durable tasks is away: a node, a handler whose time is over, a client."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from drills.served import report_of
from drills.shoppers import NUMBERS, Ledger, Shop, kept, overlaps, runs_of, shop, until
from drills.stores import store

LEASE = 6.0
both = pytest.mark.parametrize("engine", ["redis", "postgres"])


@both
def test_a_node_that_ends_meanwhile_says_what_it_could_not_hand_over_and_others_find_it(
    engine: str, tmp_path: Path
) -> None:
    (runs := tmp_path / "runs").mkdir()
    report = tmp_path / "report.json"

    async def main() -> None:
        async with (
            store(engine, tmp_path) as journal,
            shop(journal.url, runs, LEASE, drain_requests="1", drain_persist="2", drain_report=str(report)) as one,
            shop(journal.direct, runs, LEASE) as two,
        ):
            ledger = Ledger()
            await ledger.orders(one.client, 5, seconds=8.0)
            await until(lambda: len(runs_of(runs)) == 5, 5.0)
            journal.proxy.timeout()
            await asyncio.sleep(0.5)
            began = time.monotonic()
            code = await one.stop()
            ended = time.monotonic()
            tasks = await kept(journal.direct, ledger, LEASE + 20.0)
            notes = runs_of(runs)
            again = min(entry["at"] for entries in notes.values() for entry in entries[2:] if entry["what"] == "begun")
            told = report_of(report)
            figures = {
                "engine": engine,
                "exit code": code,
                "seconds": round(ended - began, 2),
                "counts": told["counts"],
                "begun again after": round(again - began, 2),
            }
            print(json.dumps(figures))
            assert code == 6, one.served.stderr[-3000:]
            assert told["exit_code"] == 6
            assert told["counts"]["orders"]["lost"] == 5
            assert ended - began < 1 + 2 + 3
            assert "could not be handed over" in one.served.stderr
            # The lease, and a beat.
            assert again - began < LEASE * 4 / 3 + 1
            assert not overlaps(notes)
            assert Counter((task.crashes, task.interruptions) for task in tasks) == {(1, 1): 5}
            assert {task.node.split(":")[1] for task in tasks} <= {str(entry["pid"]) for entry in notes[min(notes)][2:]}
            assert two.served.process.poll() is None

    asyncio.run(main())


@both
def test_handlers_and_clients_that_wait_no_longer_leave_nothing_behind(engine: str, tmp_path: Path) -> None:
    (runs := tmp_path / "runs").mkdir()

    async def main() -> None:
        settings = {"deadlines_budgets": "tasks=8", "timeouts_disconnect_grace": "0.2"}
        async with store(engine, tmp_path) as journal, shop(journal.url, runs, LEASE, **settings) as one:
            ledger = Ledger()
            await ledger.orders(one.client, 20)
            await kept(journal.direct, ledger, 10.0)
            before = await _waiting(one)
            hole = journal.proxy.timeout()
            # A deadline of the handler's own is no outage of the journal.
            began = time.monotonic()
            answers = await asyncio.gather(*(one.client.post(f"/hurried/{next(NUMBERS)}") for _ in range(20)))
            assert time.monotonic() - began < 0.5 + 0.5
            assert {(answer.status_code, answer.json()["deadline"]) for answer in answers} == {(504, "hurried")}
            # Clients that leave cancel their wait, long before the budget is over.
            port = await asyncio.to_thread(lambda: one.served.port)
            leaving = [await _order(port, next(NUMBERS)) for _ in range(50)]
            await asyncio.sleep(0.5)
            assert (await _waiting(one))["requests"] == 50
            began = time.monotonic()
            for client in leaving:
                client.transport.abort()
            while (await _waiting(one))["requests"]:
                assert time.monotonic() - began < 3.0, await _waiting(one)
                await asyncio.sleep(0.05)
            left = time.monotonic() - began
            # One that is asked for its budget and not answered says so.
            began = time.monotonic()
            refused = await one.client.post(f"/orders/{next(NUMBERS)}")
            waited = time.monotonic() - began
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert 7.5 < waited < 9.0
            hole.remove()
            journal.proxy.cut()
            await asyncio.sleep(4.0)
            await ledger.orders(one.client, 20)
            await kept(journal.direct, ledger, 10.0)
            await asyncio.sleep(1.0)
            after = await _waiting(one)
            print(json.dumps({"engine": engine, "left after": round(left, 2), "before": before, "after": after}))
            assert after["submits"] == after["held"] == 0
            assert Counter(after["names"]) - Counter(before["names"]) == {}
            assert after["threads"] <= before["threads"]

    asyncio.run(main())


async def _waiting(shop: Shop) -> dict[str, Any]:
    told: dict[str, Any] = (await shop.client.get("/waiting")).json()
    return told


async def _order(port: int, number: int) -> asyncio.StreamWriter:
    """A client that has ordered, and waits."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /orders/{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode())
    await writer.drain()
    return writer
