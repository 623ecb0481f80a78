"""Registration: a registry is told what is true, in the background, and nobody ever waits for it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.config import Config, Registration
from sojourn.errors import ConfigError
from sojourn.events import RegistrationFailed
from sojourn.net.ticker import TICK, Ticker
from sojourn.scopes.work import Work
from sojourn.server.registration import Instance, Registrar, RegistrationError, Webhook, from_config

INSTANCE = Instance("a:8000", ("http://10.0.0.1:8000", "unix:/run/a.sock"), 12)
DRAINING = INSTANCE._replace(state="draining")


# -- The webhook


class Receiver:
    """An HTTP server that remembers what it was sent.

    Attributes:
        answer: Status it gives.
        got: Method, path, headers and document of each request.
    """

    def __init__(self) -> None:
        self.answer = 204
        self.location = ""
        self.got: list[tuple[str, str, dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((self.command, self.path, headers, json.loads(body)))
                self.send_response(receiver.answer)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


@contextmanager
def mute(says: bytes = b"", every: float = 0.0) -> Iterator[str]:
    """A server that takes requests, and says a few bytes again and again, or nothing, but never a whole answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()
        held: list[socket.socket] = []

        def serve() -> None:
            while not ended.is_set():
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                held.append(client)
                while says and not ended.wait(every):
                    try:
                        client.sendall(says)
                    except OSError:
                        break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in held:
                client.close()


def calling() -> list[threading.Thread]:
    """Threads of calls that have not returned."""
    return [thread for thread in threading.enumerate() if thread.name == "sojourn-registration"]


def nobody_calls() -> None:
    """Wait until no thread of a call is left."""
    for thread in calling():
        thread.join(5)
    assert calling() == []


def test_each_call_is_a_post_that_says_what_who_and_when() -> None:
    with receiving() as receiver:
        hook = Webhook(f"{receiver.url}/services?zone=1", "s3cret", clock=ManualClock(wall=1_700_000_000.0))

        async def main() -> None:
            await hook.register(INSTANCE)
            await hook.beat(INSTANCE)
            await hook.set_state(DRAINING)
            await hook.deregister(DRAINING)

        asyncio.run(main())
        documents = [document for _, _, _, document in receiver.got]
        assert documents[0] == {
            "event": "register",
            "instance": "a:8000",
            "addresses": ["http://10.0.0.1:8000", "unix:/run/a.sock"],
            "state": "serving",
            "pid": 12,
            "time": 1_700_000_000.0,
        }
        assert [(document["event"], document["state"]) for document in documents] == [
            ("register", "serving"),
            ("beat", "serving"),
            ("state", "draining"),
            ("deregister", "draining"),
        ]
        for method, path, headers, _ in receiver.got:
            assert (method, path) == ("POST", "/services?zone=1")
            assert headers["content-type"] == "application/json"
            assert headers["authorization"] == "Bearer s3cret"


def test_without_a_token_there_is_no_authorization() -> None:
    with receiving() as receiver:
        asyncio.run(Webhook(receiver.url).register(INSTANCE))
        ((_, path, headers, _),) = receiver.got
        assert path == "/"
        assert "authorization" not in headers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_yes(status: int) -> None:
    with receiving() as receiver:
        receiver.answer = status
        asyncio.run(Webhook(receiver.url).register(INSTANCE))


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_every_other_answer_is_a_no(status: int) -> None:
    with receiving() as receiver:
        receiver.answer = status
        with pytest.raises(RegistrationError, match=f"^it answered {status}$"):
            asyncio.run(Webhook(receiver.url).register(INSTANCE))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_the_token_goes_nowhere_else(status: int) -> None:
    with receiving() as receiver, receiving() as elsewhere:
        receiver.answer, receiver.location = status, elsewhere.url
        with pytest.raises(RegistrationError, match="redirects are not followed"):
            asyncio.run(Webhook(receiver.url, "s3cret").register(INSTANCE))
        assert elsewhere.got == []


def test_nobody_there_is_told_in_a_line_without_the_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RegistrationError, match="ConnectionRefusedError") as caught:
        asyncio.run(Webhook(f"http://127.0.0.1:{port}", "s3cret").register(INSTANCE))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    with receiving() as receiver:  # it does not even speak TLS
        url = receiver.url.replace("http:", "https:")
        with pytest.raises(RegistrationError, match="SSL"):
            asyncio.run(Webhook(url, timeout=1.0).register(INSTANCE))
        assert receiver.got == []


def test_a_silent_registry_fails_within_the_timeout() -> None:
    with mute() as url:
        with pytest.raises(RegistrationError, match=r"(?i)timed? ?out"):
            asyncio.run(Webhook(url, timeout=0.2).register(INSTANCE))
        nobody_calls()


def test_a_call_that_is_given_up_ends_its_thread_although_the_registry_talks_on() -> None:
    with mute(b"HTTP/1.1 200 OK\r\n" + b"x" * 10, every=0.02) as url:

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await Webhook(url, timeout=5.0).register(INSTANCE)

        asyncio.run(main())
        nobody_calls()


@pytest.mark.parametrize(
    "url",
    [
        *["", "registry.example", "ftp://a/", "file:///etc/passwd", "http://", "http:///x", "http://[::1/"],
        *["http://a:b/", "http://user@a/", "http://user:password@a/", "http://a/x y", "http://a/\u00e4"],
    ],
)
def test_a_url_that_can_not_be_meant_is_refused_with_its_key(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^registration\.webhook: ") as caught:
        from_config(Config(registration=Registration(webhook=url)))
    assert "password" not in str(caught.value) or "user or password" in str(caught.value)


@pytest.mark.parametrize("token", ["", " ", "a\r\nx: y", "t\u00f6ken"])
def test_a_token_that_is_no_header_value_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match=r"^registration\.token: ") as caught:
        from_config(Config(registration=Registration(webhook="http://a/", token=token)))
    assert "x: y" not in str(caught.value)


def test_there_is_a_registry_when_one_is_named() -> None:
    assert from_config(Config()) is None
    assert isinstance(from_config(Config(registration=Registration(webhook="https://a/b"))), Webhook)


# -- The registrar


class Registry:
    """A registry in memory.

    Attributes:
        calls: Names and states, in the order they came.
        fails: Names of the calls that fail.
        hangs: Names of the calls that never return.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()

    async def _called(self, name: str, instance: Instance) -> None:
        self.calls.append((name, instance.state))
        if name in self.hangs:
            await asyncio.Event().wait()
        if name in self.fails:
            raise ValueError("no such list")

    async def register(self, instance: Instance) -> None:
        await self._called("register", instance)

    async def set_state(self, instance: Instance) -> None:
        await self._called("set_state", instance)

    async def beat(self, instance: Instance) -> None:
        await self._called("beat", instance)

    async def deregister(self, instance: Instance) -> None:
        await self._called("deregister", instance)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class Scene:
    """A registrar on a clock that moves when it is told to."""

    def __init__(self, registry: Any, timeout: float, beat: float | None) -> None:
        self.clock = ManualClock()
        self.failures: list[RegistrationFailed] = []
        bus = Bus()
        bus.observe(RegistrationFailed, self.failures.append)
        self.ticker = Ticker(self.clock)
        self.work = Work(asyncio.get_running_loop(), self.ticker, bus, copy_context())
        settings = Registration(beat=beat, timeout=timeout)
        self.registrar = Registrar(registry, INSTANCE, work=self.work, ticker=self.ticker, bus=bus, settings=settings)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.settle()
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.ticker.tick()
            await self.settle()


def play(
    registry: Any, scene: Callable[[Scene], Any], *, timeout: float = 5.0, beat: float | None = 15.0
) -> list[RegistrationFailed]:
    """Run a scene; what failed in it. At its end the registrar is closed, and nothing is left of it."""

    async def main() -> list[RegistrationFailed]:
        made = Scene(registry, timeout, beat)
        before = asyncio.all_tasks()
        async with asyncio.timeout(20):
            await scene(made)
            await made.registrar.close()
            await made.settle()
        assert asyncio.all_tasks() == before
        return made.failures

    return asyncio.run(main())


def test_it_registers_beats_and_deregisters() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        it.registrar.start()
        await it.settle()
        assert registry.names == ["register"]
        await it.advance(17)
        assert registry.names == ["register", "beat"]
        await it.advance(100)
        assert 7 <= registry.names.count("beat") <= 8

    assert play(registry, scene) == []
    assert registry.names[-1] == "deregister"
    assert registry.names.count("register") == registry.names.count("deregister") == 1


def test_without_beats_it_is_silent_until_something_changes() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        await it.advance(200)
        assert registry.names == ["register"]
        it.registrar.set_state("draining")
        await it.settle()

    play(registry, scene, beat=None)
    assert registry.calls == [("register", "serving"), ("set_state", "draining"), ("deregister", "draining")]


def test_a_drain_is_told_at_once_and_beats_go_on_in_it() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        await it.advance(1)
        it.registrar.set_state("draining")
        await it.settle()
        await it.advance(17)

    play(registry, scene)
    assert registry.calls[1:] == [("set_state", "draining"), ("beat", "draining"), ("deregister", "draining")]


def test_what_is_over_before_it_could_be_told_is_not_told() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        await it.settle()
        it.registrar.set_state("draining")
        it.registrar.deregister()
        await it.settle()

    play(registry, scene)
    assert registry.calls == [("register", "serving"), ("deregister", "draining")]


def test_one_that_was_never_started_calls_nobody() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.set_state("draining")
        it.registrar.deregister()
        it.registrar.start()
        await it.settle()

    play(registry, scene)
    assert registry.calls == []


def test_registering_is_tried_again_and_again_ever_more_seldom_and_told_once() -> None:
    registry = Registry()
    registry.fails = {"register"}
    tries: list[int] = []

    async def scene(it: Scene) -> None:
        it.registrar.start()
        for _ in range(3):
            await it.advance(20)
            tries.append(len(registry.calls))
        registry.fails.clear()
        await it.advance(40)
        assert registry.names[-1] == "beat"
        registry.fails = {"beat"}
        await it.advance(20)

    failures = play(registry, scene)
    assert 5 <= tries[0] <= 7  # after 0, 0.5, 1.5, 3.5, 7.5, 15.5 s
    assert tries[2] - tries[1] <= 2
    # A second run of failures is told again; there is room for one beat or two.
    assert [failure.call for failure in failures] in (["register", "beat"], ["register", "beat", "beat"])
    assert failures[0].problem == "ValueError: no such list"


def test_after_a_failed_beat_it_registers_anew_with_its_present_state() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        it.registrar.set_state("draining")
        await it.settle()
        registry.fails = {"beat"}
        await it.advance(18)

    play(registry, scene)
    assert registry.calls[-4:-1] == [("register", "draining"), ("beat", "draining"), ("register", "draining")]


def test_a_call_that_hangs_is_given_up_after_its_timeout() -> None:
    registry = Registry()
    registry.hangs = {"register"}

    async def scene(it: Scene) -> None:
        it.registrar.start()
        await asyncio.sleep(0.15)
        assert it.failures == [RegistrationFailed("register", "no answer within 0.05 s")]

    play(registry, scene, timeout=0.05)
    assert registry.names == ["register", "deregister"]  # it may have heard what it did not answer


def test_a_registry_that_hangs_holds_up_no_drain() -> None:
    registry = Registry()
    registry.hangs = {"register", "set_state", "beat", "deregister"}
    took = 0.0

    async def scene(it: Scene) -> None:
        nonlocal took
        it.registrar.start()
        await it.settle()
        began = time.monotonic()
        it.registrar.set_state("draining")
        it.registrar.deregister()
        assert time.monotonic() - began < 0.1
        await it.registrar.close()
        took = time.monotonic() - began

    play(registry, scene, timeout=0.2)
    assert took < 2.0


def test_deregistering_is_tried_three_times() -> None:
    registry = Registry()

    async def scene(it: Scene) -> None:
        it.registrar.start()
        await it.settle()
        registry.fails = {"deregister"}
        it.registrar.deregister()
        await it.advance(60)

    failures = play(registry, scene)
    assert registry.names == ["register", "deregister", "deregister", "deregister"]
    assert [failure.call for failure in failures] == ["deregister"]


def test_the_webhook_is_told_a_whole_life() -> None:
    with receiving() as receiver:

        async def scene(it: Scene) -> None:
            it.registrar.start()
            for _ in range(500):
                if receiver.got:
                    break
                await asyncio.sleep(0.01)
            it.registrar.set_state("draining")
            for _ in range(500):
                if len(receiver.got) == 2:
                    break
                await asyncio.sleep(0.01)

        assert play(Webhook(receiver.url), scene) == []
        events = [document["event"] for _, _, _, document in receiver.got]
        assert events == ["register", "state", "deregister"]
    nobody_calls()
