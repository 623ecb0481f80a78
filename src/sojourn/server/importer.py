"""From ``module:attribute`` to the application: environment file, import path, import, attribute, factory, interface.

Each failure is one clear line that tells a wrong name from an error inside the application, and keeps the original
exception as its ``__cause__``.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from sojourn.config import App
from sojourn.errors import ConfigError, StartupError
from sojourn.server.settings.keys import closest
from sojourn.typing import ASGIApp

__all__ = ["DEFAULT_NAMES", "load_app", "load_object", "read_env_file"]

#: Tried in this order when the target names only a module.
DEFAULT_NAMES: Final = ("app", "application")
_TASKS_NAMES: Final = ("tasks",)

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED: Final = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?""")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def load_app(app: App) -> ASGIApp:
    """Import the application and check that a server for ASGI 3 can call it.

    Puts ``app.dir`` first on ``sys.path`` and the names of ``app.env_file`` into ``os.environ``; names that are already
    there stay as they are.

    Args:
        app: What to import, and how.

    Returns:
        The application, or what the factory returned.

    Raises:
        ConfigError: The target is no ``module:attribute``, or the environment file can't be used.
        StartupError: The import, the attribute or the factory failed, or the object is no ASGI 3 application.

    Example:
        >>> from sojourn.config import App
        >>> load_app(App(target="json:Decoder"))
        Traceback (most recent call last):
        ...
        sojourn.errors.StartupError: module json (...) has no attribute Decoder; did you mean decoder?
    """
    target, name = load_object(app)
    _check_callable(target, name, app)
    return cast(ASGIApp, target)


def load_object(app: App) -> tuple[object, str]:
    """Import what is named, whatever it is; otherwise as :func:`load_app`.

    Args:
        app: What to import, and how. Where its interface is ``tasks``, other names are tried.

    Returns:
        The object, or what the factory returned, and its full name.

    Raises:
        ConfigError: The target is no ``module:attribute``, or the environment file can't be used.
        StartupError: The import, the attribute or the factory failed.
    """
    tasks = app.interface == "tasks"
    module_name, attributes = _split(app.target, "work module:attribute" if tasks else "serve module:attribute")
    if app.env_file is not None:
        _apply_env_file(Path(app.env_file))
    folder = os.path.abspath(app.dir)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    module = _import(module_name, folder)
    target, name = _attribute(module, attributes, _TASKS_NAMES if tasks else DEFAULT_NAMES)
    if app.factory:
        target, name = _call_factory(target, name), f"{name}()"
    return target, name


def read_env_file(path: Path) -> dict[str, str]:
    """The names and values of a file of ``NAME=value`` lines.

    A value may stand in double quotes, where a backslash escapes, or in single quotes, where nothing does; ``#`` begins
    a comment after white space; ``export`` in front is allowed. Nothing is expanded.

    Raises:
        ConfigError: The file can't be read, or a line is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise ConfigError(f"the environment file can't be read: {what}", key="app.env_file", origin=str(path)) from exc
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        value = _env_value(match[2]) if match else None
        if match is None or value is None:
            raise ConfigError("not a line NAME=value", key="app.env_file", origin=f"{path}:{number}")
        found[match[1]] = value
    return found


def _env_value(text: str) -> str | None:
    if text[:1] in ("'", '"'):
        match = _QUOTED.fullmatch(text)
        if match is None:
            return None
        if match[1] is None:
            return match[2]
        return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match[1])
    return re.sub(r"(^|\s+)#.*", "", text).strip()


def _apply_env_file(path: Path) -> None:
    for name, value in read_env_file(path).items():
        if name.startswith("SOJOURN_") and os.environ.get(name) != value:
            raise ConfigError(
                f"{name} comes too late here, the configuration is read before: set it in the real environment",
                key="app.env_file",
                origin=str(path),
            )
        os.environ.setdefault(name, value)


def _split(target: str, usage: str) -> tuple[str, str]:
    """Module and dotted attribute of a target; the attribute is "" when the target names none."""
    module, _, attributes = target.partition(":")
    if not target:
        what = "application is" if usage.startswith("serve") else "tasks are"
        raise ConfigError(f"no {what} named: write sojourn {usage}", key="app.target")
    if module.endswith(".py") or "/" in module:
        name = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"{target!r} is a file: write {name}:{attributes or 'app'}", key="app.target")
    parts = [*module.split("."), *(attributes.split(".") if ":" in target else ())]
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{target!r} is not module:attribute", key="app.target")
    return module, attributes


def _import(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and f"{name}.".startswith(f"{exc.name}.") and _innermost(exc) is None:
            what = f"no module {exc.name} in {folder} or elsewhere on the import path"
            advice = _did_you_mean(_near_module(exc.name, folder))
            raise StartupError(f"can't import {name}: there is {what}{advice}") from exc
        raise StartupError(f"can't import {name}: {exc}{_at(exc)}") from exc
    except SyntaxError as exc:
        raise StartupError(f"can't import {name}: {exc.msg} at {exc.filename}:{exc.lineno}") from exc
    except ImportError as exc:
        raise StartupError(f"can't import {name}: {exc}{_at(exc)}") from exc
    except SystemExit as exc:
        raise StartupError(f"can't import {name}: importing it exits with {exc.code!r}{_at(exc)}") from exc
    except Exception as exc:  # whatever the application's own code raises
        raise StartupError(f"can't import {name}: {_words(exc)}{_at(exc)}") from exc


def _attribute(module: ModuleType, attributes: str, defaults: Sequence[str]) -> tuple[object, str]:
    """The object that ``attributes`` names, and its full name for messages."""
    if not attributes:
        for default in defaults:
            if hasattr(module, default):
                return getattr(module, default), f"{module.__name__}:{default}"
        near = next((name for name, value in vars(module).items() if _first_parameter(value) == "scope"), None)
        advice = _did_you_mean(near and f"{module.__name__}:{near}") or f"; write {module.__name__}:NAME"
        lacks = f"neither {' nor '.join(defaults)}" if len(defaults) > 1 else f"no {defaults[0]}"
        raise StartupError(f"{_described(module)} has {lacks}{advice}")
    found: object = module
    name = module.__name__
    for part in attributes.split("."):
        try:
            found, name = getattr(found, part), f"{name}{':' if found is module else '.'}{part}"
        except AttributeError as exc:
            owner = _described(module) if found is module else name
            near = closest(part, [known for known in dir(found) if not known.startswith("_")])
            raise StartupError(f"{owner} has no attribute {part}{_did_you_mean(near)}") from exc
    return found, name


def _call_factory(factory: object, name: str) -> object:
    if not callable(factory) or not _accepts(factory, 0):
        raise StartupError(f"{name} is no factory: it can't be called without arguments")
    try:
        made = factory()
    except Exception as exc:  # whatever the application's own code raises
        raise StartupError(f"the factory {name} failed: {_words(exc)}{_at(exc)}") from exc
    if inspect.iscoroutine(made):
        made.close()
        raise StartupError(f"the factory {name} is async: it must return the application, not a coroutine")
    return made


def _check_callable(target: object, name: str, app: App) -> None:
    if not callable(target):
        raise StartupError(f"{name} is a {type(target).__name__}, not an application")
    if app.interface != "auto":
        return
    wrong = _wrong_interface(target)
    if wrong:
        raise StartupError(f"{name} {wrong}")


def _wrong_interface(target: Callable[..., Any]) -> str | None:
    """What the object is instead of an ASGI 3 application; None when it may be one."""
    if inspect.isclass(target):
        if hasattr(target, "__await__"):
            return None  # a class that is called and then awaited
        if _first_parameter(target) == "scope":
            return "is an ASGI 2 class: wrap it in asgiref.compatibility.guarantee_single_callable"
        return "is a class: name an instance, or add --factory"
    if _accepts(target, 3):
        return None
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__):
        return "can't be called with scope, receive and send"
    if _accepts(target, 2):
        return "is a WSGI application: wrap it in asgiref.wsgi.WsgiToAsgi"
    if _accepts(target, 1):
        return "is an ASGI 2 application: wrap it in asgiref.compatibility.guarantee_single_callable"
    if _accepts(target, 0):
        return "takes no arguments: if it is a factory, add --factory"
    return "can't be called with scope, receive and send"


def _accepts(target: Callable[..., Any], arguments: int) -> bool:
    """Whether the callable can be called with so many positional arguments; True when nobody can tell."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # written in C
        return True
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _first_parameter(target: object) -> str | None:
    try:
        return next(iter(inspect.signature(target).parameters), None) if callable(target) else None
    except (TypeError, ValueError):  # written in C
        return None


def _near_module(name: str, folder: str) -> str | None:
    """A module below the folder whose name is like this one, in the same package."""
    package, dot, last = name.rpartition(".")
    place = Path(folder, *package.split("."))
    entries = [entry for entry in place.iterdir() if entry.stem.isidentifier()] if place.is_dir() else []
    near = closest(last, (entry.stem for entry in entries if entry.suffix == ".py" or entry.is_dir()))
    return f"{package}{dot}{near}" if near else None


def _innermost(exc: BaseException) -> traceback.FrameSummary | None:
    """The last frame in somebody's code; None when the exception never left the import system."""
    machinery = ("<frozen importlib", importlib.__file__, __file__)
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if not frame.filename.startswith(machinery)]
    return frames[-1] if frames else None


def _at(exc: BaseException) -> str:
    frame = _innermost(exc)
    return f" at {frame.filename}:{frame.lineno}" if frame else ""


def _words(exc: BaseException) -> str:
    text = str(exc).partition("\n")[0]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _described(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"module {module.__name__} ({file})" if file else f"module {module.__name__}"


def _did_you_mean(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""
