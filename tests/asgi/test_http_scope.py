"""The scope of a request, and a context that holds nothing of the one before."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest

import sojourn
from sojourn.asgi.control import RequestControl
from tests.asgi.harness import Served, answer, get, on_both_loops, read_body, serving, settings

SCOPE_KEYS = {
    "type": str,
    "asgi": dict,
    "http_version": str,
    "method": str,
    "scheme": str,
    "path": str,
    "raw_path": bytes,
    "query_string": bytes,
    "root_path": str,
    "headers": list,
    "client": tuple,
    "server": tuple,
    "state": dict,
    "extensions": dict,
}


class Scopes:
    """An application that keeps the scopes it got."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # A copy: the server takes its own apart when the request is over.
        self.seen.append({**scope, "extensions": {**scope["extensions"]}, "headers": [*scope["headers"]]})
        await answer(send)


def scope_of(request: bytes, loop: str = "uvloop", **app: Any) -> dict[str, Any]:
    scopes = Scopes()
    with serving(scopes, settings(app=app), loop) as served, served.connect() as client:
        client.send(request)
        assert client.answer().status == 200
    return scopes.seen[0]


@on_both_loops
def test_a_scope_has_every_key_of_the_specification_in_its_type(loop: str) -> None:
    scopes = Scopes()
    with serving(scopes, loop=loop) as served, served.connect() as client:
        client.send(get("/a/b?c=d&e", "X-A: 1", "x-a: 2", "Cookie: f=g"))
        client.answer()
        (scope,) = scopes.seen
        assert {key: type(value) for key, value in scope.items()} == SCOPE_KEYS
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b", b"/a/b", b"c=d&e")
        assert scope["root_path"] == ""
        assert scope["headers"] == [(b"host", b"a.example"), (b"x-a", b"1"), (b"x-a", b"2"), (b"cookie", b"f=g")]
        assert scope["client"] == client.sock.getsockname()
        assert scope["server"] == ("127.0.0.1", served.port)
        assert scope["state"] == {}
        assert set(scope["extensions"]) == {"http.response.pathsend", "http.response.early_hint", "sojourn"}
        assert isinstance(scope["extensions"]["sojourn"], RequestControl)


def test_an_older_specification_may_be_told() -> None:
    assert scope_of(get(), spec="2.3")["asgi"]["spec_version"] == "2.3"


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", b""),
        ("/?", "/", b"/", b""),
        ("/a%20b", "/a b", b"/a%20b", b""),
        ("/%C3%BC%e2%82%ac", "/ü€", b"/%C3%BC%e2%82%ac", b""),
        ("/%ff", "/\ufffd", b"/%ff", b""),
        ("/a%2Fb", "/a/b", b"/a%2Fb", b""),
        ("/a%3Fb?c%20d?e", "/a?b", b"/a%3Fb", b"c%20d?e"),
        ("/%", "/%", b"/%", b""),
        ("/%zz", "/%zz", b"/%zz", b""),
        ("/a+b", "/a+b", b"/a+b", b""),
        ("/../a/./b//c", "/../a/./b//c", b"/../a/./b//c", b""),
        ("//a.example/b", "//a.example/b", b"//a.example/b", b""),
        ("/:@!$&'()*,;=~", "/:@!$&'()*,;=~", b"/:@!$&'()*,;=~", b""),
        ('/"<>[]^`{|}\\', '/"<>[]^`{|}\\', b'/"<>[]^`{|}\\', b""),
        ("http://a.example", "/", b"/", b""),
        ("http://a.example?b", "/", b"/", b"b"),
        ("http://a.example/b%20c?d", "/b c", b"/b%20c", b"d"),
        ("HTTPS://a.example:8443/b", "/b", b"/b", b""),
    ],
)
def test_a_path_is_decoded_once_and_the_raw_one_is_as_it_came(
    target: str, path: str, raw_path: bytes, query: bytes
) -> None:
    for repeated in (False, True):
        scopes = Scopes()
        with serving(scopes) as served, served.connect() as client:
            if repeated:  # the third with the same headers is read by a shorter way
                client.send(get("/1") + get("/2") + get("/3"))
                assert [client.answer().status for _ in range(3)] == [200] * 3
            client.send(get(target))
            assert client.answer().status == 200
        scope = scopes.seen[-1]
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_options_of_the_server_itself_has_the_path_asterisk() -> None:
    scope = scope_of(get("*", method="OPTIONS"))
    assert (scope["path"], scope["raw_path"], scope["method"]) == ("*", b"*", "OPTIONS")


def test_the_host_of_a_url_is_the_host_whatever_the_header_says() -> None:
    scope = scope_of(get("http://b.example:81/c", "x: y"))
    assert scope["headers"] == [(b"host", b"b.example:81"), (b"x", b"y")]
    assert scope["path"] == "/c"


def test_a_root_path_is_put_in_front() -> None:
    scope = scope_of(get("/a%20b?c"), root_path="/api")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/a b", b"/api/a%20b")


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "M-SEARCH"]
)
def test_methods_are_told_as_they_are(method: str) -> None:
    scopes = Scopes()
    with serving(scopes) as served, served.connect() as client:
        client.send(get("/", method=method))
        assert client.answer(method).status == 200
    assert scopes.seen[0]["method"] == method


def test_trailers_are_offered_to_who_takes_them_only() -> None:
    assert "http.response.trailers" not in scope_of(get("/", "te: gzip"))["extensions"]
    assert "http.response.trailers" in scope_of(get("/", "te: gzip, trailers"))["extensions"]


def test_nothing_of_a_scope_is_seen_in_the_next() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "mine" not in scope
        assert "mine" not in scope["state"]
        assert "mine" not in scope["extensions"]
        assert (b"mine", b"1") not in scope["headers"]
        scope["mine"] = scope["state"]["mine"] = scope["extensions"]["mine"] = 1
        scope["headers"].append((b"mine", b"1"))
        await answer(send, b"clean")

    with serving(app) as served, served.connect() as client:
        for _ in range(6):
            client.send(get())
            assert client.answer().body == b"clean"


@on_both_loops
def test_the_control_of_a_request_is_at_hand_in_its_task_and_nowhere_else(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        control = scope["extensions"]["sojourn"]
        assert sojourn.current_request() is control
        assert await asyncio.get_running_loop().run_in_executor(None, sojourn.current_request) is None
        assert await asyncio.create_task(_current()) is control
        assert control.remaining is not None
        assert 0 < control.remaining <= 60
        assert control.buffered == 0
        assert not control.draining.is_set()
        await answer(send, b"%d" % control.connection_id)

    with serving(app, loop=loop) as served, served.connect() as client:
        for _ in range(3):
            client.send(get())
            assert client.answer().body == b"1"
        assert served.call(sojourn.current_request) is None


async def _current() -> RequestControl | None:
    return sojourn.current_request()


# Context (python/cpython#140947)

USER: ContextVar[str] = ContextVar("USER", default="nobody")


def until_end(path: str, size: int, framing: str) -> bytes:
    if framing == "chunked":
        return get(path, "transfer-encoding: chunked", method="POST") + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
    return get(path, method="POST", body=b"x" * size)


@on_both_loops
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("size", [1, 5_000, 70_000, 300_000, 3_000_000])
def test_no_context_variable_of_a_request_is_seen_in_the_next(size: int, framing: str, loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = USER.get()
        USER.set(scope["path"])
        await asyncio.sleep(0.02)  # a large body fills the buffer, and reading is resumed from this context
        if scope["path"] != "/unread":
            assert len(await read_body(receive)) == size
        assert USER.get() == scope["path"]
        await answer(send, before.encode())

    config = settings(limits={"body": None}, timeouts={"linger": 5.0})
    with serving(app, config, loop) as served, served.connect() as client:
        for number in range(4):
            sender = threading.Thread(target=client.send, args=[until_end(f"/{number}", size, framing)])
            sender.start()
            assert client.answer().body == b"nobody"
            sender.join()
        # In one piece: the next is read in the context in which the one before was answered.
        sender = threading.Thread(
            target=client.send, args=[until_end("/a", size, framing) + until_end("/b", size, framing)]
        )
        sender.start()
        assert [client.answer().body for _ in range(2)] == [b"nobody"] * 2
        sender.join()
        if size < 250_000:  # what is left of a body that is not read
            client.send(until_end("/unread", size, framing) + until_end("/c", size, framing))
            assert [client.answer().body for _ in range(2)] == [b"nobody"] * 2


@on_both_loops
def test_what_was_set_before_the_server_started_is_seen_by_every_request(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, USER.get().encode())

    class Prepared(Served):
        async def _serve(self) -> None:
            USER.set("the operator")
            await super()._serve()

    served = Prepared(app, settings(), loop)
    served.start()
    try:
        with served.connect() as client:
            client.send(get() + get())
            assert [client.answer().body for _ in range(2)] == [b"the operator"] * 2
    finally:
        served.stop()


@on_both_loops
def test_callbacks_of_the_connection_run_in_no_requests_context(loop: str) -> None:
    """Even when the application made the transport call back: a full buffer, a close."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        USER.set("somebody")
        await send({"type": "http.response.start", "status": 200})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body"})

    async def second(scope: Any, receive: Any, send: Any) -> None:
        seen.append(USER.get())
        await answer(send)

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (app if scope["path"] == "/1" else second)(scope, receive, send)

    with serving(both, loop=loop) as served, served.connect() as client:
        for _ in range(2):
            client.send(get("/1"))
            time.sleep(0.05)
            assert len(client.answer().body) == 5_000_000
            client.send(get("/2"))
            client.answer()
        assert seen == ["nobody"] * 2
