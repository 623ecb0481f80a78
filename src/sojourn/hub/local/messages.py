"""What broker and workers say to each other: MessagePack behind four bytes of length. No I/O."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from sojourn.hub.engine import Present
from sojourn.hub.publication import Kind, Publication

__all__ = [
    "LONGEST",
    "VERSION",
    "Answer",
    "Bye",
    "Change",
    "Count",
    "Enter",
    "Frames",
    "Hello",
    "Join",
    "Kept",
    "Leave",
    "News",
    "Part",
    "Put",
    "Read",
    "Refresh",
    "Refusal",
    "Reply",
    "Request",
    "Tell",
    "Told",
    "Where",
    "Who",
    "Word",
    "frame",
    "from_broker",
    "from_worker",
]

#: Raised when a field changes its place or meaning; who speaks another one is sent away.
VERSION: Final = 2
#: Bytes of one message.
LONGEST: Final = 32 * 1024 * 1024

Mode = Literal["stream", "latest"]


class FrameError(ValueError):
    """These bytes are no messages."""


class Request(msgspec.Struct, array_like=True, gc=False):
    """What a worker asks.

    Attributes:
        number: Comes back with the answer; the link gives it.
    """

    number: int = 0


class Hello(Request, array_like=True, tag=0, kw_only=True):
    """First of all: who asks, and of which store. Answered with epoch and number of the last publication."""

    version: int
    node: str
    store: str = ""


class Put(Request, array_like=True, tag=1, kw_only=True):
    """Publish. Answered with epoch, number, and whether it is a repetition."""

    channel: str
    kind: Kind
    data: bytes
    size: int
    ttl: float
    mode: Mode
    key: str
    id: str


class Join(Request, array_like=True, tag=2, kw_only=True):
    """Have channels delivered. Answered as Hello."""

    channels: list[str]


class Part(Request, array_like=True, tag=3, kw_only=True):
    """Have channels delivered no more."""

    channels: list[str]


class Where(Request, array_like=True, tag=4, kw_only=True):
    """Ask for the place, or whether anybody is there. Answered as Hello."""


class Kept(msgspec.Struct, array_like=True, gc=False):
    """What is read of one channel: after which place, and its rule."""

    channel: str
    since: tuple[str, int] | None
    size: int
    ttl: float
    mode: Mode


class Read(Request, array_like=True, tag=5, kw_only=True):
    """Read history in one step. Answered with publications, epoch, number, what was lost by channel, more."""

    wanted: list[Kept]
    limit: int


class Tell(Request, array_like=True, tag=6, kw_only=True):
    """Tell all others."""

    data: bytes


class Enter(Request, array_like=True, tag=7, kw_only=True):
    """Members are present."""

    channel: str
    members: list[Present]
    ttl: float


class Leave(Request, array_like=True, tag=8, kw_only=True):
    """Members are present no more."""

    channel: str
    members: list[str]


class Refresh(Request, array_like=True, tag=9, kw_only=True):
    """Members are still there. Answered with those that are not known, by channel."""

    present: dict[str, list[str]]
    ttl: float


class Who(Request, array_like=True, tag=10, kw_only=True):
    """Ask who is present."""

    channel: str
    limit: int


class Count(Request, array_like=True, tag=11, kw_only=True):
    """Ask how many are present. Answered with members and users."""

    channel: str


class Bye(Request, array_like=True, tag=12, kw_only=True):
    """The worker ends, and its members with it."""


class Answer(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The answer to a request, as the broker writes it."""

    number: int
    value: Any


class Reply(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The same as a worker reads it: only who asked knows what it is."""

    number: int
    value: msgspec.Raw


class Refusal(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A request can't be fulfilled."""

    number: int
    text: str


class News(msgspec.Struct, array_like=True, tag=2, gc=False):
    """A publication."""

    channel: str
    epoch: str
    seq: int
    prev: int
    kind: Kind
    data: bytes
    key: str

    @classmethod
    def of(cls, made: Publication) -> News:
        """As it travels."""
        return cls(made.channel, made.epoch, made.seq, made.prev, made.kind, made.data, made.key)

    def publication(self) -> Publication:
        """As the hub has it."""
        return Publication(self.channel, self.epoch, self.seq, self.prev, self.kind, self.data, self.key)


class Word(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Another worker tells all."""

    data: bytes


class Change(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Members of other workers came, and left."""

    channel: str
    came: list[Present]
    left: list[str]


Asked = Hello | Put | Join | Part | Where | Read | Tell | Enter | Leave | Refresh | Who | Count | Bye
Told = Reply | Refusal | News | Word | Change

#: Read a message of a worker, and one of the broker. Both raise ``msgspec.MsgspecError`` for anything else.
from_worker: Final = msgspec.msgpack.Decoder(Asked).decode
from_broker: Final = msgspec.msgpack.Decoder(Told).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    """A message as it travels.

    Raises:
        ValueError: It is longer than what is taken, or holds what MessagePack can't express.
    """
    try:
        body = _encode(message)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"it can't be written as MessagePack: {error}") from None
    if len(body) > LONGEST:
        raise ValueError(f"{len(body)} bytes are more than the {LONGEST} of a message between workers")
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Takes the messages out of a stream of bytes, however it is cut.

    Args:
        longest: Bytes of a message at most.
    """

    __slots__ = ("_kept", "_longest", "_need")

    def __init__(self, longest: int = LONGEST) -> None:
        self._kept = bytearray()
        self._need = 4
        self._longest = longest

    def feed(self, data: bytes) -> list[memoryview]:
        """The messages that are whole now.

        Raises:
            FrameError: One would be longer than the bound.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._need:
                return []
            data = bytes(self._kept)
            self._kept.clear()
        view, at, end = memoryview(data), 0, len(data)
        found = []
        while True:
            self._need = 4
            if end - at < 4:
                break
            length = int.from_bytes(view[at : at + 4], "big")
            if length > self._longest:
                raise FrameError(f"a message of {length} bytes, at most {self._longest}")
            self._need = 4 + length
            if end - at < self._need:
                break
            found.append(view[at + 4 : at + self._need])
            at += self._need
        self._kept += view[at:]
        return found
