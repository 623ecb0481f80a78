"""Click options generated from the table of keys, the help that groups them, and the way back to flags for ``load``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import click

from sojourn.cli.flags import FLAGS, SECTIONS, TARGET
from sojourn.cli.uvicorn import ALIASES, HINTS, REFUSED, SAME
from sojourn.errors import ConfigError
from sojourn.server.settings.keys import Key, group_docs, keys
from sojourn.server.settings.layers import Given, Loaded, load
from sojourn.server.settings.values import display

__all__ = ["SettingsCommand", "load_settings", "parameters"]

_ACCESS_LOG: Final = FLAGS["log.access"]
_METAVARS: Final = {"s": "SECONDS", "B": "BYTES", "B/s": "BYTES/S"}


class SettingsCommand(click.Command):
    """A command with flags for keys of the configuration, and help in sections.

    Attributes:
        target: How the help writes the argument.
        sections: Group -> the title of its section, in the order of the help.
        words: What keys mean to this command, where that is not quite what they mean to ``sojourn serve``.
        groups: The same, of the groups.
    """

    target: ClassVar[str] = FLAGS[TARGET]
    sections: ClassVar[Mapping[str, str]] = SECTIONS
    words: ClassVar[Mapping[str, str]] = {}
    groups: ClassVar[Mapping[str, str]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As usual, but ``--access-log`` may stand alone, as it does for uvicorn."""
        return super().parse_args(ctx, list(_with_value(args)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section per group of keys that it has flags for, then what helps those who come from uvicorn."""
        given = {option.name for option in self.params}
        own = [record for option in self.params if not _is_key(option) and (record := option.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(own)
        for group, title in self.sections.items():
            rows = [
                (self.target if key.path == TARGET else _usage(key), _help(key, self.words.get(key.path, key.doc)))
                for key in keys().values()
                if key.group == group and _identifier(key.path) in given
            ]
            if not rows:
                continue
            with formatter.section(title):
                formatter.write_text(self.groups.get(group, group_docs()[group]))
                formatter.write_dl(rows, col_max=36)
        aliases = [(alias, _instead(alias)) for alias in ALIASES if _identifier(alias) in given]
        if aliases:
            with formatter.section("Flags of uvicorn that are understood too"):
                formatter.write_dl(aliases, col_max=36)
        formatter.write_paragraph()
        formatter.write_text(
            "Durations are seconds or have a unit (500ms, 10s, 5m, 1h), sizes are bytes or have a unit (64KiB, 1MB); "
            '"none" takes a limit away where the default allows it. Each key can also stand in sojourn.toml, in '
            "[tool.sojourn] of pyproject.toml, or in the environment as SOJOURN_GROUP_KEY; `sojourn config` shows all."
        )


def parameters(
    paths: Collection[str] = tuple(FLAGS), *, target: str = "[APP]", uvicorn: bool = True
) -> list[click.Parameter]:
    """The argument APP, ``--config``, and the flags of keys with their other names.

    Args:
        paths: The keys, dotted.
        target: How the help writes the argument.
        uvicorn: Whether what those who come from uvicorn write is understood, too.
    """
    found: list[click.Parameter] = [
        click.Argument([_identifier(TARGET)], required=False, metavar=target),
        click.Option(
            ["--config", "config_file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Configuration file; default: sojourn.toml, or [tool.sojourn] of pyproject.toml.",
        ),
    ]
    found += [_option(keys()[path], FLAGS[path]) for path in paths if path != TARGET]
    if not uvicorn:
        return found
    found += [_hidden(flag, takes_value=alias.constant is None) for flag, alias in ALIASES.items()]
    found += [
        _hidden(flag, takes_value=values is not None, check=partial(_same, flag, values))
        for flag, values in SAME.items()
    ]
    found += [
        _hidden(flag, takes_value=takes, check=partial(_refuse, flag, why)) for flag, (takes, why) in REFUSED.items()
    ]
    return found


def load_settings(config_file: Path | None, given: Mapping[str, Any], environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Load the configuration that a command's parameters ask for.

    Args:
        config_file: The value of ``--config``.
        given: Click's parameters; those without a value are left out.
        environ: The environment.
        cwd: The working folder.

    Raises:
        ConfigError: Two flags set the same key, or the configuration is wrong.
    """
    flags: dict[str, Given] = {}
    for path, flag, value in _given(given):
        if path in flags:
            raise ConfigError(f"{flags[path].flag} and {flag} set the same: give one of them", key=path)
        if isinstance(value, str) and (path, value) in HINTS:
            raise ConfigError(f"{value} is not served: {HINTS[path, value]}", key=path, origin=flag)
        flags[path] = Given(flag, value)
    return load(file=config_file, environ=environ, flags=flags, cwd=cwd)


def _given(values: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Key, flag as it was written, and value of all that were given."""
    for path, flag in FLAGS.items():
        value = values.get(_identifier(path))
        if value is not None and value != ():
            shown = flag.replace("--", "--no-", 1) if value is False else flag
            yield path, shown, ",".join(value) if isinstance(value, tuple) else value
    for flag, alias in ALIASES.items():
        value = values.get(_identifier(flag))
        if value is not None:
            yield alias.path, flag, alias.constant or alias.words.get(value, value)


def _option(key: Key, flag: str) -> click.Option:
    name = _identifier(key.path)
    if key.kind == "flag":
        return click.Option([f"{flag}/{flag.replace('--', '--no-', 1)}", name], default=None)
    return click.Option([flag, name], multiple=key.kind == "list", default=None)


def _hidden(flag: str, *, takes_value: bool, check: Callable[..., Any] | None = None) -> click.Option:
    """An option that the list of options does not show. A flag without a value gives True."""
    return click.Option(
        [flag, _identifier(flag)],
        is_flag=not takes_value,
        default=None,
        hidden=True,
        callback=check,
        expose_value=check is None,
    )


def _same(flag: str, values: Sequence[str] | None, _: click.Context, __: click.Parameter, value: Any) -> None:
    if values is not None and value is not None and value not in values:
        raise ConfigError(f"{flag} {value} is not supported: Sojourn has only {' or '.join(values)}")


def _refuse(flag: str, why: str, _: click.Context, __: click.Parameter, value: Any) -> None:
    if value is not None:
        raise ConfigError(f"{flag} is not supported: {why}")


def _with_value(args: Sequence[str]) -> Iterator[str]:
    choices = keys()["log.access"].choices
    for index, arg in enumerate(args):
        alone = arg == _ACCESS_LOG and (index + 1 == len(args) or args[index + 1] not in choices)
        yield f"{_ACCESS_LOG}=auto" if alone else arg


def _identifier(name: str) -> str:
    """The parameter's name in Python: ``app.dir`` -> ``app__dir``, ``--ws-max-size`` -> ``alias__ws_max_size``."""
    return name.replace("--", "alias__", 1).replace(".", "__").replace("-", "_")


def _is_key(option: click.Parameter) -> bool:
    return any(option.name == _identifier(path) for path in FLAGS)


def _usage(key: Key) -> str:
    flag = FLAGS[key.path]
    match key.kind:
        case "flag":
            return f"{flag} / {flag.replace('--', '--no-', 1)}"
        case "choice":
            return f"{flag} {'|'.join(key.choices)}"
        case "list":
            return f"{flag} TEXT,..."
        case "text":
            return f"{flag} TEXT"
        case _:
            return f"{flag} {_METAVARS.get(key.unit, 'NUMBER')}"


def _help(key: Key, text: str) -> str:
    return text if key.default in ("", ()) else f"{text} [{display(key, key.default)}]"


def _instead(alias: str) -> str:
    path, constant, words = ALIASES[alias]
    flag = FLAGS[path]
    if constant is not None:
        return f"{flag} {constant}"
    return f"{flag}, {', '.join(f'{there} = {here}' for there, here in words.items())}" if words else flag
