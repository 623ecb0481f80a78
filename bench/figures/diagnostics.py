"""What watching costs: plain GET with everything on, and with the access log too, against everything off.

All three servers are up; each round measures them one after the other, and once more in the opposite order. The admin
listener of the one that is measured is asked for /metrics once a second; with everything off there is none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import machine, process
from bench.figures.throughput import measure
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec

Say = Callable[[str], None]
#: Seconds between two looks at /metrics.
SCRAPE = 1.0
WATCHED, LOGGED, UNWATCHED = "sojourn", "sojourn-logged", "sojourn-undiagnosed"
FLAGS = {
    WATCHED: [],
    LOGGED: ["--access-log", "json", "--access-log-file", "/dev/null"],
    UNWATCHED: ["--config", "bench/undiagnosed.toml"],
}


def _specs(sojourn: Spec) -> dict[str, tuple[Spec, Path]]:
    """The three servers, each with its admin listener."""
    found = {}
    for name, flags in FLAGS.items():
        admin = machine.BUILD / f"{name}-admin.sock"

        def command(port: int, name: str = name, flags: list[str] = flags, admin: Path = admin) -> list[str]:
            return [*sojourn.command(port), *flags, *(["--admin", f"unix:{admin}"] if name != UNWATCHED else [])]

        found[name] = replace(sojourn, name=name, command=command), admin
    return found


def _scraped(running: Running, admin: Path, number: int, seconds: float) -> Sample:
    """One measurement, with somebody who looks at the metrics."""
    log = machine.BUILD / "scraper.log"
    command = [process.PYTHON, "-m", "bench.scraper", str(admin), str(SCRAPE)]
    scraper = process.spawn(command, machine.cores()[0], log)
    try:
        sample = measure(running, "get", number, seconds)
    finally:
        process.end(scraper)
    answers = log.read_text().splitlines()
    if not answers or not all(line.startswith("200 ") for line in answers):
        raise BenchError(f"{running.spec.name}: /metrics answered {answers[-1:] or 'nothing'}")
    return replace(sample, detail={**sample.detail, "scrapes": len(answers), "page": int(answers[-1].split()[1])})


def run(sojourn: Spec, rounds: int, seconds: float, results: Results, say: Say) -> None:
    """All rounds of this figure."""
    for number in range(1, rounds + 1):
        try:
            found = _round(sojourn, number, seconds)
        except (BenchError, OSError) as error:
            results.fail("diagnostics", BenchError(str(error)))
            say(f"diagnostics: {error}")
            return
        for name, samples in found.items():
            rate = statistics.mean(sample.value for sample in samples)
            results.samples.append(replace(samples[0], figure="diagnostics", server=name, value=rate))
            cost = 1 - rate / statistics.mean(sample.value for sample in found[UNWATCHED])
            say(f"round {number} diagnostics {name:20} {rate:>10,.0f}/s  cost {cost:6.1%}")
    last = results.of("diagnostics", WATCHED)[1].detail
    results.notes.append(
        f"/metrics was asked for {last['scrapes']} times in {seconds:.0f} s; the page has {last['page']:,} bytes."
    )


def _round(sojourn: Spec, number: int, seconds: float) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in FLAGS}
    with ExitStack() as stack:
        up = {name: (stack.enter_context(Running(spec)), admin) for name, (spec, admin) in _specs(sojourn).items()}
        for running, _ in up.values():
            measure(running, "get", 0, 1.0)  # the first second of a process is not measured
        for name in (*FLAGS, *reversed(FLAGS)):
            running, admin = up[name]
            if name == UNWATCHED:
                found[name].append(measure(running, "get", number, seconds))
            else:
                found[name].append(_scraped(running, admin, number, seconds))
    return found
