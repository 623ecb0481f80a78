"""What can be done: functions, by the name that is written down, with what they take and how they are run."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from sojourn.errors import ConfigError, TaskArguments
from sojourn.policy.retry import Backoff
from sojourn.tasks.wish import PRIORITIES

__all__ = ["LARGEST", "OPTIONS", "Kind", "Kinds", "Place", "decoded", "encoded"]

Place = Literal["loop", "thread", "process"]

#: What ``Tasks.start`` takes for itself: no argument of a task is called so.
OPTIONS: Final = frozenset({"key", "delay", "run_at", "priority", "callback", "expires"})
#: Bytes of arguments, of a result, and of what is saved.
LARGEST: Final = 1 << 20
#: Letters that names are made of: they are part of URLs and of labels.
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST: Final = 100
_BACKOFF: Final = Backoff(1.0, 300.0)


def _plain(value: Any) -> Any:
    """What JSON can't hold by itself: models of pydantic, and what looks like them."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} is not JSON")


def _model(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(value)
    raise NotImplementedError(f"{kind!r} can't be read from JSON")


_encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode


def encoded(value: Any, what: str) -> bytes:
    """A value as JSON.

    Raises:
        TypeError: It can't be.
        ValueError: It is longer than :data:`LARGEST` bytes.
    """
    try:
        data = _encode(value)
    except (NotImplementedError, msgspec.MsgspecError, TypeError, RecursionError, UnicodeEncodeError) as error:
        raise TypeError(f"{what} can't be written as JSON: {error}") from error
    if len(data) > LARGEST:
        raise ValueError(
            f"{what} is {len(data):,} bytes as JSON; {LARGEST:,} are allowed: keep it elsewhere, and its name here"
        )
    return data


def decoded(data: bytes) -> Any:
    """A value from JSON; None for b""."""
    return msgspec.json.decode(data) if data else None


class Kind:
    """A function that can be a task.

    Args:
        function: What does it: a coroutine function, or a plain one for ``thread`` and ``process``.
        name: What is written down; the function's own name when empty.
        deadline: Seconds of one attempt; None for no limit.
        retries: How often it is tried again after an error.
        backoff: How long it waits before that.
        priority: Of its tasks; higher ones are claimed first.
        keep: Seconds that the records of its ended tasks are kept; None takes that of the service.
        limit: Runs at the same time on one node; None for no limit of its own.
        to: Where it runs; None: by what the function is.
        public: Whether it may be started over HTTP by its name.
        crashes: How often it may be lost with its node before it has failed.
        final: Errors after which no other attempt is made.

    Raises:
        ConfigError: It can't be one.
    """

    __slots__ = (
        "_decoder",
        "_fields",
        "_struct",
        "backoff",
        "crashes",
        "deadline",
        "final",
        "function",
        "keep",
        "limit",
        "name",
        "priority",
        "public",
        "retries",
        "to",
    )

    def __init__(  # noqa: PLR0913 - the options of `define`, once
        self,
        function: Callable[..., Any],
        *,
        name: str = "",
        deadline: float | None = 300.0,
        retries: int = 3,
        backoff: Backoff = _BACKOFF,
        priority: int = 0,
        keep: float | None = None,
        limit: int | None = None,
        to: Place | None = None,
        public: bool = False,
        crashes: int = 3,
        final: Sequence[type[BaseException]] = (),
    ) -> None:
        awaited = inspect.iscoroutinefunction(function)
        name = name or getattr(function, "__name__", "")
        self.function = function
        self.name = name
        self.deadline = deadline
        self.retries = retries
        self.backoff = backoff
        self.priority = priority
        self.keep = keep
        self.limit = limit
        self.to: Place = to or ("loop" if awaited else "thread")
        self.public = public
        self.crashes = crashes
        self.final = (final,) if isinstance(final, type) else tuple(final)
        for right, what in (
            (name and len(name) <= _LONGEST and _LETTERS.issuperset(name), "a name of letters, digits, _ . and -"),
            (deadline is None or deadline > 0, f"a deadline above 0, not {deadline}"),
            (_is_whole(retries, 0), f"0 or more retries, not {retries!r}"),
            (_is_whole(crashes, 0), f"0 or more crashes, not {crashes!r}"),
            (limit is None or _is_whole(limit, 1), f"a limit of at least 1, not {limit!r}"),
            (_is_whole(priority, PRIORITIES[0]), f"a priority of 32 bits, not {priority!r}"),
            (
                all(map(_is_error, self.final)),
                f"classes of errors that are final, not {final!r}",
            ),
            (
                not inspect.isgeneratorfunction(function) and not inspect.isasyncgenfunction(function),
                "a function that returns: what it yields nobody would get; say it with current_task().progress(...)",
            ),
            (
                self.to != "process" or "<" not in getattr(function, "__qualname__", ""),
                "a function at the top of its module, so that another process finds it",
            ),
            (type(backoff) is Backoff, f"a Backoff(first, most), not {backoff!r}"),
            (keep is None or keep >= 0, f"0 s or more to be kept, not {keep}"),
            (self.to in ("loop", "thread", "process"), f"a place that is loop, thread or process, not {to!r}"),
            (
                awaited == (self.to == "loop"),
                "a coroutine function for the loop, and a plain one for threads and processes",
            ),
        ):
            if not right:
                raise ConfigError(f"task {name!r} needs {what}")
        self._struct = _struct_of(function, name)
        self._fields = self._struct.__struct_fields__
        self._decoder = msgspec.json.Decoder(self._struct, dec_hook=_model)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Arguments as they are written down, checked.

        Raises:
            TaskArguments: They are not what the function takes.
        """
        if len(args) > len(self._fields):
            raise TaskArguments(self.name, f"it takes {len(self._fields)} arguments, not {len(args) + len(kwargs)}")
        arguments = dict(zip(self._fields, args, strict=False))
        for name, value in kwargs.items():
            if name in arguments:
                raise TaskArguments(self.name, f"there are two values for {name!r}")
            arguments[name] = value
        try:
            payload = encoded(arguments, "its arguments")
        except (TypeError, ValueError) as error:
            raise TaskArguments(self.name, str(error)) from error
        self.arguments(payload)
        return payload

    def arguments(self, payload: bytes) -> dict[str, Any]:
        """Arguments as the function takes them.

        Raises:
            TaskArguments: They are not what it takes.
        """
        try:
            struct = self._decoder.decode(payload)
        except (msgspec.MsgspecError, NotImplementedError, ValueError, RecursionError) as error:
            raise TaskArguments(self.name, str(error).replace("$.", "").replace("$", "the arguments")) from error
        return {name: getattr(struct, name) for name in self._fields}


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and least <= value <= PRIORITIES[-1]


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _struct_of(function: Callable[..., Any], name: str) -> Any:
    """A struct with the parameters of a function as its fields."""
    try:
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
    except Exception as error:
        raise ConfigError(f"task {name!r}: its annotations can't be read: {error}") from error
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"task {name!r}: {parameter} has no name of its own; arguments are written down by name")
        if parameter.name in OPTIONS:
            raise ConfigError(
                f"task {name!r}: call {parameter.name!r} something else: Tasks.start has an option of that name"
            )
        field = (parameter.name, hints.get(parameter.name, Any))
        fields.append(field if parameter.default is parameter.empty else (*field, _default(parameter.default)))
    try:
        struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.Decoder(struct, dec_hook=_model)
    except (TypeError, NotImplementedError, ValueError) as error:
        raise ConfigError(f"task {name!r}: its arguments can't be read from JSON: {error}") from error
    return struct


def _default(value: Any) -> Any:
    # A list or dict as a default is the function's own, shared between calls as it is in Python.
    return msgspec.field(default_factory=lambda: value) if isinstance(value, list | dict | set | bytearray) else value


class Kinds:
    """All that a service can do."""

    __slots__ = ("_by_function", "_by_name")

    def __init__(self) -> None:
        self._by_name: dict[str, Kind] = {}
        self._by_function: dict[Any, Kind] = {}

    def add(self, kind: Kind) -> None:
        """One more.

        Raises:
            ConfigError: There is one of that name.
        """
        if kind.name in self._by_name:
            raise ConfigError(
                f"there are two tasks of the name {kind.name!r}: give one of them another, define(name=...)"
            )
        self._by_name[kind.name] = kind
        self._by_function.setdefault(kind.function, kind)

    def of(self, what: str | Callable[..., Any]) -> Kind:
        """The kind of a function or a name.

        Raises:
            ConfigError: It has not been defined.
        """
        kind = self._by_name.get(what) if isinstance(what, str) else self._by_function.get(what)
        if kind is None:
            name = what if isinstance(what, str) else getattr(what, "__qualname__", repr(what))
            raise ConfigError(f"{name} is no task of this service: decorate it with @tasks.define")
        return kind

    def names(self) -> list[str]:
        """All of them."""
        return list(self._by_name)

    def get(self, name: str) -> Kind | None:
        """The kind of a name, if there is one."""
        return self._by_name.get(name)

    def __iter__(self) -> typing.Iterator[Kind]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)
