"""Several proofs at once, such as a token and the certificate of the service that brings it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from sojourn.errors import AuthenticationError
from sojourn.scopes.context import SecurityContext
from sojourn.typing import Scope

__all__ = ["Every", "Method"]

#: A way to prove who asks. None: nothing of this kind was shown; an AuthenticationError: it was, and does not count.
Method: TypeAlias = Callable[[Scope], Awaitable[SecurityContext | None]]


class Every:
    """Asks for all of several proofs: the first says who it is, and the one that is over first says until when.

    Args:
        first: Says who it is; where it finds nothing, the next way of ``Authenticate(by=...)`` is tried.
        others: Must be there as well.

    Example:
        >>> async def token(scope): ...
        >>> async def certificate(scope): ...
        >>> way = Every(token, certificate)
    """

    def __init__(self, first: Method, *others: Method) -> None:
        self._first = first
        self._others = others
        self.challenge: str = getattr(first, "challenge", "")
        self.rules = getattr(first, "rules", None)
        if hasattr(first, "verify"):
            self.verify = first.verify

    async def __call__(self, scope: Scope) -> SecurityContext | None:
        """Who asks; None when the first proof is not there.

        Raises:
            AuthenticationError: One does not count, or only the first was shown.

        Cancel: safe, if they are.
        """
        context = await self._first(scope)
        if context is None:
            return None
        ends = [context.expires_at, await self.until(scope)]
        return replace(context, expires_at=min((end for end in ends if end is not None), default=None))

    async def until(self, scope: Scope) -> float | None:
        """When the others are over, in seconds since 1970: nothing that renews the first one lasts longer.

        Raises:
            AuthenticationError: As above.
        """
        ends = []
        for method in self._others:
            context = await method(scope)
            if context is None:
                raise AuthenticationError("no_credentials", "one of several proofs that are asked for was not shown")
            ends.append(context.expires_at)
        return min((end for end in ends if end is not None), default=None)
