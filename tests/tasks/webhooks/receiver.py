"""Somebody else's service, that is told of the ends of tasks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

__all__ = ["SECRET", "Received", "Receiver", "receiving"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Received(NamedTuple):
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    sni: str | None


class Receiver:
    """Answers with what it is given, the last of that for ever; "" answers nothing at all."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.received: list[Received] = []
        self.names: list[str | None] = []
        self.port = 0

    def note_name(self, _: object, name: str | None, __: object) -> None:
        self.names.append(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in head[1:] if each)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(head[0], headers, body, self.names[-1] if self.names else None))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer:
                writer.write(f"HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n".encode())
            else:
                await reader.read()
        except (OSError, EOFError):
            pass  # the caller has left: that is what some of the tests want
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*answers: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback address."""
    receiver = Receiver(answers or ("204 No Content",))
    if tls is not None:
        tls.sni_callback = receiver.note_name
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
