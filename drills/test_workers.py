"""Workers and supervisors that die or hang."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from drills.crowd import Crowd, EventStream, Load, Request, WebSocket, all_ended, play
from drills.served import alive, descendants, end_of, now, serving, until
from tests.server.processes import Serving


def workers_of(served: Serving) -> list[int]:
    """The processes that serve, by what the log says of them."""
    ended = {message["pid"] for message in served.told("worker_ended")}
    return [message["pid"] for message in served.told("worker_ready") if message["pid"] not in ended]


def test_a_killed_worker_is_replaced_and_the_others_serve_on() -> None:
    async def main(served: Serving, crowd: Crowd) -> None:
        await until(lambda: len(workers_of(served)) == 2, 20, "two workers", served)
        before = workers_of(served)
        sockets = await crowd.join(lambda: WebSocket("/ws"), 100)
        async with Load(served.port, new=4, kept=0) as load:
            await until(lambda: len(load.answers) == 2, 10, "both workers answer", served)
            os.kill(before[0], signal.SIGKILL)
            await until(
                lambda: len(workers_of(served)) == 2 and before[0] not in workers_of(served), 20, "a new worker"
            )
            (new,) = set(workers_of(served)) - set(before)
            await until(lambda: load.answers[str(new)] > 10, 20, "answers of the new worker", served)
        lost = [socket for socket in sockets if socket.ended.done()]
        assert 0 < len(lost) < 100  # those of the dead worker, and of no other
        # What the dead worker had in hand is lost with it; nothing else is.
        assert len(load.failures) <= 4, load.failures
        (ended,) = served.told("worker_ended")
        assert (ended["pid"], ended["code"], ended["expected"]) == (before[0], -signal.SIGKILL, False)
        served.signal(signal.SIGTERM)
        code, _ = await end_of(served, 30)
        assert code == 0, served.stderr[-3000:]

    with serving(app_workers="2", drain_close_rate="1000") as served:
        play(main, served)


def test_when_the_supervisor_is_killed_its_workers_drain_and_end() -> None:
    async def main(served: Serving, crowd: Crowd) -> None:
        await until(lambda: len(workers_of(served)) == 2, 20, "two workers", served)
        sockets = await crowd.join(lambda: WebSocket("/ws"), 50)
        streams = await crowd.join(lambda: EventStream("/events"), 50)
        requests = await crowd.join(lambda: Request("/slow?seconds=1"), 50)
        family = descendants(served.process.pid)
        assert len(family) >= 2
        served.signal(signal.SIGKILL)
        await all_ended([*sockets, *streams, *requests], 20)
        await until(lambda: not any(map(alive, family)), 20, "the end of all processes", served)
        assert all(request.status == 200 for request in requests)
        assert all(stream.complete for stream in streams)
        assert {socket.closed[1] if socket.closed else 0 for socket in sockets} == {1012}
        with pytest.raises(ConnectionRefusedError):
            await crowd.join(lambda: Request("/"), 1)

    with serving(app_workers="2", drain_close_rate="1000") as served:
        play(main, served)


def test_when_the_supervisor_is_killed_even_a_blocked_worker_ends() -> None:
    async def main(served: Serving, crowd: Crowd) -> None:
        family = descendants(served.process.pid)
        await crowd.join(lambda: Request("/block"), 1)
        await asyncio.sleep(0.5)
        served.signal(signal.SIGKILL)
        await until(lambda: not any(map(alive, family)), 20, "the end of all processes", served)

    # The application blocks its loop for a minute; the time to drain is over long before.
    with serving(app_workers="1", drain_total="2", drain_persist="1", timeouts_lifespan_shutdown="1") as served:
        play(main, served)


def test_a_blocked_loop_is_named_killed_and_replaced() -> None:
    async def main(served: Serving, crowd: Crowd) -> None:
        await until(lambda: len(workers_of(served)) == 2, 20, "two workers", served)
        before = workers_of(served)
        began = now()
        (victim,) = await crowd.join(lambda: Request("/block"), 1)
        await until(lambda: served.told("worker_hung"), 20, "a hung worker", served)
        assert now() - began < 8
        (hung,) = served.told("worker_hung")
        assert hung["pid"] in before
        assert "block_the_loop" in hung["stacks"]
        await until(lambda: len(served.told("worker_ready")) == 3, 20, "a new worker", served)
        await victim.ended
        assert not alive(hung["pid"])
        # Both serve: nobody waits behind the blocked one any more.
        async with Load(served.port, new=4, kept=0) as load:
            await until(lambda: set(load.answers) == set(map(str, workers_of(served))), 20, "answers", served)
        assert load.failures == []
        served.signal(signal.SIGTERM)
        code, _ = await end_of(served, 30)
        assert code == 0, served.stderr[-3000:]

    with serving(app_workers="2", worker_heartbeat="1.5") as served:
        play(main, served)
