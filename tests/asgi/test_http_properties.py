"""Whatever requests come, however they are cut, and whatever applications do with them: each gets its own answer."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sojourn.events import ApplicationFailed, RequestEnded
from sojourn.testing import MemoryServer
from sojourn.testing.http import Outcome
from tests.asgi.harness import answer, settings


class Asked(NamedTuple):
    """A request and what its application does."""

    temper: str
    framing: str
    parts: list[bytes]

    def bytes(self, number: int) -> bytes:
        lines = [f"POST /{self.temper}/{number} HTTP/1.1", "host: a"]
        body = b"".join(self.parts)
        if self.framing == "none":
            return "\r\n".join([*lines, "", ""]).encode()
        if self.framing == "length":
            return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
        chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in self.parts)
        return "\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode() + chunks + b"0\r\nx: y\r\n\r\n"

    def expected(self, number: int) -> bytes:
        body = b"" if self.framing == "none" else b"".join(self.parts)
        path = f"/{self.temper}/{number} ".encode()
        return path + body if self.temper in ("read", "late", "stream") else path


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Behaves as its path says."""
    temper, path = scope["path"].split("/")[1], scope["path"].encode() + b" "
    if temper == "ignore":
        await answer(send, path)
        return
    if temper == "part":
        await receive()
        await answer(send, path)
        return
    if temper == "late":
        for _ in range(20):
            await asyncio.sleep(0)
    if temper == "leave":  # answers, and goes on
        await answer(send, path)
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if temper == "stream":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": path, "more_body": True})
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        more = message["more_body"]
        if temper == "stream":
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        body += message["body"]
    if temper != "stream":
        await answer(send, path + body)


tempers = st.sampled_from(["read", "late", "stream", "ignore", "part", "leave"])
parts = st.lists(
    st.binary(min_size=1, max_size=30)
    | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"x" * 3000, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"]),
    max_size=4,
)
asked = st.lists(
    st.builds(Asked, tempers, st.sampled_from(["none", "length", "chunked", "chunked"]), parts), min_size=1, max_size=6
)
#: Where to cut, and whether the server gets a turn there.
cuts = st.lists(st.tuples(st.integers(0, 4000), st.booleans()), max_size=20)


@examples(max_examples=300, deadline=None)
@given(asked=asked, cuts=cuts, every=st.booleans(), half_close=st.booleans(), small=st.booleans())
def test_every_request_gets_its_own_answer(
    asked: list[Asked], cuts: list[tuple[int, bool]], every: bool, half_close: bool, small: bool
) -> None:
    data = b"".join(each.bytes(number) for number, each in enumerate(asked))
    places = sorted((at, turn) for at, turn in cuts if at < len(data))
    if every and len(data) < 700:
        places = [(at, True) for at in range(len(data))]
    config = settings(limits={"read_buffer": 50 if small else 65536})

    async def main() -> None:
        async with MemoryServer(app, config) as server:
            client = server.connect()
            start = 0
            for at, turn in places:
                if at > start:
                    client.send(data[start:at])
                    start = at
                if turn:
                    await server.settle()
            client.send(data[start:])
            if half_close:
                client.peer.send_eof()
            for number, each in enumerate(asked):
                await server.settle()
                got = client.response()
                assert (got.outcome, got.status) == (Outcome.COMPLETE, 200), (number, got)
                assert got.body == each.expected(number)
            assert client.received == b""
            await server.settle()
            assert (client.connection.ending is not None) == half_close
            if half_close:
                assert client.connection.ending is not None
                assert client.connection.ending.reason in ("completed", "keep_alive_closed_by_client")
            else:
                assert not client.connection.reading_paused
                assert set(client.connection.due.armed()) == {"keep_alive", "long"}
            endings = [event.ending.reason for event in server.events if isinstance(event, RequestEnded)]
            assert endings == ["completed"] * len(asked)
            assert not [event for event in server.events if isinstance(event, ApplicationFailed)]

    asyncio.run(main())
