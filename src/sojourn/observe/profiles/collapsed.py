"""Collapsed stacks: a line for each, outermost first, for flame graphs (Brendan Gregg's ``flamegraph.pl``, inferno)."""

from __future__ import annotations

from sojourn.observe.profiles.model import Frame, Profile, joined
from sojourn.observe.profiles.text import one_line

__all__ = ["collapsed"]


def collapsed(profile: Profile) -> str:
    """The default kind of a profile; labels are left out, and so are stacks that count nothing."""
    lines: dict[str, int] = {}
    for sample in joined(sample._replace(labels=()) for sample in profile.samples):
        value = sample.values[profile.default]
        if value > 0:
            line = ";".join(map(_frame, reversed(sample.stack))) or "(no stack)"
            lines[line] = lines.get(line, 0) + value
    return "".join(f"{line} {value}\n" for line, value in lines.items())


def _frame(frame: Frame) -> str:
    """What a semicolon can't cut: it separates the frames."""
    return one_line(f"{frame.function} ({frame.file}:{frame.line})").replace(";", ",")
