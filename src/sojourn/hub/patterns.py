"""Names of channels, and patterns for them."""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from sojourn.errors import ConfigError

__all__ = ["LONGEST", "Pattern", "Patterns", "valid"]

T = TypeVar("T")

#: Characters of a channel's name.
LONGEST: Final = 255
_NAME: Final = re.compile(r"[!-~]{1,255}")  # visible ASCII, no space: it stands in URLs, keys and headers
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def valid(channel: str) -> bool:
    """Whether it can be the name of a channel: 1 to 255 visible ASCII characters."""
    return _NAME.fullmatch(channel) is not None


class Pattern:
    """Names of channels with parameters, such as ``chat:{room}``.

    Args:
        text: The pattern; ``{name}`` stands for one or more characters other than ``:``.

    Raises:
        ConfigError: It can match nothing, or names a parameter twice.

    Example:
        >>> Pattern("chat:{room}").match("chat:1")
        {'room': '1'}
        >>> Pattern("chat:{room}").match("price:EURUSD") is None
        True
    """

    __slots__ = ("_regex", "names", "text")

    def __init__(self, text: str) -> None:
        parts = _PARAMETER.split(text)
        self.names = parts[1::2]
        fixed = "".join(parts[::2])
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"channel pattern {text!r} names a parameter twice")
        if not text or "{" in fixed or "}" in fixed or (fixed and not valid(fixed)):
            raise ConfigError(f"no channel pattern: {text!r}; one looks like 'chat:{{room}}'")
        self.text = text
        self._regex = re.compile(
            "".join(f"(?P<{part}>[^:]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
        )

    def match(self, channel: str) -> dict[str, str] | None:
        """The parameters of a channel; None when it does not match."""
        found = self._regex.fullmatch(channel)
        return None if found is None else found.groupdict()


class Patterns(Generic[T]):
    """Values by pattern; the first that matches counts. What was found is remembered, for a bounded number of names.

    Args:
        remembered: Names at most.
    """

    def __init__(self, remembered: int = 4096) -> None:
        self._all: list[tuple[Pattern, T]] = []
        self._found: dict[str, tuple[T, dict[str, str]] | None] = {}
        self._remembered = remembered

    def add(self, text: str, value: T) -> None:
        """Add a pattern behind those that are there.

        Raises:
            ConfigError: It is no pattern, or is there already.
        """
        pattern = Pattern(text)
        if any(other.text == text for other, _ in self._all):
            raise ConfigError(f"channel pattern {text!r} is there twice")
        self._all.append((pattern, value))
        self._found.clear()

    def find(self, channel: str) -> tuple[T, dict[str, str]] | None:
        """The value of the first pattern that matches, and the parameters; None when none does."""
        try:
            return self._found[channel]
        except KeyError:
            pass
        found = next(
            ((value, got) for pattern, value in self._all if (got := pattern.match(channel)) is not None), None
        )
        if len(self._found) >= self._remembered:
            self._found.clear()
        self._found[channel] = found
        return found
