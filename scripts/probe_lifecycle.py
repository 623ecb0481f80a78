"""Ask a server how long it waits: the probes behind the table in README.md, for Sojourn or any other ASGI server.

    python scripts/probe_lifecycle.py
    python scripts/probe_lifecycle.py uvicorn --port {port} --app-dir scripts probe_lifecycle:app

The arguments are the command that serves ``app`` on 127.0.0.1 at ``{port}``, with the server's own defaults. One
connection for each probe, all at once; what is still open after 80 s counts as open for ever. Only loopback is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

LONGEST: Final = 80.0
SOJOURN: Final = (sys.executable, "-m", "sojourn.cli", "serve", "probe_lifecycle:app")
SOJOURN_FLAGS: Final = ("--app-dir", str(Path(__file__).parent), "--port", "{port}", "--access-log", "off")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What is served: ``/body`` reads its body, ``/sleep`` takes 2 s, ``/events`` never ends, ``/ws`` accepts."""
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    elif scope["path"] == "/sleep":
        await asyncio.sleep(2)
    kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    while scope["path"] == "/events":
        await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"done"})


class Server:
    """The server in a process of its own."""

    def __init__(self, command: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Server:
        quiet = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*self._command, stdout=quiet, stderr=quiet)
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await self.connect()
                writer.close()
                return self
            await asyncio.sleep(0.05)
        raise SystemExit(f"it does not serve: {' '.join(self._command)}")

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def connect(self, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which these bytes have been sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(first.replace(b"\n", b"\r\n"))
        return reader, writer

    async def stop(self) -> str:
        """Send SIGTERM; how long until the process has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(30):
                await self.process.wait()
        except TimeoutError:
            return "exit never (30 s)"
        return f"exit {self.process.returncode} after {time.monotonic() - began:.1f} s"


async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """When the server closed, and what it said before. A close frame is answered, as every client does."""
    began = time.monotonic()
    said = b""
    try:
        async with asyncio.timeout(LONGEST):
            while data := await reader.read(4096):
                said += data
                if b"\x88" in data and said.startswith(b"HTTP/1.1 101"):
                    writer.write(b"\x88\x82" + bytes(4) + data[data.find(b"\x88") + 2 :][:2])
    except TimeoutError:
        return f"open after {LONGEST:.0f} s"
    except ConnectionError:
        pass  # a reset is an end too
    words = said.split(b"\r\n", 1)[0].decode("latin-1") if said.startswith(b"HTTP/") else ""
    at = said.find(b"\x88")  # a close frame, unmasked: its code follows the length
    if said.startswith(b"HTTP/1.1 101"):
        words = f"close {int.from_bytes(said[at + 2 : at + 4])}" if at > 0 else "no close frame"
    return f"{time.monotonic() - began:.1f} s {words}".strip()


WEBSOCKET: Final = (
    b"GET /ws HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n"
)


async def sends_nothing(server: Server) -> str:
    reader, writer = await server.connect()
    return await until_closed(reader, writer)


async def drips_a_header(server: Server) -> str:
    reader, writer = await server.connect(b"GET / HTTP/1.1\nHost: x\nX-Slow: ")

    async def drip() -> None:
        while True:
            await asyncio.sleep(1)
            writer.write(b"a")

    dripping = asyncio.create_task(drip())
    try:
        return await until_closed(reader, writer)
    finally:
        dripping.cancel()


async def stalls_in_the_body(server: Server) -> str:
    reader, writer = await server.connect(b"POST /body HTTP/1.1\nHost: x\nContent-Length: 1000\n\n0123456789")
    return await until_closed(reader, writer)


async def idle_keep_alive(server: Server) -> str:
    reader, writer = await server.connect(b"GET / HTTP/1.1\nHost: x\n\n")
    return await until_closed(reader, writer)


async def half_closes(server: Server) -> str:
    reader, writer = await server.connect(b"GET /sleep HTTP/1.1\nHost: x\n\n")
    writer.write_eof()
    return "answered" if b"done" in await reader.read() else "dropped"


async def never_pongs(server: Server) -> str:
    reader, writer = await server.connect(WEBSOCKET)
    return await until_closed(reader, writer)


async def stop_with(command: list[str], first: bytes) -> str:
    """SIGTERM while one connection is open; the exit, and what the connection saw."""
    async with Server(command) as server:
        reader, writer = await server.connect(first)
        await asyncio.sleep(0.5)
        seen = asyncio.create_task(until_closed(reader, writer))
        ended = await server.stop()
        server.process.kill() if server.process.returncode is None else None
        return f"{ended}; connection: {await seen}"


async def main(command: list[str]) -> None:
    probes: dict[str, Callable[[Server], Awaitable[str]]] = {
        "connects, sends nothing": sends_nothing,
        "drips one header byte a second": drips_a_header,
        "stalls inside the body": stalls_in_the_body,
        "idle after a request": idle_keep_alive,
        "half-closes, waits for a 2 s handler": half_closes,
        "WebSocket, never pongs": never_pongs,
    }
    stops = {
        "SIGTERM, WebSocket open": WEBSOCKET,
        "SIGTERM, endless SSE open": b"GET /events HTTP/1.1\nHost: x\n\n",
        "SIGTERM, idle keep-alive open": b"GET / HTTP/1.1\nHost: x\n\n",
        "SIGTERM, 2 s request in flight": b"GET /sleep HTTP/1.1\nHost: x\nConnection: close\n\n",
    }
    async with Server(command) as server:
        answers = await asyncio.gather(
            *(probe(server) for probe in probes.values()), *(stop_with(command, first) for first in stops.values())
        )
    json.dump(dict(zip([*probes, *stops], answers, strict=True)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parent)]))
    asyncio.run(main(sys.argv[1:] or [*SOJOURN, *SOJOURN_FLAGS]))
