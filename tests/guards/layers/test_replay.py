"""One body, several readers: the same bytes for each of them, whatever the pieces, and never more memory than said."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI, Form, UploadFile
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from sojourn.ending import Who
from sojourn.errors import ApplicationError, ClientDisconnected, ProtocolError
from sojourn.events import ApplicationFailed, RequestEnded
from sojourn.guards.layers.replay import read_body, replayable
from sojourn.guards.layers.tape import Reader, Tape
from tests.asgi.harness import get, serving
from tests.asgi.harness import settings as config

# -- helpers


class Source:
    """A client: pieces of a body, then it waits, or has left."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self.messages = deque(
            {"type": "http.request", "body": piece, "more_body": leaves or number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        )
        self.leaves = leaves
        self.taken = 0
        self.left = asyncio.Event()

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        if self.messages:
            self.taken += 1
            return self.messages.popleft()
        if not self.leaves:
            await self.left.wait()
        return {"type": "http.disconnect"}


def scope(*headers: tuple[bytes, bytes], kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": "POST", "path": "/", "headers": list(headers)}


async def body_of(receive: Any) -> bytes:
    """Read as an application does."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message["body"]
        if not message["more_body"]:
            return body


class Sent(list[Any]):
    async def send(self, message: Any) -> None:
        self.append(message)

    @property
    def status(self) -> int:
        return next(message["status"] for message in self if message["type"] == "http.response.start")


async def answer(send: Any, status: int = 200, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


def reading(then: Any, seen: list[bytes], **options: Any) -> Any:
    """A layer that reads the body and then calls what is inside."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await read_body(scope, receive, **options))
        await then(scope, receive, send)

    return layer


def ends(seen: list[bytes]) -> Any:
    """An application that reads its body and answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await body_of(receive))
        await answer(send)

    return app


def run(app: Any, source: Source, *headers: tuple[bytes, bytes]) -> Sent:
    sent = Sent()
    asyncio.run(app(scope(*headers), source.receive, sent.send))
    return sent


# -- several readers


def test_an_outer_layer_reads_the_body_and_the_application_gets_it_too() -> None:
    seen: list[bytes] = []
    run(replayable(reading(reading(ends(seen), seen), seen)), Source(b"one ", b"", b"two"))
    assert seen == [b"one two"] * 3


def test_a_body_that_nobody_reads_is_not_read() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    source = Source(b"x")
    run(replayable(app), source)
    assert source.taken == 0


def test_the_pieces_are_handed_on_as_they_come_when_nobody_has_read_before() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        assert (first["body"], first["more_body"], source.taken) == (b"one", True, 1)
        assert await body_of(receive) == b"two"

    source = Source(b"one", b"two")
    run(replayable(app), source)


def test_a_layer_that_reads_receive_itself_is_followed_by_one_that_reads_anew() -> None:
    seen: list[bytes] = []

    def audit(inner: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            seen.append(await body_of(receive))
            await inner(scope, receive, send)

        return layer

    run(replayable(audit(replayable(audit(replayable(ends(seen)))))), Source(b"a", b"b", b"c"))
    assert seen == [b"abc"] * 3


def test_a_layer_that_changes_the_body_is_not_passed_by() -> None:
    seen: list[bytes] = []

    def upper(inner: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            async def changed() -> Any:
                message = await receive()
                return {**message, "body": message["body"].upper()}

            await inner(scope, changed, send)

        return layer

    run(replayable(reading(upper(replayable(reading(ends(seen), seen))), seen)), Source(b"a", b"b"))
    assert seen == [b"ab", b"AB", b"AB"]


def test_reading_without_replayable_says_what_to_do() -> None:
    with pytest.raises(ApplicationError, match=r"put sojourn\.replayable right around the layer"):
        run(reading(ends([]), []), Source(b"x"))


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=12), min_size=1, max_size=8),
    steps=st.lists(st.integers(min_value=0, max_value=4), max_size=60),
    streams=st.booleans(),
)
def test_any_split_and_any_interleaving_of_readers_give_the_same_bytes(
    pieces: list[bytes], steps: list[int], streams: bool
) -> None:
    """Steps 0 to 2 let a reader go on, 3 reads the whole, 4 begins a new reader, all at once with what waits."""
    whole = b"".join(pieces)

    async def main() -> None:
        tape = Tape(Source(*pieces).receive, 1000, reject=not streams, declared=None)
        readers = [Reader(tape) for _ in range(3)]
        got = [bytearray() for _ in range(3)]
        reading: list[asyncio.Task[bytes]] = []

        async def step(number: int) -> None:
            reader = readers[number]
            if not reader.done:
                message = await reader.receive()
                got[number] += message["body"]

        running: list[Any] = []
        busy: set[int] = set()
        for each in steps:
            if each == 3:
                reading.append(asyncio.create_task(tape.whole(None)))
            elif each == 4:
                readers.append(Reader(tape))
                got.append(bytearray())
            elif each not in busy:
                busy.add(each)
                task = asyncio.create_task(step(each))
                task.add_done_callback(lambda _, number=each: busy.discard(number))  # type: ignore[misc]
                running.append(task)
            if len(running) % 2:
                await asyncio.sleep(0)
        await asyncio.gather(*running, *reading)
        for number in range(len(readers)):
            while not readers[number].done:
                await step(number)
        assert all(bytes(each) == whole for each in got)
        assert all(task.result() == whole for task in reading)

    asyncio.run(main())


# -- leaving, cancelling


def test_a_client_that_leaves_is_noticed_by_each_reader() -> None:
    async def main() -> None:
        tape = Tape(Source(b"half", leaves=True).receive, 100, reject=True, declared=None)
        with pytest.raises(ClientDisconnected):
            await tape.whole(None)
        for _ in range(2):
            reader = Reader(tape)
            assert (await reader.receive())["body"] == b"half"
            assert (await reader.receive()) == {"type": "http.disconnect"}
            assert (await reader.receive()) == {"type": "http.disconnect"}

    asyncio.run(main())


def test_after_the_body_all_readers_wait_for_the_client_to_leave() -> None:
    async def main() -> None:
        source = Source(b"x")
        tape = Tape(source.receive, 100, reject=True, declared=None)
        readers = [Reader(tape), Reader(tape)]
        for reader in readers:
            assert not (await reader.receive())["more_body"]
        waiting = [asyncio.create_task(reader.receive()) for reader in readers]
        await asyncio.wait(waiting, timeout=0.01)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        source.left.set()
        assert await waiting[1] == {"type": "http.disconnect"}
        assert waiting[0].cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(8))
def test_who_is_cancelled_at_any_await_takes_nothing_with_it(turns: int) -> None:
    async def main() -> None:
        tape = Tape(Source(b"a", b"b", b"c", b"d").receive, 100, reject=True, declared=None)
        tasks = [asyncio.create_task(tape.whole(None)), asyncio.create_task(body_of(Reader(tape).receive))]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await body_of(Reader(tape).receive) == b"abcd"
        assert await tape.whole(None) == b"abcd"

    asyncio.run(main())


# -- too large


def test_a_declared_length_above_the_limit_is_refused_before_anybody_works_for_it() -> None:
    seen: list[bytes] = []
    source = Source(b"x" * 11)
    sent = run(replayable(ends(seen), limit=10), source, (b"content-length", b"11"))
    assert (sent.status, seen, source.taken) == (413, [], 0)
    assert json.loads(sent[1]["body"])["reason"] == "body_too_large"


@pytest.mark.parametrize("reads", [True, False], ids=["read_body", "receive"])
def test_a_body_that_grows_above_the_limit_is_refused(reads: bool) -> None:
    seen: list[bytes] = []
    app = reading(ends(seen), seen) if reads else ends(seen)
    sent = run(replayable(app, limit=10), Source(*[b"xxxx"] * 5))
    assert (sent.status, seen) == (413, [])


def test_a_body_of_just_the_limit_is_accepted() -> None:
    seen: list[bytes] = []
    assert run(replayable(reading(ends(seen), seen), limit=10), Source(b"x" * 6, b"x" * 4)).status == 200
    assert seen == [b"x" * 10] * 2


def test_what_an_application_makes_of_the_refusal_becomes_413() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await body_of(receive)
        except ProtocolError:
            await answer(send, 400, b"there was an error parsing the body")

    sent = run(replayable(app, limit=3), Source(b"xx", b"xx"))
    assert sent.status == 413
    assert len(sent) == 2


def test_an_answer_that_has_begun_is_not_replaced() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await body_of(receive)

    with pytest.raises(ProtocolError):
        run(replayable(app, limit=3), Source(b"xx", b"xx"))


def test_a_limit_of_one_layer_is_refused_with_413_or_handled_by_it() -> None:
    seen: list[bytes] = []

    async def lenient(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read_body(scope, receive, limit=2)
        except ProtocolError:
            await ends(seen)(scope, receive, send)

    assert run(replayable(reading(ends(seen), seen, limit=2)), Source(b"abc")).status == 413
    assert seen == []
    assert run(replayable(lenient), Source(b"abc")).status == 200
    assert seen == [b"abc"]


def test_in_stream_mode_a_large_body_reaches_the_application_and_is_not_kept() -> None:
    kept = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal kept
        with pytest.raises(ProtocolError):
            await read_body(scope, receive)
        tape, size = receive.__self__.tape, 0
        while True:
            message = await receive()
            size += len(message["body"])
            kept = max(kept, len(tape.data))
            if not message["more_body"]:
                break
        assert size == 100_000
        await answer(send)

    assert run(replayable(app, limit=2000, over="stream"), Source(*[b"x" * 1000] * 100)).status == 200
    assert kept <= 3000


def test_in_stream_mode_who_comes_too_late_is_told_and_never_gets_half_a_body() -> None:
    async def main() -> None:
        tape = Tape(Source(*[b"xx"] * 9).receive, 3, reject=False, declared=None)
        assert await body_of(Reader(tape).receive) == b"x" * 18
        with pytest.raises(ApplicationError, match="another reader has taken the rest"):
            await Reader(tape).receive()
        with pytest.raises(ApplicationError):
            await tape.whole(None)

    asyncio.run(main())


def test_a_body_in_pieces_of_one_byte_takes_no_more_memory_than_its_bytes() -> None:
    async def main() -> None:
        tape = Tape(Source(*[b"x"] * 5000).receive, 5000, reject=True, declared=None)
        assert len(await tape.whole(None)) == 5000
        assert tape.data.__sizeof__() < 12_000

    asyncio.run(main())


def test_other_scopes_pass_untouched() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (receive, send) == (source.receive, sent.send)

    source, sent = Source(), Sent()
    asyncio.run(replayable(app)(scope(kind="websocket"), source.receive, sent.send))


@pytest.mark.parametrize(("options", "text"), [({"limit": -1}, "negative"), ({"over": "spill"}, "'reject' or")])
def test_wrong_settings_are_refused(options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replayable(ends([]), **options)


# -- frameworks, over a real socket

SECRET = b"a secret"


def signed(body: bytes) -> str:
    return hmac.new(SECRET, body, hashlib.sha256).hexdigest()


class Signature:
    """Plain ASGI middleware that checks a signature over the body."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = await read_body(scope, receive)
            if dict(scope["headers"]).get(b"x-signature", b"").decode() != signed(body):
                await answer(send, 403)
                return
        await self.app(scope, receive, send)


class Audit(BaseHTTPMiddleware):
    """Starlette's own kind of middleware, which reads the body as it is told not to."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        size = len(await read_body(request.scope, request.receive))
        response = await call_next(request)
        response.headers["x-size"] = str(size)
        return response


def starlette() -> Any:
    async def echo(request: Request) -> Any:
        return PlainTextResponse(await request.body())

    async def streamed(request: Request) -> Any:
        return PlainTextResponse(b"".join([piece async for piece in request.stream()]))

    async def form(request: Request) -> Any:
        async with request.form() as form:
            file: Any = form["file"]
            return JSONResponse({"field": form["field"], "file": (await file.read()).decode()})

    app = Starlette(routes=[Route(f"/{f.__name__}", f, methods=["POST"]) for f in (echo, streamed, form)])
    app.add_middleware(Audit)
    app.add_middleware(Signature)
    app.add_middleware(replayable, limit=300_000)
    return app


def fastapi() -> Any:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Any:
        return PlainTextResponse(await request.body())

    @app.post("/streamed")
    async def streamed(request: Request) -> Any:
        return PlainTextResponse(b"".join([piece async for piece in request.stream()]))

    @app.post("/json")
    async def read_json(item: Annotated[dict[str, int], Body()]) -> Any:
        return item

    @app.post("/form")
    async def form(file: UploadFile, field: Annotated[str, Form()]) -> Any:
        return {"field": field, "file": (await file.read()).decode()}

    app.add_middleware(Audit)
    app.add_middleware(Signature)
    app.add_middleware(replayable, limit=300_000)
    return app


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_under_a_framework_a_signature_an_audit_and_the_endpoint_read_the_same_body(make: Any) -> None:
    with (
        serving(make(), config()) as served,
        httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as client,
    ):
        body = bytes(range(256)) * 800
        for path in ("/echo", "/streamed"):
            got = client.post(path, content=body, headers={"x-signature": signed(body)})
            assert (got.status_code, got.content, got.headers["x-size"]) == (200, body, str(len(body)))
            pieces = (body[at : at + 30_000] for at in range(0, len(body), 30_000))
            assert client.post(path, content=pieces, headers={"x-signature": signed(body)}).content == body
        assert client.post("/echo", content=body, headers={"x-signature": "wrong"}).status_code == 403
        request = client.build_request("POST", "/form", data={"field": "f"}, files={"file": b"content"})
        request.headers["x-signature"] = signed(request.read())
        assert client.send(request).json() == {"field": "f", "file": "content"}
        too_large = client.post("/echo", content=(b"x" * 50_000 for _ in range(8)))
        assert (too_large.status_code, too_large.json()["reason"]) == (413, "body_too_large")
        assert client.post("/echo", content=b"", headers={"x-signature": signed(b"")}).status_code == 200


def test_fastapi_parses_json_that_a_layer_has_read() -> None:
    with serving(fastapi(), config()) as served:
        client = served.connect()
        body = b'{"number": 7}'
        head = ("content-type: application/json", f"x-signature: {signed(body)}")
        for _ in range(2):  # the connection goes on
            assert client.send(get("/json", *head, method="POST", body=body)).answer().body == b'{"number":7}'


def test_a_client_that_waits_for_100_is_asked_only_when_somebody_reads() -> None:
    with serving(starlette(), config()) as served:
        client = served.connect()
        client.send(
            get("/echo", "expect: 100-continue", f"x-signature: {signed(b'later')}", "content-length: 5", method="POST")
        )
        assert client.answer().status == 100
        assert client.send(b"later").answer().body == b"later"


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_a_client_that_leaves_inside_its_body_is_no_failure_of_the_application(make: Any) -> None:
    with serving(make(), config()) as served:
        client = served.connect()
        client.send(get("/echo", "content-length: 1000", method="POST") + b"half")
        served.until(lambda: any(connection.bytes_in > 60 for connection in served.connections()))
        client.reset()
        (ended,) = served.wait(RequestEnded)
        assert ended.ending.who is Who.CLIENT
        assert served.of(ApplicationFailed) == []
