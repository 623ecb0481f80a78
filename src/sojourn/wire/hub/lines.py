"""Lines of JSON in a frame, and what is wrong with one."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from sojourn.errors import SojournError

__all__ = ["DEEPEST", "HubWireError", "decoded", "lines"]

T = TypeVar("T")

#: How deep arrays and objects of one line may be nested. Deeper ones cost other clients their stack.
DEEPEST: Final = 64

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class HubWireError(SojournError):
    """A line that is not ``sojourn.v1``.

    Args:
        code: The error's code on the wire, ``bad_request``.
        message: What is wrong, for the one who sent it.
        id: Number of the command, to answer it; 0 when it has none, or none that can be read.
    """

    def __init__(self, code: str, message: str, id: int = 0) -> None:  # noqa: A002 - its name on the wire
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


def lines(frame: str | bytes) -> list[str]:
    """The lines of one frame, or of a request's body, without empty ones.

    Args:
        frame: What arrived; bytes must be UTF-8.

    Raises:
        HubWireError: Bytes are not UTF-8.
    """
    if not isinstance(frame, str):
        try:
            # JSON that is passed on unread is not looked at again, so this is where its bytes are checked.
            frame = frame.decode()
        except UnicodeDecodeError as error:
            raise HubWireError("bad_request", f"byte {error.start} is not UTF-8") from None
    if "\n" not in frame:
        return [frame] if frame else []
    return [line for line in frame.split("\n") if line and not line.isspace()]


def decoded(decoder: msgspec.json.Decoder[T], line: str) -> T:
    """One line as a decoder reads it, no deeper than :data:`DEEPEST`.

    Raises:
        HubWireError: It can't be read. Its ``id`` is 0.
    """
    try:
        found = decoder.decode(line)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HubWireError("bad_request", str(error)) from None
    if line.count("[") + line.count("{") > DEEPEST and _is_deep(line.encode()):
        raise _too_deep()
    return found


def _too_deep() -> HubWireError:
    return HubWireError("bad_request", f"nested more than {DEEPEST} deep")


def _is_deep(line: bytes) -> bool:
    """Whether well-formed JSON is nested too deep: each pass over its brackets takes the innermost level off."""
    brackets = _STRING.sub(b"", line).translate(None, _BUT_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)
