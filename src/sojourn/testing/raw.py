"""Raw clients on real sockets: HTTP/1.1 and WebSocket with every byte in the test's hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
from typing import NamedTuple

from sojourn.testing.channel import Channel
from sojourn.testing.http import Outcome, Response, parse_response

__all__ = ["Frame", "RawHttp", "RawWebSocket"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class RawHttp(Channel):
    """An HTTP/1.1 client that sends what it is told and says exactly what came back.

    Example:
        >>> import asyncio, sojourn
        >>> async def app(scope, receive, send):
        ...     await send({"type": "http.response.start", "status": 204})
        ...     await send({"type": "http.response.body"})
        >>> async def main():
        ...     config = sojourn.Config(bind=Bind(port=0))
        ...     async with sojourn.Server(app, config) as server:
        ...         async with await RawHttp.open(server.addresses[0]) as client:
        ...             await client.send(b"GET / HTTP/1.1\\r\\nhost: test\\r\\n\\r\\n")
        ...             return await client.response()
        >>> from sojourn.config import Bind
        >>> asyncio.run(main()).status
        204
    """

    _unread = b""

    async def get(self, path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request."""
        lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
        if body:
            lines.append(f"content-length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def response(self, *, method: str = "GET", size: int = 65536) -> Response:
        """Read one answer: to its end, or to the end of the connection.

        Args:
            method: Of the request: an answer to HEAD has no body.
            size: Most bytes of one read.

        Raises:
            TimeoutError: It did not end within ``timeout`` seconds.
        """
        data = bytearray(self._unread)
        ended = Outcome.UNFINISHED
        answer, rest = parse_response(bytes(data), method=method)
        async with asyncio.timeout(self.timeout):
            while answer.outcome is Outcome.UNFINISHED:
                try:
                    piece = await self.receive(size)
                except (ConnectionResetError, BrokenPipeError):
                    piece, ended = b"", Outcome.RESET
                else:
                    ended = Outcome.UNFINISHED if piece else Outcome.TRUNCATED
                    data += piece
                answer, rest = parse_response(bytes(data), method=method, ended=ended)
        self._unread = rest if answer.complete else b""
        return answer

    async def until_closed(self, size: int = 65536) -> tuple[bytes, Outcome]:
        """Read everything until the server ends the connection.

        Returns:
            The bytes, and whether FIN (``TRUNCATED``, or ``NOTHING`` without a byte) or RST (``RESET``) came.

        Raises:
            TimeoutError: It did not end within ``timeout`` seconds.
        """
        data, self._unread = bytearray(self._unread), b""
        async with asyncio.timeout(self.timeout):
            while True:
                try:
                    piece = await self.receive(size)
                except (ConnectionResetError, BrokenPipeError):
                    return bytes(data), Outcome.RESET
                if not piece:
                    return bytes(data), Outcome.TRUNCATED if data else Outcome.NOTHING
                data += piece


class Frame(NamedTuple):
    """A WebSocket frame (RFC 6455 section 5.2), its payload as it was on the wire but for the mask."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int:
        """Close code of a close frame; 1005 without one."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else 1005


class RawWebSocket(Channel):
    """A WebSocket client that sends any frame, right or wrong, and shows each frame that comes.

    Its codec is its own, so that a mistake of the server's is not made twice.
    """

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    _unread = b""

    async def upgrade(self, path: str = "/", *headers: str) -> Response:
        """Send the opening handshake and read its answer.

        Raises:
            ValueError: The answer is a 101 with a wrong Sec-WebSocket-Accept.
        """
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", "host: test", "connection: Upgrade", "upgrade: websocket"]
        lines += [f"sec-websocket-key: {key.decode()}", "sec-websocket-version: 13", *headers]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        data, ended = b"", Outcome.UNFINISHED
        while True:
            answer, rest = parse_response(data, ended=ended)
            if answer.outcome is not Outcome.UNFINISHED:
                break
            try:
                piece = await self.receive()
            except ConnectionResetError:
                ended = Outcome.RESET
            else:
                ended = ended if piece else Outcome.TRUNCATED
                data += piece
        if answer.status == 101:
            expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
            if answer.header("sec-websocket-accept") != expected:
                raise ValueError("wrong Sec-WebSocket-Accept")
        self._unread = rest
        return answer

    @staticmethod
    def encode(
        opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\0\0\0\0"
    ) -> bytes:
        """The bytes of a frame; ``mask`` None sends none, which a server must refuse."""
        first = opcode | (0x80 if fin else 0) | (rsv << 4)
        masked = 0x80 if mask is not None else 0
        if len(payload) < 126:
            head = struct.pack("!BB", first, masked | len(payload))
        elif len(payload) < 65536:
            head = struct.pack("!BBH", first, masked | 126, len(payload))
        else:
            head = struct.pack("!BBQ", first, masked | 127, len(payload))
        if mask is None:
            return head + payload
        return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"abcd"
    ) -> None:
        """Send one frame."""
        await self.send(self.encode(opcode, payload, fin=fin, rsv=rsv, mask=mask))

    async def send_text(self, text: str) -> None:
        """Send a text message in one frame."""
        await self.send_frame(self.TEXT, text.encode())

    async def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        await self.send_frame(self.CLOSE, struct.pack("!H", code) + reason.encode())

    async def frame(self) -> Frame | None:
        """The next frame; None when the server has sent FIN.

        Raises:
            ConnectionResetError: The server has reset the connection.
            ValueError: The frame is masked, or FIN came inside it.
            TimeoutError: Nothing came for ``timeout`` seconds.
        """
        head = await self._exactly(2, may_end=True)
        if not head:
            return None
        first, second = head
        if second & 0x80:
            raise ValueError("a server must not mask (RFC 6455 section 5.1)")
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._exactly(8))
        payload = await self._exactly(length)
        return Frame(first & 0x0F, payload, bool(first & 0x80), (first >> 4) & 7)

    async def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        data = bytearray(self._unread)
        while len(data) < size:
            piece = await self.receive()
            if not piece:
                if may_end and not data:
                    self._unread = b""
                    return b""
                raise ValueError(f"FIN inside a frame, {size - len(data)} bytes before its end")
            data += piece
        self._unread = bytes(data[size:])
        return bytes(data[:size])
