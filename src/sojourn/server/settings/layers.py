"""Loading: defaults < file < environment < flags, with the origin of each key, and every problem told at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from sojourn.config import Config
from sojourn.errors import ConfigError
from sojourn.server.settings import checks, files, rates, routes, values
from sojourn.server.settings.keys import closest, group_docs, keys

__all__ = ["Given", "Layer", "Loaded", "Origin", "Problems", "load"]

Layer = Literal["default", "file", "environment", "flag"]

_PREFIX: Final = "SOJOURN_"

#: What Kubernetes puts into every container of a namespace that has a Service called sojourn or sojourn-something.
_SERVICE_LINK: Final = re.compile(
    r"SOJOURN_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+")


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        layer: The kind of place.
        where: ``file:line``, the name in the environment, or the flag; "" for a default.
    """

    layer: Layer
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.layer


class Given(NamedTuple):
    """A flag's value together with the flag as it was written, so that messages can name it."""

    flag: str
    value: object


class Loaded(NamedTuple):
    """A configuration and the story of how it came to be.

    Attributes:
        config: The configuration, checked.
        origins: Where each key's value comes from, by dotted path; that of a route is ``routes[0].timeouts.handler``.
        warnings: What is allowed but probably not meant, one sentence each.
        files: The files that were read.
    """

    config: Config
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


class Problems(ConfigError):
    """Several keys can't be used. ``problems`` holds one error for each."""

    def __init__(self, problems: tuple[ConfigError, ...]) -> None:
        super().__init__("\n".join([f"{len(problems)} settings can't be used:", *(f"  {each}" for each in problems)]))
        self.problems = problems


class _Setting(NamedTuple):
    path: str
    raw: object
    origin: Origin


def load(*, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], cwd: Path) -> Loaded:
    """Layer the settings and check them.

    Args:
        file: The configuration file; None looks in ``cwd`` for ``sojourn.toml``, then for ``[tool.sojourn]`` of
            ``pyproject.toml``.
        environ: The environment; ``SOJOURN_<GROUP>_<KEY>`` sets a key.
        flags: Values by dotted path, plain or as ``Given``.
        cwd: The folder relative paths begin in.

    Returns:
        The configuration with origins and warnings.

    Raises:
        ConfigError: A key is unknown or has a bad value, or two contradict each other; ``Problems`` when several do.
    """
    source, warnings = files.find(file, cwd)
    problems: list[ConfigError] = []
    chosen: dict[str, object] = {path: key.default for path, key in keys().items()}
    origins = {path: Origin("default") for path in chosen}
    for setting in _settings(source, environ, flags, problems):
        key = keys()[setting.path]
        try:
            chosen[key.path] = values.read(key, setting.raw)
        except ValueError as exc:
            problems.append(ConfigError(str(exc), key=key.path, origin=setting.origin.where))
        else:
            origins[key.path] = setting.origin
    overrides: tuple[Any, ...] = ()
    if source is not None and "routes" in source.data:
        overrides, set_there = routes.read(source, problems)
        origins.update({path: Origin("file", source.where(path)) for path in set_there})
    rules: tuple[Any, ...] = ()
    if source is not None and rates.RATE_LIMITS in source.data:
        rules, set_there = rates.read(source, problems)
        origins.update({path: Origin("file", source.where(path)) for path in set_there})
    config = _build(chosen, overrides, rules)
    by_hand = {path: origin.where for path, origin in origins.items() if origin.layer != "default"}
    if not problems:
        problems = checks.contradictions(config, by_hand)
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(tuple(problems))
    warnings += checks.warnings(config, by_hand)
    return Loaded(config, origins, tuple(warnings), (source.path,) if source else ())


def _settings(
    source: files.Source | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    problems: list[ConfigError],
) -> Iterator[_Setting]:
    """Every value somebody set, lowest layer first. Unknown names go to ``problems``."""
    if source is not None:
        yield from _from_file(source, problems)
    yield from _from_environment(environ, problems)
    for path, given in flags.items():
        if path not in keys():
            problems.append(_unknown(path, path, closest(path, keys()), None))
            continue
        flag, raw = given if isinstance(given, Given) else (f"flag {path}", given)
        yield _Setting(path, raw, Origin("flag", flag))


def _from_file(source: files.Source, problems: list[ConfigError]) -> Iterator[_Setting]:
    groups = group_docs()
    for group, table in source.data.items():
        if group in ("routes", rates.RATE_LIMITS):
            continue
        if group not in groups:
            near = _near(f"{group}.") if isinstance(table, dict) else _near(group)
            problems.append(_unknown(group, group, near, source.where(group)))
        elif not isinstance(table, dict):
            problems.append(ConfigError(f"is a group of keys: write [{group}]", key=group, origin=source.where(group)))
        else:
            for name, raw in table.items():
                path = f"{group}.{name}"
                if path in keys():
                    yield _Setting(path, raw, Origin("file", source.where(path)))
                else:
                    problems.append(_unknown(path, path, _near(path), source.where(path)))


def _from_environment(environ: Mapping[str, str], problems: list[ConfigError]) -> Iterator[_Setting]:
    by_name = {key.environment: key for key in keys().values()}
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or _SERVICE_LINK.fullmatch(name):
            continue
        if name in by_name:
            yield _Setting(by_name[name].path, environ[name], Origin("environment", name))
        elif not (name.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(environ[name])):
            near = _near(name.removeprefix(_PREFIX).lower().replace("_", ".", 1))
            key = keys().get(near) if near else None
            problems.append(_unknown(None, name, key.environment if key else None, None))


def _near(path: str) -> str | None:
    """The known name that was probably meant: the same key of another group, a group, or the most similar path."""
    group, dot, name = path.partition(".")
    if dot and not name:
        return closest(group, group_docs())
    same = [known for known, key in keys().items() if key.name == (name or group)]
    if len(same) == 1:
        return same[0]
    if group in group_docs():
        near = closest(name, (key.name for key in keys().values() if key.group == group))
        return f"{group}.{near}" if near else None
    return closest(path, keys()) or (None if dot else closest(group, group_docs()))


def _unknown(key: str | None, name: str, near: str | None, origin: str | None) -> ConfigError:
    advice = f"did you mean {near}?" if near else "`sojourn config` lists all keys"
    subject = "no such key" if key else f"{name} is no setting"
    return ConfigError(f"{subject}; {advice}", key=key, origin=origin)


def _build(chosen: Mapping[str, object], overrides: tuple[Any, ...], rules: tuple[Any, ...]) -> Config:
    groups: dict[str, dict[str, Any]] = {name: {} for name in group_docs()}
    for path, value in chosen.items():
        group, _, name = path.partition(".")
        groups[group][name] = value
    made = {name: type(getattr(Config(), name))(**fields) for name, fields in groups.items()}
    return Config(routes=overrides, rate_limits=rules, **made)
