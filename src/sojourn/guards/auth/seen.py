"""Tokens whose signature was checked: to check it takes longer than all the rest of a small request."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from sojourn.guards.auth.jwks import JwksCache
from sojourn.scopes.context import SecurityContext

__all__ = ["SeenTokens"]


class SeenTokens:
    """Remembers whom good tokens stand for, by their hashes, for as long as the keys they were checked with are fresh.

    A key that an issuer takes back is noticed as soon as without it: when its keys are fetched again.

    Args:
        most: How many are remembered; 0 for none.
    """

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[bytes, tuple[SecurityContext, JwksCache, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, token: str, now: float) -> SecurityContext | None:
        """Whom it stands for; None when it has to be checked.

        Args:
            token: In compact form.
            now: Seconds since 1970.
        """
        if not self._known:
            return None
        name = _hash(token)
        found = self._known.get(name)
        if found is None:
            return None
        context, keys, generation = found
        if context.expired(now) or keys.generation != generation or not keys.fresh:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        return context

    def add(self, token: str, context: SecurityContext, keys: JwksCache, generation: int) -> None:
        """Remember a token that was checked with keys of this generation."""
        if self._most and generation == keys.generation:
            self._known[_hash(token)] = (context, keys, generation)
            if len(self._known) > self._most:
                self._known.popitem(last=False)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
