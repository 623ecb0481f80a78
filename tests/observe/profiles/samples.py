"""Profiles that the tests of the formats share, and arbitrary ones."""

from __future__ import annotations

from hypothesis import strategies as st

from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample

WAIT = Frame("Event.wait", "/usr/lib/python3.11/asyncio/locks.py", 213)
POLL = Frame("poll", "/srv/app/feed.py", 31)
HANDLE = Frame("handle", "/srv/app/main.py", 12)
SLEEP = Frame("sleep", "/usr/lib/python3.11/asyncio/tasks.py", 639)

TASKS = Profile(
    name="goroutine",
    kinds=(Kind("goroutine", "count"), Kind("age", "milliseconds")),
    samples=[
        Sample((SLEEP, HANDLE), (1, 250), (("owner", "request"), ("route", "/slow"))),
        Sample((WAIT, POLL), (3, 9000), (("owner", "request"), ("size", 4096))),
        Sample((WAIT, POLL), (1, 1000), (("owner", "request"), ("size", 4096))),
        Sample((WAIT, POLL), (1, 61_000), (("owner", "application"),)),
    ],
    moment=1_700_000_000.25,
    seconds=2.5,
    period=10_000_000,
    period_kind=Kind("cpu", "nanoseconds"),
    comments=["6 tasks", "attribution: on"],
    units={"size": "bytes"},
)

_texts = st.text(max_size=12)
_lines = st.integers(0, 2**31)
_frames = st.builds(Frame, st.sampled_from("abcd") | _texts, st.sampled_from(["x.py", "y.py"]) | _texts, _lines)
_labels = st.dictionaries(_texts, _texts | st.integers(-(2**63), 2**63 - 1), max_size=3).map(lambda d: tuple(d.items()))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any profile that a worker might make."""
    kinds = tuple(Kind(*names) for names in draw(st.lists(st.tuples(_texts, _texts), min_size=1, max_size=3)))
    stacks = st.lists(_frames, max_size=5).map(tuple)
    values = st.tuples(*[st.integers(-(2**40), 2**40)] * len(kinds))
    return Profile(
        name=draw(_texts),
        kinds=kinds,
        samples=draw(st.lists(st.builds(Sample, stacks, values, _labels), max_size=8)),
        moment=draw(st.integers(0, 2**31)) / 4,
        seconds=draw(st.integers(0, 1000)) / 8,
        period=draw(st.integers(0, 2**31)),
        period_kind=Kind(draw(_texts), draw(_texts)),
        default=draw(st.integers(0, len(kinds) - 1)),
        comments=draw(st.lists(_texts, max_size=3)),
        units=draw(st.dictionaries(_texts, _texts, max_size=2)),
    )
