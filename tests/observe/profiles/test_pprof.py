"""The pprof format: what is written can be read back, by a decoder that knows the schema and by Go's own tool."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given

from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample, joined
from sojourn.observe.profiles.pprof import encode
from tests.observe.profiles.samples import HANDLE, POLL, SLEEP, TASKS, WAIT, profiles

needs_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="go is not installed (Debian package golang-go): go tool pprof can't be asked"
)


class Read(NamedTuple):
    """A profile as the schema says it is to be read."""

    kinds: list[tuple[str, str]]
    samples: list[tuple[tuple[Frame, ...], tuple[int, ...], tuple[tuple[str, Any], ...]]]
    units: dict[str, str]
    mappings: list[dict[int, list[Any]]]
    moment: int
    duration: int
    period: int
    period_kind: tuple[str, str]
    default: str
    comments: list[str]


def varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def packed(data: bytes) -> list[int]:
    values, place = [], 0
    while place < len(data):
        value, place = varint(data, place)
        values.append(signed(value))
    return values


def message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message by number: numbers, and bytes where a length comes first."""
    fields: dict[int, list[Any]] = {}
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        value: Any
        if key & 7 == 0:
            value, place = varint(data, place)
            value = signed(value)
        else:
            assert key & 7 == 2
            length, place = varint(data, place)
            value, place = data[place : place + length], place + length
            assert len(value) == length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def read(data: bytes) -> Read:
    top = message(gzip.decompress(data))
    strings = [text.decode() for text in top[6]]
    assert strings[0] == ""
    assert len(set(strings)) == len(strings)

    def one(fields: dict[int, list[Any]], number: int) -> int:
        (value,) = fields.get(number, [0])
        assert isinstance(value, int)
        return value

    def kind(data: bytes) -> tuple[str, str]:
        fields = message(data)
        return strings[one(fields, 1)], strings[one(fields, 2)]

    functions = {}
    for data in top.get(5, []):
        fields = message(data)
        functions[one(fields, 1)] = (strings[one(fields, 2)], strings[one(fields, 4)])
    mappings = [message(data) for data in top[3]]
    places = {}
    for data in top.get(4, []):
        fields = message(data)
        assert one(fields, 2) == one(mappings[0], 1)
        line = message(fields[4][0])
        places[one(fields, 1)] = Frame(*functions[one(line, 1)], one(line, 2))
    assert 0 not in places
    assert 0 not in functions
    samples, units = [], {}
    for data in top.get(2, []):
        fields = message(data)
        labels = []
        for label in map(message, fields.get(3, [])):
            name = strings[one(label, 1)]
            if 2 in label:
                labels.append((name, strings[one(label, 2)]))
            else:
                labels.append((name, one(label, 3)))
                units[name] = strings[one(label, 4)]
        stack = tuple(places[number] for number in packed(fields[1][0]))
        samples.append((stack, tuple(packed(fields[2][0])), tuple(labels)))
    return Read(
        kinds=[kind(data) for data in top.get(1, [])],
        samples=samples,
        units=units,
        mappings=mappings,
        moment=one(top, 9),
        duration=one(top, 10),
        period=one(top, 12),
        period_kind=kind(top[11][0]) if 11 in top else ("", ""),
        default=strings[one(top, 14)],
        comments=[strings[number] for number in top.get(13, [])],
    )


@given(profiles())
def test_whatever_is_written_can_be_read_back(profile: Profile) -> None:
    found = read(encode(profile))
    assert found.kinds == [tuple(kind) for kind in profile.kinds]
    assert [Sample(*sample) for sample in found.samples] == joined(profile.samples)
    assert found.moment == round(profile.moment * 1e9)
    assert found.duration == round(profile.seconds * 1e9)
    assert found.period == profile.period
    assert found.period_kind == (tuple(profile.period_kind) if profile.period else ("", ""))
    assert found.default == profile.kinds[profile.default].name
    assert found.comments == profile.comments
    for name, unit in found.units.items():
        assert unit == profile.units.get(name, "")


@given(profiles())
def test_nothing_is_lost_when_equal_stacks_are_put_together(profile: Profile) -> None:
    found = read(encode(profile))
    for place in range(len(profile.kinds)):
        assert sum(values[place] for _, values, _ in found.samples) == sum(s.values[place] for s in profile.samples)
    assert max(Counter((stack, labels) for stack, _, labels in found.samples).values(), default=1) == 1


def test_pprof_is_told_that_it_needs_no_symbols() -> None:
    (mapping,) = read(encode(TASKS)).mappings
    assert mapping[1] == [1]
    assert (mapping[7], mapping[8], mapping[9]) == ([1], [1], [1])


def test_the_same_profile_gives_the_same_bytes() -> None:
    assert encode(TASKS) == encode(TASKS)


def test_a_file_name_that_is_no_text_is_written_all_the_same() -> None:
    odd = Profile(name="x", kinds=(Kind("n", "count"),), samples=[Sample((Frame("f", "a\udc80.py", 1),), (1,))])
    ((stack, _, _),) = read(encode(odd)).samples
    assert stack == (Frame("f", "a\\udc80.py", 1),)


def go_tool_pprof(tmp_path: Path, *flags: str) -> str:
    file = tmp_path / "profile.pb.gz"
    file.write_bytes(encode(TASKS))
    done = subprocess.run(
        ["go", "tool", "pprof", "-symbolize=none", *flags, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin:/usr/local/go/bin", "HOME": str(tmp_path), "PPROF_TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_go
def test_go_tool_pprof_names_the_functions_and_counts_the_tasks(tmp_path: Path) -> None:
    top = go_tool_pprof(tmp_path, "-top")
    assert "Type: goroutine" in top
    assert "6 total" in top
    rows = {line.split()[-1]: line.split()[0] for line in top.splitlines() if line.endswith(("wait", "poll", "sleep"))}
    assert rows == {WAIT.function: "5", POLL.function: "0", SLEEP.function: "1"}


@needs_go
def test_go_tool_pprof_shows_stacks_with_their_labels(tmp_path: Path) -> None:
    traces = go_tool_pprof(tmp_path, "-traces")
    assert "route:" in traces
    assert "/slow" in traces
    assert "size:" in traces
    at = [line.split()[-1] for line in traces.splitlines() if line.endswith((SLEEP.function, HANDLE.function))]
    assert at == [SLEEP.function, HANDLE.function]


@needs_go
def test_go_tool_pprof_counts_labels_and_knows_their_units(tmp_path: Path) -> None:
    tags = go_tool_pprof(tmp_path, "-tags", "-sample_index=goroutine")
    assert "owner: Total 6" in tags
    assert "4kB" in tags


@needs_go
def test_go_tool_pprof_reads_every_field(tmp_path: Path) -> None:
    raw = go_tool_pprof(tmp_path, "-raw")
    assert "Time: 2023-11-14" in raw
    assert "Duration: 2.5" in raw
    assert "PeriodType: cpu nanoseconds" in raw
    assert "Period: 10000000" in raw
    assert "goroutine/count[dflt] age/milliseconds" in raw
    assert "/srv/app/feed.py:31" in raw
    assert "[FN][FL][LN]" in raw
    assert "attribution: on" in raw


@needs_go
def test_go_tool_pprof_shows_the_other_kind_too(tmp_path: Path) -> None:
    assert "71.25s" in go_tool_pprof(tmp_path, "-top", "-sample_index=age")
