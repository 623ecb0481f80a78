"""``/debug/pprof/``: profiles as ``go tool pprof`` expects them, of one worker or of all merged into one.

``debug=0`` (or nothing) is protobuf, ``debug=1`` text grouped by stack, ``debug=2`` text with every sample; ``format``
names one of these and others. Each profile says what it costs, here and in its comments.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sojourn.asgi.probes import Answer
from sojourn.errors import ErrandError
from sojourn.server.admin.answers import Kind, Question, Route, json, page
from sojourn.server.admin.gather import NoAnswer, ask_all

__all__ = ["FORMATS", "MOST_SECONDS", "PROFILES", "ROUTES", "Shown"]

#: Longest profile, in seconds.
MOST_SECONDS: Final = 300.0
#: Seconds more for the answer: a census of a large heap takes its time, and so does a long list.
_MORE: Final = 75.0
_TAKEN: Final[dict[str, Kind]] = {"seconds": "seconds", "debug": "number", "format": "text", "engine": "text"}
#: Names of formats; ``pb`` is what the file is called, ``pprof`` who reads it.
FORMATS: Final = ("pb", "pprof", "text", "full", "collapsed", "speedscope", "json")


class Shown(NamedTuple):
    """A profile in the index.

    Attributes:
        doc: What it shows.
        cost: What it costs the worker while it is made.
        seconds: How long it is gathered when nobody says; None when it is a look at one moment.
    """

    doc: str
    cost: str
    seconds: float | None = None


PROFILES: Final[Mapping[str, Shown]] = {
    "goroutine": Shown("asyncio tasks by stack, with their age", "some microseconds for each task, in slices"),
    "profile": Shown("processor time by stack, with the route, 100 samples a second", "up to 3 % meanwhile", 30.0),
    "block": Shown("what tasks waited for, since the start or for so long", "nothing more: it is sampled all the time"),
    "stall": Shown("what blocked the event loop", "nothing more: it is there already"),
    "heap": Shown("living objects by type, and who holds the largest", "a fork: a pause of some milliseconds"),
    "allocs": Shown("where memory is allocated meanwhile", "slows the worker down meanwhile; see its comments", 10.0),
    "thread": Shown("where all threads are", "some microseconds for each thread"),
}
_OTHERS: Final = {
    "trace": Shown("connections, requests, stalls and collections as a timeline (Perfetto)", "little, meanwhile", 5.0),
    "cmdline": Shown("the command line, secrets masked", "nothing"),
    "symbol": Shown("that profiles carry their symbols", "nothing"),
}


async def _profile(question: Question) -> Answer:
    from sojourn.observe.profiles.model import Profile, merged
    from sojourn.observe.profiles.render import format_of, render

    name = question.scope["path"].rpartition("/")[2]
    given = question.arguments
    form = format_of({**given, "format": "pprof"} if given.get("format") == "pb" else given)
    if name == "goroutine" and form == "full":
        return await _goroutines(question)
    arguments = {key: value for key, value in given.items() if key not in ("debug", "format")}
    seconds = _seconds(question, PROFILES[name])
    if seconds is not None:
        arguments["seconds"] = seconds
    found = await ask_all(question, "profile", {"name": name, **arguments}, (seconds or 0.0) + _MORE)
    profiles = [(str(worker), msgspec.msgpack.decode(answer, type=Profile)) for worker, answer in found.answers.items()]
    whole = profiles[0][1] if len(found.workers) == 1 else merged(profiles)
    whole.comments.extend(f"worker {worker}: {why}" for worker, why in found.workers.items() if why != "ok")
    kind, body = render(whole, form)
    named = [(b"content-disposition", f'attachment; filename="{name}.pb.gz"'.encode())] if form == "pprof" else []
    return page(body, kind, named)


async def _goroutines(question: Question) -> Answer:
    """Every task by itself, as Go's ``debug=2`` tells of goroutines."""
    from sojourn.observe.tasks.describer import TaskInfo
    from sojourn.observe.tasks.dump import dump

    found = await ask_all(question, "tasks", {"stacks": True}, _MORE)
    several = len(found.workers) > 1
    text = dump(
        (str(worker) if several else "", task)
        for worker, answer in found.answers.items()
        for task in msgspec.msgpack.decode(answer, type=list[TaskInfo])
    )
    missing = [f"# worker {worker}: {why}\n" for worker, why in found.workers.items() if why != "ok"]
    return page("".join((*missing, text)).encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8")


async def _trace(question: Question) -> Answer:
    seconds = _seconds(question, _OTHERS["trace"])
    found = await ask_all(question, "trace", {"seconds": seconds}, (seconds or 0.0) + _MORE)
    traces = [msgspec.json.decode(msgspec.msgpack.decode(answer, type=bytes)) for answer in found.answers.values()]
    whole = traces[0]
    for other in traces[1:]:
        whole["traceEvents"] += other["traceEvents"]
    headers = [(b"content-disposition", b'attachment; filename="trace.json"')]
    return page(msgspec.json.encode(whole), "application/json", headers)


async def _cmdline(question: Question) -> Answer:
    from sojourn.observe.tasks.command import command_line

    return page(command_line(sys.orig_argv), "text/plain; charset=utf-8")


async def _symbol(question: Question) -> Answer:
    return page(b"num_symbols: 0\n", "text/plain; charset=utf-8")


async def _index(question: Question) -> Answer:
    try:
        found = await ask_all(question, "counts", {})
        counted = [msgspec.msgpack.decode(answer, type=dict[str, int]) for answer in found.answers.values()]
        workers = found.workers
    except NoAnswer as error:
        counted, workers = [], error.workers
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "count": sum(each[name] for each in counted) if counted and name in counted[0] else None,
            "doc": shown.doc,
            "cost": shown.cost,
            "seconds": shown.seconds,
        }
        for name, shown in {**PROFILES, **_OTHERS}.items()
    ]
    accept = question.header(b"accept")
    if "text/html" in accept and question.arguments.get("format") != "json":
        return page(_html(rows, workers).encode(), "text/html; charset=utf-8")
    return json(question, {"profiles": rows, "formats": FORMATS, "workers": workers})


def _html(rows: list[dict[str, Any]], workers: Mapping[str, str]) -> str:
    lines = ["<tr><th>Count<th>Profile<th>Shows<th>Costs<th>Takes"]
    for row in rows:
        count = "" if row["count"] is None else row["count"]
        takes = "" if row["seconds"] is None else f"{row['seconds']:g} s"
        link = f'<a href="{row["name"]}?debug=1">{row["name"]}</a>' if row["name"] in PROFILES else row["name"]
        lines.append(f"<tr><td>{count}<td>{link}<td>{html.escape(row['doc'])}<td>{html.escape(row['cost'])}<td>{takes}")
    lines.append("</table>")
    lines += [f"<p>worker {worker}: {html.escape(why)}" for worker, why in workers.items() if why != "ok"]
    head = "<!doctype html><meta charset=utf-8><title>/debug/pprof/</title><h1>/debug/pprof/</h1><table>"
    return head + "\n".join(lines)


def _seconds(question: Question, shown: Shown) -> float | None:
    """How long to gather; None for what is known at this moment."""
    seconds: float | None = question.arguments.get("seconds", shown.seconds)
    if seconds is not None and not 0.0 < seconds <= MOST_SECONDS:
        raise ErrandError(400, "bad_argument", f"seconds must be above 0 and at most {MOST_SECONDS:g}, not {seconds:g}")
    return seconds


ROUTES: Final = (
    Route("/debug/pprof/", _index, "the profiles there are, and what each costs", {"format": "text"}),
    *(Route(f"/debug/pprof/{name}", _profile, shown.doc, _TAKEN) for name, shown in PROFILES.items()),
    Route("/debug/pprof/trace", _trace, _OTHERS["trace"].doc, {"seconds": "seconds"}),
    Route("/debug/pprof/cmdline", _cmdline, _OTHERS["cmdline"].doc),
    Route("/debug/pprof/symbol", _symbol, _OTHERS["symbol"].doc),
)
