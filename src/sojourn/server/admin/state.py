"""Probes, and how the whole stands: answered by who supervises, so also while a worker hangs."""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from typing import Any, Final

from sojourn.asgi.probes import PATHS, Answer, no, yes
from sojourn.server.admin.answers import Kind, Question, Route, json, page
from sojourn.server.admin.fleet import Fleet, Status
from sojourn.server.reconfigure import Running
from sojourn.server.settings import Loaded, Origin, describe, keys, waits_without_deadline

__all__ = ["ROUTES", "settings", "status"]

_FIND: Final[dict[str, Kind]] = {"key": "text", "changed": "flag"}


async def _probe(question: Question) -> Answer:
    path, status = question.scope["path"], question.fleet.status()
    if path == "/readyz" and not status.ready:
        return _not_ready(status)
    if path == "/startupz" and not status.started:
        return no("starting", "no worker has been ready yet", instance=status.instance)
    return yes(question.scope["headers"])


def _not_ready(status: Status) -> Answer:
    if status.state == "draining":
        counts = status.countdown._asdict() if status.countdown is not None else None
        return no("draining", "everything is about to end", instance=status.instance, countdown=counts)
    if not status.started:
        return no("starting", "no worker has been ready yet", instance=status.instance)
    return no("no_worker", "no worker is ready", instance=status.instance)


async def _status(question: Question) -> Answer:
    return json(question, status(question.fleet))


def status(fleet: Fleet) -> dict[str, Any]:
    """The state of the whole, as JSON shows it."""
    known = fleet.status()
    return {
        **known._asdict(),
        "ready": known.ready,
        "config_version": fleet.config().version,
        "workers": [worker._asdict() for worker in known.workers],
        "countdown": known.countdown._asdict() if known.countdown is not None else None,
    }


async def _metrics(question: Question) -> Answer:
    kind, body = await question.fleet.metrics(question.header(b"accept"))
    return page(body, kind)


async def _config(question: Question) -> Answer:
    running = question.fleet.config()
    found = settings(running)
    if (wanted := question.arguments.get("key")) is not None:
        found = [each for each in found if each["key"] == wanted or each["key"].startswith(f"{wanted}.")]
    if question.arguments.get("changed"):
        found = [each for each in found if each["key"] not in keys() or each["value"] != each["default"]]
    waits = waits_without_deadline(running.config)
    return json(question, {"version": running.version, "settings": found, "waits_without_deadline": waits})


def settings(running: Running) -> list[dict[str, Any]]:
    """Every setting with its value, where it comes from, and when a change takes effect. Secrets are masked."""
    origins: defaultdict[str, Origin] = defaultdict(lambda: Origin("default"), running.origins)
    rows = describe(Loaded(running.config, origins, (), ()))
    return [
        {
            "key": row.key,
            "value": row.value,
            "text": row.text,
            "unit": row.unit,
            "default": keys()[row.key].default if row.key in keys() else None,
            "layer": row.origin.layer,
            "origin": str(row.origin),
            "change": row.change,
            "doc": row.doc,
        }
        for row in rows
    ]


async def _vars(question: Question) -> Answer:
    from sojourn.observe.tasks.command import redacted

    used = resource.getrusage(resource.RUSAGE_SELF)
    running = question.fleet.config()
    set_to = {each["key"]: each["value"] for each in settings(running)}
    document = {
        "cmdline": redacted(sys.orig_argv),
        "python": sys.version.split()[0],
        "process": {
            "processor_seconds": used.ru_utime + used.ru_stime,
            "memory_peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        },
        "status": status(question.fleet),
        "config": {"version": running.version, "settings": set_to},
    }
    return json(question, document)


_PROBES: Final = {
    "/livez": "the supervisor's event loop turns",
    "/readyz": "new requests may come",
    "/startupz": "the first workers have been ready",
}

ROUTES: Final = (
    *(Route(path, _probe, _PROBES[path]) for path in PATHS),
    Route("/status", _status, "the supervisor, its workers, the countdown of a drain"),
    Route("/metrics", _metrics, "metrics of all workers for Prometheus"),
    Route("/config", _config, "the settings in force, and where each comes from", _FIND),
    Route("/debug/vars", _vars, "all that the supervisor knows, in one document"),
)
