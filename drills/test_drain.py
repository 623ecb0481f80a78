"""SIGTERM to a full house."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from drills.crowd import Crowd, EventStream, Load, Request, WebSocket, all_ended, play
from drills.served import end_of, now, report_of, serving
from tests.server.processes import Serving

#: Seconds in which WebSockets are closed: ``drain.sockets`` less ``websocket.close``.
WINDOW = 8.0
FULL_HOUSE = {"drain_delay": "1", "drain_requests": "20", "drain_streams": "20", "drain_sockets": "10"}
both = pytest.mark.parametrize("workers", ["0", "2"])


def checked(path: Path) -> dict[str, Any]:
    """The report: every row and the whole must add up."""
    report = report_of(path)
    for tally in report["kinds"].values():
        assert tally["open"] == tally["finished"] + tally["cut"], report
    opened = sum(tally["open"] for tally in report["kinds"].values())
    assert report["finished"] + report["cut"] >= opened, report
    return report


@both
def test_a_full_house_leaves_whole_spread_and_in_time(workers: str, tmp_path: Path) -> None:
    settings = FULL_HOUSE | {"websocket_close": "2", "drain_report": str(tmp_path / "report.json")}

    async def main(served: Serving, crowd: Crowd) -> None:
        streams = await crowd.join(lambda: EventStream("/events"), 1000)
        sockets = await crowd.join(lambda: WebSocket("/ws"), 1000)
        requests = await crowd.join(lambda: Request("/slow?seconds=5"), 200)
        began = now()
        served.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        # The delay: it still serves who comes.
        late = await crowd.join(lambda: Request("/"), 5)
        code, ended = await end_of(served, 40)
        await all_ended([*streams, *sockets, *requests, *late], 5)

        assert code == 0, served.stderr[-3000:]
        assert ended - began < 1 + 10 + 5

        assert Counter((request.status, request.complete) for request in (*requests, *late)) == {(200, True): 205}

        assert all(stream.complete and stream.failed is None for stream in streams)
        waits = [stream.retry for stream in streams if stream.retry is not None]
        assert len(waits) == 1000
        assert max(waits) - min(waits) > 3000

        closes = sorted(socket.closed for socket in sockets if socket.closed is not None)
        assert Counter(status for _, status in closes) == {1012: 1000}
        first, last = closes[0][0], closes[-1][0]
        assert WINDOW * 0.8 < last - first < WINDOW + 1
        tenths = Counter(min(9, int((moment - first) / (last - first) * 10)) for moment, _ in closes)
        assert max(tenths.values()) <= 200, tenths

        report = checked(tmp_path / "report.json")
        kinds = report["kinds"]
        assert kinds["streams"] == {"open": 1000, "told": 1000, "finished": 1000, "cut": 0}
        assert kinds["sockets"] == {"open": 1000, "told": 1000, "finished": 1000, "cut": 0}
        assert (kinds["requests"]["open"], kinds["requests"]["cut"]) == (200, 0)
        assert (report["cut"], report["unanswered"], report["exit_code"]) == (0, 0, 0)

    with serving(app_workers=workers, **settings) as served:
        play(main, served)


@both
def test_who_comes_too_late_is_refused_at_once_and_who_came_in_time_is_served(workers: str) -> None:
    async def main(served: Serving, crowd: Crowd) -> None:
        requests = await crowd.join(lambda: Request("/slow?seconds=4"), 20)
        async with Load(served.port, new=8, kept=8) as load:
            await asyncio.sleep(0.5)
            assert load.failures == []
            served.signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert load.failures == []  # the delay: everybody is served
            await asyncio.sleep(1.5)
            assert load.failures, "it still serves"
            code, _ = await end_of(served, 30)
        assert code == 0, served.stderr[-3000:]
        assert Counter((request.status, request.complete) for request in requests) == {(200, True): 20}
        assert [failure for failure in load.failures if "ConnectionRefusedError" not in failure] == []

    with serving(app_workers=workers, drain_delay="1") as served:
        play(main, served)


@both
def test_clients_that_never_answer_the_close_hold_nobody_up(workers: str, tmp_path: Path) -> None:
    settings = {"websocket_close": "1", "drain_sockets": "5", "drain_report": str(tmp_path / "report.json")}

    async def main(served: Serving, crowd: Crowd) -> None:
        mute = await crowd.join(lambda: WebSocket("/ws", polite=False), 300)
        polite = await crowd.join(lambda: WebSocket("/ws"), 300)
        began = now()
        served.signal(signal.SIGTERM)
        code, ended = await end_of(served, 30)
        await all_ended([*mute, *polite], 5)
        assert code == 0, served.stderr[-3000:]
        assert ended - began < 5 + 4
        assert Counter(socket.closed[1] for socket in (*mute, *polite) if socket.closed) == {1012: 600}
        report = checked(tmp_path / "report.json")
        assert report["unanswered"] == 300
        assert report["kinds"]["sockets"]["open"] == 600

    with serving(app_workers=workers, **settings) as served:
        play(main, served)


@both
def test_a_handler_that_swallows_cancellation_is_named_and_the_exit_code_is_5(workers: str, tmp_path: Path) -> None:
    settings = {"drain_requests": "1", "drain_total": "3", "drain_report": str(tmp_path / "report.json")}

    async def main(served: Serving, crowd: Crowd) -> None:
        (stubborn,) = await crowd.join(lambda: Request("/stubborn"), 1)
        requests = await crowd.join(lambda: Request("/slow?seconds=0.5"), 20)
        await asyncio.sleep(0.2)
        began = now()
        served.signal(signal.SIGTERM)
        code, ended = await end_of(served, 40)
        await all_ended([stubborn, *requests], 5)
        assert code == 5, served.stderr[-3000:]
        assert ended - began < 15
        assert (stubborn.status, stubborn.complete) == (503, True)
        assert Counter((request.status, request.complete) for request in requests) == {(200, True): 20}
        report = checked(tmp_path / "report.json")
        assert report["exit_code"] == 5
        (cut,) = [cut for cut in report["cuts"] if cut["what"].startswith("GET /stubborn")] or report["cuts"][:1]
        assert "in stubborn" in cut["stack"], report["cuts"]
        assert "stubborn" in served.stderr

    with serving(app_workers=workers, **settings) as served:
        play(main, served)


@both
def test_the_second_signal_goes_on_to_the_next_phase_and_the_third_exits(workers: str) -> None:
    settings = {"drain_delay": "60", "drain_requests": "60", "drain_sockets": "60"}

    async def main(served: Serving, crowd: Crowd) -> None:
        sockets = await crowd.join(lambda: WebSocket("/ws", polite=False), 20)
        requests = await crowd.join(lambda: Request("/slow?seconds=60"), 20)
        served.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        (late,) = await crowd.join(lambda: Request("/"), 1)  # first: it still serves
        await late.ended
        assert late.status == 200
        served.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        with pytest.raises(ConnectionRefusedError):  # nobody is left waiting in the kernel
            await crowd.join(lambda: Request("/"), 1)
        assert not any(request.ended.done() for request in requests)
        began = now()
        served.signal(signal.SIGTERM)
        code, ended = await end_of(served, 20)
        assert code == 5, served.stderr[-3000:]
        assert ended - began < 3
        await all_ended([*sockets, *requests], 5)

    with serving(app_workers=workers, **settings) as served:
        play(main, served)


@both
def test_signals_that_hurry_to_the_end_still_tell_everybody(workers: str) -> None:
    """Two of them: past the delay, then past the waiting; what is open is cut and told."""
    settings = {"drain_delay": "60", "drain_requests": "60", "drain_sockets": "60", "websocket_close": "1"}

    async def main(served: Serving, crowd: Crowd) -> None:
        sockets = await crowd.join(lambda: WebSocket("/ws"), 50)
        streams = await crowd.join(lambda: EventStream("/events"), 50)
        served.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        served.signal(signal.SIGTERM)
        code, _ = await end_of(served, 30)
        await all_ended([*sockets, *streams], 5)
        assert code == 0, served.stderr[-3000:]
        assert {socket.closed[1] for socket in sockets if socket.closed} == {1012}
        assert all(stream.complete for stream in streams)

    with serving(app_workers=workers, **settings) as served:
        play(main, served)


@both
def test_an_unchanged_fastapi_application_with_an_endless_stream_and_an_idle_websocket_ends(workers: str) -> None:
    settings = {"drain_delay": "1", "drain_sockets": "5", "websocket_close": "1"}

    async def main(served: Serving, crowd: Crowd) -> None:
        streams = await crowd.join(lambda: EventStream("/events"), 20)
        sockets = await crowd.join(lambda: WebSocket("/ws"), 20)
        began = now()
        served.signal(signal.SIGTERM)
        code, ended = await end_of(served, 30)
        await all_ended([*streams, *sockets], 5)
        assert code == 0, served.stderr[-3000:]
        assert ended - began < 1 + 5 + 3
        assert all(stream.complete for stream in streams)
        assert Counter(socket.closed[1] for socket in sockets if socket.closed) == {1012: 20}

    with serving("drills.app:unchanged", app_workers=workers, **settings) as served:
        play(main, served)
