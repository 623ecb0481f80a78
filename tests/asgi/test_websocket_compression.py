"""permessage-deflate on the wire: agreed on, used where it helps, bounded, with and without takeover."""

from __future__ import annotations

import asyncio
import os
import zlib
from typing import Any

import pytest

from sojourn.config import Config, WebSocket
from tests.asgi.ws_harness import BINARY, TEXT, Client, accept, echo, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
TAIL = b"\x00\x00\xff\xff"
TAKEOVER = Config(websocket=WebSocket(compression_takeover=True))


def deflated(payload: bytes, stream: Any = None) -> bytes:
    stream = stream or zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes, stream: Any = None) -> bytes:
    return (stream or zlib.decompressobj(-15)).decompress(payload + TAIL)


async def compressed(client: Client, stream: Any = None) -> bytes:
    frame = await client.frame()
    assert frame.rsv1, "the message is compressed"
    return inflated(frame.payload, stream)


@on_both_loops
async def test_compression_is_agreed_on_and_used_for_what_is_worth_it() -> None:
    async with serving(echo) as served:
        client = await served.connect(headers=OFFER)
        assert client.headers["sec-websocket-extensions"] == (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
        )
        text = b"all work and no play " * 100
        client.write(client_frame(TEXT, deflated(text), rsv1=True))
        frame = await client.frame()
        assert (frame.opcode, frame.rsv1, inflated(frame.payload)) == (TEXT, True, text)
        assert len(frame.payload) < 200
        for plain in (b"short " * 50, os.urandom(2000)):  # below the threshold; does not shrink
            client.write(client_frame(BINARY, deflated(plain), rsv1=True))
            assert await client.frame() == (BINARY, plain, True, False)


@on_both_loops
async def test_a_client_that_does_not_offer_it_gets_no_compression() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        assert "sec-websocket-extensions" not in client.headers
        client.send("a" * 5000)
        assert await client.text() == "a" * 5000


@on_both_loops
async def test_compression_can_be_switched_off() -> None:
    async with serving(echo, Config(websocket=WebSocket(compression=False))) as served:
        client = await served.connect(headers=OFFER)
        assert "sec-websocket-extensions" not in client.headers
        client.write(client_frame(TEXT, deflated(b"x"), rsv1=True))
        assert (await client.closed())[0] == 1002


@pytest.mark.parametrize("fragments", [1, 7])
@on_both_loops
async def test_a_message_that_inflates_beyond_the_ratio_is_1009(fragments: int) -> None:
    async with serving(echo) as served:
        client = await served.connect(headers=OFFER)
        bomb = deflated(bytes(1_000_000))
        assert len(bomb) < 2000
        size = -(-len(bomb) // fragments)
        for start in range(0, len(bomb), size):
            last = start + size >= len(bomb)
            opcode = BINARY if start == 0 else 0
            client.write(client_frame(opcode, bomb[start : start + size], fin=last, rsv1=start == 0))
        assert await client.closed() == (1009, "message inflates to more than is allowed")
        client.leave()
        assert (await served.ended()).ending.reason == "ws_message_too_big"


@on_both_loops
async def test_a_message_within_the_ratio_inflates_up_to_the_limit() -> None:
    text = b"".join(b"%d " % (number * 7919 % 100_003) for number in range(90_000))
    async with serving(echo) as served:
        client = await served.connect(headers=OFFER)
        client.write(client_frame(BINARY, deflated(text), rsv1=True))
        assert await compressed(client) == text
        client.write(client_frame(BINARY, deflated(text * 2 + bytes(1 << 18)), rsv1=True))
        assert (await client.closed())[0] == 1009


@on_both_loops
async def test_with_takeover_both_sides_refer_back_to_earlier_messages() -> None:
    async with serving(echo, TAKEOVER) as served:
        client = await served.connect(headers=OFFER)
        assert "takeover" not in client.headers["sec-websocket-extensions"]
        text = os.urandom(600).hex().encode()
        out, back = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
        sizes = []
        for _ in range(3):
            client.write(client_frame(TEXT, deflated(text, out), rsv1=True))
            frame = await client.frame()
            assert inflated(frame.payload, back) == text
            sizes.append(len(frame.payload))
        assert sizes[1] < sizes[0] / 5


@on_both_loops
async def test_with_takeover_a_send_cancelled_in_the_queue_leaves_the_stream_readable() -> None:
    texts = [os.urandom(1000).hex() for _ in range(6)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        await send({"type": "websocket.send", "bytes": os.urandom(300_000)})
        tasks = [asyncio.ensure_future(send({"type": "websocket.send", "text": text})) for text in texts * 2]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await receive()

    async with serving(app, TAKEOVER, send_buffer=8192) as served:
        client = await served.connect(headers=OFFER, receive_buffer=8192)
        await until(lambda: served.connection.blocked and len(served.connection.outbox.queue) == 12)
        back = zlib.decompressobj(-15)
        assert len(await compressed(client, back)) == 300_000
        received = [(await compressed(client, back)).decode() for _ in range(12)]
        assert received == texts * 2


@on_both_loops
async def test_what_one_client_sent_can_not_be_referred_to_by_another() -> None:
    async with serving(echo) as served:
        first = await served.connect(headers=OFFER)
        second = await served.connect(headers=OFFER)
        stream = zlib.compressobj(wbits=-15)
        secret = os.urandom(400).hex().encode()
        first.write(client_frame(TEXT, deflated(secret, stream), rsv1=True))
        assert await compressed(first) == secret
        # A message that refers back to the secret in the window of the first client.
        second.write(client_frame(TEXT, deflated(secret, stream), rsv1=True))
        assert (await second.closed())[0] == 1007
