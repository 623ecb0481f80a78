"""The id that a client holds, and the key under which the store knows it: never the id itself."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

__all__ = ["key_of", "looks_right", "new_id"]

#: 256 bits: nobody guesses one, however many there are.
_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_id() -> str:
    """An id that nobody knows."""
    return secrets.token_urlsafe(_BYTES)


def looks_right(text: str) -> bool:
    """Whether this could be an id of ours; anything else is not worth a question to the store."""
    return _ID.fullmatch(text) is not None


def key_of(session_id: str) -> str:
    """Under what the store knows a session: who reads the store, or a copy of it, can't take a session over.

    An id has 256 random bits, so a plain hash can't be turned back; a slow one would help against nothing.
    """
    return hashlib.sha256(session_id.encode()).hexdigest()
