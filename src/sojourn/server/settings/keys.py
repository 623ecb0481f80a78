"""The table of keys: each field of ``sojourn.config`` with its type, unit, bounds and text, from its annotation."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from sojourn.config import Change, Config

__all__ = ["Key", "Kind", "closest", "group_docs", "keys"]

#: How a value is read and shown.
Kind = Literal["flag", "whole", "number", "choice", "list", "text"]

#: Values that are never printed.
_SECRETS: Final = frozenset({"admin.token", "rates.redis", "registration.token", "tls.key_password"})

_KINDS: Final[dict[Any, Kind]] = {bool: "flag", int: "whole", float: "number", str: "text"}


class Key(NamedTuple):
    """One key of the configuration.

    Attributes:
        group: Name of its group, such as ``timeouts``.
        name: Its name in the group.
        kind: How its value is read and shown.
        optional: Whether ``none`` is allowed.
        choices: The only words allowed; empty unless the kind is ``choice``.
        default: The value when nobody sets it.
        unit: ``s``, ``B``, ``B/s`` or "" for a plain value.
        change: When a change takes effect.
        doc: What it means, one sentence.
        ge: Smallest value allowed; None when there is none.
        gt: The value must be above this; None when there is no such bound.
    """

    group: str
    name: str
    kind: Kind
    optional: bool
    choices: tuple[str, ...]
    default: object
    unit: str
    change: Change
    doc: str
    ge: float | None
    gt: float | None

    @property
    def path(self) -> str:
        """Its dotted path, as in files' tables and in messages."""
        return f"{self.group}.{self.name}"

    @property
    def environment(self) -> str:
        """Its name in the environment."""
        return f"SOJOURN_{self.group}_{self.name}".upper()

    @property
    def secret(self) -> bool:
        """Whether its value is never printed."""
        return self.path in _SECRETS


@cache
def keys() -> Mapping[str, Key]:
    """All keys by their dotted path, in the order of ``sojourn.config``. ``routes`` is no key; see ``routes.py``."""
    found = (_key(group, name, hint) for group, struct in _groups().items() for name, hint in _hints(struct).items())
    return types.MappingProxyType({key.path: key for key in found})


@cache
def group_docs() -> Mapping[str, str]:
    """The one-line text of each group, by its name."""
    return types.MappingProxyType({name: (group.__doc__ or "").strip() for name, group in _groups().items()})


def closest(name: str, known: typing.Iterable[str]) -> str | None:
    """The known name most like ``name``; None when none is near."""
    import difflib  # only when something is wrong

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


@cache
def _groups() -> dict[str, type[msgspec.Struct]]:
    hints = typing.get_type_hints(Config, include_extras=True)
    return {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, msgspec.Struct)}


def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(struct, include_extras=True)


def _key(group: str, name: str, hint: Any) -> Key:
    annotated, meta = typing.get_args(hint)
    members = typing.get_args(annotated) if isinstance(annotated, types.UnionType) else (annotated,)
    optional = types.NoneType in members
    plain = next(member for member in members if member is not types.NoneType)
    origin = typing.get_origin(plain)
    kind: Kind = "choice" if origin is Literal else "list" if origin is tuple else _KINDS[plain]
    return Key(
        group=group,
        name=name,
        kind=kind,
        optional=optional,
        choices=typing.get_args(plain) if kind == "choice" else (),
        default=getattr(getattr(Config(), group), name),
        unit=meta.extra["unit"],
        change=meta.extra["change"],
        doc=meta.description,
        ge=meta.ge,
        gt=meta.gt,
    )
