"""A sink writes whole lines and survives whatever its output does."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import ConfigError
from sojourn.observe.log.sink import Cause, Sink, complain
from tests.observe.log.samples import drain, fill, pipe


class Plain:
    """A format that shows what it was given, and breaks on demand."""

    def line(self, when: float, payload: Any) -> bytes:
        if payload == "bug":
            raise ValueError("a bug")
        return f"{payload}\n".encode()

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return f"{count} {cause}\n".encode()


class Kernel:
    """Stands in for os.write: each call takes so many bytes, or fails with that error."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.taken = b""

    def __call__(self, fd: int, data: bytes) -> int:
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        self.taken += data[:answer]
        return min(answer, len(data))


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def file_sink(tmp_path: Path) -> tuple[Sink, Path, list[str]]:
    path = tmp_path / "access.log"
    told: list[str] = []
    return Sink(Plain(), "access log", path=str(path), complain=told.append), path, told


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    def install(*answers: int | OSError) -> Kernel:
        made = Kernel(*answers)
        monkeypatch.setattr("sojourn.observe.log.sink.os.write", made)
        return made

    return install


def test_a_file_is_appended_to_and_not_open_to_everyone(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for line in (b"one\n", b"two\n"):
        sink = Sink(Plain(), "access log", path=str(path))
        sink.write(line)
        sink.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0


def test_a_file_that_cannot_be_opened_is_an_error_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.file: can't be opened: No such file"):
        Sink(Plain(), "access log", path=str(tmp_path / "absent" / "access.log"))


def test_a_batch_is_one_write_to_a_file(file_sink: tuple[Sink, Path, list[str]], kernel: Callable[..., Kernel]) -> None:
    sink, _, _ = file_sink
    took = kernel()
    sink.write(b"x" * 99 + b"\n" * 1000)
    assert took.answers == []
    assert len(took.taken) == 1099


def test_lines_of_several_processes_on_one_pipe_do_not_mix() -> None:
    lines = [b"%d " % number + b"x" * (number % 700) + b"\n" for number in range(150)]
    with pipe(os.O_DIRECT) as (reader, writer):  # packet mode: a read returns what one write wrote
        Sink(Plain(), "access log", fd=writer).write(b"".join(lines))
        os.close(writer)
        packets = []
        while packet := os.read(reader, 65536):
            packets.append(packet)
    assert b"".join(packets) == b"".join(lines)
    assert len(packets) > 1
    assert all(len(packet) <= 4096 and packet.endswith(b"\n") for packet in packets)


def test_a_line_too_long_for_a_pipe_arrives_complete() -> None:
    data = b"a\n" + b"x" * 10_000 + b"\nb\n"
    with pipe() as (reader, writer):
        Sink(Plain(), "access log", fd=writer).write(data)
        assert drain(reader) == data


def test_a_non_blocking_output_that_is_slow_loses_nothing() -> None:
    data = b"".join(b"line %d\n" % number for number in range(40_000))
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        sink = Sink(Plain(), "access log", fd=writer)
        thread = threading.Thread(target=sink.write, args=(data,))
        thread.start()
        received = b""
        while len(received) < len(data):
            received += os.read(reader, 10_000)
        thread.join(5)
    assert received == data
    assert (sink.errors, sink.unwritten) == (0, 0)


def test_a_reader_that_left_is_counted_and_told_once() -> None:
    told: list[str] = []
    with pipe() as (reader, writer):
        os.close(reader)
        sink = Sink(Plain(), "access log", fd=writer, complain=told.append)
        sink.write(b"one\ntwo\n")
        sink.write(b"three\n")
    assert (sink.errors, sink.unwritten) == (2, 3)
    assert told == ["access log can't be written: Broken pipe; lines are lost and counted until it can"]


def test_a_full_disk_is_counted_and_told_once() -> None:
    told: list[str] = []
    sink = Sink(Plain(), "access log", path="/dev/full", complain=told.append)
    sink.write(b"one\n")
    sink.write(b"two\n")
    sink.close()
    assert (sink.errors, sink.unwritten) == (2, 2)
    assert told == ["access log can't be written: No space left on device; lines are lost and counted until it can"]


def test_a_disk_that_has_room_again_gets_the_number_of_lost_lines_first(
    file_sink: tuple[Sink, Path, list[str]], kernel: Callable[..., Kernel]
) -> None:
    sink, _, _ = file_sink
    took = kernel(4, NO_SPACE, NO_SPACE)
    sink.write(b"one\ntwo\nthree\n")
    sink.write(b"four\n")
    sink.write(b"five\n")
    sink.write(b"six\n")
    assert took.taken == b"one\n3 unwritten\nfive\nsix\n"
    assert sink.unwritten == 3


def test_a_line_cut_by_an_error_does_not_swallow_the_next(
    file_sink: tuple[Sink, Path, list[str]], kernel: Callable[..., Kernel]
) -> None:
    sink, _, _ = file_sink
    took = kernel(5, NO_SPACE, NO_SPACE)
    sink.write(b"one\ntwo\n")
    sink.write(b"three\n")
    sink.write(b"four\n")
    assert took.taken == b"one\nt\n2 unwritten\nfour\n"


def test_dropped_lines_are_told_again_until_the_telling_is_written(
    file_sink: tuple[Sink, Path, list[str]], kernel: Callable[..., Kernel]
) -> None:
    sink, _, _ = file_sink
    took = kernel(NO_SPACE)
    sink.write(sink.gap(0.0, 5))
    sink.write(sink.gap(0.0, 7))
    assert sink.gap(0.0, 7) == b""
    assert took.taken == b"7 dropped\n"
    assert sink.unwritten == 0


def test_a_renamed_file_is_left_when_the_sink_reopens(file_sink: tuple[Sink, Path, list[str]]) -> None:
    sink, path, _ = file_sink
    sink.write(b"old\n")
    path.rename(path.with_suffix(".1"))
    sink.write(b"still old\n")
    sink.reopen()
    sink.write(b"new\n")
    sink.close()
    assert path.with_suffix(".1").read_bytes() == b"old\nstill old\n"
    assert path.read_bytes() == b"new\n"


def test_a_failed_reopen_keeps_the_old_file(file_sink: tuple[Sink, Path, list[str]]) -> None:
    sink, path, told = file_sink
    path.rename(path.with_suffix(".1"))
    path.mkdir()
    sink.reopen()
    sink.write(b"line\n")
    sink.close()
    assert path.with_suffix(".1").read_bytes() == b"line\n"
    assert len(told) == 1
    assert "can't be reopened: Is a directory" in told[0]


def test_a_given_descriptor_is_neither_reopened_nor_closed() -> None:
    with pipe() as (reader, writer):
        sink = Sink(Plain(), "access log", fd=writer)
        sink.reopen()
        sink.close()
        sink.write(b"line\n")
        assert drain(reader) == b"line\n"


def test_a_bug_in_a_format_costs_its_line_only(file_sink: tuple[Sink, Path, list[str]]) -> None:
    sink, _, told = file_sink
    assert [sink.render(0.0, payload) for payload in ("a", "bug", "bug", "b")] == [b"a\n", b"", b"", b"b\n"]
    assert sink.failed == 2
    assert told == ["access log: a line could not be formatted: ValueError('a bug'); please report it"]


def test_a_complaint_reaches_the_operator() -> None:
    with pipe() as (reader, writer):
        complain("disk full", fd=writer)
        assert drain(reader) == b"sojourn: disk full\n"


def test_a_complaint_never_waits_and_never_raises() -> None:
    with pipe() as (reader, writer):
        fill(writer)
        complain("nobody reads this", fd=writer)
        os.close(reader)
        complain("nobody can read this", fd=writer)
        os.close(writer)
        complain("closed", fd=writer)
        assert not select.select([], [], [], 0)[1]
