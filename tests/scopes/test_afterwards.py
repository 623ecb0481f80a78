"""Work that begins when the answer is complete."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sojourn.config import Config, Drain, Timeouts
from sojourn.errors import DeadlineExceeded
from sojourn.events import TaskFailed
from sojourn.scopes.afterwards import after_response
from sojourn.scopes.context import SecurityContext, acting_as, current_security
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing import MemoryClient, MemoryServer
from tests.server.serving import both_loops, serving, until

ALICE = SecurityContext("alice")
Body = Callable[[Any], Awaitable[None]]


async def answer(send: Any, body: bytes = b"", status: int = 200) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def memory(body: Body, **groups: Any) -> MemoryServer:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await body(send)

    return MemoryServer(app, Config(**groups))


async def ask(server: MemoryServer) -> MemoryClient:
    client = server.connect()
    client.get("/work")
    await server.settle()
    return client


class Notes:
    """What was done, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def record(self, line: str) -> None:
        self.lines.append(line)

    def record_plain(self, line: str) -> None:
        self.lines.append(f"{line} in {threading.current_thread().name}")


def test_it_runs_when_the_answer_is_complete_and_the_application_has_returned() -> None:
    notes = Notes()

    async def body(send: Any) -> None:
        after_response(notes.record, "afterwards")
        await answer(send, b"done")
        await asyncio.sleep(0)
        notes.lines.append("returned")

    async def main() -> None:
        server = memory(body)
        async with server:
            client = await ask(server)
            assert client.response().body == b"done"
            assert notes.lines == ["returned", "afterwards"]
            assert not server.work.running

    asyncio.run(main())


def test_a_coroutine_and_a_plain_function_will_do() -> None:
    notes = Notes()

    async def body(send: Any) -> None:
        after_response(notes.record("a coroutine"))
        after_response(notes.record_plain, "a function")
        await answer(send)

    async def main() -> None:
        server = memory(body)
        async with server:
            await ask(server)
            await until(lambda: len(notes.lines) == 2)

    asyncio.run(main())
    assert notes.lines[0] == "a coroutine"
    assert notes.lines[1].startswith("a function in sojourn-thread-")


async def crash(send: Any) -> None:
    raise KeyError("mine")


async def half(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise KeyError("mine")


async def apologise(send: Any) -> None:
    await answer(send, b"sorry", 503)


async def refuse(send: Any) -> None:
    await answer(send, b"no", 404)


@pytest.mark.parametrize(
    ("then", "expected"),
    [(crash, ["always"]), (half, ["always"]), (apologise, ["always"]), (refuse, ["always", "if it went well"])],
)
def test_a_request_that_failed_has_no_afterwards_unless_it_is_asked_for(then: Body, expected: list[str]) -> None:
    notes = Notes()

    async def body(send: Any) -> None:
        after_response(notes.record, "if it went well")
        after_response(notes.record("if it went well"))
        after_response(notes.record, "always", always=True)
        await then(send)

    async def main() -> None:
        server = memory(body)
        async with server:
            await ask(server)
            await server.settle()

    asyncio.run(main())
    assert sorted(set(notes.lines)) == expected


def test_a_client_that_left_is_a_request_that_failed() -> None:
    notes = Notes()

    async def body(send: Any) -> None:
        after_response(notes.record, "if it went well")
        after_response(notes.record, "always", always=True)
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        server = memory(body)
        async with server:
            client = await ask(server)
            client.peer.reset()
            await server.advance(3.2)
            assert notes.lines == ["always"]

    asyncio.run(main())


def test_it_has_the_identity_of_the_request_and_a_deadline_of_its_own() -> None:
    seen: list[tuple[str, float]] = []

    async def look() -> None:
        who, left = current_security(), remaining()
        assert who is not None
        assert left is not None
        seen.append((who.principal, left))

    async def body(send: Any) -> None:
        with acting_as(ALICE):
            async with deadline(1.0):
                after_response(look, seconds=20.0)
        await answer(send)

    async def main() -> None:
        server = memory(body, timeouts=Timeouts(response_start=None))
        async with server:
            await ask(server)

    asyncio.run(main())
    assert seen[0][0] == "alice"
    assert 15.0 < seen[0][1] <= 20.0


def test_it_ends_at_its_deadline_and_that_is_told() -> None:
    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    async def body(send: Any) -> None:
        after_response(stuck, seconds=0.02, name="send the mail")
        await answer(send)

    async def main() -> None:
        server = memory(body)
        async with server:
            await ask(server)
            await until(lambda: server.seen(TaskFailed))
            (event,) = server.seen(TaskFailed)
            assert (event.name, event.owner) == ("send the mail", "connection 1 GET /work")
            assert isinstance(event.error, DeadlineExceeded)
            assert event.error.deadline == "send the mail"

    asyncio.run(main())


def test_a_drain_waits_for_it_also_when_its_connection_has_ended() -> None:
    notes = Notes()

    async def main() -> None:
        async def slow() -> None:
            await server.sleep(5.0)
            notes.lines.append("mailed")

        async def body(send: Any) -> None:
            after_response(slow)
            await server.sleep(1.0)
            await answer(send, b"done")

        server = memory(body)
        async with server:
            client = await ask(server)
            server.drain(0.0)
            await server.advance(1.5)
            assert client.response().body == b"done"
            client.peer.close()
            await server.settle()
            assert server.open == 0
            assert not notes.lines
            assert not server.shutdown._over.is_set()
            await server.advance(5.0)
            assert notes.lines == ["mailed"]
            assert server.shutdown._over.is_set()

    asyncio.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_cancelled_it_leaves_nothing(begun: bool) -> None:
    notes = Notes()

    async def work() -> None:
        notes.lines.append("begun")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            notes.lines.append("cleaned up")

    async def main() -> None:
        hold = asyncio.Event()

        async def body(send: Any) -> None:
            after_response(work())  # a coroutine that nobody awaited would be told of
            await hold.wait()
            await answer(send)

        server = memory(body)
        async with server:
            await ask(server)
            if begun:
                hold.set()
                await server.settle()
            (task,) = server.work.running
            task.cancel()
            await server.settle()
            hold.set()
            await server.settle()
            assert task.cancelled()
            assert not server.work.running
        assert notes.lines == (["begun", "cleaned up"] if begun else [])

    asyncio.run(main())
    gc.collect()


def test_it_may_be_asked_for_in_a_thread_of_the_request() -> None:
    notes = Notes()

    async def body(send: Any) -> None:
        await asyncio.to_thread(after_response, notes.record, "from a thread")
        await answer(send)

    async def main() -> None:
        server = memory(body)
        async with server:
            await ask(server)
            await until(lambda: notes.lines)

    asyncio.run(main())
    assert notes.lines == ["from a thread"]


def test_under_another_server_it_follows_the_task_that_calls() -> None:
    notes = Notes()

    async def request(fails: bool) -> None:
        after_response(notes.record, "failed" if fails else "went well")
        await asyncio.sleep(0)
        notes.lines.append("returned")
        if fails:
            raise KeyError("mine")

    async def main() -> None:
        for fails in (False, True):
            task = asyncio.get_running_loop().create_task(request(fails))
            await asyncio.wait([task])
            if fails:
                assert isinstance(task.exception(), KeyError)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert notes.lines == ["returned", "went well", "returned"]


def test_outside_of_everything_it_is_refused() -> None:
    notes = Notes()
    with pytest.raises(RuntimeError, match="no running event loop"):
        after_response(notes.record("nobody closes it but we"))


@both_loops
def test_on_a_real_server_each_request_has_its_own(run: Any) -> None:
    notes = Notes()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        after_response(notes.record, scope["path"])
        await answer(send, b"hello")

    async def main() -> None:
        async with serving(app, drain=Drain(delay=0.0)) as served:
            client = await served.connect()
            for path in ("/1", "/2", "/3"):
                client.get(path)
                await client.head()
                await client.read(5)
        assert notes.lines == ["/1", "/2", "/3"]

    run(main())
