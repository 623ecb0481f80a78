"""``[[rate_limits]]``: how often clients may come, from the tables of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, get_type_hints

import msgspec

from sojourn.config import RateRule
from sojourn.errors import ConfigError
from sojourn.guards.rates.quota import Quota
from sojourn.server.settings.files import Source
from sojourn.server.settings.keys import closest

__all__ = ["RATE_LIMITS", "meaning", "quotas", "read"]

#: The list of tables in the file, and in changes of settings.
RATE_LIMITS: Final = "rate_limits"

_TWICE: Final = "{!r} is the name of another one: give each a name of its own"
_NAMES: Final = RateRule.__struct_fields__
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token


def read(source: Source, problems: list[ConfigError]) -> tuple[tuple[RateRule, ...], list[str]]:
    """The rules of a file in their order, and the paths of the keys they set. What is wrong goes to ``problems``."""
    tables = source.data[RATE_LIMITS]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        detail = "is a list of tables: write [[rate_limits]]"
        problems.append(ConfigError(detail, key=RATE_LIMITS, origin=source.where(RATE_LIMITS)))
        return (), []
    found: list[RateRule] = []
    set_there: list[str] = []
    for index, table in enumerate(tables):
        prefix = f"{RATE_LIMITS}[{index}]"
        rule = _rule(table)
        if isinstance(rule, RateRule) and any(rule.name == other.name for other in found):
            rule = ("name", _TWICE.format(rule.name))
        if isinstance(rule, RateRule):
            found.append(rule)
        else:
            name, detail = rule
            path = f"{prefix}.{name}" if name in table else prefix
            problems.append(ConfigError(detail, key=path, origin=source.where(path)))
        set_there += [f"{prefix}.{name}" for name in table]
    return tuple(found), set_there


def quotas(rules: Iterable[RateRule]) -> list[Quota]:
    """What a limiter makes of rules.

    Raises:
        ConfigError: A rate can't be read, a burst does not hold one request, or two have the same name.
    """
    found: list[Quota] = []
    for index, rule in enumerate(rules):
        try:
            quota = _quota(rule)
        except ValueError as error:
            raise ConfigError(str(error), key=f"{RATE_LIMITS}[{index}].rate") from None
        if any(quota.name == other.name for other in found):
            raise ConfigError(_TWICE.format(quota.name), key=f"{RATE_LIMITS}[{index}].name")
        found.append(quota)
    return found


def meaning(name: str) -> str:
    """What a key of a rule means, one sentence."""
    meta: msgspec.Meta = get_type_hints(RateRule, include_extras=True)[name].__metadata__[0]
    return meta.description or ""


def _quota(rule: RateRule) -> Quota:
    path = None if rule.path == "*" else rule.path
    return Quota(rule.rate, name=rule.name, per=rule.per, burst=rule.burst, path=path, methods=rule.methods)


def _rule(table: dict[str, Any]) -> RateRule | tuple[str, str]:
    """One table as a rule; else which of its keys is wrong, and how."""
    for name in table:
        if name not in _NAMES:
            near = closest(name, _NAMES)
            return name, f"no such key; did you mean {near}?" if near else f"write {', '.join(_NAMES)}"
    if "rate" not in table:
        return "", 'has no rate: write rate = "100/minute"'
    path = table.get("path", "*")
    if path != "*" and not (isinstance(path, str) and path.startswith("/") and "*" not in path[:-1]):
        return "path", f"{path!r} is not a path: it begins with / and may end with *"
    methods = table.get("methods", [])
    if not isinstance(methods, list) or not all(isinstance(each, str) and _METHOD.fullmatch(each) for each in methods):
        return "methods", f'{methods!r} is not a list of methods, such as ["GET", "HEAD"]'
    try:
        rule = msgspec.convert(table, RateRule)
        _quota(rule)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$.")
        return where.rstrip("`"), text.lower()
    except ValueError as error:
        return "rate", str(error)
    return msgspec.structs.replace(rule, methods=tuple(method.upper() for method in rule.methods))
