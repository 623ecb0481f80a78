"""A crash in any layer costs one answer: the connection goes on, and nobody else notices."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from starlette.middleware import Middleware
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from sojourn.events import ApplicationFailed
from tests.asgi.harness import Cut, Served, get, serving
from tests.asgi.harness import settings as config
from tests.guards.layers import frameworks
from tests.guards.layers.frameworks import FAILURES, Steps

pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")

MAKERS: dict[str, Any] = {
    "plain": lambda: Steps(frameworks.plain),
    "starlette": frameworks.starlette,
    "starlette-dispatch": lambda: frameworks.starlette(Middleware(frameworks.Dispatch)),
    "fastapi": frameworks.fastapi,
    "fastapi-dispatch": lambda: frameworks.fastapi(Middleware(frameworks.Dispatch)),
    "litestar": frameworks.litestar,
    "django": frameworks.in_django,
}
#: Where an application can fail before an answer has begun: it becomes 500.
BEFORE = {
    "plain": ("layer-before", "endpoint"),
    "starlette": ("layer-before", "endpoint", "threaded"),
    "starlette-dispatch": ("dispatch-before", "dispatch-after", "endpoint", "threaded"),
    "fastapi": ("layer-before", "dependency-before", "endpoint", "threaded"),
    "fastapi-dispatch": ("dispatch-before", "dispatch-after", "dependency-before", "endpoint"),
    "litestar": ("layer-before", "endpoint", "threaded"),
    "django": ("layer-before", "dispatch-before", "dispatch-after", "endpoint", "threaded"),
}
#: Where it can fail after the answer is complete: it was good.
AFTER = {
    "plain": ("layer-after", "background"),
    "starlette": ("layer-after", "background"),
    "fastapi": ("layer-after", "background", "dependency-after"),
    "litestar": ("layer-after", "background"),
    "django": ("layer-after",),
}
#: Where WebSockets are.
SOCKETS = ("plain", "starlette", "fastapi", "litestar")


def everywhere(*names: str) -> pytest.MarkDecorator:
    """Run a test in frameworks: without one on both loops, in the others on one of them."""
    pairs = [(name, "asyncio" if number % 2 else "uvloop") for number, name in enumerate(names)]
    return pytest.mark.parametrize(("framework", "loop"), [("plain", "asyncio"), *pairs])


def failures(framework: str, place: str) -> list[str]:
    """The ways to fail that can be tried at a place."""
    left_out = set()
    if framework.endswith("-dispatch") or (framework == "django" and not place.startswith("layer")):
        left_out.add("exit")  # raised in a task of the framework's own, it ends the loop: asyncio.Task does that
    if place == "threaded" and framework in ("litestar", "django"):
        left_out.add("stop-iteration")  # asyncio can't hand it on from a thread: the caller waits for its deadline
    return [kind for kind in FAILURES if kind not in left_out]


@contextmanager
def served(framework: str, loop: str, **options: Any) -> Iterator[Served]:
    with frameworks.django_settings() if framework == "django" else nullcontext():
        app = MAKERS[framework]()
        try:
            with serving(app, config(app={"lifespan": "auto"}, **options), loop) as running:
                yield running
        finally:
            if framework == "django":
                gc.collect()  # it leaves the file of a body to the collector


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Frameworks log what they answer."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@everywhere(*BEFORE)
def test_before_the_answer_it_becomes_a_500_and_the_connection_goes_on(framework: str, loop: str) -> None:
    with served(framework, loop) as site:
        client, other = site.connect(), site.connect()
        for place in BEFORE[framework]:
            for kind in failures(framework, place):
                answer = client.send(get(f"/{place}/{kind}")).answer()
                assert answer.status == 500, (place, kind)
                if framework == "plain":
                    assert answer["content-type"] == "application/problem+json"
                assert b"a bug" not in answer.body
            assert client.send(get("/fine")).answer().body == b"fine", place
        assert other.send(get("/fine")).answer().body == b"fine"
        assert site.server.runtime.registry.accepted == 2


@everywhere(*AFTER)
def test_after_the_answer_it_changes_nothing_for_anybody(framework: str, loop: str) -> None:
    with served(framework, loop) as site:
        client = site.connect()
        for place in AFTER[framework]:
            for kind in failures(framework, place):
                assert client.send(get(f"/{place}/{kind}")).answer().body == b"fine", (place, kind)
        assert client.send(get("/fine")).answer().body == b"fine"
        assert site.server.runtime.registry.accepted == 1
        failed = site.wait(ApplicationFailed, (len(FAILURES) - 1) * len(AFTER[framework]))
        assert {each.reason for each in failed} == {"error_after_response"}


@everywhere("plain", "starlette", "fastapi", "django")
def test_inside_an_answer_the_client_sees_a_cut_and_the_others_nothing(framework: str, loop: str) -> None:
    with served(framework, loop) as site:
        other = site.connect()
        for kind in failures(framework, "stream"):
            with pytest.raises(Cut):
                site.connect().send(get(f"/stream/{kind}")).answer()
            assert other.send(get("/fine")).answer().body == b"fine", kind


def test_an_exception_that_a_thread_can_not_hand_on_ends_at_the_deadline() -> None:
    with served("litestar", "asyncio", timeouts={"response_start": 0.2}) as site:
        client = site.connect()
        assert client.send(get("/threaded/stop-iteration")).answer().status == 504
        assert client.send(get("/fine")).answer().body == b"fine"
        (complaint,) = site.complaints  # asyncio's own
        assert "StopIteration" in complaint
        site.complaints.clear()


@everywhere(*SOCKETS)
def test_a_websocket_whose_application_fails_is_closed_as_failed_and_the_others_stay(framework: str, loop: str) -> None:
    with served(framework, loop) as site:
        address = f"ws://127.0.0.1:{site.port}"
        with connect(f"{address}/fine/fine", proxy=None) as other:
            for kind in FAILURES:
                with connect(f"{address}/ws/{kind}", proxy=None) as socket:
                    with pytest.raises(ConnectionClosed):
                        socket.recv(10)
                    # Litestar closes by itself after an Exception, with a code of its own.
                    assert socket.protocol.close_code in ((1011, 4500) if framework == "litestar" else (1011,)), kind
            other.send("still here")
            assert other.recv(10) == "still here"


@everywhere(*SOCKETS)
def test_a_handshake_whose_application_fails_is_refused(framework: str, loop: str) -> None:
    with served(framework, loop) as site:
        for kind in FAILURES:
            with (
                pytest.raises(InvalidStatus) as caught,
                connect(f"ws://127.0.0.1:{site.port}/handshake/{kind}", proxy=None),
            ):
                pass
            # Litestar closes by itself after an Exception, which is 403 before the handshake.
            assert caught.value.response.status_code in ((500, 403) if framework == "litestar" else (500,)), kind


_INTERRUPTED = """
import asyncio, sojourn
from sojourn.bus import Bus
from sojourn.config import Bind
from sojourn.events import ApplicationFailed

async def app(scope, receive, send):
    if scope["type"] == "http":
        raise KeyboardInterrupt

async def main():
    bus = Bus()
    bus.observe(ApplicationFailed, lambda failed: print(type(failed.error).__name__, flush=True))
    async with sojourn.Server(app, sojourn.Config(bind=Bind(port=0)), bus=bus) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")
        await asyncio.sleep(20)

asyncio.run(main())
"""


def test_who_presses_ctrl_c_is_not_held_up_by_a_request() -> None:
    """A KeyboardInterrupt is reported as the request's failure, and goes on to who runs the loop."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("KeyboardInterrupt\n", -signal.SIGINT)
