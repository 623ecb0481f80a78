"""Clients that leave: noticed at once, told to the application, and not waited for; a half-closed one is answered."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest

from sojourn.ending import How
from sojourn.errors import ClientDisconnected
from sojourn.events import ApplicationFailed, ConnectionEnded, RequestEnded, TaskSurvived
from tests.asgi.harness import Cut, Wire, answer, body_app, get, on_both_loops, read_body, serving, settings, text_app

GRACE = 0.3


class Watched:
    """An application that writes down what happens to it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.began = threading.Event()
        self.cancelled_at = 0.0

    def note(self, what: Any) -> None:
        self.log.append(what)

    async def endure(self, seconds: float = 30.0) -> None:
        """Wait, and note a cancellation."""
        self.began.set()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled_at = time.monotonic()
            self.note("cancelled")
            raise
        self.note("slept")


def leave(client: Wire, how: str) -> None:
    client.reset() if how == "rst" else client.close()


on_both_ways = pytest.mark.parametrize("how", ["fin", "rst"])


@on_both_loops
@on_both_ways
def test_a_handler_that_works_is_told_and_cancelled_after_the_grace(how: str, loop: str) -> None:
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(watched.endure())
            assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
            watched.note(await receive())
            watched.note(await receive())

    with serving(app, settings(timeouts={"disconnect_grace": GRACE}), loop) as served:
        client = served.connect().send(get())
        assert watched.began.wait(5)
        left = time.monotonic()
        leave(client, how)
        served.until(lambda: "cancelled" in watched.log)
        assert watched.log == [{"type": "http.disconnect"}] * 2 + ["cancelled"]
        assert GRACE - 0.15 < watched.cancelled_at - left < GRACE + 8
        ended = served.ended()
        assert ended.ending.reason == ("client_reset" if how == "rst" else "client_closed_request")
        (request,) = served.of(RequestEnded)
        assert request.status == 499
        assert served.of(ApplicationFailed) == served.of(TaskSurvived) == []


@on_both_loops
@on_both_ways
def test_an_application_that_returns_when_it_is_told_is_not_blamed(how: str, loop: str) -> None:
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        done.set()

    with serving(app, loop=loop) as served:
        client = served.connect().send(get())
        time.sleep(0.05)
        leave(client, how)
        assert done.wait(5)
        assert served.ended().ending.reason == ("client_reset" if how == "rst" else "client_closed_request")
        assert served.of(ApplicationFailed) == []


@on_both_loops
@on_both_ways
def test_send_raises_an_oserror_and_nobody_logs_it(how: str, loop: str) -> None:
    raised: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0.01)
        except OSError as error:
            raised.append(error)
            raise

    with serving(app, settings(timeouts={"disconnect_grace": 5.0}), loop) as served:
        client = served.connect().send(get())
        client.head()
        leave(client, how)
        served.until(lambda: raised)
        assert isinstance(raised[0], ClientDisconnected)
        assert served.ended().ending.reason in ("client_reset", "client_closed_mid_response")
        assert served.of(ApplicationFailed) == []
        (request,) = served.of(RequestEnded)
        assert request.status == 200
        assert request.ending.who.value == "C"


@on_both_loops
def test_send_raises_again_and_again_whatever_is_sent(loop: str) -> None:
    raised: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await receive()
        for message in (
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.body", "body": b"x"},
            {"type": "http.response.trailers"},
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.pathsend", "path": __file__},
            {"type": "http.response.early_hint", "links": []},
        ):
            with contextlib.suppress(ClientDisconnected):
                await send(message)
                continue
            raised.append(message["type"])

    with serving(app, settings(timeouts={"disconnect_grace": 5.0}), loop) as served:
        client = served.connect().send(get())
        time.sleep(0.05)
        client.reset()
        served.until(lambda: len(raised) == 6)
        served.ended()
        assert served.of(ApplicationFailed) == []


@on_both_loops
@on_both_ways
def test_an_idle_event_stream_is_cancelled_within_the_grace(how: str, loop: str) -> None:
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await watched.endure()

    with serving(app, settings(timeouts={"disconnect_grace": GRACE}), loop) as served:
        client = served.connect().send(get())
        client.until(b"data: 1\n\n")
        left = time.monotonic()
        leave(client, how)
        served.until(lambda: watched.cancelled_at)
        assert GRACE - 0.15 < watched.cancelled_at - left < GRACE + 8
        reason = served.ended().ending.reason
        assert reason == ("client_reset" if how == "rst" else "client_closed_mid_response")
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_sender_that_waits_for_a_full_buffer_is_woken_when_the_client_leaves(loop: str) -> None:
    raised = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        except ClientDisconnected:
            raised.set()
            raise

    with serving(app, settings(timeouts={"disconnect_grace": 10.0}), loop) as served:
        client = served.connect(receive_buffer=10_000).send(get())
        served.until(lambda: [each for each in served.connections() if each.blocked])
        client.close()  # with unread bytes: the kernel sends RST
        assert raised.wait(5)
        served.ended()
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_reader_that_waits_for_the_body_is_told(loop: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        seen.append(await receive())

    for how in ("fin", "rst"):
        seen.clear()
        with serving(app, loop=loop) as served:
            client = served.connect().send(get("/", "content-length: 10", method="POST") + b"abc")
            served.until(lambda: seen)
            leave(client, how)
            served.until(lambda: len(seen) == 2)
            assert seen[0] == {"type": "http.request", "body": b"abc", "more_body": True}
            assert seen[1] == {"type": "http.disconnect"}
            (request,) = served.wait(RequestEnded)
            expected = "unexpected_end_of_request_content" if how == "fin" else "client_reset"
            assert request.ending.reason == expected
            assert served.ended().ending.reason == expected
            assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_client_that_leaves_between_requests_or_inside_a_head_disturbs_nobody(loop: str) -> None:
    with serving(text_app(), loop=loop) as served:
        count = 0
        for before, reason in (
            (b"", "connected_no_data"),
            (b"\r\n", "client_closed_before_head"),
            (b"GET / HT", "client_closed_before_head"),
            (get(), "keep_alive_closed_by_client"),
            (get() + b"GET /", "client_closed_before_head"),
        ):
            client = served.connect().send(before)
            if b"host" in before:
                client.answer()
            time.sleep(0.03)
            client.close()
            count += 1
            assert served.ended(count).ending.reason in (reason, "connected_no_data", "keep_alive_closed_by_client")
        for before in (b"", b"GET / HT", get()):
            client = served.connect().send(before)
            if before.endswith(b"\r\n\r\n"):
                client.answer()
            time.sleep(0.03)
            client.reset()
            count += 1
            assert served.ended(count).ending.how is How.RST


# Half-closed


@on_both_loops
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_half_closed_client_is_answered(delay: float, version: str, loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(delay)
        await answer(send, scope["path"].encode())

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/a", version=version)).half_close()
        assert client.answer().body == b"/a"
        assert client.closed()
        ended = served.ended()
        # At once, its FIN may come after the answer: then it is an idle client that closes.
        assert ended.ending.reason in ("completed", "completed" if delay else "keep_alive_closed_by_client")
        assert served.of(RequestEnded)[0].ending.reason == "completed"


@on_both_loops
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_half_closed_client_has_its_body_read_before_its_going_is_told(delay: float, loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(delay)
        body = await read_body(receive)
        assert await receive() == {"type": "http.disconnect"}
        await answer(send, body)

    with serving(app, loop=loop) as served:
        for request in (
            get("/", method="POST", body=b"hello"),
            get("/", "transfer-encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
        ):
            with served.connect() as client:
                client.send(request).half_close()
                assert client.answer().body == b"hello"
                assert client.closed()


@on_both_loops
def test_a_half_closed_client_has_all_it_pipelined_answered(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        await asyncio.sleep(0.05)
        await answer(send, scope["path"].encode() + body)

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/1") + get("/2", method="POST", body=b"two") + get("/3")).half_close()
        answers = [client.answer() for _ in range(3)]
        assert [each.body for each in answers] == [b"/1", b"/2two", b"/3"]
        assert answers[2]["connection"] == "close"
        assert client.closed()
        assert served.ended().ending.reason == "completed"


@on_both_loops
@pytest.mark.parametrize(
    "rest", [b"GET / HT", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", b"nonsense\r\n\r\n"]
)
def test_what_a_half_closed_client_left_unfinished_ends_the_connection(rest: bytes, loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/1") + rest).half_close()
        assert client.answer().body == b"/1 "
        if not rest.startswith(b"GET"):
            assert client.answer().status == 400
        assert client.closed()
        served.ended()


@on_both_loops
def test_a_half_closed_client_that_left_inside_its_body_gets_400(loop: str) -> None:
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await watched.endure()

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 10", method="POST") + b"abc").half_close()
        got = client.answer()
        assert (got.status, got["connection"]) == (400, "close")
        assert client.closed()
        assert served.ended().ending.reason == "unexpected_end_of_request_content"
        served.until(lambda: watched.log == ["cancelled"])


@on_both_loops
def test_a_half_closed_client_that_reads_a_stream_gets_it_to_its_end(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for number in range(10):
            await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body"})

    with serving(app, settings(timeouts={"disconnect_grace": GRACE}), loop) as served, served.connect() as client:
        client.send(get()).half_close()
        assert client.answer().body == b"0123456789"
        assert client.closed()
        assert served.ended().ending.reason == "completed"


@on_both_loops
def test_a_half_closed_client_whose_application_never_answers_is_given_up_after_the_grace(loop: str) -> None:
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await watched.endure()

    with serving(app, settings(timeouts={"disconnect_grace": GRACE}), loop) as served, served.connect() as client:
        client.send(get()).half_close()
        with pytest.raises(Cut):
            client.answer()
        served.until(lambda: watched.log == ["cancelled"])
        assert served.ended().ending.reason == "client_closed_request"


@on_both_loops
def test_a_client_that_pipelines_and_leaves_is_noticed_while_the_handler_works(loop: str) -> None:
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await watched.endure()

    with serving(app, settings(timeouts={"disconnect_grace": GRACE}), loop) as served:
        client = served.connect().send(get() + get("/2") + b"\r\n")
        assert watched.began.wait(5)
        client.reset()
        served.until(lambda: watched.log == ["cancelled"])
        assert served.ended().requests == 1


# After the end


@on_both_loops
@on_both_ways
def test_a_background_task_after_the_answer_outlives_its_client(how: str, loop: str) -> None:
    """It is the server's task then, cancelled only when the server stops."""
    watched = Watched()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"done")
        await watched.endure(1.0)

    with serving(app, settings(timeouts={"disconnect_grace": 0.1}), loop) as served:
        client = served.connect().send(get())
        assert client.answer().body == b"done"
        leave(client, how)
        served.wait(ConnectionEnded)
        served.until(lambda: watched.log == ["slept"])


@on_both_loops
def test_an_application_that_resists_is_cancelled_again_and_named(loop: str) -> None:
    ends = threading.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    with serving(stubborn, settings(timeouts={"disconnect_grace": 0.1}), loop) as served:
        client = served.connect().send(get("/stubborn"))
        time.sleep(0.05)
        client.reset()
        survived, *_ = served.wait(TaskSurvived)
        assert "GET /stubborn" in survived.owner
        assert "stubborn" in survived.stack
        ends.set()
        served.until(lambda: served.of(TaskSurvived)[-1].ended)


@on_both_loops
def test_a_thousand_clients_that_leave_leave_nothing_behind(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(ClientDisconnected):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass

    with serving(app, loop=loop) as served:
        for round_ in range(20):
            clients = [served.connect().send(get()) for _ in range(50)]
            for number, client in enumerate(clients):
                if number % 3:
                    client.head()
                leave(client, "rst" if number % 2 else "fin")
            served.wait(ConnectionEnded, (round_ + 1) * 50)
        served.until(lambda: not served.call(lambda: len(served.server.runtime.registry)))
        assert served.of(ApplicationFailed) == []
