"""The worker's side of commands: connections end as politely as they can, and for the operator's reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.server.admin.act import answers, close, configure, counts
from sojourn.testing.raw import RawHttp, RawWebSocket
from tests.server.serving import Served, both_loops, serving, until


class Application:
    """Waits in every request until it is told to go on."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        self.inside += 1
        if scope["path"] == "/events":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if scope["path"] == "/wait":
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def ended(served: Served) -> list[str]:
    return list(served.ended_by.elements())


@both_loops
def test_a_websocket_gets_a_close_frame_that_says_who_ended_it(run: Any) -> None:
    async def main() -> None:
        async with serving(Application()) as served, await RawWebSocket.open(served.server.addresses[0]) as client:
            await client.upgrade("/")
            assert close(served.server, {"id": 1}) == {"id": 1, "how": "a close frame was sent"}
            frame = await client.frame()
            assert (frame.opcode, frame.code, frame.payload[2:]) == (RawWebSocket.CLOSE, 4503, b"ended by an operator")
            await client.send_frame(RawWebSocket.CLOSE, frame.payload)
            await until(lambda: ended(served) == ["admin_kill"])

    run(main())


@pytest.mark.parametrize(("code", "now"), [(4000, False), (1000, True)])
def test_the_code_can_be_chosen_and_now_waits_for_no_answer(code: int, now: bool) -> None:
    async def main() -> None:
        async with serving(Application()) as served, await RawWebSocket.open(served.server.addresses[0]) as client:
            await client.upgrade("/")
            close(served.server, {"id": 1, "code": code, "now": now})
            assert (await client.frame()).code == code
            if now:
                await until(lambda: ended(served) == ["admin_kill"])

    asyncio.run(main())


@both_loops
def test_an_idle_connection_ends_at_once(run: Any) -> None:
    async def main() -> None:
        async with serving(Application()) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await client.get("/")
            assert (await client.response()).status == 200
            assert close(served.server, {"id": 1})["how"] == "ended"
            assert (await client.until_closed())[0] == b""
            await until(lambda: ended(served) == ["admin_kill"])

    run(main())


@both_loops
def test_a_request_is_answered_before_its_connection_ends(run: Any) -> None:
    async def main() -> None:
        app = Application()
        async with serving(app) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await client.get("/wait")
            await until(lambda: app.inside)
            assert close(served.server, {"id": 1})["how"] == "ends after its answer"
            app.go.set()
            answer = await client.response()
            assert (answer.status, answer.body, answer.header("connection")) == (200, b"ok", "close")
            assert (await client.until_closed())[0] == b""

    run(main())


def test_with_now_a_request_that_is_not_answered_gets_503() -> None:
    async def main() -> None:
        app = Application()
        async with serving(app) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await client.get("/wait")
            await until(lambda: app.inside)
            assert close(served.server, {"id": 1, "now": True})["how"] == "answered with 503"
            answer = await client.response()
            assert (answer.status, b"admin_kill" in answer.body) == (503, True)
            await until(lambda: ended(served) == ["admin_kill"])

    asyncio.run(main())


@pytest.mark.parametrize("now", [False, True])
def test_an_event_stream_ends_as_a_whole_answer(now: bool) -> None:
    async def main() -> None:
        app = Application()
        async with serving(app) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await client.get("/events")
            await until(lambda: app.inside and served.connections[0].bytes_out)
            close(served.server, {"id": 1, "now": now})
            answer = await client.response()
            assert (answer.complete, answer.body) == (True, b"data: 1\n\n")
            await until(lambda: ended(served) == ["admin_kill"])

    asyncio.run(main())


def test_a_connection_that_has_said_nothing_ends() -> None:
    async def main() -> None:
        async with serving(Application()) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await until(lambda: served.connections and served.connections[0].transport)
            close(served.server, {"id": 1, "now": True})
            assert (await client.until_closed())[0] == b""
            await until(lambda: ended(served) == ["admin_kill"])

    asyncio.run(main())


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"id": 99}, 404),
    ({}, 400),
    ({"id": "one"}, 400),
    ({"id": 1, "code": 1006}, 400),
    ({"id": 1, "code": 70000}, 400),
    ({"id": 1, "soon": True}, 400),
]


def test_what_can_not_be_ended_is_refused_and_nothing_happens() -> None:
    async def main() -> None:
        async with serving(Application()) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await client.get("/")
            await client.response()
            for arguments, status in WRONG:
                with pytest.raises(ErrandError) as caught:
                    close(served.server, arguments)
                assert caught.value.status == status, arguments
            await client.get("/")
            assert (await client.response()).status == 200

    asyncio.run(main())


def test_changed_settings_are_followed_all_or_none() -> None:
    async def main() -> None:
        async with serving(Application()) as served:
            done = configure(served.server, {"changes": {"timeouts.header": "3s"}})
            assert done == {"live": (), "new": ("timeouts.header",)}
            assert served.server.config.timeouts.header == served.server.site.config.timeouts.header == 3.0
            with pytest.raises(ErrandError, match=r"bind\.port"):
                configure(served.server, {"changes": {"timeouts.header": "2s", "bind.port": 1}})
            assert served.server.config.timeouts.header == 3.0
            assert configure(served.server, {"changes": {"timeouts.header": 3}}) == {"live": (), "new": ()}

    asyncio.run(main())


def test_counts_are_of_tasks_threads_and_connections() -> None:
    async def main() -> None:
        app = Application()
        async with serving(app) as served, await RawHttp.open(served.server.addresses[0]) as client:
            await until(lambda: served.connections and served.connections[0].transport)
            before = counts(served.server)
            await client.get("/wait")
            await until(lambda: app.inside)
            after = counts(served.server)
            assert (after["goroutine"] - before["goroutine"], after["connections"]) == (1, 1)
            assert after["thread"] >= 1
            assert sorted(answers(served.server)) == ["close", "configure", "counts"]
            assert await answers(served.server)["counts"]({}) == after
            app.go.set()

    asyncio.run(main())
