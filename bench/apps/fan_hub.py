"""The members in Sojourn's hub.

With BENCH_REDIS, one node of several over that Redis. With BENCH_LOSSY, the channel drops what a member does not take.
With BENCH_TOGETHER, the messages of a call are published at once and not one after the other.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os

from bench.apps.fan_asgi import OK_HEADERS, Message, Receive, Send, messages
from sojourn import Channel, Hub, HubLimits, MemoryEngine, Outbox, RedisEngine

#: At most 256 messages wait for one member then; a call has 20.
LOSSY = Outbox(max_messages=256, on_full="drop_oldest")

TOGETHER = "BENCH_TOGETHER" in os.environ

redis = os.environ.get("BENCH_REDIS")
hub = Hub(
    engine=RedisEngine(redis) if redis else MemoryEngine(),
    channels=[Channel("fan", public=True, outbox=LOSSY if "BENCH_LOSSY" in os.environ else Outbox())],
    limits=HubLimits(connect_rate=None),
)
sockets = hub.app()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Members at any WebSocket path; `/go` publishes, `/gc` collects, `/stats` tells."""
    if scope["type"] != "http":
        await sockets(scope, receive, send)
        return
    body = b"ok"
    if scope["path"] == "/go":
        texts = messages(scope["query_string"])
        if TOGETHER:
            await asyncio.gather(*(hub.publish("fan", text) for text in texts))
        else:
            for text in texts:
                await hub.publish("fan", text)
    elif scope["path"] == "/gc":
        gc.collect()
    elif scope["path"] == "/stats":
        body = json.dumps(hub.stats()).encode()
    headers = OK_HEADERS if body == b"ok" else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
