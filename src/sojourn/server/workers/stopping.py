"""The end of several workers seen as one: how long it may take, which exit code it has, one report of all."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.server.report import summed

__all__ = ["code_word", "longest_drain", "lost", "merged", "worst"]

#: Seconds for what has no time of its own: tasks that resist, threads, the interpreter's own end.
_MARGIN: Final = 20.0
#: Exit codes of a drain, worst first: work lost, something cut, the application's shutdown failed, clean.
_ORDER: Final = (6, 5, 1, 0)
_CUT: Final = 5


def longest_drain(config: Config, delay: float | None) -> float:
    """Seconds after which a worker that drains must have ended; infinite when the application's shutdown has no limit.

    Args:
        config: The worker's settings.
        delay: Seconds of notice; None takes ``drain.delay``.
    """
    drain = config.drain
    shutdown = config.timeouts.lifespan_shutdown
    if shutdown is None:
        return NEVER
    # Notice lasts as long as its participants may, even without a delay.
    notice = max(drain.delay if delay is None else delay, drain.delay, drain.persist)
    return notice + drain.total + drain.persist + shutdown + _MARGIN


def worst(codes: Iterable[int]) -> int:
    """The exit code of all together. A process that a signal ended, or that has a code of its own, counts as cut."""
    known = {code if code in _ORDER else _CUT for code in codes}
    return next((code for code in _ORDER if code in known), 0)


def lost(instance: str, code: int) -> dict[str, Any]:
    """The report of a worker that did not live to give one."""
    return {"instance": instance, "exit_code": worst((code,)), "problem": f"it ended with {code_word(code)}"}


def code_word(code: int) -> str:
    """``code 3``, or ``SIGKILL`` when a signal ended the process."""
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def merged(instance: str, code: int, seconds: float, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of all workers, with the same keys as that of one: sums and lists, and the reports themselves.

    Args:
        instance: Who this is about.
        code: The exit code of the whole.
        seconds: From the signal to the end of the last worker.
        reports: Those of the workers.
    """
    kinds: dict[str, dict[str, int]] = {}
    for report in reports:
        for kind, tally in report.get("kinds", {}).items():
            total = kinds.setdefault(kind, dict.fromkeys(tally, 0))
            for name, value in tally.items():
                total[name] = total.get(name, 0) + value
    problems = [f"{report['instance']}: {report['problem']}" for report in reports if report.get("problem")]
    return {
        "instance": instance,
        "exit_code": code,
        "seconds": round(seconds, 3),
        "finished": sum(report.get("finished", 0) for report in reports),
        "cut": sum(report.get("cut", 0) for report in reports),
        "unanswered": sum(report.get("unanswered", 0) for report in reports),
        "kinds": kinds,
        "cuts": [{"instance": report["instance"], **cut} for report in reports for cut in report.get("cuts", ())],
        "participants": [
            {"instance": report["instance"], **each} for report in reports for each in report.get("participants", ())
        ],
        "counts": summed((name, counts) for report in reports for name, counts in report.get("counts", {}).items()),
        "problem": "; ".join(problems) or None,
        "workers": list(reports),
    }
