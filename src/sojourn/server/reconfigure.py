"""Settings changed while serving: what may change, which version they are, and how a worker follows.

``plan`` judges a change as a whole, by the same rules as the layers of settings: nothing is changed unless all of it
can be. ``apply`` makes a worker follow, and ends no connection. What needs a restart is refused with its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from sojourn.config import Config, RateRule
from sojourn.errors import ConfigError, ErrandError
from sojourn.server.settings import checks, rates, routes, values
from sojourn.server.settings.files import Source
from sojourn.server.settings.keys import Key, closest, keys
from sojourn.server.settings.layers import Origin

if TYPE_CHECKING:
    from sojourn.server.server import Server

__all__ = ["Change", "ConfigVersion", "Refused", "Running", "apply", "for_workers", "plan"]

#: The whole list of ``[[routes]]``; it is replaced, not added to.
_ROUTES: Final = "routes"
_LISTS: Final = (_ROUTES, rates.RATE_LIMITS)
_WORKERS: Final = "app.workers"
#: Keys that are the supervisor's where there is one: workers would all write to the same file.
_SUPERVISORS: Final = frozenset({"drain.report"})


class Refused(NamedTuple):
    """A key that can't be changed as asked.

    Attributes:
        key: Its dotted path, as it was written.
        reason: ``unknown_setting``, ``bad_setting`` or ``needs_restart``.
        detail: What is wrong and what would be right.
    """

    key: str
    reason: str
    detail: str


class Change(NamedTuple):
    """What a change of settings comes to.

    Attributes:
        config: The settings with the change; as they were when something is refused.
        live: Keys that take effect at once.
        new: Keys that take effect for connections opened later, and for the next waits of those that are open.
        refused: What can't be changed; nothing is changed then.
        changes: Per key: the value before and the value now, as they are written in a configuration file.
        warnings: What is allowed but probably not meant, and is so because of this change.
    """

    config: Config
    live: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    changes: Mapping[str, tuple[Any, Any]] = {}
    warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Do nothing when all of it can be.

        Raises:
            ErrandError: Something is refused: 400, or 409 when a restart is all that it needs.
        """
        if not self.refused:
            return
        asleep = [each.key for each in self.refused if each.reason == "needs_restart"]
        others = [each for each in self.refused if each.reason != "needs_restart"]
        said = [f"{each.key}: {each.detail}" for each in others]
        if asleep:
            said.append(f"{', '.join(asleep)} can't change while serving: write it to the configuration, and restart")
        status, reason = (400, others[0].reason) if others else (409, "needs_restart")
        raise ErrandError(status, reason, f"nothing was changed. {'; '.join(said)}")


class ConfigVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A change of settings that was made.

    Attributes:
        version: The how-manieth configuration this is; the first is 1.
        changes: Per key: the value before and the value now.
        live: Keys that took effect at once.
        new: Keys that take effect for connections opened later.
        warnings: What is probably not meant.
    """

    version: int
    changes: dict[str, tuple[Any, Any]]
    live: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Running:
    """The settings in force, where each comes from, and their version.

    Args:
        config: The settings at the start.
        origins: Where each key's value comes from; None when that is not known.

    Attributes:
        config: The settings now.
        origins: Where each comes from now, by dotted path; empty when that is not known.
        version: Counts the configurations there were; the first is 1.
    """

    def __init__(self, config: Config, origins: Mapping[str, Origin] | None = None) -> None:
        self.config = config
        self.origins: dict[str, Origin] = dict(origins or {})
        self.version = 1

    def adopt(self, change: Change, who: str) -> ConfigVersion:
        """A planned change was made; one that changes nothing is no new version.

        Args:
            change: The change, planned on ``config``.
            who: Who asked for it.
        """
        if change.changes:
            self.version += 1
            self.config = change.config
            origin = Origin("flag", f"version {self.version} by {who}")
            for name in set(_LISTS) & set(change.changes):
                tables = len(getattr(change.config, name))
                self.origins = {path: each for path, each in self.origins.items() if not path.startswith(f"{name}[")}
                self.origins.update({f"{name}[{index}]": origin for index in range(tables)})
            self.origins.update({path: origin for path in change.changes if path not in _LISTS})
        return ConfigVersion(
            version=self.version,
            changes=dict(change.changes),
            live=change.live,
            new=change.new,
            warnings=change.warnings,
        )

    def load(self, config: Config, origins: Mapping[str, Origin] | None = None) -> None:
        """All settings were read anew, for a restart: what was changed by hand is gone."""
        if config != self.config:
            self.version += 1
        self.config = config
        self.origins = dict(origins or {})


def plan(current: Config, changes: Mapping[str, Any]) -> Change:
    """Judge a change of settings. Nothing happens yet.

    Args:
        current: The settings now.
        changes: New values by dotted path, written as in a configuration file, the environment or a flag; ``routes``
            and ``rate_limits`` are the whole lists of tables.
    """
    refused: list[Refused] = []
    chosen: dict[str, dict[str, Any]] = {}
    made: dict[str, tuple[Any, Any]] = {}
    effect: dict[str, list[str]] = {"live": [], "new": []}
    overrides, rules = current.routes, current.rate_limits
    for path, raw in changes.items():
        if path == _ROUTES:
            overrides = _routes(raw, refused) if raw else ()
            if overrides != current.routes:
                made[path] = (msgspec.to_builtins(current.routes), msgspec.to_builtins(overrides))
                effect["new"].append(path)
            continue
        if path == rates.RATE_LIMITS:
            rules = _rules(raw, refused) if raw else ()
            if rules != current.rate_limits:
                if not current.rate_limits:  # nothing stands in front of the application, and nothing can be put there
                    refused.append(Refused(path, "needs_restart", "needs a restart"))
                made[path] = (msgspec.to_builtins(current.rate_limits), msgspec.to_builtins(rules))
                effect["live"].append(path)
            continue
        key = keys().get(path)
        if key is None:
            near = _near(path)
            advice = f"did you mean {near}?" if near else "GET /config lists all keys"
            refused.append(Refused(path, "unknown_setting", f"no such key; {advice}"))
            continue
        before = getattr(getattr(current, key.group), key.name)
        try:
            after = values.read(key, raw)
        except ValueError as error:
            refused.append(Refused(path, "bad_setting", str(error)))
            continue
        if after == before:
            continue
        # Whether there is a supervisor is decided at the start.
        if key.change == "restart" or (path == _WORKERS and 0 in (before, after)):
            refused.append(Refused(path, "needs_restart", "needs a restart"))
            continue
        chosen.setdefault(key.group, {})[key.name] = after
        made[path] = (_written(key, before), _written(key, after))
        effect[key.change].append(path)
    if refused:
        return Change(current, refused=tuple(refused))
    groups = {name: msgspec.structs.replace(getattr(current, name), **fields) for name, fields in chosen.items()}
    config = msgspec.structs.replace(current, routes=overrides, rate_limits=rules, **groups)
    known = {str(problem) for problem in checks.contradictions(current, {})}
    wrong = [problem for problem in checks.contradictions(config, {}) if str(problem) not in known]
    if wrong:
        return Change(current, refused=tuple(_refusal(problem) for problem in wrong))
    by_hand = dict.fromkeys(made, "")
    before_warned = set(checks.warnings(current, {}))
    warned = [warning for warning in checks.warnings(config, by_hand) if warning not in before_warned]
    waits = set(checks.waits_without_deadline(current))
    warned += [f"{path} has no deadline" for path in checks.waits_without_deadline(config) if path not in waits]
    return Change(config, tuple(effect["live"]), tuple(effect["new"]), (), made, tuple(warned))


def for_workers(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a change that workers under a supervisor follow."""
    return {path: value for path, value in changes.items() if path not in _SUPERVISORS}


def apply(server: Server, config: Config) -> None:
    """Make a server that runs follow other settings. No connection ends by it.

    Args:
        server: Whom.
        config: The settings; what needs a restart is as it was.

    Raises:
        ErrandError: The kernel does not take an option of ``bind``; nothing was changed.
    """
    try:
        for listener in server._listeners:
            listener.tune(config.bind)
    except OSError as error:
        for listener in server._listeners:
            listener.tune(server.config.bind)
        detail = f"nothing was changed. The kernel does not take bind.tcp_*: {error.strerror}"
        raise ErrandError(400, "bad_setting", detail) from error
    server.config = config
    server.site.adopt(config)


def _near(path: str) -> str | None:
    """The key that was probably meant: the only one of that name, or the most similar."""
    name = path.rpartition(".")[2]
    same = [known for known, key in keys().items() if key.name == name]
    return same[0] if len(same) == 1 else closest(path, (*keys(), *_LISTS))


def _routes(raw: object, refused: list[Refused]) -> tuple[Any, ...]:
    problems: list[ConfigError] = []
    found, _ = routes.read(Source(Path(), "", {_ROUTES: raw}, {}), problems)
    refused.extend(_refusal(problem) for problem in problems)
    return found


def _rules(raw: object, refused: list[Refused]) -> tuple[RateRule, ...]:
    problems: list[ConfigError] = []
    found, _ = rates.read(Source(Path(), "", {rates.RATE_LIMITS: raw}, {}), problems)
    refused.extend(_refusal(problem) for problem in problems)
    return found


def _refusal(problem: ConfigError) -> Refused:
    key = problem.key or ""
    return Refused(key, "bad_setting", str(problem).removeprefix(f"{key}: "))


def _written(key: Key, value: object) -> object:
    """A value as it is written in a configuration file; secrets are masked."""
    if value is None:
        return "none"
    if key.secret:
        return "***"
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
