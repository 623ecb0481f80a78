"""The client's end of a real socket, with or without TLS, for tests that have to see every byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Address", "Channel"]

#: (host, port), the path of a Unix socket, or a URL such as ``http://127.0.0.1:8000``.
Address = tuple[str, int] | str


class Channel:
    """Bytes to and from a server, and nothing else: no pool, no retry, no reading ahead.

    Every operation ends within ``timeout`` seconds, so that a server which keeps silent fails a test and does not hang
    it.

    Args:
        sock: Connected and non-blocking.
        timeout: Longest time for one operation, in seconds.
    """

    def __init__(self, sock: socket.socket, timeout: float = 10.0) -> None:
        self.sock = sock
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str = "localhost",
        receive_buffer: int | None = None,
        timeout: float = 10.0,
    ) -> Self:
        """Connect.

        Args:
            address: Where.
            tls: Speak TLS with this context.
            server_hostname: The name the certificate is checked against.
            receive_buffer: Size of the kernel's receive buffer in bytes: a small one makes a slow reader felt soon.
            timeout: Longest time for one operation, in seconds.

        Raises:
            OSError: Nobody listens there, or the TLS handshake failed.
            TimeoutError: It took too long.
        """
        if isinstance(address, str) and "://" in address:
            url = urlsplit(address)
            address = (url.hostname or "", url.port or 80)
        target = address[0] if isinstance(address, tuple) else ""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in target else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            channel = cls(sock, timeout)
            async with asyncio.timeout(timeout):
                await channel._loop.sock_connect(sock, address)
                if tls is not None:
                    await channel._handshake(tls, server_hostname)
        except BaseException:
            sock.close()
            raise
        return channel

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        async with asyncio.timeout(self.timeout):
            if self._tls is not None:
                self._tls.write(data)
                data = self._outgoing.read()
            await self._loop.sock_sendall(self.sock, data)

    async def receive(self, size: int = 65536) -> bytes:
        """Some bytes, at most ``size``; b"" when the server has sent FIN.

        Raises:
            ConnectionResetError: The server has reset the connection.
        """
        async with asyncio.timeout(self.timeout):
            if self._tls is None:
                return await self._loop.sock_recv(self.sock, size)
            while True:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    if not await self._pull():
                        return b""
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""

    def send_eof(self) -> None:
        """Half-close: FIN goes out, answers are still read."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close."""
        self.sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def _handshake(self, context: ssl.SSLContext, hostname: str) -> None:
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._loop.sock_sendall(self.sock, self._outgoing.read())
                if not await self._pull():
                    raise ConnectionError("the server closed inside the TLS handshake") from None
        await self._loop.sock_sendall(self.sock, self._outgoing.read())
        self._tls = tls

    async def _pull(self) -> int:
        data = await self._loop.sock_recv(self.sock, 65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return len(data)
