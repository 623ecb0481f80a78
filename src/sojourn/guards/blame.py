"""Whether an error is the dependency's failure, or the caller's own end."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from typing import Final

from sojourn.errors import DeadlineExceeded, GuardRefused

__all__ = ["Failures", "is_failure"]

#: Errors that mean that the dependency failed, or a function that says whether one does.
Failures = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

#: What ends a call without saying anything about who was called.
_OWN: Final = (CancelledError, GuardRefused, GeneratorExit, KeyboardInterrupt, SystemExit)


def is_failure(error: BaseException, dependency: str, failures: Failures) -> bool | None:
    """Whether the dependency failed.

    Args:
        error: What the call raised.
        dependency: Its name: a deadline that is called so, or whose name begins with that and a dot, is its own.
        failures: Which errors are failures, of those that say something.

    Returns:
        None when the error does not say.
    """
    if isinstance(error, DeadlineExceeded):
        name = error.deadline
        return True if name == dependency or name.startswith(f"{dependency}.") else None
    if isinstance(error, _OWN):
        return None
    return isinstance(error, failures) if isinstance(failures, type | tuple) else bool(failures(error))
