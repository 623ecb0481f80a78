"""What was published, once for everybody who gets it."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from sojourn.wire.hub.cursor import Cursor

__all__ = ["Kind", "Publication", "payload_of"]


class Kind(Enum):
    """What the bytes of a payload are."""

    JSON = "j"
    TEXT = "t"
    BINARY = "b"


class Publication:
    """One publication on its way to the members of this node. Immutable, and shared by all of them.

    Attributes:
        channel: Its channel; "" for a message to one user or connection.
        epoch: The life of the store in which ``seq`` counts.
        seq: Its number among all publications of the engine; 0 when it has none (unicast, or the engine was away).
        prev: Number of the one before it in its channel; 0 when it is the first that is known.
        kind: What ``data`` is.
        data: The payload, encoded.
        key: What it is the latest value of, in channels that keep the latest; "" for the channel as a whole.
        forms: Its encodings by wire form, each made when it is first needed.
    """

    __slots__ = ("channel", "data", "epoch", "forms", "key", "kind", "prev", "seq")

    def __init__(  # noqa: PLR0913 - a plain record, made by engines
        self, channel: str, epoch: str, seq: int, prev: int, kind: Kind, data: bytes, key: str = ""
    ) -> None:
        self.channel = channel
        self.epoch = epoch
        self.seq = seq
        self.prev = prev
        self.kind = kind
        self.data = data
        self.key = key
        self.forms: dict[Any, bytes] = {}

    @property
    def cursor(self) -> Cursor:
        """Its place; who has it resumes from here."""
        return Cursor(self.epoch, self.seq)

    def __repr__(self) -> str:
        return f"<Publication {self.channel!r} {self.seq} after {self.prev}, {len(self.data)} bytes>"


def payload_of(value: Any) -> tuple[Kind, bytes]:
    """How a value travels: text as text, bytes as bytes, anything else as JSON.

    Raises:
        ValueError: It can't be written as JSON, or is text that is not Unicode.
    """
    if isinstance(value, str):
        return Kind.TEXT, value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return Kind.BINARY, bytes(value)
    try:
        return Kind.JSON, msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the payload can't be written as JSON: {error}") from None
