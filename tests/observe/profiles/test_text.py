"""Profiles to read, on a terminal and as flame graphs."""

from __future__ import annotations

import pytest
from hypothesis import given

from sojourn.errors import ErrandError
from sojourn.observe.profiles.collapsed import collapsed
from sojourn.observe.profiles.model import Frame, Profile, Sample, joined
from sojourn.observe.profiles.render import FORMATS, format_of, render
from sojourn.observe.profiles.text import full, grouped
from tests.observe.profiles.samples import TASKS, profiles

GROUPED = """\
goroutine profile: total goroutine 6, age 1.188 min
# 6 tasks
# attribution: on

goroutine 5, age 1.183 min @
# labels: owner=request (4), size=4 KiB (4), owner=application (1)
Event.wait
\t/usr/lib/python3.11/asyncio/locks.py:213
poll
\t/srv/app/feed.py:31

goroutine 1, age 250 ms @
# labels: owner=request (1), route=/slow (1)
sleep
\t/usr/lib/python3.11/asyncio/tasks.py:639
handle
\t/srv/app/main.py:12
"""
FULL = """\
goroutine profile
# 6 tasks
# attribution: on

goroutine 4, age 10 s owner=request size=4 KiB
Event.wait
\t/usr/lib/python3.11/asyncio/locks.py:213
poll
\t/srv/app/feed.py:31

goroutine 1, age 250 ms owner=request route=/slow
sleep
\t/usr/lib/python3.11/asyncio/tasks.py:639
handle
\t/srv/app/main.py:12

goroutine 1, age 1.017 min owner=application
Event.wait
\t/usr/lib/python3.11/asyncio/locks.py:213
poll
\t/srv/app/feed.py:31
"""


def test_equal_stacks_are_together_largest_first() -> None:
    assert grouped(TASKS) == GROUPED


def test_each_stack_has_its_labels_in_full() -> None:
    assert full(TASKS) == FULL


def test_collapsed_stacks_are_outermost_first_with_their_sum() -> None:
    assert collapsed(TASKS) == (
        "handle (/srv/app/main.py:12);sleep (/usr/lib/python3.11/asyncio/tasks.py:639) 1\n"
        "poll (/srv/app/feed.py:31);Event.wait (/usr/lib/python3.11/asyncio/locks.py:213) 5\n"
    )


@given(profiles())
def test_a_line_of_collapsed_stacks_can_be_taken_apart_again(profile: Profile) -> None:
    lines = collapsed(profile).splitlines()
    values = [int(line.rpartition(" ")[2]) for line in lines]
    assert all(value > 0 for value in values)
    assert len({line.rpartition(" ")[0] for line in lines}) == len(lines)
    depths = {len(sample.stack) or 1 for sample in profile.samples}
    assert {line.count(";") + 1 for line in lines} <= depths


@given(profiles())
def test_names_forge_no_lines(profile: Profile) -> None:
    for text in (full(profile), grouped(profile)):
        assert all(line.removeprefix("\t").isprintable() for line in text.split("\n"))
    together = joined(profile.samples)
    rest = full(profile).splitlines()[1 + len(profile.comments) :]
    assert len(rest) == sum(2 + 2 * len(sample.stack) for sample in together)


@given(profiles())
def test_every_format_writes_any_profile(profile: Profile) -> None:
    for name, (content_type, _) in FORMATS.items():
        found, body = render(profile, name)
        assert found == content_type
        assert body or name == "collapsed"


@pytest.mark.parametrize("name", FORMATS)
def test_a_name_that_is_no_text_stops_no_format(name: str) -> None:
    odd = Sample((Frame("f\udc80", "a\udc80.py", 1),), (1, 1), (("thread", "\udc80"),))
    assert render(Profile(name="x", kinds=TASKS.kinds, samples=[odd]), name)[1]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({}, "pprof"),
        ({"debug": "0"}, "pprof"),
        ({"debug": 1}, "text"),
        ({"debug": "2"}, "full"),
        ({"format": "speedscope", "debug": "1"}, "speedscope"),
    ],
)
def test_the_format_is_asked_for_as_with_go(query: dict[str, object], name: str) -> None:
    assert format_of(query) == name


@pytest.mark.parametrize("query", [{"debug": "3"}, {"format": "svg"}])
def test_a_format_that_is_not_there_is_refused(query: dict[str, object]) -> None:
    with pytest.raises(ErrandError) as raised:
        format_of(query)
    assert raised.value.status == 400
