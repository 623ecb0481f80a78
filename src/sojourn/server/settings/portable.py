"""A configuration on its way to another process: plain values, without the checks, which it has passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sojourn.config import Config, RateRule, Route

__all__ = ["from_plain", "to_plain"]


def to_plain(config: Config) -> dict[str, Any]:
    """The groups with their values, as JSON can hold them."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return plain


def from_plain(plain: Mapping[str, Any]) -> Config:
    """The configuration that :func:`to_plain` was given.

    Keys of another version of Sojourn are left out, and missing ones have their default: a supervisor may be replaced
    by one of another version.
    """
    default = Config()
    groups = {
        name: _struct(type(getattr(default, name)), values)
        for name, values in plain.items()
        if name not in ("routes", "rate_limits") and hasattr(default, name)
    }
    routes = tuple(_struct(Route, route) for route in plain.get("routes", ()))
    rate_limits = tuple(_struct(RateRule, rule) for rule in plain.get("rate_limits", ()))
    return Config(**groups, routes=routes, rate_limits=rate_limits)


def _struct(kind: type[Any], values: Mapping[str, Any]) -> Any:
    known = {name: values[name] for name in kind.__struct_fields__ if name in values}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
