"""The tasks of a server on a real socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import msgspec

from sojourn.config import Bind, Config, Drain, Log, Proxy
from sojourn.observe.tasks.census import Tasks
from tests.observe.tasks.loops import called
from tests.server.serving import Run, both_loops, hello, serving, until

#: Closing the socket sends a reset: a FIN would be a client that may still read.
RESET = struct.pack("ii", 1, 0)
CONFIG = Config(bind=Bind(port=0), drain=Drain(delay=0.0, requests=0.3), log=Log(access="off"))


@both_loops
def test_a_connection_that_is_set_up_still_is_told_as_a_connection(run: Run) -> None:
    async def main() -> None:
        config = msgspec.structs.replace(CONFIG, proxy=Proxy(protocol="on", trusted=("127.0.0.1",)))
        async with serving(hello, config) as served:
            tasks = Tasks(served.server.site)
            await served.connect()  # and no PROXY header comes
            await until(lambda: served.connections)
            (found,) = await tasks.list({"owner": "connection"})
            assert found.owner == "connection 1"
            assert found.connection == 1
            assert found.created == "the server"
            assert found.age is not None
            assert tasks.counts()["connection"] == 1
            tasks.close()

    run(main())


@both_loops
def test_a_request_whose_client_left_is_told_until_its_application_returns(run: Run) -> None:
    go: list[asyncio.Event] = []

    async def stays(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        go.append(asyncio.Event())
        helper = asyncio.create_task(go[0].wait(), name="helper")
        await asyncio.shield(helper)

    async def main() -> None:
        go.clear()
        async with serving(stays, CONFIG) as served:
            tasks = Tasks(served.server.site)
            client = await served.connect()
            client.send(b"GET /long?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: go)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.abort()
            await until(lambda: not served.connections)
            found = await tasks.list({"owner": "request"})
            assert {task.owner for task in found} == {"connection 1 GET /long"}
            assert called(found, "request").waits_for.endswith("shielded")
            go[0].set()
            await until(lambda: tasks.counts()["request"] == 0)
            tasks.close()

    run(main())
