"""dramatiq on Redis; what it does one time in a thousand (look for dead workers) is done each time."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from drills.recovery.work import LEASE, STORE, work_blocking

dramatiq.set_broker(RedisBroker(url=STORE, heartbeat_timeout=1000 * LEASE, maintenance_chance=1_000_000))


@dramatiq.actor(actor_name="task")
def task() -> None:
    work_blocking()


if __name__ == "__main__":
    task.send()
