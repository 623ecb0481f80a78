"""httpx: a request in hand holds a connection of the client's pool until its answer is closed."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from sojourn.observe.leaks.adapters.lent import Lent

__all__ = ["watch"]


def watch(client: Any, name: str, patience: float | None) -> Callable[[], None]:
    """Watch a client: its transport, and those it has mounted."""
    httpx: Any = importlib.import_module("httpx")
    lent = Lent(name, patience)
    transports = {id(each): each for each in (client._transport, *client._mounts.values()) if each is not None}
    asynchronous = isinstance(client, httpx.AsyncClient)
    wrap = _asynchronous if asynchronous else _synchronous
    word = "handle_async_request" if asynchronous else "handle_request"
    wrapped = [(each, wrap(httpx, getattr(each, word), lent)) for each in transports.values()]
    for transport, handle in wrapped:
        setattr(transport, word, handle)

    def forget() -> None:
        for transport, handle in wrapped:
            if vars(transport).get(word) is handle:
                delattr(transport, word)
        lent.forget()

    return forget


def _asynchronous(httpx: Any, handle: Callable[[Any], Any], lent: Lent) -> Callable[[Any], Any]:
    class Stream(httpx.AsyncByteStream):  # type: ignore[misc]
        """A body; its end is the end of the lease."""

        def __init__(self, request: Any, body: Any) -> None:
            self._request = request
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for part in self._body:
                yield part

        async def aclose(self) -> None:
            # Before the wait: a cancellation must not lose it.
            lent.returned(self._request)
            await self._body.aclose()

    async def handle_async_request(request: Any) -> Any:
        """Cancel: as the transport's own."""
        lent.taken(request, resource=request)  # an answer that is dropped takes it along
        try:
            response = await handle(request)
        except BaseException:
            lent.returned(request)
            raise
        if response.is_closed:  # made whole, as a cache does
            lent.returned(request)
        else:
            response.stream = Stream(request, response.stream)
        return response

    return handle_async_request


def _synchronous(httpx: Any, handle: Callable[[Any], Any], lent: Lent) -> Callable[[Any], Any]:
    class Stream(httpx.SyncByteStream):  # type: ignore[misc]
        """A body; its end is the end of the lease."""

        def __init__(self, request: Any, body: Any) -> None:
            self._request = request
            self._body = body

        def __iter__(self) -> Iterator[bytes]:
            yield from self._body

        def close(self) -> None:
            lent.returned(self._request)
            self._body.close()

    def handle_request(request: Any) -> Any:
        lent.taken(request, resource=request)  # an answer that is dropped takes it along
        try:
            response = handle(request)
        except BaseException:
            lent.returned(request)
            raise
        if response.is_closed:  # made whole, as a cache does
            lent.returned(request)
        else:
            response.stream = Stream(request, response.stream)
        return response

    return handle_request
