"""A member of the hub on a real socket, without a browser: what measures on the demo's page, and what stalls there."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

__all__ = ["RawMember"]

_decode: Final = msgspec.json.Decoder().decode


class RawMember(asyncio.Protocol):
    """Speaks ``sojourn.v1``, answers pings, and can be told to read nothing for a while.

    Args:
        address: Of the server.
        path: Of the hub.
        joins: What it joins, as the bodies of the command.
        hear: Called with each publication: channel and payload.

    Attributes:
        id: What the hub calls it; "" before it has said so.
        joined: Done when the last of its joins was answered, or the connection has ended.
        over: Done when the connection has ended.
    """

    def __init__(
        self, address: tuple[str, int], path: str, joins: Sequence[dict[str, Any]], hear: Callable[[str, Any], None]
    ) -> None:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = parse_uri(f"ws://{host}:{address[1]}{path}")
        self._websocket = ClientProtocol(url, subprotocols=[Subprotocol("sojourn.v1")])
        self._joins = joins
        self._hear = hear
        self._transport: asyncio.Transport | None = None
        self._sips = False
        self.id = ""
        loop = asyncio.get_running_loop()
        self.joined: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    @classmethod
    async def connect(
        cls,
        address: tuple[str, int],
        path: str,
        joins: Sequence[dict[str, Any]],
        hear: Callable[[str, Any], None],
        receive_buffer: int | None = None,
    ) -> RawMember:
        """Connect; the handshakes follow by themselves.

        Args:
            address: Of the server.
            path: Of the hub.
            joins: What it joins.
            hear: Called with each publication.
            receive_buffer: Bytes that the kernel takes for it while it does not read; None: what is usual.

        Raises:
            OSError: It can't.
        """
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await loop.sock_connect(sock, address)
            _, member = await loop.create_connection(lambda: cls(address, path, joins, hear), sock=sock)
        except BaseException:
            sock.close()
            raise
        return member

    def stall(self) -> None:
        """Read nothing more: everything waits in the kernel, and then at the server."""
        self._read(False)

    def sip(self) -> None:
        """Read once, whatever is there, and stall again."""
        self._sips = True
        self._read(True)

    def read_on(self) -> None:
        """Read everything."""
        self._sips = False
        self._read(True)

    def _read(self, on: bool) -> None:
        if self._transport is not None and not self.over.done():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def leave(self) -> None:
        """Close the WebSocket."""
        if self._transport is not None and not self._transport.is_closing():
            if self._websocket.state is State.OPEN:
                self._websocket.send_close(1000)
                self._flush()
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._websocket.send_request(self._websocket.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._sips:
            self.stall()
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                for line in bytes(event.data).split(b"\n"):
                    self._take(_decode(line))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for each in (self.joined, self.over):
            if not each.done():
                each.set_result(None)

    def _take(self, told: dict[str, Any]) -> None:
        if "ch" in told:
            self._hear(told["ch"], told.get("d"))
        elif told.get("id") == len(self._joins) and not self.joined.done():
            self.joined.set_result(None)
        elif not told:
            self._websocket.send_text(b"{}")  # the hub asks whether it lives
        elif "hello" in told:
            self.id = told["hello"]["conn"]
            for number, body in enumerate(self._joins, 1):
                self._websocket.send_text(json.dumps({"id": number, "join": body}).encode())

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
