"""The format of speedscope.app, and the plain data."""

from __future__ import annotations

import json

from hypothesis import given

from sojourn.observe.profiles.model import Profile
from sojourn.observe.profiles.render import render
from sojourn.observe.profiles.speedscope import speedscope
from tests.observe.profiles.samples import HANDLE, TASKS, profiles


def test_stacks_are_outermost_first_with_a_weight_for_each_kind() -> None:
    read = json.loads(speedscope(TASKS))
    frames = [frame["name"] for frame in read["shared"]["frames"]]
    count, age = read["profiles"]
    assert [[frames[index] for index in stack] for stack in count["samples"]] == [
        ["handle", "sleep"],
        ["poll", "Event.wait"],
    ]
    assert (count["weights"], count["unit"]) == ([1, 5], "none")
    assert (age["weights"], age["unit"], age["endValue"]) == ([250, 71_000], "milliseconds", 71_250)
    assert {"name": "handle", "file": HANDLE.file, "line": HANDLE.line} in read["shared"]["frames"]


@given(profiles())
def test_it_has_the_shape_that_speedscope_asks_for(profile: Profile) -> None:
    read = json.loads(speedscope(profile))
    assert read["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert len(read["profiles"]) == len(profile.kinds)
    assert 0 <= read["activeProfileIndex"] < len(profile.kinds)
    known = range(len(read["shared"]["frames"]))
    for shown in read["profiles"]:
        assert shown["type"] == "sampled"
        assert len(shown["samples"]) == len(shown["weights"])
        assert all(index in known for stack in shown["samples"] for index in stack)
        assert all(weight >= 0 for weight in shown["weights"])
        assert shown["endValue"] - shown["startValue"] == sum(shown["weights"])
        assert shown["unit"] in ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")


def test_json_is_the_data_itself() -> None:
    content_type, body = render(TASKS, "json")
    read = json.loads(body)
    assert content_type == "application/json"
    assert read["samples"][0] == {
        "values": [1, 250],
        "labels": {"owner": "request", "route": "/slow"},
        "stack": [
            {"function": "sleep", "file": "/usr/lib/python3.11/asyncio/tasks.py", "line": 639},
            {"function": "handle", "file": "/srv/app/main.py", "line": 12},
        ],
    }
    assert read["comments"] == TASKS.comments
    assert read["kinds"][1] == {"name": "age", "unit": "milliseconds"}
