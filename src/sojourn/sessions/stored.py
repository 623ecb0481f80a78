"""What goes to a store and comes back from it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["GRACE", "Draft", "Revocation", "Saved", "Stored"]

#: Seconds for which the old id of a session that got a new one is still read, for requests that are on their way.
GRACE = 30.0


class Stored(NamedTuple):
    """A session as its store knows it.

    Attributes:
        key: Its name: the hash of its id.
        user: Whose; "" when nobody has logged in.
        data: Its content: a JSON object.
        version: Grows with each change.
        created: When it began, or its user logged in: seconds since 1970 by the store's clock.
        left: Seconds until it is over whatever is done with it, by the store's clock.
        read_only: Whether this is an old id, whose time is nearly over.
    """

    key: str
    user: str
    data: bytes
    version: int
    created: float
    left: float
    read_only: bool = False


class Draft(NamedTuple):
    """A session that is to be.

    Attributes:
        user: Whose; "" for nobody.
        data: Its content: a JSON object.
        idle: Seconds without use after which it is over.
        absolute: Seconds after which it is over in any case.
    """

    user: str
    data: bytes
    idle: float
    absolute: float


class Saved(NamedTuple):
    """What became of a change.

    Attributes:
        done: Whether it was made.
        stored: How the session is now: with the change, or as somebody else has changed it. None: there is none.
    """

    done: bool
    stored: Stored | None


class Revocation(NamedTuple):
    """What does not count any more.

    Attributes:
        what: ``session``: the one with this key. ``user``: all of this user, but not the one whose key is ``keep``.
            ``all``: every one. ``rotated``: this key was replaced by another, and is over after ``GRACE`` seconds.
        name: The key or the user; "" for all.
        keep: Key of the session that stays.
    """

    what: Literal["session", "user", "all", "rotated"]
    name: str = ""
    keep: str = ""
