"""What can be a task, and what its arguments may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any

import msgspec
import pydantic
import pytest

from sojourn.errors import ConfigError, TaskArguments
from sojourn.tasks.kinds import LARGEST, Kind, Kinds, encoded


class Order(msgspec.Struct):
    id: int
    lines: list[str] = []


class Model(pydantic.BaseModel):
    size: int


async def export(order: int, day: date, fmt: str = "csv", *, big: bool = False) -> None: ...


def test_arguments_are_written_down_by_name_and_come_back_as_the_function_takes_them() -> None:
    kind = Kind(export)
    payload = kind.bind((7, date(2026, 11, 21)), {"big": True})
    assert payload == b'{"order":7,"day":"2026-11-21","big":true}'
    assert kind.arguments(payload) == {"order": 7, "day": date(2026, 11, 21), "fmt": "csv", "big": True}


@pytest.mark.parametrize(
    ("args", "kwargs", "detail"),
    [
        (("seven", date(2026, 1, 1)), {}, "Expected `int`, got `str` - at `order`"),
        ((7,), {}, "missing required field `day`"),
        ((7, "2026-01-01"), {"colour": 1}, "unknown field `colour`"),
        ((7,), {"order": 8}, "two values for 'order'"),
        ((1, "2026-01-01", "csv", True, 5), {}, "takes 4 arguments, not 5"),
        ((7, object()), {}, "JSON"),
        ((7, "2026-01-01", "x" * LARGEST), {}, "keep it elsewhere"),
    ],
    ids=["type", "missing", "unknown", "twice", "many", "no json", "long"],
)
def test_wrong_arguments_are_refused_with_the_name_of_the_one_that_is_wrong(
    args: tuple[Any, ...], kwargs: dict[str, Any], detail: str
) -> None:
    with pytest.raises(TaskArguments) as raised:
        Kind(export).bind(args, kwargs)
    assert "task export" in str(raised.value)
    assert detail in str(raised.value)


def test_structs_and_models_of_pydantic_are_arguments_too() -> None:
    async def pack(order: Order, model: Model) -> None: ...

    kind = Kind(pack)
    arguments = kind.arguments(kind.bind((Order(1, ["a"]), Model(size=3)), {}))
    assert arguments == {"order": Order(1, ["a"]), "model": Model(size=3)}
    with pytest.raises(TaskArguments, match="size"):
        kind.bind((Order(1), {"size": "large"}), {})


def test_a_default_that_can_change_is_as_in_python() -> None:
    async def collect(into: list[int] = []) -> None: ...  # noqa: B006 - that is what is tested

    assert Kind(collect).arguments(b"{}") == {"into": []}


async def with_rest(*rest: int) -> None: ...
async def with_others(**others: int) -> None: ...
async def with_option(key: str) -> None: ...
async def with_position(number: int, /) -> None: ...
async def with_unknown(thing: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def plain() -> None: ...
def numbers() -> Iterator[int]: yield 1  # fmt: skip


async def words() -> AsyncIterator[str]: yield "a"  # fmt: skip


@pytest.mark.parametrize(
    ("function", "options", "detail"),
    [
        (with_rest, {}, r"\*rest"),
        (with_others, {}, r"\*\*others"),
        (with_option, {}, "Tasks.start has an option of that name"),
        (with_position, {}, "has no name of its own"),
        (with_unknown, {}, "annotations"),
        (export, {"name": "a b"}, "a name of letters"),
        (export, {"deadline": 0}, "a deadline above 0"),
        (export, {"retries": -1}, "0 or more retries"),
        (export, {"limit": 0}, "a limit"),
        (export, {"to": "thread"}, "a coroutine function for the loop"),
        (plain, {"to": "loop"}, "a coroutine function for the loop"),
        (plain, {"to": "moon"}, "a place that is"),
        (plain, {"retries": 1.5}, "0 or more retries, not 1.5"),
        (plain, {"limit": "3"}, "a limit"),
        (plain, {"priority": 2**31}, "a priority of 32 bits"),
        (plain, {"backoff": (1, 300)}, "a Backoff"),
        (plain, {"final": ("ValueError",)}, "classes of errors"),
        (lambda: 1, {"name": "a", "to": "process"}, "at the top of its module"),
        (numbers, {}, "yields"),
        (words, {}, "yields"),
        (int, {}, "annotations"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:30],
)
def test_what_can_not_be_a_task_is_said_when_it_is_defined(function: Any, options: dict[str, Any], detail: str) -> None:
    with pytest.raises(ConfigError, match=detail):
        Kind(function, **options)


def test_two_of_one_name_are_refused_and_what_was_not_defined_is_named() -> None:
    kinds = Kinds()
    kinds.add(Kind(export))
    with pytest.raises(ConfigError, match="two tasks of the name 'export'"):
        kinds.add(Kind(plain, name="export"))
    with pytest.raises(ConfigError, match="plain is no task"):
        kinds.of(plain)
    assert kinds.of("export") is kinds.of(export)


def test_what_is_no_json_or_too_long_is_said_so() -> None:
    with pytest.raises(TypeError, match="its result can't be written as JSON"):
        encoded(object(), "its result")
    with pytest.raises(ValueError, match="1,048,578 bytes"):
        encoded("x" * LARGEST, "its result")
