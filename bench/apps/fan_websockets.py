"""`broadcast` of the websockets package on its own server. `python fan_websockets.py PORT`"""

from __future__ import annotations

import gc
import sys
from http import HTTPStatus
from urllib.parse import urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from bench.apps.fan_asgi import messages

members: set[ServerConnection] = set()


def call(connection: ServerConnection, request: Request) -> Response | None:
    """Anything but a handshake: `/go` publishes, `/gc` collects."""
    address = urlsplit(request.path)
    if address.path == "/fan":
        return None
    if address.path == "/go":
        for text in messages(address.query.encode()):
            broadcast(members, text)
    elif address.path == "/gc":
        gc.collect()
    return connection.respond(HTTPStatus.OK, "ok")


async def member(connection: ServerConnection) -> None:
    """Until it is closed."""
    members.add(connection)
    try:
        await connection.wait_closed()
    finally:
        members.discard(connection)


async def main(port: int) -> None:
    """Serves until the process is ended."""
    async with serve(member, "127.0.0.1", port, process_request=call, compression=None, backlog=8192) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
