"""A server: it starts and stops, its settings change, its application's lifespan goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ConfigChanged", "LifespanFailed", "RegistrationFailed", "ServerStarted", "ServerStopped"]


class ServerStarted(NamedTuple):
    """The server listens and the application is up."""

    addresses: tuple[str, ...]


class ServerStopped(NamedTuple):
    """The server has ended; since it began to stop ``finished`` connections ended by themselves, ``cut`` were cut."""

    finished: int
    cut: int


class LifespanFailed(NamedTuple):
    """The application's lifespan went wrong, and the server goes on.

    Attributes:
        phase: ``startup``, ``serving`` or ``shutdown``.
        problem: What it did, as in "the application <problem>".
        error: What it raised; None when it raised nothing.
    """

    phase: str
    problem: str
    error: BaseException | None


class ConfigChanged(NamedTuple):
    """Settings were changed while serving.

    Attributes:
        version: The how-manieth configuration this is; the first is 1.
        who: Who asked.
        changes: Per key: the value before and the value now, as they are written in a configuration file.
    """

    version: int
    who: str
    changes: Mapping[str, tuple[Any, Any]]


class RegistrationFailed(NamedTuple):
    """A service registry could not be told; serving goes on."""

    call: str
    problem: str
