"""The layers of an application, found from the outside in, and something put between each two of them.

A layer is found where middleware keeps what is inside: an attribute such as ``app``, a variable of a closure, the stack
that Starlette and FastAPI build when they are first called, the applications that their routers mount.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import re
from collections.abc import Callable
from types import CellType, FunctionType, MemberDescriptorType, MethodType
from typing import Any, Final, NamedTuple, cast

from sojourn.typing import ASGIApp

__all__ = ["Layer", "instrument"]

#: Names under which middleware keeps the application inside of it.
_INNER: Final = ("app", "application", "inner", "_app", "_inner", "asgi", "asgi_app", "next_app", "wrapped")
#: A chain that is longer goes in a circle.
_DEEPEST: Final = 50


class Layer(NamedTuple):
    """One layer.

    Attributes:
        name: Its class or function, with its module.
        where: ``file:line`` of that; "" for what is not written in Python.
        depth: How many layers are around it.
    """

    name: str
    where: str
    depth: int


#: Makes what stands in the place of an application, from the application and its layer.
Between = Callable[[ASGIApp, Layer], ASGIApp]


def instrument(app: Any, between: Between, depth: int = 0) -> ASGIApp:
    """Put something in front of an application and of each one inside of it. Changes their attributes for good.

    Args:
        app: The outermost application.
        between: Called for each application found; what it returns stands in its place.
        depth: Layers around it.

    Returns:
        What stands in the place of ``app``.
    """
    if hasattr(app, "sojourn_layer") or depth > _DEEPEST:
        return cast(ASGIApp, app)  # it has one already, as what is mounted twice; or it is its own inside
    layer = Layer(*_described(app), depth)
    _instrument_inner(app, functools.partial(instrument, between=between, depth=depth + 1))
    return between(app, layer)


def _instrument_inner(app: Any, replaced: Callable[[Any], ASGIApp]) -> None:
    """Replace what is inside of one application."""
    own = getattr(app, "__dict__", {})
    if callable(getattr(app, "build_middleware_stack", None)) and "middleware_stack" in own:
        _instrument_stack(app, replaced)
    elif "middleware_stack" in own and not isinstance(own["middleware_stack"], MethodType):
        app.middleware_stack = replaced(own["middleware_stack"])  # a router with middleware of its own
        _instrument_mounts(app, replaced)
    elif isinstance(own.get("routes"), list):
        _instrument_mounts(app, replaced)
    elif isinstance(app, FunctionType):
        for name, cell in zip(app.__code__.co_freevars, app.__closure__ or (), strict=False):
            if name in _INNER and _is_app(inner := _content(cell)):
                cell.cell_contents = replaced(inner)
    elif not isinstance(app, MethodType):
        for name in _INNER:
            slot = isinstance(getattr(type(app), name, None), MemberDescriptorType)
            if (name in own or slot) and _is_app(inner := getattr(app, name, None)):
                _put(app, name, replaced(inner))
                return


def _instrument_stack(app: Any, replaced: Callable[[Any], ASGIApp]) -> None:
    """Starlette and FastAPI: their stack is built at the first call, or has been."""
    if app.middleware_stack is not None:
        app.middleware_stack = replaced(app.middleware_stack)
        return
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: replaced(build())


def _instrument_mounts(router: Any, replaced: Callable[[Any], ASGIApp]) -> None:
    for route in router.routes:
        own = getattr(route, "__dict__", {})
        if hasattr(route, "routes") and _is_app(own.get("app")):
            _put(route, "app", replaced(own["app"]))


def _put(owner: Any, name: str, value: ASGIApp) -> None:
    try:
        setattr(owner, name, value)
    except (AttributeError, TypeError):
        pass  # it can't be changed: what is inside counts as one layer with it


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _is_app(value: Any) -> bool:
    """Whether a value can be an application: it is called with three arguments."""
    if not callable(value) or inspect.isclass(value):
        return False
    try:
        inspect.signature(value).bind(None, None, None)
    except (TypeError, ValueError):  # other arguments, or written in C
        return False
    return True


def _described(app: Any) -> tuple[str, str]:
    """Name and place of what a layer is made of."""
    code = app.func if isinstance(app, functools.partial) else app
    if isinstance(code, MethodType):
        code = code.__func__
    if isinstance(code, FunctionType):
        place = code.__code__.co_filename, code.__code__.co_firstlineno
    else:
        code = type(code)
        place = _place(code)
    name = f"{code.__module__}.{code.__qualname__}"
    return name, f"{os.path.relpath(place[0])}:{place[1]}" if place[1] else ""


def _place(made_of: type) -> tuple[str, int]:
    """File and line of a class; line 0 when it is not written in Python. inspect would parse the file each time."""
    try:
        file = inspect.getsourcefile(made_of) or ""
    except (OSError, TypeError):  # built in
        return "", 0
    lines = linecache.getlines(file)
    own = [each.__code__.co_firstlineno for each in vars(made_of).values() if isinstance(each, FunctionType)]
    begins = re.compile(rf"\s*class {made_of.__name__}\b")
    found = [number for number, line in enumerate(lines[: min(own, default=None)], 1) if begins.match(line)]
    return file, found[-1] if found else 0
