"""Bytes that come before everything else: the PROXY protocol header, read from the bare socket."""

from __future__ import annotations

import asyncio
import socket

from sojourn.errors import ProtocolError
from sojourn.wire.proxy import Proxied, needed, parse

__all__ = ["read_proxy_header"]

#: Longer than any version 1 line, so that a peek sees its end.
PEEK = 256


async def read_proxy_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Proxied:
    """Take exactly the PROXY protocol header off a fresh socket, so that TLS or a transport finds the client's bytes.

    It takes only bytes that must belong to the header, and takes them at once: what is left to wait for are new bytes,
    so a header that comes in pieces costs one wake-up a piece.

    Args:
        loop: The running loop.
        sock: Connected and non-blocking, without a transport. It stays open, whatever happens.

    Raises:
        ProtocolError: ``invalid_proxy_header``, also when the peer closes inside it; ``connected_no_data`` when it
            closes without a byte, as probes of load balancers do.
        OSError: The connection broke.

    Cancel: safe; the caller sets the deadline.
    """
    data = b""
    while True:
        try:
            piece = _take(sock, needed(data))
        except (BlockingIOError, InterruptedError):
            await _readable(loop, sock)
            continue
        if not piece:
            if data:
                raise ProtocolError(400, "invalid_proxy_header", f"closed after {len(data)} bytes of it")
            raise ProtocolError(400, "connected_no_data", "closed before the PROXY header")
        data += piece
        proxied = parse(data)
        if proxied is not None:
            return proxied


def _take(sock: socket.socket, size: int) -> bytes:
    """Receive at most ``size`` bytes; 0: to the end of the line, or all there are when it has not come yet."""
    if size == 0:
        seen = sock.recv(PEEK, socket.MSG_PEEK)
        size = seen.find(b"\n") + 1 or len(seen)
    return sock.recv(size) if size else b""


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(sock, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
