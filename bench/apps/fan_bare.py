"""The lower bound of a fan-out: a uvloop protocol that writes the bytes to each transport. `python fan_bare.py PORT`

It answers every handshake as the example of RFC 6455 and reads nothing that clients send.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import cast

import uvloop

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 2\r\n\r\nok"
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
SIZE = 200
#: A text frame of 200 bytes (RFC 6455 section 5.2).
HEAD = bytes([0x81, 126, 0, SIZE])

#: In the order in which they came: over a set the same costs 3 % more.
members: dict[asyncio.Transport, None] = {}


def frames(query: bytes) -> bytes:
    """What a call publishes, as one piece."""
    asked = dict(pair.split(b"=") for pair in query.split(b"&"))
    first = int(asked[b"seq"])
    texts = (b"%012d" % number for number in range(first, first + int(asked[b"n"])))
    return b"".join(HEAD + text.ljust(SIZE, b"x") for text in texts)


class Member(asyncio.Protocol):
    """A member after its handshake, or who calls."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forgets it."""
        members.pop(self.transport, None)

    def data_received(self, data: bytes) -> None:
        """A request, whole in one piece; what a member sends later is not looked at."""
        if not data.startswith(b"GET "):
            return
        path = data[4 : data.index(b" ", 4)]
        if path.startswith(b"/go?"):
            piece = frames(path[4:])
            for transport in members:
                transport.write(piece)
        elif path == b"/gc":
            gc.collect()
        elif path.startswith(b"/fan"):
            members[self.transport] = None
            self.transport.write(UPGRADED)
            return
        self.transport.write(OK)


async def serve(port: int) -> None:
    """Serves until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Member, "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
