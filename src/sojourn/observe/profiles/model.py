"""A profile as data: stacks with values and labels. Workers make it; whoever answers for them merges and writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

__all__ = ["Frame", "Kind", "Profile", "Sample", "joined", "merged"]


class Frame(NamedTuple):
    """A place in the code.

    Attributes:
        function: Qualified name.
        file: Path of its source.
        line: The line that runs or waits now.
    """

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Kind(NamedTuple):
    """What one value of each sample means, as in pprof: ``("cpu", "nanoseconds")``, ``("task", "count")``."""

    name: str
    unit: str


class Sample(NamedTuple):
    """One stack.

    Attributes:
        stack: The frames, innermost first.
        values: One for each kind of the profile.
        labels: Further facts, such as ``("route", "/items/{id}")``; numbers stay numbers.
    """

    stack: tuple[Frame, ...]
    values: tuple[int, ...]
    labels: tuple[tuple[str, str | int], ...] = ()


class Profile(msgspec.Struct, kw_only=True):
    """Stacks with values.

    Attributes:
        name: ``goroutine``, ``profile``, ``heap``, ...
        kinds: What the values of the samples mean.
        samples: The stacks.
        moment: When it was made, in seconds since the epoch.
        seconds: Over how long it was gathered; 0 for a look at one moment.
        period: Between two samples, in the unit of ``period_kind``; 0 when it does not sample.
        period_kind: What the period counts.
        default: Which of the kinds is shown first.
        comments: What a reader must know: what it cost, what was left out.
        units: What the numbers among the labels count, by label, such as ``{"size": "bytes"}``.
    """

    name: str
    kinds: tuple[Kind, ...]
    samples: list[Sample]
    moment: float = 0.0
    seconds: float = 0.0
    period: int = 0
    period_kind: Kind = Kind("", "")
    default: int = 0
    comments: list[str] = []
    units: dict[str, str] = {}


def merged(profiles: Iterable[tuple[str, Profile]]) -> Profile:
    """One profile of several workers; each sample is labelled with its worker.

    Args:
        profiles: The workers' names and their profiles, which are of the same name and kinds. At least one.
    """
    pairs = list(profiles)
    first = pairs[0][1]
    samples = [
        sample._replace(labels=(*sample.labels, ("worker", worker)))
        for worker, profile in pairs
        for sample in profile.samples
    ]
    comments = [f"worker {worker}: {comment}" for worker, profile in pairs for comment in profile.comments]
    return Profile(
        name=first.name,
        kinds=first.kinds,
        samples=samples,
        moment=max(profile.moment for _, profile in pairs),
        seconds=max(profile.seconds for _, profile in pairs),
        period=first.period,
        period_kind=first.period_kind,
        default=first.default,
        comments=comments,
        units={label: unit for _, profile in pairs for label, unit in profile.units.items()},
    )


def joined(samples: Iterable[Sample]) -> list[Sample]:
    """One sample for those that have stack and labels in common, with their values added up; in order of appearance."""
    together: dict[tuple[tuple[Frame, ...], tuple[tuple[str, str | int], ...]], tuple[int, ...]] = {}
    for stack, values, labels in samples:
        key = (stack, labels)
        before = together.get(key)
        together[key] = values if before is None else tuple(map(sum, zip(before, values, strict=True)))
    return [Sample(stack, values, labels) for (stack, labels), values in together.items()]
