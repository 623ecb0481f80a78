"""Where sessions are kept: in this process, in a file of this host, or in Redis.

The contract. ``sojourn.testing.session_store`` tests any store for it:

1. A key that is not there is not there: nothing is made by asking for it, changing it or touching it.
2. A session is over after its idle time without use, and after its absolute time whatever is done. Both are measured by
   the store's clock, never by that of who asks.
3. A change is made only to the version it was made from: of two at the same time one is told of the other.
4. A session that is rotated has a new key at once. The old one can be read for ``GRACE`` seconds as it was, and not be
   changed; when it gave up its user, it is over at once.
5. What is revoked is over when ``revoke`` returns. All who watch are told within a second, or that they have missed
   something.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from sojourn.sessions.stored import Draft, Revocation, Saved, Stored

__all__ = ["SessionStore", "Watcher"]


class Watcher(Protocol):
    """Wants to know what is revoked. Called in the event loop; raises nothing."""

    def revoked(self, revocation: Revocation) -> None:
        """This does not count any more."""

    def missed(self) -> None:
        """From now on it is told of all; of what was before it may not have been."""

    def away(self) -> None:
        """From now on it is told of nothing, until ``missed`` is called."""


class SessionStore(Protocol):
    """Keeps sessions by their keys. Methods raise ``SessionStoreUnavailable`` while it can't be reached.

    Cancel: safe everywhere; what was asked may have been done.
    """

    async def load(self, key: str) -> Stored | None:
        """A session, which counts as its use; None when there is none, or no more."""

    async def create(self, key: str, draft: Draft) -> Stored:
        """Keep a new session under a key that nobody has used."""

    async def save(self, key: str, version: int, data: bytes) -> Saved:
        """Change what a session holds, if it still has this version."""

    async def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        """Give a session another key, if it still has this version, and the content and user of the draft.

        With another user it begins anew; else it ends when it would have.
        """

    async def touch(self, keys: Collection[str]) -> set[str]:
        """Use many sessions at once. Returns those that are there."""

    async def revoke(self, revocation: Revocation) -> None:
        """End sessions, and tell all who watch, on every node."""

    async def of(self, user: str) -> Sequence[Stored]:
        """The sessions of a user, oldest first, without those that have only an old id."""

    async def watch(self, watcher: Watcher) -> None:
        """Tell somebody of revocations until it is cancelled. Goes on by itself when the store was away."""

    async def aclose(self) -> None:
        """Give back what it holds. Used again, it opens again."""
