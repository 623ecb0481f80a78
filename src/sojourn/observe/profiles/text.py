"""Profiles to read: equal stacks together with their number (debug=1), or each by itself (debug=2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample, joined

__all__ = ["frames_text", "full", "grouped", "one_line"]

#: What an order of magnitude is called, by unit.
_STEPS: Final = {
    "nanoseconds": ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")),
    "milliseconds": ((3.6e6, "h"), (6e4, "min"), (1e3, "s"), (1.0, "ms")),
    "seconds": ((3600.0, "h"), (60.0, "min"), (1.0, "s")),
    "bytes": ((float(1 << 30), "GiB"), (float(1 << 20), "MiB"), (1024.0, "KiB"), (1.0, "B")),
}


def grouped(profile: Profile) -> str:
    """Equal stacks together whatever their labels, most of the default kind first, as Go's debug=1 does."""
    total = [sum(values) for values in zip(*(sample.values for sample in profile.samples), strict=True)]
    lines = [one_line(f"{profile.name} profile: total {_values(profile.kinds, total)}"), *_comments(profile)]
    together = joined(sample._replace(labels=()) for sample in profile.samples)
    labels: dict[tuple[Frame, ...], dict[tuple[str, str | int], int]] = {}
    for sample in profile.samples:
        counts = labels.setdefault(sample.stack, {})
        for label in sample.labels:
            counts[label] = counts.get(label, 0) + sample.values[0]
    for sample in _largest_first(together, profile.default):
        lines += ["", one_line(f"{_values(profile.kinds, sample.values)} @")]
        if labels[sample.stack]:
            lines.append(one_line(f"# labels: {_labels(labels[sample.stack], profile.units)}"))
        lines += frames_text(sample.stack)
    return "\n".join(lines) + "\n"


def full(profile: Profile) -> str:
    """Each stack with its labels, largest first."""
    lines = [one_line(f"{profile.name} profile"), *_comments(profile)]
    for sample in _largest_first(joined(profile.samples), profile.default):
        facts = "".join(f" {name}={_fact(name, value, profile.units)}" for name, value in sample.labels)
        lines += ["", one_line(f"{_values(profile.kinds, sample.values)}{facts}"), *frames_text(sample.stack)]
    return "\n".join(lines) + "\n"


def frames_text(stack: Iterable[Frame]) -> list[str]:
    """Two lines for each frame, innermost first: what runs, and where."""
    return [line for frame in stack for line in (one_line(frame.function), f"\t{one_line(frame.file)}:{frame.line}")]


def one_line(text: str) -> str:
    """A text that can't begin a line of its own: names of tasks come from the application."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _largest_first(samples: list[Sample], kind: int) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.values[kind], reverse=True)


def _comments(profile: Profile) -> list[str]:
    return [f"# {one_line(comment)}" for comment in profile.comments]


def _values(kinds: Iterable[Kind], values: Iterable[int]) -> str:
    return ", ".join(f"{kind.name} {_amount(value, kind.unit)}" for kind, value in zip(kinds, values, strict=False))


def _labels(counts: dict[tuple[str, str | int], int], units: dict[str, str]) -> str:
    """The labels of the samples of one stack, each with how often it occurs."""
    ordered = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return ", ".join(f"{name}={_fact(name, value, units)} ({count})" for (name, value), count in ordered[:20])


def _fact(name: str, value: str | int, units: dict[str, str]) -> str:
    return value if isinstance(value, str) else _amount(value, units.get(name, ""))


def _amount(value: int, unit: str) -> str:
    """A number in the largest unit that leaves something before the point."""
    for size, name in _STEPS.get(unit, ()):
        if abs(value) >= size:
            return f"{value / size:.4g} {name}"
    return str(value)
