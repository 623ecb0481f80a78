"""A session as the application sees it: a dictionary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from sojourn.sessions.content import decoded, encoded, merged, user_of
from sojourn.sessions.stored import Stored

__all__ = ["Session"]

_MISSING: Final = object()
_NO_COOKIE: Final = (
    "the session begins too late: its cookie can only be set before the answer begins or the WebSocket is accepted"
)
_NO_NEW_ID: Final = (
    "the user of a session changes its id, which can only be told to the client before the answer begins or the "
    "WebSocket is accepted: log in over HTTP"
)


class Session(dict[str, Any]):
    """What a session holds: anything that JSON can express. ``request.session`` of Starlette and FastAPI.

    It is loaded before the application begins, and saved when the answer begins, at the end, and while a WebSocket or
    a stream goes on. Changes inside of values are found, too.

    Args:
        user_key: Under which key the application keeps who has logged in.
        stored: As its store knows it; None: it is new.

    Attributes:
        accessed: Whether a framework has asked for it.
        modified: Whether a key was set or removed since it was saved.
        stored: As its store knows it; None as long as it does not.
        late: Whether nothing more can be told to the client about it.
    """

    __slots__ = (
        "_base",
        "_base_data",
        "_refusal",
        "_rotate",
        "_user_key",
        "accessed",
        "late",
        "modified",
        "reload",
        "stored",
    )

    #: Saves what has changed, and takes over what others have changed. Set by who keeps it.
    reload: Callable[[], Awaitable[None]]

    def __init__(self, user_key: str = "user", stored: Stored | None = None) -> None:
        super().__init__()
        self._user_key = user_key
        self._base: dict[str, Any]
        self._base_data: bytes
        self._rotate: bool
        self._refusal: Callable[[], Exception] | None = None
        self.accessed = self.modified = self.late = False
        self.stored: Stored | None
        self.renew(stored, {} if stored is None else decoded(stored.data))

    @property
    def key(self) -> str:
        """Its name for :meth:`Sessions.revoke`, which opens nothing to who knows it; "" as long as it is not stored."""
        return "" if self.stored is None else self.stored.key

    @property
    def user(self) -> str:
        """Who has logged in; "" when nobody has."""
        return user_of(self.get(self._user_key))

    @property
    def read_only(self) -> bool:
        """Whether it was found by an old id, because it has a new one now: what is changed here is lost."""
        return self.stored is not None and self.stored.read_only

    def login(self, user: str) -> None:
        """Somebody has proved who it is: the session belongs to it, and gets a new id.

        Args:
            user: Who.

        Raises:
            ValueError: It has no name.
            RuntimeError: The client can't be told any more.
        """
        if not user:
            raise ValueError("a session belongs to somebody with a name")
        self.rotate()
        self[self._user_key] = user

    def logout(self) -> None:
        """It is over: deleted, its cookie too, and what else is open with it is closed."""
        self.clear()

    def rotate(self) -> None:
        """Give it a new id, because who has it may do more from now on. The old one is read for 30 s more.

        Raises:
            RuntimeError: The client can't be told any more.
        """
        if self.late:
            raise RuntimeError(_NO_NEW_ID)
        self._rotate = True
        self.modified = True

    # For who keeps it

    @property
    def rotates(self) -> bool:
        """Whether it is to get a new id."""
        return self._rotate or self.get(self._user_key) != self._base.get(self._user_key)

    def changed(self) -> bytes | None:
        """Its bytes if they are others than those that are stored, also by what was done to a value inside.

        Raises:
            TypeError: JSON can't express it.
        """
        if not self and not self._base:
            return None
        data = encoded(self)
        return data if self._rotate or data != self._base_data else None

    def merge(self, stored: Stored) -> bytes:
        """Take over what another has stored meanwhile. Returns the bytes of both."""
        mine = merged(self._base, self, decoded(stored.data))
        self.renew(stored, mine)
        return encoded(mine)

    def renew(self, stored: Stored | None, content: Mapping[str, Any]) -> None:
        """What is stored is this, and what it holds is that."""
        super().clear()
        super().update(content)
        self.settled(stored)

    def settled(self, stored: Stored | None) -> None:
        """It is stored like this; what was changed meanwhile counts as changed."""
        self.stored = stored
        self._base = {} if stored is None else decoded(stored.data)
        self._base_data = encoded(self._base)
        self._rotate = False

    def drop(self) -> None:
        """What was changed can't be kept, and is not tried again."""
        self._base_data = encoded(self)
        self._base = decoded(self._base_data)
        self._rotate = False

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Let nothing be changed in it."""
        self._refusal = error

    # The dictionary

    def mark_accessed(self) -> None:
        """Called by frameworks."""
        self.accessed = True

    def mark_modified(self) -> None:
        """What it holds has changed, or is about to.

        Raises:
            RuntimeError: It could not be kept.
            SessionStoreUnavailable: Neither could it because its store is away.
        """
        if self._refusal is not None:
            raise self._refusal()
        if self.late and self.stored is None:
            raise RuntimeError(_NO_COOKIE)
        self.accessed = self.modified = True

    def _touches(self, key: object, value: object) -> None:
        self.mark_modified()
        if self.late and key == self._user_key and value != self.get(key, _MISSING):
            raise RuntimeError(_NO_NEW_ID)

    def __setitem__(self, key: str, value: Any) -> None:
        self._touches(key, value)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._touches(key, _MISSING)
        super().__delitem__(key)

    def clear(self) -> None:
        """Remove everything: it is over, as by :meth:`logout`."""
        if self or self.stored is not None:
            self.mark_modified()
        super().clear()

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self._touches(key, _MISSING)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._touches(next(reversed(self), None), _MISSING)
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self._touches(key, default)
        return super().setdefault(key, default)

    def update(self, *args: Any, **values: Any) -> None:
        for key, value in dict(*args, **values).items():
            self[key] = value

    def __ior__(self, other: Any) -> Session:  # type: ignore[override,misc]
        self.update(other)
        return self
