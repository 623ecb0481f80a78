"""httpx: a total for each request, with its body; what remains is told to the server.

httpx itself has timeouts for each connect, read, write and wait for its pool, and none for a request: a server that
sends a byte now and then holds a caller for ever.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar

import httpx

from sojourn.clients.clamp import Total, clamped
from sojourn.clock import SystemClock
from sojourn.errors import PoolWaitExceeded
from sojourn.scopes.deadline import exceeded, passed

__all__ = ["BoundedTransport", "bounded"]

T = TypeVar("T", httpx.AsyncClient, httpx.AsyncBaseTransport)

HEADER: Final = "request-timeout-ms"
#: Seconds that httpx gives up a wait for its pool earlier, so that it is httpx who says what was waited for.
_EARLIER: Final = 0.004


class BoundedTransport(httpx.AsyncBaseTransport):
    """A transport whose requests take no longer than they may.

    Args:
        transport: What sends them.
        dependency: Name in ``deadlines.budgets`` and in errors.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, dependency: str) -> None:
        self._transport = transport
        self._dependency = dependency

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            DeadlineExceeded: No time was left, and nothing was sent; or the answer was not here in time.
            PoolWaitExceeded: No connection of the client's pool became free in time.

        Cancel: as the transport's own, which closes the connection.
        """
        total = Total(self._dependency)
        try:
            async with total.first:
                left = total.begin()
                if left is None:
                    return await self._transport.handle_async_request(request)
                _tighten(request, left)
                response = await self._transport.handle_async_request(request)
        except httpx.TimeoutException as error:
            _translate(error, total, self._dependency)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, total, self._dependency)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> BoundedTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)


def _tighten(request: httpx.Request, left: float) -> None:
    """Let the client wait for nothing longer than the whole may take, and let the server know."""
    own: MutableMapping[str, Any] = dict(request.extensions.get("timeout") or {})
    for phase in ("connect", "read", "write", "pool"):
        most = max(_EARLIER / 2, left - _EARLIER) if phase == "pool" else left
        if own.get(phase) is None or own[phase] > most:
            own[phase] = most
    request.extensions = {**request.extensions, "timeout": own}
    said = request.headers.get(HEADER, "")
    milliseconds = max(1, int(left * 1000))
    if not said.isdecimal() or int(said) > milliseconds:
        request.headers[HEADER] = str(milliseconds)


def _translate(error: httpx.TimeoutException, total: Total, dependency: str) -> NoReturn:
    """Tell the deadline's passing from a timeout of the client's own, which is raised as it is."""
    limit = total.limit
    if limit is not None:
        if isinstance(error, httpx.PoolTimeout) and limit.moment - _EARLIER * 2 <= SystemClock.monotonic():
            raise PoolWaitExceeded(dependency, limit.name, limit.seconds, limit) from error
        if passed(limit):
            raise exceeded(limit) from error
    raise error


class _Body(httpx.AsyncByteStream):
    """A body; each of its parts is waited for no longer than the whole request may take."""

    def __init__(self, body: httpx.AsyncByteStream, total: Total, dependency: str) -> None:
        self._body = body
        self._total = total
        self._dependency = dependency

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._body)
        while True:
            try:
                async with self._total.step():
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except httpx.TimeoutException as error:
                _translate(error, self._total, self._dependency)
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


def _total(send: Callable[..., Awaitable[httpx.Response]], dependency: str) -> Any:
    """One total for all requests that one causes: redirects, and what authentication asks."""

    @functools.wraps(send)
    async def bounded_send(*arguments: Any, **options: Any) -> httpx.Response:
        """Cancel: as the client's own."""
        async with clamped(dependency):
            return await send(*arguments, **options)

    return bounded_send


def bounded(thing: T, dependency: str = "httpx") -> T:
    """Bound the requests of a client, or of a transport, by the ambient deadline and the budget of a dependency.

    The total counts until the body is read; the caller's own code between two parts of it is not interrupted. The
    server gets what remains in the header ``Request-Timeout-Ms``. The client's own timeouts stay in force.

    Args:
        thing: An ``httpx.AsyncClient``, which is changed and returned; or a transport, which is wrapped.
        dependency: Name in ``deadlines.budgets`` of the configuration, and in errors.

    Returns:
        The client, or a transport that wraps the one given.

    Raises:
        TypeError: It is neither.

    Example:
        >>> import asyncio, httpx, sojourn
        >>> client = bounded(httpx.AsyncClient(), dependency="billing")
        >>> async def balance(user):
        ...     async with sojourn.deadline(0.3, "balance"):
        ...         return (await client.get(f"http://billing.internal/{user}")).json()
    """
    if isinstance(thing, httpx.AsyncClient):
        thing._transport = BoundedTransport(thing._transport, dependency)
        for pattern, mounted in list(thing._mounts.items()):
            if mounted is not None:
                thing._mounts[pattern] = BoundedTransport(mounted, dependency)
        thing.send = _total(thing.send, dependency)  # type: ignore[method-assign]
        return thing
    if isinstance(thing, httpx.AsyncBaseTransport):
        return BoundedTransport(thing, dependency)
    raise TypeError(f"{type(thing).__qualname__} is no AsyncClient and no asynchronous transport of httpx")
