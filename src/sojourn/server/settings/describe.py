"""The effective configuration as rows, for ``sojourn config`` and the reference page."""

from __future__ import annotations

from typing import NamedTuple

from sojourn.config import Change
from sojourn.server.settings.keys import keys
from sojourn.server.settings.layers import Loaded, Origin
from sojourn.server.settings.rates import meaning
from sojourn.server.settings.routes import GROUPS
from sojourn.server.settings.values import display

__all__ = ["Row", "describe"]


class Row(NamedTuple):
    """One key with its value and what is known of it.

    Attributes:
        key: Dotted path.
        value: The value in ``unit``; ``***`` for a secret that is set.
        text: The value as people read it.
        unit: ``s``, ``B``, ``B/s`` or "".
        origin: Where the value comes from.
        change: When a change takes effect.
        doc: What the key means.
    """

    key: str
    value: object
    text: str
    unit: str
    origin: Origin
    change: Change
    doc: str


def describe(loaded: Loaded) -> list[Row]:
    """Every key in the order of the reference page, then what the routes override."""
    rows = [
        _row(path, path, getattr(getattr(loaded.config, key.group), key.name), loaded) for path, key in keys().items()
    ]
    for index, route in enumerate(loaded.config.routes):
        prefix = f"routes[{index}]"
        methods = ",".join(route.methods)
        where = loaded.origins[f"{prefix}.path"]
        rows.append(
            Row(f"{prefix}.path", route.path, route.path, "", where, "new", "Exact path, or a prefix that ends with *.")
        )
        if methods:
            where = loaded.origins[f"{prefix}.methods"]
            rows.append(Row(f"{prefix}.methods", list(route.methods), methods, "", where, "new", "Only these methods."))
        if (path := f"{prefix}.priority") in loaded.origins:
            where = loaded.origins[path]
            rows.append(Row(path, route.priority, route.priority, "", where, "new", "Who goes first under overload."))
        for group in GROUPS:
            for name, value in getattr(route, group).items():
                path = f"{group}.{name}"
                rows.append(_row(f"{prefix}.{path}", path, None if value == "none" else value, loaded))
    for index, rule in enumerate(loaded.config.rate_limits):
        for name in rule.__struct_fields__:
            path = f"rate_limits[{index}].{name}"
            if path in loaded.origins:
                value = getattr(rule, name)
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                rows.append(Row(path, value, text, "", loaded.origins[path], "live", meaning(name)))
    return rows


def _row(path: str, known_as: str, value: object, loaded: Loaded) -> Row:
    key = keys()[known_as]
    shown = "***" if key.secret and value is not None else value
    return Row(path, shown, display(key, value), key.unit, loaded.origins[path], key.change, key.doc)
