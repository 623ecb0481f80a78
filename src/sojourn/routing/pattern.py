"""The pattern of a path, such as ``/users/{id:int}/files/{rest:path}``, read once when a route is defined."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

from sojourn.errors import RouteError
from sojourn.routing.converters import REST, Converter

__all__ = ["Parameter", "Pattern", "Segment", "Shape", "parse"]

#: Segments of a pattern: the deepest recursion of a lookup.
_DEPTH: Final = 64
_PARAMETER: Final = re.compile(r"([^{}]*)\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_][A-Za-z0-9_]*))?\}([^{}]*)")
#: RFC 3986 section 3.3: what stands in a segment as it is.
_SAFE: Final = "!$&'()*+,;=:@"


class Parameter(NamedTuple):
    """A segment that is a value, such as ``{id:int}`` or ``report-{day}.pdf``.

    Attributes:
        prefix: Text before the value.
        name: What handlers call it.
        kind: Name of its type; ``path`` takes all that is left.
        suffix: Text after the value.
    """

    prefix: str
    name: str
    kind: str
    suffix: str


#: Text that must be there as it is, or a parameter.
Segment: TypeAlias = str | Parameter
#: A pattern without the names of its parameters: two of the same shape match the same paths.
Shape: TypeAlias = tuple[str | tuple[str, str, str], ...]


class Pattern(NamedTuple):
    """A pattern, taken apart at its slashes.

    Attributes:
        text: As it was written.
        segments: Its parts; the last is "" when it ends with a slash.
    """

    text: str
    segments: tuple[Segment, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parameters, in order."""
        return tuple(part.name for part in self.segments if isinstance(part, Parameter))

    @property
    def shape(self) -> Shape:
        """What it matches, whatever its parameters are called."""
        return tuple(
            (part.prefix, part.kind, part.suffix) if isinstance(part, Parameter) else part for part in self.segments
        )

    @property
    def label(self) -> str:
        """The pattern without types, as metrics and traces name it."""
        return "".join(
            f"/{part.prefix}{{{part.name}}}{part.suffix}" if isinstance(part, Parameter) else f"/{part}"
            for part in self.segments
        )

    def fill(self, converters: Mapping[str, Converter], values: Mapping[str, object]) -> str:
        """The path with these values, percent-encoded (RFC 3986 section 2.1).

        Raises:
            RouteError: A value is none of its parameter, or a name is missing or is none of this pattern.
        """
        if set(values) != set(self.names):
            raise RouteError(f"{self.text} needs {_listed(self.names)}, not {_listed(values)}")
        parts = []
        for part in self.segments:
            if isinstance(part, Parameter):
                text = self._text(converters[part.kind], part.name, values[part.name])
                safe = _SAFE + "/" if part.kind == REST else _SAFE
                parts.append(quote(f"{part.prefix}{text}{part.suffix}", safe=safe))
            else:
                parts.append(quote(part, safe=_SAFE))
        return "".join(f"/{part}" for part in parts)

    def _text(self, converter: Converter, name: str, value: object) -> str:
        try:
            text = converter.format(value)
        except (ValueError, TypeError) as error:
            raise RouteError(f"{name} of {self.text} can't be {value!r}: {error}") from None
        if not text and converter.rank < 100:
            raise RouteError(f"{name} of {self.text} can't be empty")
        return text


def parse(text: str, converters: Mapping[str, Converter]) -> Pattern:
    """Take a pattern apart.

    Args:
        text: The pattern in decoded form; it begins with a slash. "" has no segment (a mount at the root).
        converters: The types that parameters may have.

    Raises:
        RouteError: It is no pattern that can match as it looks.
    """
    if not text:
        return Pattern("", ())
    if not text.startswith("/"):
        raise RouteError(f"a pattern begins with a slash, and {text!r} does not")
    parts = text[1:].split("/")
    if len(parts) > _DEPTH:
        raise RouteError(f"a pattern has at most {_DEPTH} segments, and {text[:40]!r}... has {len(parts)}")
    segments = tuple(_segment(text, part, converters, last=at == len(parts) - 1) for at, part in enumerate(parts))
    pattern = Pattern(text, segments)
    names = pattern.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RouteError(f"{text} has {_listed(twice)} more than once")
    return pattern


def _segment(text: str, part: str, converters: Mapping[str, Converter], *, last: bool) -> Segment:
    if "{" not in part and "}" not in part:
        if not part and not last:
            raise RouteError(f"{text} has an empty segment")
        if part in (".", ".."):
            raise RouteError(f"{text} has the segment {part!r}, which clients take away before they ask")
        if any(sign in part for sign in "?#%"):
            raise RouteError(f"{text} has one of ? # %: a pattern is compared with the decoded path")
        return part
    found = _PARAMETER.fullmatch(part)
    if found is None:
        raise RouteError(f"{text}: {part!r} is no parameter; write {{name}} or {{name:type}}, one in a segment")
    prefix, name, kind, suffix = found.groups("")
    kind = kind or "str"
    if kind not in converters:
        raise RouteError(f"{text}: no type {kind!r}; there are {_listed(sorted(converters))}")
    if kind == REST and (not last or prefix or suffix):
        raise RouteError(f"{text}: {{{name}:{REST}}} takes all that is left, so it is the whole of the last segment")
    return Parameter(prefix, name, kind, suffix)


def _listed(names: object) -> str:
    listed = ", ".join(map(str, names))  # type: ignore[call-overload]
    return listed or "nothing"
