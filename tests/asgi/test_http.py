"""HTTP/1.1 on real sockets: connections that live on, and requests in their order."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.clock import NEVER
from sojourn.events import ConnectionEnded, RequestEnded
from tests.asgi.harness import answer, body_app, get, on_both_loops, serving, settings, text_app


@on_both_loops
def test_a_connection_is_kept_alive_from_request_to_request(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        for number in range(5):
            client.send(get(f"/{number}", method="POST", body=b"x" * number))
            got = client.answer()
            assert got.body == b"/%d " % number + b"x" * number
            assert got.all("connection") == []
        client.close()
        ended = served.ended()
        assert ended.requests == 5
        assert ended.ending.reason == "keep_alive_closed_by_client"


@on_both_loops
def test_pipelined_requests_are_answered_in_their_order(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        chunked = (
            b"POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n"
        )
        client.send(
            get("/1") + get("/2", method="POST", body=b"two") + chunked + get("/4") + get("/5", "connection: close")
        )
        bodies = [client.answer().body for _ in range(5)]
        assert bodies == [b"/1 ", b"/2 two", b"/chunked hello", b"/4 ", b"/5 "]
        assert client.closed()


@on_both_loops
def test_a_thousand_pipelined_requests_are_answered_in_order_and_held_back_meanwhile(loop: str) -> None:
    running: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        running.append(1)
        assert len(running) == 1
        await answer(send, scope["path"].encode())
        running.pop()

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(b"".join(get(f"/{number}") for number in range(1000)))
        assert [client.answer().body for _ in range(1000)] == [b"/%d" % number for number in range(1000)]
        client.send(get("/last"))
        assert client.answer().body == b"/last"


@on_both_loops
def test_a_connection_is_rotated_after_so_many_requests_and_says_so(loop: str) -> None:
    with serving(text_app(), settings(limits={"requests_per_connection": 3}), loop) as served:
        with served.connect() as client:
            client.send(get() * 5)
            connections = [client.answer().all("connection") for _ in range(3)]
            assert connections == [[], [], ["close"]]
            assert client.closed()
        ended = served.ended()
        assert ended.ending.reason == "keep_alive_rotated"
        assert ended.requests == 3


@on_both_loops
def test_a_connection_is_rotated_by_age_after_the_request_in_hand(loop: str) -> None:
    old = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await old.wait()
        await answer(send, b"done")

    with serving(app, settings(timeouts={"lifetime": 0.3}), loop) as served:
        with served.connect() as client:
            client.send(get())
            served.until(lambda: served.connections() and served.connections()[0].requests == 1)
            served.until(lambda: served.connections()[0].due.lifetime == NEVER)
            served.call(old.set)
            got = client.answer()
            assert (got.body, got["connection"]) == (b"done", "close")
            assert client.closed()
        with served.connect() as idle:
            assert idle.closed()
        assert served.ended(2).ending.reason == "max_connection_duration"


@on_both_loops
def test_close_is_honoured_whoever_says_it(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        close = scope["path"] == "/close"
        await answer(send, b"bye", headers=[(b"Connection", b"Close")] if close else [])

    with serving(app, loop=loop) as served:
        for request in (
            get("/", "connection: close"),
            get("/close"),
            get("/", "Connection: x, CLOSE"),
            get(version="1.0"),
        ):
            with served.connect() as client:
                client.send(request)
                got = client.answer()
                assert (got.body, got["connection"]) == (b"bye", "close")
                assert client.closed()
        assert [each.ending.reason for each in served.wait(ConnectionEnded, 4)] == ["completed"] * 4


@on_both_loops
def test_what_a_client_sends_after_close_is_not_served(loop: str) -> None:
    with serving(text_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/", "connection: close") + get("/2") * 100)
        assert client.answer().body == b"hello"
        assert client.closed()
        assert served.ended().requests == 1


@on_both_loops
def test_http_1_0_is_answered_as_it_asks(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "1.0"
        if scope["path"] == "/whole":
            await answer(send, b"whole")
            return
        await send({"type": "http.response.start", "status": 200})
        for part in (b"pa", b"", b"rts"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    with serving(app, loop=loop) as served:
        with served.connect() as client:
            client.send(b"GET /whole HTTP/1.0\r\n\r\n")
            assert client.answer()["content-length"] == "5"
            assert client.closed()
        with served.connect() as client:
            for _ in range(2):
                client.send(b"GET /whole HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
                got = client.answer()
                assert (got["connection"], got.body) == ("keep-alive", b"whole")
            client.send(b"GET /parts HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            got = client.answer()
            assert (got["connection"], got.body) == ("close", b"parts")
            assert got.all("transfer-encoding") == got.all("content-length") == []


@on_both_loops
def test_every_answer_has_one_date(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        own = [(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT")] if scope["path"] == "/own" else []
        await answer(send, b"", headers=[(b"content-length", b"0"), *own])

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get() + get("/own") + b"broken\r\n\r\n")
        first, own, refused = client.answer(), client.answer(), client.answer()
        assert first["date"].endswith(" GMT")
        assert own["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
        assert refused.status == 400
        assert refused["date"].endswith(" GMT")
        assert first.all("server") == []
    config = settings(log={"date_header": False, "server_header": True})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get())
        got = client.answer()
        assert got.all("date") == []
        assert got["server"] == "sojourn"


@on_both_loops
def test_head_has_the_head_of_get_and_no_body(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        parts, length = scope["path"] != "/whole", scope["path"] == "/length"
        headers = [(b"content-length", b"10")] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if parts:
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await send({"type": "http.response.body", "body": b"hello"})

    with serving(app, loop=loop) as served, served.connect() as client:
        for path, name, value in (
            ("/whole", "content-length", "5"),
            ("/length", "content-length", "10"),
            ("/parts", "transfer-encoding", "chunked"),
        ):
            client.send(get(path, method="HEAD") + get(path))
            assert client.answer("HEAD")[name] == value
            got = client.answer()
            assert got[name] == value
            assert got.body == (b"hello" if path == "/whole" else b"hellohello")


@on_both_loops
def test_a_head_answered_without_a_body_says_nothing_of_its_length(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get(method="HEAD") + get())
        assert client.answer("HEAD").all("content-length") == []
        assert client.answer()["content-length"] == "0"


@on_both_loops
def test_204_and_304_have_no_body_whatever_the_application_sends(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = int(scope["path"][1:4])
        length = [(b"content-length", b"1234")] if scope["path"].endswith("length") else []
        await send({"type": "http.response.start", "status": status, "headers": length})
        if scope["path"].endswith("parts"):
            await send({"type": "http.response.body", "body": b"no", "more_body": True})
        await send({"type": "http.response.body", "body": b"body" if not length else b""})

    with serving(app, loop=loop) as served, served.connect() as client:
        for path in ("/204", "/304", "/204parts", "/304parts", "/204length", "/304length"):
            client.send(get(path))
            got = client.answer()
            assert got.status == int(path[1:4])
            assert got.all("transfer-encoding") == []
            assert got.all("content-length") == (["1234"] if path == "/304length" else [])
        client.send(get("/200"))
        assert client.answer().body == b"body"


# Expect: 100-continue

EXPECT = "expect: 100-continue"


@on_both_loops
def test_100_continue_is_sent_when_the_application_reads(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        for _ in range(2):
            client.send(get("/", EXPECT, "content-length: 5", method="POST"))
            assert client.answer() == (100, [], b"", [])
            client.send(b"hello")
            got = client.answer()
            assert (got.status, got.body, got.all("connection")) == (200, b"/ hello", [])


@on_both_loops
def test_100_continue_is_not_sent_when_the_application_does_not_read(loop: str) -> None:
    with serving(text_app(b"no", 403), loop=loop) as served, served.connect() as client:
        client.send(get("/", EXPECT, "content-length: 5", method="POST"))
        got = client.answer()
        assert (got.status, got.body, got["connection"]) == (403, b"no", "close")
        assert client.closed()


@on_both_loops
def test_100_continue_is_not_sent_to_one_who_did_not_wait_for_it(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/", EXPECT, method="POST", body=b"hello"))
        client.send(get("/", EXPECT, method="POST", body=b""))
        client.send(get("/", EXPECT))
        for body in (b"/ hello", b"/ ", b"/ "):
            got = client.answer()
            assert (got.status, got.body, got.all("connection")) == (200, body, [])


@on_both_loops
def test_100_continue_is_sent_once_however_slowly_the_body_comes(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/", EXPECT, "content-length: 3", method="POST"))
        assert client.answer().status == 100
        for byte in (b"a", b"b", b"c"):
            assert client.silent(0.03)
            client.send(byte)
        assert client.answer().body == b"/ abc"


@on_both_loops
def test_100_continue_is_not_sent_for_a_body_over_the_limit(loop: str) -> None:
    with serving(body_app(), settings(limits={"body": 4}), loop) as served, served.connect() as client:
        client.send(get("/", EXPECT, "content-length: 5", method="POST"))
        assert client.answer().status == 413
        assert client.closed()


# Trailers, early hints


def trailer_app(times: int = 1) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered = "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"yes" if offered else b"no"})
        for number in range(times):
            message = {"type": "http.response.trailers", "headers": [(b"x-%d" % number, b"1")]}
            await send({**message, "more_trailers": number < times - 1})

    return app


@on_both_loops
def test_trailers_are_sent_to_who_takes_them(loop: str) -> None:
    with serving(trailer_app(2), loop=loop) as served, served.connect() as client:
        client.send(get("/", "te: trailers"))
        got = client.answer()
        assert (got.body, got.trailers) == (b"yes", [("x-0", "1"), ("x-1", "1")])
        client.send(get("/"))
        got = client.answer()
        assert (got.body, got.trailers) == (b"no", [])


@on_both_loops
def test_an_application_that_sends_trailers_is_right_where_there_can_be_none(loop: str) -> None:
    with serving(trailer_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/", "te: trailers", method="HEAD"))
        assert client.answer("HEAD").status == 200
        client.send(get("/", "te: trailers", "connection: keep-alive", version="1.0"))
        got = client.answer()
        assert (got.body, got.trailers) == (b"yes", [])
        assert served.of(RequestEnded)[-1].ending.reason == "completed"
        assert not [event for event in served.events if type(event).__name__ == "ApplicationFailed"]


@on_both_loops
def test_early_hints_come_before_the_answer(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for links in ([b"</a.css>; rel=preload; as=style", b"</b.js>; rel=preload"], [b"</c>; rel=preload"]):
            await send({"type": "http.response.early_hint", "links": links})
        await answer(send, b"page")

    with serving(app, loop=loop) as served:
        with served.connect() as client:
            client.send(get())
            hints = client.answer()
            assert (hints.status, hints.all("link")) == (
                103,
                ["</a.css>; rel=preload; as=style", "</b.js>; rel=preload"],
            )
            assert client.answer().status == 103
            assert client.answer().body == b"page"
        with served.connect() as client:
            client.send(get(version="1.0"))
            assert client.answer().body == b"page"


# Requests that are refused


@on_both_loops
def test_a_request_that_is_refused_is_answered_and_ends_the_connection(loop: str) -> None:
    cases = [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request_headers"),
        (b"GET /#a HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
        (b"GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
        (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
        (b"GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
        (b"GET http://me@a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 501, "unsupported_method"),
        (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505, "unsupported_version"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "uri_too_long"),
        (get("/", "x: " + "a" * 40_000), 431, "header_too_large"),
        (get("/", "expect: something"), 417, "expectation_failed"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501, "unsupported_transfer_coding"),
    ]
    with serving(body_app(), loop=loop) as served:
        for number, (request, status, reason) in enumerate(cases, 1):
            for before in (b"", get("/before")):
                with served.connect() as client:
                    client.send(before + request + get("/never"))
                    if before:
                        assert client.answer().body == b"/before "
                    got = client.answer()
                    assert (got.status, got["connection"], got["content-type"]) == (
                        status,
                        "close",
                        "application/problem+json",
                    )
                    assert reason.encode() in got.body
                    assert client.closed()
                ended = served.ended(2 * number - (not before))
                assert ended.ending.reason == reason, request


@on_both_loops
def test_a_megabyte_of_headers_is_refused_with_431_and_the_answer_arrives(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        client.send(get("/", "x: " + "a" * 1_000_000))
        assert client.answer().status == 431
        assert client.closed()


@on_both_loops
def test_a_body_that_is_broken_after_the_answer_began_ends_in_a_cut(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        while (await receive())["type"] == "http.request":
            pass

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert client.head().status == 200
        assert client.until(b"some\r\n") == b"4\r\n"
        client.send(b"zzz\r\n")
        served.ended()
        (ended,) = served.of(RequestEnded)
        assert ended.ending.reason == "invalid_request_body"


@on_both_loops
def test_a_broken_body_is_answered_with_400_while_the_application_reads(loop: str) -> None:
    with serving(body_app(), loop=loop) as served, served.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        client.send(b"zzz\r\n")
        got = client.answer()
        assert (got.status, got["connection"]) == (400, "close")
        assert client.closed()
        assert served.ended().ending.reason == "invalid_request_body"


@on_both_loops
def test_empty_lines_between_requests_leave_the_connection_idle(loop: str) -> None:
    with serving(body_app(), settings(timeouts={"header": 0.3}), loop) as served, served.connect() as client:
        client.send(get("/1", method="POST", body=b"x") + b"\r\n")
        assert client.answer().body == b"/1 x"
        assert client.silent(0.7)
        client.send(b"\r\n" + get("/2"))
        assert client.answer().body == b"/2 "


@on_both_loops
def test_a_connection_that_is_too_old_finishes_what_has_begun(loop: str) -> None:
    with serving(body_app(), settings(timeouts={"lifetime": 0.3}), loop) as served:
        with served.connect() as client:
            client.send(b"GET /a HTTP/1.1\r\n")
            served.until(lambda: served.connections() and served.connections()[0].due.lifetime == NEVER)
            client.send(b"host: a\r\n\r\n")
            got = client.answer()
            assert (got.body, got["connection"]) == (b"/a ", "close")
            assert client.closed()
        assert served.ended().requests == 1
