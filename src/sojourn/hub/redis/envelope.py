"""How publications and changes of presence travel through Redis. Pure.

A publication is ``p``, its epoch, number and the number before it, then what its publisher has written: kind, length of
the key, key, payload. The script that publishes puts the numbers before bytes that it never looks into, and keeps the
same bytes in the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from sojourn.hub.engine import Present, Publish
from sojourn.hub.publication import Kind, Publication

__all__ = ["CHANGE", "EXPIRED", "NODE", "PUBLICATION", "change", "change_of", "expired_of", "page_of", "present_of"]
__all__ += ["publication_of", "tail", "who"]

#: First bytes of messages: a publication, members of a node that came or left, members whose time was over.
PUBLICATION: Final = b"p"
CHANGE: Final = b"c"
EXPIRED: Final = b"x"
#: Characters of a node's id.
NODE: Final = 16

_KINDS: Final = {ord(kind.value): kind for kind in Kind}
_PRESENT: Final = msgspec.msgpack.Decoder(Present)
_CHANGE: Final = msgspec.msgpack.Decoder(tuple[list[Present], list[str]])
_MEMBERS: Final = msgspec.msgpack.Decoder(list[str])


def tail(publish: Publish) -> bytes:
    """The part of a publication that its publisher writes.

    Example:
        >>> from sojourn.hub.rules import History
        >>> tail(Publish("price:EURUSD", Kind.JSON, b'{"p":1.08}', History(), key="EURUSD"))
        b'j6:EURUSD{"p":1.08}'
    """
    key = publish.key.encode()
    return b"%b%d:%b%b" % (publish.kind.value.encode(), len(key), key, publish.data)


def publication_of(channel: str, message: bytes) -> Publication:
    """A publication, from its message.

    Raises:
        ValueError: It is none.
    """
    epoch, seq, prev, rest = message[1:].split(b" ", 3)
    return _publication(channel, epoch.decode(), int(seq), int(prev), rest)


def page_of(channel: str, epoch: str, entries: Sequence[bytes]) -> Iterator[Publication]:
    """Publications from what the script of the history gives: number, number before it and tail, of each."""
    for at in range(0, len(entries), 3):
        yield _publication(channel, epoch, int(entries[at]), int(entries[at + 1]), entries[at + 2])


def _publication(channel: str, epoch: str, seq: int, prev: int, rest: bytes) -> Publication:
    try:
        colon = rest.index(b":", 1)
        kind, start = _KINDS[rest[0]], colon + 1
        end = start + int(rest[1:colon])
    except (KeyError, IndexError):
        raise ValueError(f"no publication of a hub: {rest[:20]!r}") from None
    return Publication(channel, epoch, seq, prev, kind, rest[end:], rest[start:end].decode())


# -- Presence


def who(present: Present) -> bytes:
    """A member as it is kept: its user (length, colon, bytes: the script counts users), then the whole."""
    user = present.user.encode()
    return b"%d:%b%b" % (len(user), user, msgspec.msgpack.encode(present))


def present_of(kept: bytes) -> Present:
    """A member, from how it is kept.

    Raises:
        ValueError: It is none.
    """
    colon = kept.index(b":")
    return _PRESENT.decode(kept[colon + 1 + int(kept[:colon]) :])


def change(node: str, came: Sequence[Present], left: Sequence[str]) -> bytes:
    """The message that members of a node came or left."""
    return CHANGE + node.encode() + msgspec.msgpack.encode((came, left))


def change_of(message: bytes) -> tuple[str, list[Present], list[str]]:
    """The node, who came and who left, from a message.

    Raises:
        ValueError: It is none.
    """
    came, left = _CHANGE.decode(message[1 + NODE :])
    return message[1 : 1 + NODE].decode(), came, left


def expired_of(message: bytes) -> list[str]:
    """Whose time was over, from a message.

    Raises:
        ValueError: It is none.
    """
    return _MEMBERS.decode(message[1:])
