"""One of several processes that accept from the same socket; its argument is JSON: ``{"socket": FD, ...}``.

It stops when its standard input does. With ``"alone": true`` it knows nothing of the others, for comparison.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from sojourn.clock import SystemClock
from sojourn.config import App, Config, Limits
from sojourn.server.process import event_loop_factory
from sojourn.server.server import Server
from sojourn.server.workers.board import Board, State
from sojourn.server.workers.siblings import Siblings


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers, and keeps those who want to stay: WebSockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def main(told: dict[str, Any]) -> None:
    board = Board.attach(told["board"])
    row = board.row(told["row"])
    config = Config(app=App(workers=2), limits=Limits(**told["limits"]))
    siblings = None if told.get("alone") else Siblings(board, row, config)
    server = Server(app, config, sockets=[socket.socket(fileno=told["socket"])], siblings=siblings)
    await server.start()
    ticker = server.runtime.ticker

    def beat() -> None:
        row.beat = SystemClock.monotonic()
        if siblings is None:
            row.open = len(server.runtime.registry)
        ticker.call_later(0.25, beat)

    beat()
    row.state = State.READY
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(0)
    server.drain(0.0)
    server.hurry()
    await server.wait_stopped()


if __name__ == "__main__":
    loop: Any = sys.argv[2]
    with asyncio.Runner(loop_factory=event_loop_factory(loop)) as runner:
        runner.run(main(json.loads(sys.argv[1])))
