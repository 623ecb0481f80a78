"""Metrics as text: Prometheus' format 0.0.4, or OpenMetrics 1.0 for who asks for it.

Source: prometheus.io/docs/instrumenting/exposition_formats; OpenMetrics 1.0 (the ABNF and its section on counters).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sojourn.observe.metrics.families import FAMILIES, Family, Join, Kind, Rest
from sojourn.observe.metrics.memory import Key

__all__ = ["OPENMETRICS", "TEXT", "escaped", "joined", "rendered", "wants_openmetrics"]

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_VERSIONS: Final = ("", "0.0.1", "1.0.0")

#: The numbers of one family: by label values, those of the worker last where each stands for itself.
Series = dict[tuple[str, ...], Sequence[float]]
#: What one process has counted.
Counted = Iterable[tuple[Key, Sequence[float]]]


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header likes OpenMetrics at least as much as plain text (RFC 9110 section 12.5.1)."""
    openmetrics = text = 0.0
    for item in accept.lower().split(","):
        kind, *rest = (part.strip() for part in item.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if kind == "application/openmetrics-text" and parameters.get("version", "").strip('"') in _VERSIONS:
            openmetrics = max(openmetrics, quality)
        elif kind == "text/plain":
            text = max(text, quality)
    return openmetrics > 0.0 and openmetrics >= text


def joined(workers: Mapping[str, Counted], ended: Counted = ()) -> dict[str, Series]:
    """Put together what several workers have counted.

    Args:
        workers: What each has counted, by what it is called in the label ``worker``.
        ended: What was left by those that have ended.

    Returns:
        The series of each family, by its name.
    """
    result: dict[str, Series] = {family.name: {} for family in FAMILIES}
    for worker, counted in workers.items():
        for (family, labels), numbers in counted:
            series = result[family.name]
            if family.join is Join.WORKER:
                series[(*labels, worker)] = numbers
                continue
            before = series.get(labels)
            if before is None:
                series[labels] = numbers
            elif family.join is Join.MAX:
                series[labels] = [max(before[0], numbers[0])]
            else:
                series[labels] = [one + other for one, other in zip(before, numbers, strict=True)]
    for (family, labels), numbers in ended:
        series = result[family.name]
        before = series.get(labels)
        if before is None:
            series[labels] = numbers
        elif family.kind is not Kind.GAUGE or family.rest is Rest.ADD:
            series[labels] = [one + other for one, other in zip(before, numbers, strict=True)]
    return result


def rendered(families: Mapping[str, Series], *, openmetrics: bool) -> str:
    """The lines of our own metrics, without the end mark of OpenMetrics."""
    lines: list[str] = []
    for family in FAMILIES:
        series = families.get(family.name)
        if series:
            name = family.name
            if openmetrics and family.kind is Kind.COUNTER:
                name = name.removesuffix("_total")  # the name of the family; its samples keep it
            lines.append(f"# HELP {name} {_help(family, openmetrics)}\n# TYPE {name} {family.kind.value}\n")
            for labels, numbers in series.items():
                lines.append(_sample(family, labels, numbers))
    return "".join(lines)


def _sample(family: Family, values: tuple[str, ...], numbers: Sequence[float]) -> str:
    names = (*family.labels, "worker") if family.join is Join.WORKER else family.labels
    # A label without a value is the same as no label.
    labels = ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True) if value)
    if family.kind is not Kind.HISTOGRAM:
        return f"{family.name}{{{labels}}} {numbers[0]!r}\n" if labels else f"{family.name} {numbers[0]!r}\n"
    before = f"{labels}," if labels else ""
    braces = f"{{{labels}}}" if labels else ""
    lines: list[str] = []
    count = 0.0
    for bound, number in zip((*map(repr, family.buckets), "+Inf"), numbers[:-1], strict=True):
        count += number
        lines.append(f'{family.name}_bucket{{{before}le="{bound}"}} {count!r}\n')
    lines.append(f"{family.name}_sum{braces} {numbers[-1]!r}\n{family.name}_count{braces} {count!r}\n")
    return "".join(lines)


def escaped(value: str) -> str:
    """A label value between its quotes."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _help(family: Family, openmetrics: bool) -> str:
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if openmetrics else text
