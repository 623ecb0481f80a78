"""gRPC: the deadline of each call is what the ambient deadline leaves; gRPC sends it on as ``grpc-timeout``.

gRPC has no default deadline: a call without one waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from sojourn.clients.clamp import Total
from sojourn.scopes.deadline import exceeded, passed

__all__ = ["bounded"]

Channel = TypeVar("Channel")

#: What makes a call of the details of one and of a request.
Continuation = Callable[[Any, Any], Any]


class _Interceptor:
    """Tightens the deadline of a call."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency

    def _tightened(self, details: Any, left: float | None) -> Any:
        if left is None or (details.timeout is not None and details.timeout <= left):
            return details
        return grpc.aio.ClientCallDetails(
            details.method, left, details.metadata, details.credentials, details.wait_for_ready
        )

    async def _streamed(self, continuation: Continuation, details: Any, request: Any) -> Any:
        total = Total(self._dependency)
        async with total.first:  # raises when no time is left
            return await continuation(self._tightened(details, total.begin()), request)

    async def _single(self, continuation: Continuation, details: Any, request: Any) -> Any:
        total = Total(self._dependency)
        try:
            async with total.first:
                call = await continuation(self._tightened(details, total.begin()), request)
                await call
                return call
        except grpc.aio.AioRpcError as error:
            # gRPC's own timer may be a millisecond earlier. What the server says late, or by its own, is its word.
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and total.limit is not None and passed(total.limit):
                raise exceeded(total.limit) from error
            raise


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Continuation, details: Any, request: Any) -> Any:
        """Cancel: as gRPC's own, which cancels the call."""
        return await self._single(continuation, details, request)


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_unary(self, continuation: Continuation, details: Any, requests: Any) -> Any:
        """Cancel: as gRPC's own, which cancels the call."""
        return await self._streamed(continuation, details, requests)


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_stream(self, continuation: Continuation, details: Any, request: Any) -> Any:
        """Cancel: as gRPC's own, which cancels the call."""
        return await self._streamed(continuation, details, request)


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(self, continuation: Continuation, details: Any, requests: Any) -> Any:
        """Cancel: as gRPC's own, which cancels the call."""
        return await self._streamed(continuation, details, requests)


def bounded(channel: Channel, dependency: str = "grpc") -> Channel:
    """Bound the calls of a channel by the ambient deadline and the budget of a dependency.

    The deadline counts until the end of the call, also of one that streams. It is the earliest of the call's own
    ``timeout``, the budget and the ambient deadline, and the server is told.

    Args:
        channel: A ``grpc.aio.Channel``, which is changed; also for stubs that were made of it before.
        dependency: Name in ``deadlines.budgets`` of the configuration, and in errors.

    Returns:
        The channel. Its calls raise DeadlineExceeded when no time is left, and nothing is sent then. Calls without a
        stream raise it in place of the AioRpcError of that status, too; those with one that a budget ends raise
        AioRpcError with ``StatusCode.DEADLINE_EXCEEDED``.

    Raises:
        TypeError: It is no channel of ``grpc.aio``.

    Example:
        >>> import asyncio, grpc.aio, sojourn
        >>> async def main():
        ...     async with grpc.aio.insecure_channel("127.0.0.1:50051") as channel:
        ...         stub = bounded(channel, dependency="users").unary_unary("/users.Users/Get")
        ...         async with sojourn.deadline(0.3, "user"):
        ...             ...  # await stub(request)
        >>> asyncio.run(main())
    """
    if not isinstance(channel, grpc.aio.Channel) or not hasattr(channel, "_unary_unary_interceptors"):
        raise TypeError(f"{type(channel).__qualname__} is no channel of grpc.aio")
    # Innermost: what the application's own interceptors do comes before, and each of their repeats is bounded.
    channel._unary_unary_interceptors.append(_UnaryUnary(dependency))
    channel._stream_unary_interceptors.append(_StreamUnary(dependency))
    channel._unary_stream_interceptors.append(_UnaryStream(dependency))
    channel._stream_stream_interceptors.append(_StreamStream(dependency))
    return channel
