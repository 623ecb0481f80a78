"""What a hub says to a client: answers and pushes of ``sojourn.v1``, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder, encode

from sojourn.wire.hub.lines import HubWireError, decoded

__all__ = [
    "CODES",
    "Bye",
    "Counted",
    "Done",
    "Expiring",
    "Gap",
    "Hello",
    "Joined",
    "Member",
    "Members",
    "Message",
    "Ok",
    "Page",
    "Ping",
    "Polled",
    "Pres",
    "Publication",
    "Published",
    "Push",
    "Refused",
    "Reply",
    "Result",
    "Snap",
    "decode_object",
    "decode_result",
    "encode_object",
    "encode_polled",
]

#: Why a command is refused.
CODES: Final = frozenset({"bad_request", "forbidden", "limit", "rate", "unauthenticated", "unavailable"})


class Hello(Struct, frozen=True):
    """The first object: what the client has to know of the connection. Seconds, except ``retry``: milliseconds."""

    conn: str
    pos: str
    ping: float
    pong: float
    retry: tuple[int, int]
    max: int
    user: str = ""


class Publication(Struct, frozen=True, omit_defaults=True):
    """A publication. ``p``: its number; 0 when it has none, which is not written: it can't be told from a repetition.

    ``d`` is its JSON, or ``b`` its bytes; ``k`` its key.
    """

    ch: str
    p: int = 0
    k: str = ""
    d: Raw | UnsetType = UNSET
    b: bytes | UnsetType = UNSET


class Message(Struct, frozen=True, omit_defaults=True):
    """A message to this user or connection: JSON, or bytes."""

    msg: Raw | UnsetType = UNSET
    bin: bytes | UnsetType = UNSET


class Gap(Struct, frozen=True):
    """Publications of a channel are missing; it goes on behind ``pos``."""

    ch: str
    pos: str


class Snap(Struct, frozen=True, omit_defaults=True):
    """The state of a channel after a gap: JSON, or bytes."""

    ch: str
    pos: str
    d: Raw | UnsetType = UNSET
    b: bytes | UnsetType = UNSET


class Member(Struct, frozen=True):
    """One member of a channel, as others are shown it."""

    member: str
    user: str = ""
    state: str = "normal"
    info: Any = None


class Pres(Struct, frozen=True):
    """Who came to a channel, or changed, and who left (their ids)."""

    ch: str
    came: Sequence[Member] = ()
    left: Sequence[str] = ()


class Expiring(Struct, frozen=True, rename={"within": "in"}):
    """The credential ends in so many seconds."""

    within: float


class Bye(Struct, frozen=True):
    """The connection is about to be closed. ``retry``: milliseconds between which to come back; None: never."""

    code: int
    reason: str
    retry: tuple[int, int] | None


class Ping(Struct, frozen=True):
    """A sign of life, to be answered."""


class Joined(Struct, frozen=True, omit_defaults=True):
    """Done: ``join``. ``recovered``: whether nothing is missing; not there when nothing was to be resumed."""

    pos: str
    recovered: bool | UnsetType = UNSET


class Published(Struct, frozen=True):
    """Done: ``pub``."""

    pos: str
    repeated: bool = False


class Members(Struct, frozen=True):
    """Done: ``who``. ``more``: there are others."""

    members: Sequence[Member]
    more: bool = False


class Counted(Struct, frozen=True):
    """Done: ``count``."""

    members: int
    users: int


class Page(Struct, frozen=True):
    """Done: ``hist``."""

    pubs: Sequence[Publication]
    pos: str
    gap: bool = False
    more: bool = False


class Done(Struct, frozen=True):
    """Done, and there is nothing to say about it: ``leave``, ``refresh``, ``msg``."""


class Polled(Struct, frozen=True):
    """The answer to a long poll: not a line, but made of the same."""

    pos: str
    pubs: Sequence[Publication] = ()
    gap: Sequence[str] = ()
    retry: tuple[int, int] = (0, 0)


Result = Joined | Published | Members | Counted | Page | Done


class Ok(Struct, frozen=True):
    """A command was carried out. ``ok`` is the result; to a client it is JSON, for :func:`decode_result`."""

    id: int
    ok: Result | Raw


class Refused(Struct, frozen=True):
    """A command was refused; ``code`` is one of :data:`CODES`. ``retry``: whether the same may work later."""

    id: int
    code: str
    message: str
    retry: bool = False


Reply = Ok | Refused
Push = Hello | Publication | Message | Gap | Snap | Pres | Expiring | Bye | Ping


class _Error(Struct, frozen=True):
    code: str
    message: str = ""
    retry: bool = False


class _Line(Struct):
    id: int = 0
    ch: str | UnsetType = UNSET
    p: int = 0
    k: str = ""
    d: Raw | UnsetType = UNSET
    b: bytes | UnsetType = UNSET
    msg: Raw | UnsetType = UNSET
    bin: bytes | UnsetType = UNSET
    ok: Raw | UnsetType = UNSET
    error: _Error | UnsetType = UNSET
    hello: Hello | UnsetType = UNSET
    gap: Gap | UnsetType = UNSET
    snap: Snap | UnsetType = UNSET
    pres: Pres | UnsetType = UNSET
    expiring: Expiring | UnsetType = UNSET
    bye: Bye | UnsetType = UNSET


#: Pushes that stand under a name of their own. A publication and a message are their own lines.
_NAMES: Final[dict[type, bytes]] = {
    Hello: b"hello",
    Gap: b"gap",
    Snap: b"snap",
    Pres: b"pres",
    Expiring: b"expiring",
    Bye: b"bye",
}
_UNDER: Final = tuple(name.decode() for name in _NAMES.values())
_LINE: Final = Decoder(_Line)
_PING: Final = Ping()

R = TypeVar("R", bound=Struct)


def encode_object(said: Reply | Push) -> bytes:
    """The line of an answer or a push, without its end.

    Payloads (``Raw``) go in as they are; they must be JSON without line ends.
    """
    name = _NAMES.get(type(said))
    if name is not None:
        return b'{"%b":%b}' % (name, encode(said))
    if type(said) is Refused:
        error = encode(_Error(said.code, said.message, said.retry))
        return b'{"id":%d,"error":%b}' % (said.id, error) if said.id else b'{"error":%b}' % error
    return encode(said)


def decode_object(line: str) -> Reply | Push | None:
    """Read what a hub says.

    Args:
        line: One line, as :func:`~sojourn.wire.hub.lines.lines` gives it.

    Returns:
        None for a push that is not known here, from a later version: ignore it.

    Raises:
        HubWireError: It is none of ``sojourn.v1``.
    """
    if line == "{}":
        return _PING
    read = decoded(_LINE, line)
    if type(read.ch) is str:
        if (read.d is UNSET) is (read.b is UNSET):
            raise HubWireError("bad_request", "a publication has d, or b in place of it")
        return Publication(read.ch, read.p, read.k, read.d, read.b)
    if type(read.ok) is Raw:
        return Ok(read.id, read.ok)
    if type(read.error) is _Error:
        return Refused(read.id, read.error.code, read.error.message, read.error.retry)
    if read.msg is not UNSET or read.bin is not UNSET:
        return Message(read.msg, read.bin)
    for name in _UNDER:
        said: Push | UnsetType = getattr(read, name)
        if type(said) is not UnsetType:
            return said
    return None if line.strip("{} \t\r\n") else _PING


def decode_result(raw: Raw, kind: type[R]) -> R:
    """Read the result of a command.

    Args:
        raw: ``Ok.ok``.
        kind: What it must be: :class:`Joined` for ``join``, and so on.

    Raises:
        HubWireError: It is something else.
    """
    return decoded(Decoder(kind), bytes(raw).decode())


def encode_polled(polled: Polled) -> bytes:
    """The body of the answer to a long poll."""
    return msgspec.json.encode(polled)
