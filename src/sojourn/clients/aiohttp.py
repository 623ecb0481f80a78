"""aiohttp: a session whose requests take no longer than they may, with their bodies.

aiohttp has a total of its own, of five minutes, which it rounds up to whole seconds from five seconds on; it is made
shorter here for each request, and exact.
"""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar

import aiohttp
from aiohttp.helpers import BaseTimerContext
from multidict import CIMultiDict

from sojourn.clients.clamp import Total
from sojourn.clock import NEVER
from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import Limit, exceeded, passed

__all__ = ["bounded"]

Session = TypeVar("Session", bound=aiohttp.ClientSession)

HEADER: Final = "Request-Timeout-Ms"


class _Timer(BaseTimerContext):
    """The timer of an answer's body, which says which deadline it was."""

    __slots__ = ("_limit", "_timer")

    def __init__(self, timer: BaseTimerContext, limit: Limit) -> None:
        self._timer = timer
        self._limit = limit

    def assert_timeout(self) -> None:
        try:
            self._timer.assert_timeout()
        except TimeoutError as error:
            self._translate(error)

    def __enter__(self) -> BaseTimerContext:
        try:
            self._timer.__enter__()
        except TimeoutError as error:
            self._translate(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return self._timer.__exit__(kind, error, trace)
        except TimeoutError as late:
            self._translate(late)

    def _translate(self, error: TimeoutError) -> NoReturn:
        raise (exceeded(self._limit) if passed(self._limit) else error) from error.__cause__


def bounded(session: Session, dependency: str = "aiohttp") -> Session:
    """Bound the requests of a session by the ambient deadline and the budget of a dependency.

    The total counts until the body is read; the caller's own code between two parts of it is not interrupted. The
    server gets what remains in the header ``Request-Timeout-Ms``. The session's own timeouts stay in force. Of a
    WebSocket only the handshake is bounded.

    Args:
        session: An ``aiohttp.ClientSession``, which is changed.
        dependency: Name in ``deadlines.budgets`` of the configuration, and in errors.

    Returns:
        The session. Its requests raise DeadlineExceeded when no time is left, and nothing is sent then; or when the
        answer was not here in time.

    Raises:
        TypeError: It is no session.

    Example:
        >>> import asyncio, aiohttp, sojourn
        >>> async def balance(session, user):
        ...     async with sojourn.deadline(0.3, "balance"):
        ...         async with session.get(f"http://billing.internal/{user}") as answer:
        ...             return await answer.json()
        >>> async def main():
        ...     async with aiohttp.ClientSession() as session:
        ...         bounded(session, dependency="billing")
        >>> asyncio.run(main())
    """
    if not isinstance(session, aiohttp.ClientSession):
        raise TypeError(f"{type(session).__qualname__} is no aiohttp.ClientSession")
    plain = session._request

    @functools.wraps(plain)
    async def request(method: str, url: Any, **options: Any) -> aiohttp.ClientResponse:
        """Cancel: as the session's own, which closes the connection."""
        total = Total(dependency)
        try:
            async with total.first:
                left = total.begin()
                if left is None:
                    return await plain(method, url, **options)
                _tighten(options, session, left)
                answer = await plain(method, url, **options)
        except DeadlineExceeded:
            raise
        except TimeoutError as error:
            if total.limit is not None and passed(total.limit):
                raise exceeded(total.limit) from error
            raise
        _bound_body(answer, total)
        return answer

    # Its own way of setting attributes warns in development mode; subclasses of it are deprecated.
    object.__setattr__(session, "_request", request)
    return session


def _tighten(options: dict[str, Any], session: aiohttp.ClientSession, left: float) -> None:
    timeout = options.get("timeout")
    if timeout is None:
        timeout = aiohttp.ClientTimeout(total=None) if "timeout" in options else session.timeout
    elif not isinstance(timeout, aiohttp.ClientTimeout):
        # A number, or the mark by which it tells that none was given.
        timeout = aiohttp.ClientTimeout(total=timeout) if isinstance(timeout, int | float) else session.timeout
    if not timeout.total or timeout.total > left:
        options["timeout"] = aiohttp.ClientTimeout(
            total=left,
            connect=timeout.connect,
            sock_read=timeout.sock_read,
            sock_connect=timeout.sock_connect,
            ceil_threshold=NEVER,
        )
    headers = options["headers"] = CIMultiDict(options.get("headers") or ())
    said = headers.get(HEADER, "")
    milliseconds = max(1, int(left * 1000))
    if not said.isdecimal() or int(said) > milliseconds:
        headers[HEADER] = str(milliseconds)


def _bound_body(answer: aiohttp.ClientResponse, total: Total) -> None:
    # An empty body is one object for all answers, and has no timer.
    if total.limit is not None and isinstance(answer.content, aiohttp.StreamReader):
        answer.content._timer = _Timer(answer.content._timer, total.limit)
