"""What a client of a hub says: commands of ``sojourn.v1``, one a line."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from sojourn.wire.hub.lines import HubWireError, decoded

__all__ = [
    "Auth",
    "Body",
    "Command",
    "Count",
    "Hist",
    "Join",
    "Leave",
    "Pub",
    "Refresh",
    "Who",
    "decode_command",
    "encode_command",
]


class Auth(Struct, frozen=True):
    """Who it is; ``token`` is the credential."""

    token: str


class Join(Struct, frozen=True, omit_defaults=True):
    """Join a channel. ``since``: resume from this cursor; ``info``: what others are shown of it by presence."""

    ch: str
    since: str | None = None
    info: Any = None


class Leave(Struct, frozen=True):
    """Leave a channel."""

    ch: str


class Pub(Struct, frozen=True, omit_defaults=True):
    """Publish: ``d`` is JSON, ``b`` bytes, and one of them is there. ``uid`` makes a repetition harmless."""

    ch: str
    d: Raw | UnsetType = UNSET
    b: bytes | UnsetType = UNSET
    key: str = ""
    uid: str = ""


class Who(Struct, frozen=True):
    """Who is in a channel."""

    ch: str


class Count(Struct, frozen=True):
    """How many are in a channel."""

    ch: str


class Hist(Struct, frozen=True, omit_defaults=True):
    """What is kept of a channel after ``since``; ``limit``: publications at most, None for as many as are given."""

    ch: str
    since: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Refresh(Struct, frozen=True):
    """A new credential for the same user."""

    token: str


#: What a command holds: JSON as it came for ``msg``, None for a pong.
Body = Auth | Join | Leave | Pub | Who | Count | Hist | Refresh | Raw | None


class Command(NamedTuple):
    """One command.

    Attributes:
        id: Its number, for the answer; 0 when none is asked for.
        name: Such as ``join``; ``pong`` for ``{}``.
        body: What it says; its type goes with the name.
    """

    id: int
    name: str
    body: Body


class _Line(Struct, omit_defaults=True):
    """Every command has its field, so that one pass over the line reads any of them."""

    id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] = 0  # what every client can count up to
    auth: Auth | UnsetType = UNSET
    join: Join | UnsetType = UNSET
    leave: Leave | UnsetType = UNSET
    pub: Pub | UnsetType = UNSET
    who: Who | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    hist: Hist | UnsetType = UNSET
    refresh: Refresh | UnsetType = UNSET
    msg: Raw | UnsetType = UNSET


_LINE: Final = Decoder(_Line)
_ANY: Final[Decoder[dict[str, Raw]]] = Decoder(dict[str, Raw])
_NUMBER: Final[Decoder[int]] = Decoder(Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)])
_PONG: Final = Command(0, "pong", None)


def decode_command(line: str) -> Command:
    """Read what a client says.

    Args:
        line: One line, as :func:`~sojourn.wire.hub.lines.lines` gives it.

    Raises:
        HubWireError: It is no command; says what is wrong, and has the number of the command if that can be read.
    """
    if line == "{}":
        return _PONG
    try:
        read = decoded(_LINE, line)
    except HubWireError as error:
        raise HubWireError(error.code, error.message, _id_of(line)) from None
    found = [(name, body) for name in _NAMES if (body := getattr(read, name)) is not UNSET]
    if len(found) != 1:
        return _pong_or_error(line, read.id, [name for name, _ in found])
    name, body = found[0]
    payload = body
    if type(body) is Pub:
        if (body.d is UNSET) is (body.b is UNSET):
            raise HubWireError("bad_request", "pub has d, or b in place of it, and not both", read.id)
        payload = body.d
    if type(payload) is Raw and not _readable(payload):
        raise HubWireError("bad_request", f"{name} has a number that is out of range", read.id)
    return Command(read.id, name, body)


def encode_command(command: Command) -> bytes:
    """The line of a command, without its end."""
    if command.name == "pong":
        return b"{}"
    body = msgspec.json.encode(command.body)
    if command.id:
        return b'{"id":%d,"%b":%b}' % (command.id, command.name.encode(), body)
    return b'{"%b":%b}' % (command.name.encode(), body)


_NAMES: Final = _Line.__struct_fields__[1:]


def _pong_or_error(line: str, number: int, found: list[str]) -> Command:
    if found:
        raise HubWireError("bad_request", f"one command a line, not {' and '.join(found)}", number)
    names: list[str] = [*decoded(_ANY, line)]
    if not names:
        return _PONG  # with spaces in it
    unknown = next((name for name in names if name != "id"), None)
    if unknown is None:
        raise HubWireError("bad_request", "no command", number)
    raise HubWireError("bad_request", f"no such command: {unknown[:32]!r}", number)


def _readable(payload: Raw) -> bool:
    """Whether every client can read it. Its grammar was checked, and has room for numbers that nobody has."""
    try:
        msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return False
    return True


def _id_of(line: str) -> int:
    """The number of a command that can't be read otherwise; 0 when it can't be read either."""
    try:
        return _NUMBER.decode(_ANY.decode(line)["id"])
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return 0
