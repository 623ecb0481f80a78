"""The application's metrics of all workers on one page: each sample gets a label ``worker``.

They are read as lines of Prometheus' text format 0.0.4, which is what workers send.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from sojourn.observe.metrics.exposition import escaped
from sojourn.observe.metrics.families import FAMILIES, Kind

__all__ = ["merged_texts"]

_ABOUT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)")
_SAMPLE: Final = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (.+)')
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
#: What follows the family's name in the names of its samples.
_SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
_DERIVED: Final = ("_created", "_total", "_bucket", "_sum", "_count")


class _Family:
    """A metric of the application: its lines, worker by worker."""

    __slots__ = ("about", "kind", "name", "samples")

    def __init__(self, name: str, kind: str, about: str) -> None:
        self.name = name
        self.kind = kind
        self.about = about
        self.samples: list[tuple[str, str, str]] = []

    def owns(self, sample: str) -> bool:
        """Whether a sample of this name belongs to it."""
        return any(sample == self.name + suffix for suffix in _SUFFIXES.get(self.kind, ("",)))

    def lines(self, openmetrics: bool) -> list[str]:
        """Its lines on the page."""
        name, kind, about = self.name, self.kind, self.about
        if openmetrics:
            kind = "unknown" if kind == "untyped" else kind
            about = about.replace('"', '\\"')
            if kind == "counter":
                # OpenMetrics knows counters by a name that its samples end with _total.
                name, kind = (name.removesuffix("_total"), kind) if name.endswith("_total") else (name, "unknown")
        head = [f"# HELP {name} {about}\n", f"# TYPE {name} {kind}\n"]
        return head + [f"{sample}{{{labels}}} {_value(rest, openmetrics)}\n" for sample, labels, rest in self.samples]


def merged_texts(texts: Mapping[str, str], *, openmetrics: bool) -> str:
    """The applications' metrics of several workers as one text.

    A metric of a name that the server uses is left out, as is one of another type than in a worker before; a comment
    says so. OpenMetrics has no comments, and knows the moments of creation by other means: there they are left out.

    Args:
        texts: What each worker has sent, by what it is called in the label ``worker``.
        openmetrics: Which format the page has.
    """
    families: dict[str, _Family] = {}
    comments: list[str] = []
    refused: set[str] = set()
    for worker, text in texts.items():
        _read(worker, text, families, comments, refused)
    if openmetrics:
        created = {name for name in families if name.endswith("_created") and _derives(name, families)}
        return "".join(line for name, each in families.items() if name not in created for line in each.lines(True))
    if refused:
        comments.append(f"left out, because the name is the server's or has two types: {' '.join(sorted(refused))}")
    told = [f"# {comment}\n" for comment in dict.fromkeys(comments)]
    return "".join([*(line for each in families.values() for line in each.lines(False)), *told])


def _read(worker: str, text: str, families: dict[str, _Family], comments: list[str], refused: set[str]) -> None:
    """Take the lines of one worker in."""
    helps: dict[str, str] = {}
    family: _Family | None = None
    for line in text.split("\n"):
        if line.startswith("#"):
            about = _ABOUT.fullmatch(line)
            if about is None:
                if line.startswith("# ") and not line.startswith(("# HELP", "# TYPE", "# UNIT", "# EOF")):
                    comments.append(f"worker {worker}: {line[2:]}")
            elif about[1] == "HELP":
                helps[about[2]] = about[3]
            else:
                family = _begun(about[2], about[3], helps, families, refused)
            continue
        sample = _SAMPLE.fullmatch(line)
        if sample is not None and family is not None and family.owns(sample[1]):
            family.samples.append((sample[1], _labelled(worker, sample[2] or ""), sample[3]))


def _begun(
    name: str, kind: str, helps: Mapping[str, str], families: dict[str, _Family], refused: set[str]
) -> _Family | None:
    """The family whose samples follow; None when they are not wanted."""
    known = families.get(name)
    if known is None:
        candidate = _Family(name, kind, helps.get(name, ""))
        if _taken(candidate):
            refused.add(name)
            return None
        families[name] = known = candidate
    elif known.kind != kind:
        refused.add(name)
        return None
    return known


def _taken(family: _Family) -> bool:
    """Whether the server has samples of such names, or a metric whose samples these could be."""
    names = {family.name, _root(family.name)} | {family.name + suffix for suffix in _SUFFIXES.get(family.kind, ())}
    return not names.isdisjoint(_OURS)


def _root(name: str) -> str:
    for suffix in _DERIVED:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _our_names() -> Iterable[str]:
    for family in FAMILIES:
        yield family.name
        yield _root(family.name)
        if family.kind is Kind.HISTOGRAM:
            yield from (family.name + suffix for suffix in _SUFFIXES["histogram"])


_OURS: Final = frozenset(_our_names())


def _derives(created: str, families: Collection[str]) -> bool:
    """Whether a metric is the moment of creation of another."""
    root = created.removesuffix("_created")
    return root in families or f"{root}_total" in families


def _labelled(worker: str, labels: str) -> str:
    """Labels with that of the worker; one that is there already is what the application means by it."""
    if "worker" in labels:
        plain = _QUOTED.sub(lambda quoted: "\0" * len(quoted[0]), labels)  # not what stands in a value
        found = re.search(r"(?:^|,)\s*(worker)=", plain)
        if found is not None:
            labels = f"{labels[: found.start(1)]}exported_worker{labels[found.end(1) :]}"
    own = f'worker="{escaped(worker)}"'
    return f"{own},{labels.rstrip(',')}" if labels else own


def _value(rest: str, openmetrics: bool) -> str:
    """Value and, if there is one, time: milliseconds, in OpenMetrics seconds."""
    value, _, moment = rest.partition(" ")
    if not moment or not openmetrics:
        return rest
    try:
        return f"{value} {int(moment) / 1000.0!r}"
    except ValueError:
        return value
