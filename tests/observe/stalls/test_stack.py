"""Where a thread stands, and who is to blame."""

from __future__ import annotations

import gc
import json
import sys
from types import CodeType, FunctionType

import pytest

from sojourn.observe.stalls import stack
from sojourn.observe.stalls.stack import (
    DEPTH,
    Spot,
    depth_of,
    frames,
    guilty,
    in_words,
    spots,
    text,
    without_callbacks,
)


def code(file: str, name: str = "f") -> CodeType:
    return compile(f"def {name}(): pass", file, "exec").co_consts[0]


def spot(file: str, module: str = "m") -> Spot:
    return Spot(code(file), 7, module)


LIBRARY = json.__file__
PACKAGE = "/somewhere/lib/python3.11/site-packages/requests/api.py"
ASYNCIO = __import__("asyncio").__file__


def test_the_innermost_place_of_the_application_or_a_library_is_to_blame() -> None:
    assert guilty([spot(LIBRARY), spot(PACKAGE), spot("/app/views.py"), spot(ASYNCIO)]) == 1
    assert guilty([spot("/app/slow.py"), spot("/app/views.py")]) == 0


def test_asyncio_and_what_is_frozen_into_the_interpreter_are_never_to_blame() -> None:
    assert guilty([spot("<frozen importlib._bootstrap>"), spot(ASYNCIO)]) is None
    assert guilty([]) is None


def test_the_standard_library_is_to_blame_where_nobody_calls_it() -> None:
    assert guilty([spot(ASYNCIO), spot(LIBRARY)]) == 1
    assert guilty([spot(LIBRARY, "selectors")]) is None


def test_packages_below_the_standard_library_are_packages() -> None:
    installed = LIBRARY.replace("json/__init__.py", "site-packages/orm/query.py")
    assert guilty([spot(LIBRARY), spot(installed), spot("/app/views.py")]) == 1


def test_a_stack_is_taken_without_the_frames_that_run_the_loop() -> None:
    def inner() -> tuple[Spot, ...]:
        return spots(sys._getframe(), base)

    base = depth_of(sys._getframe())
    (only,) = inner()
    assert only.code.co_name == "inner"
    assert only.module == __name__
    assert in_words(only).endswith(f"inner {__file__}:{only.line}")
    assert in_words(only).startswith(f"{__name__}.")


def test_what_the_collector_calls_of_ours_is_left_out_and_what_it_calls_of_others_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = spot(stack.__file__), spot("/app/memory.py")
    callers = (spot("/app/views.py"), spot(stack.__file__))
    for callback in (ours, theirs):
        monkeypatch.setattr(gc, "callbacks", [FunctionType(callback.code, {})])
        left = without_callbacks((callback, *callers))
        assert left == (callers if callback is ours else (callback, *callers))


def test_a_stack_is_bounded() -> None:
    def deep(left: int) -> tuple[Spot, ...]:
        return deep(left - 1) if left else spots(sys._getframe())

    assert len(deep(DEPTH + 50)) == DEPTH


def test_it_is_printed_as_python_does_with_the_innermost_call_last() -> None:
    stack = spots(sys._getframe())[:2]
    lines = text(stack).splitlines()
    assert lines[-2].startswith(f'  File "{__file__}", line ')
    assert lines[-1].strip() == "stack = spots(sys._getframe())[:2]"
    assert frames(stack)[0].file == __file__
    assert text(()) == ""
