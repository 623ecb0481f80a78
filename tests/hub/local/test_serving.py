"""The broker's socket: who does not speak its language is cut, and one that does not read costs a bound."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvloop

from sojourn.errors import EngineUnavailable
from sojourn.hub.local import serving as module
from sojourn.hub.local.engine import LocalEngine
from sojourn.hub.local.messages import VERSION, Frames, Hello, Join, Request, Tell, Where, frame, from_broker
from sojourn.hub.local.place import Place, bound, connected, new_name
from sojourn.hub.local.serving import Serving
from sojourn.testing.hub_engine import Node, Recorder
from sojourn.testing.leaks import assert_no_leaks


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, assert_no_leaks():
        runner.run(main())


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Serving, str]]:
    serving, name = Serving(), new_name()
    await serving.start(bound(name))
    try:
        yield serving, name
    finally:
        serving.close()
        await asyncio.sleep(0)


class Raw:
    """A connection that says what it likes."""

    def __init__(self, name: str) -> None:
        self.sock = connected(name)
        self.frames = Frames()

    async def say(self, *messages: msgspec.Struct) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(map(frame, messages)))

    async def hear(self) -> list[Any]:
        """What comes next; nothing at the end."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        except ConnectionError:
            data = b""
        return [from_broker(bytes(body)) for body in self.frames.feed(data)] if data else []


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\1\xc0", b"\0\0\0\3\x92\x63\x01"], ids=str
)
def test_who_speaks_another_language_is_cut(data: bytes) -> None:
    async def main() -> None:
        async with served() as (serving, name):
            raw = Raw(name)
            await asyncio.get_running_loop().sock_sendall(raw.sock, data)
            assert await raw.hear() == []
            raw.sock.close()
            assert not any(serving.brokers.values())

    run(main)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (Where(number=1), "hello first"),
        (Hello(number=1, version=VERSION + 1, node="n"), f"speaks version {VERSION}"),
    ],
)
def test_who_does_not_say_hello_is_refused(first: Request, why: str) -> None:
    async def main() -> None:
        async with served() as (serving, name):
            raw = Raw(name)
            await raw.say(first)
            (refusal,) = await raw.hear()
            assert why in refusal.text
            assert not any(serving.brokers.values())
            raw.sock.close()

    run(main)


def test_hello_is_said_once_and_a_node_that_is_back_replaces_itself() -> None:
    async def main() -> None:
        async with served() as (serving, name):
            hello = Hello(number=1, version=VERSION, node="n")
            first, second = Raw(name), Raw(name)
            await first.say(hello, Join(number=2, channels=["c"]), hello)
            answers = await first.hear()
            assert answers[-1].text == "hello was said before"
            await second.say(hello)
            assert len(await second.hear()) == 1
            assert await first.hear() == []  # cut
            assert len(serving.broker("")) == 1
            first.sock.close()
            second.sock.close()

    run(main)


def test_a_worker_that_does_not_read_is_cut_and_the_others_do_not_feel_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 1024 * 1024)

    async def main() -> None:
        async with served() as (serving, name):
            stalled, teller = Raw(name), Raw(name)
            await stalled.say(Hello(number=1, version=VERSION, node="stalled"))
            await stalled.hear()
            await teller.say(Hello(number=1, version=VERSION, node="teller"))
            await teller.hear()
            for _ in range(40):
                await teller.say(Tell(number=2, data=bytes(65536)))
                assert len(await teller.hear()) == 1
            assert serving.cut == 1
            assert len(serving.broker("")) == 1
            stalled.sock.close()
            teller.sock.close()

    run(main)


def test_stores_of_other_names_have_nothing_to_do_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_STORES", 2)

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/hub.sock"
            one, two = (Node(LocalEngine(path, store=store), Recorder()) for store in ("one", "two"))
            for node in (one, two):
                await node.engine.start(node.seen)
                await node.engine.subscribe("c")
            await one.publish("c")
            await one.engine.tell(b"word")
            assert await two.engine.position() == (await two.all("c")).position
            assert (two.seen.publications, two.seen.words, (await two.all("c")).publications) == ([], [], [])
            third = LocalEngine(path, store="three")
            await third.start(Recorder())
            with pytest.raises(EngineUnavailable, match="2 stores already"):
                await third.position()
            for engine in (third, two.engine, one.engine):
                await engine.aclose()

    run(main)


def test_an_answer_that_is_too_long_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            node = Node(LocalEngine(f"{folder}/hub.sock"), Recorder())
            await node.engine.start(node.seen)
            await node.publish("c", bytes(1000))
            monkeypatch.setattr("sojourn.hub.local.messages.LONGEST", 500)
            with pytest.raises(EngineUnavailable, match="more than the 500"):
                await node.all("c")
            monkeypatch.undo()
            assert len((await node.all("c")).publications) == 1
            await node.engine.aclose()

    run(main)


def test_a_place_is_claimed_once_and_what_is_no_socket_stays() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Place(f"{folder}/s"), Place(f"{folder}/s")
        sock = first.claim()
        assert sock is not None
        assert second.claim() is None
        first.release()
        first.release()
        sock.close()
        again = second.claim()
        assert again is not None
        second.release()
        again.close()
        third = Place(f"{folder}/file")
        with open(third.path, "w") as file:
            file.write("mine")
        with pytest.raises(OSError, match="in use"):
            third.claim()
        with open(third.path) as file:
            assert file.read() == "mine"


def test_a_connection_where_nobody_listens_fails_at_once() -> None:
    with pytest.raises(ConnectionRefusedError):
        connected(new_name())
