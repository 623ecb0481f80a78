"""Celery on Redis, with late acknowledgements."""

from __future__ import annotations

from celery import Celery

from drills.recovery.work import STORE, work_blocking

app = Celery("recovery", broker=STORE)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options={"visibility_timeout": 8},
    broker_connection_retry_on_startup=True,
)


@app.task(name="task")
def task() -> None:
    work_blocking()


if __name__ == "__main__":
    task.delay()
