"""Who takes part: with which store, set how, and which command runs its worker."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CASES", "Case"]

_PEERS = "drills.recovery.peers"


class Case(NamedTuple):
    """A task queue on a store, set in a way.

    Attributes:
        name: In the table.
        package: Of which the version is told.
        store: ``redis``, ``postgres`` or ``sqlite``.
        setting: What is not as it comes, with the default in brackets.
        module: Of the task, in ``drills.recovery.peers``; run as a program it submits one.
        worker: Arguments of Python that run a worker; ``{module}`` is the module's whole name.
        venv: Of `scripts/peers`; "" is our own.
        env: Of all its processes.
        ahead: Whether the task is there before worker A is. SAQ's first look for dead workers, as it starts, takes
            a job that is just being taken for a lost one.
    """

    name: str
    package: str
    store: str
    setting: str
    module: str
    worker: str
    venv: str = "modern"
    env: tuple[tuple[str, str], ...] = ()
    ahead: bool = True

    def command(self) -> list[str]:
        """Arguments of Python for a worker."""
        return self.worker.format(module=f"{_PEERS}.{self.module}").split()

    def submission(self) -> list[str]:
        """Arguments of Python that submit the task."""
        return ["-m", f"{_PEERS}.{self.module}"]


_SOJOURN = "lease 5 s [30 s], drain.requests 0.1 s [30 s]"
_WORK = "-m sojourn.cli work {module}:tasks --workers 0 --drain-requests 100ms"
_ITSELF = "-m {module} worker"

CASES = (
    Case("Sojourn", "sojourn", "sqlite", _SOJOURN, "sojourn_all", _WORK, ""),
    Case("Sojourn", "sojourn", "postgres", _SOJOURN, "sojourn_all", _WORK, ""),
    Case("Sojourn", "sojourn", "redis", _SOJOURN, "sojourn_all", _WORK, ""),
    Case("streaq", "streaq", "redis", "idle_timeout 5 s [60 s]", "streaq_redis", "-m streaq run {module}:worker"),
    Case(
        "pydocket",
        "pydocket",
        "redis",
        "redelivery_timeout 5 s [300 s]",
        "docket_redis",
        "-m {module} worker",
        "docket",
    ),
    Case(
        "SAQ",
        "saq",
        "redis",
        "one attempt [the default], sweep 1 s [60 s]",
        "saq_redis",
        "-m saq {module}.settings --verbose",
        ahead=False,
    ),
    Case(
        "SAQ, tuned",
        "saq",
        "redis",
        "heartbeat 4 s [none] sent by the job, 3 attempts [1], sweep 1 s [60 s]",
        "saq_redis",
        "-m saq {module}.settings --verbose",
        env=(("RECOVERY_TUNED", "1"),),
        ahead=False,
    ),
    Case("arq", "arq", "redis", "job_timeout 10 s [300 s]", "arq_redis", "-m arq {module}.WorkerSettings", "arq"),
    Case(
        "taskiq, taskiq-redis",
        "taskiq-redis",
        "redis",
        "stream, idle_timeout 5 s [600 s]",
        "taskiq_redis_stream",
        "-m taskiq worker --workers 1 {module}:broker",
        "brokers",
    ),
    Case(
        "dramatiq",
        "dramatiq",
        "redis",
        "heartbeat 5 s [60 s], maintenance each time [1 in 1,000]",
        "dramatiq_redis",
        "-m dramatiq --processes 1 --threads 1 {module}",
        "brokers",
    ),
    Case(
        "Celery",
        "celery",
        "redis",
        "acks_late [off], visibility_timeout 8 s [3,600 s]",
        "celery_redis",
        "-m celery -A {module} worker --concurrency 1",
        "brokers",
    ),
    Case(
        "Procrastinate",
        "procrastinate",
        "postgres",
        "as it comes",
        "procrastinate_postgres",
        "-m procrastinate --app {module}.app worker",
    ),
    Case(
        "pgqueuer",
        "pgqueuer",
        "postgres",
        "heartbeat_timeout and dequeue_timeout 5 s [30 s]",
        "pgqueuer_postgres",
        _ITSELF,
    ),
    Case("DBOS, same executor", "dbos", "sqlite", "as it comes", "dbos_sqlite", "-m {module}"),
    Case(
        "DBOS, another executor",
        "dbos",
        "postgres",
        "as it comes, an id for each",
        "dbos_sqlite",
        "-m {module}",
        env=(("RECOVERY_APART", "1"),),
    ),
    Case("Huey", "huey", "sqlite", "3 retries [0]", "huey_sqlite", "-m huey.bin.huey_consumer {module}.huey"),
)
