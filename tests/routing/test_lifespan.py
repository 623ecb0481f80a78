"""Startup and shutdown: the router's own, and those of what is mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from sojourn.errors import StartupError
from sojourn.routing.router import Router


def lived(app: Any, *, stop: bool = True) -> tuple[list[str], dict[str, Any]]:
    """The messages that an application sends in its life, and its state."""
    sent, state = [], {}
    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return inbox.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def main() -> None:
        try:
            await app({"type": "lifespan", "asgi": {}, "state": state}, receive, send)
        finally:
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    return sent, state


def logged(log: list[str], name: str, *, fails: str = "") -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        if fails == "startup":
            raise LookupError(name)
        log.append(f"{name} up")
        yield {name: "state"}
        log.append(f"{name} down")
        if fails == "shutdown":
            raise LookupError(name)

    return lifespan


DONE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_router_without_lifespan_starts_and_stops() -> None:
    assert lived(Router()) == (DONE, {})


def test_the_own_lifespan_gives_state() -> None:
    log: list[str] = []
    assert lived(Router(lifespan=logged(log, "own"))) == (DONE, {"own": "state"})
    assert log == ["own up", "own down"]


def test_mounted_applications_that_want_it_start_after_and_stop_before() -> None:
    log: list[str] = []
    router = Router(lifespan=logged(log, "own"))
    router.mount("/a", Starlette(lifespan=logged(log, "a")), lifespan=True)
    router.mount("/b", Router(lifespan=logged(log, "b")), lifespan=True)
    router.mount("/c", Starlette(lifespan=logged(log, "c")))
    sent, state = lived(router)
    assert (sent, set(state)) == (DONE, {"own", "a", "b"})
    assert log == ["own up", "a up", "b up", "b down", "a down", "own down"]


def test_an_application_without_lifespan_is_no_failure() -> None:
    async def knows_none(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError(scope["type"])

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        return

    router = Router()
    router.mount("/a", knows_none, lifespan=True)
    router.mount("/b", returns, lifespan=True)
    assert lived(router)[0] == DONE


@pytest.mark.parametrize("place", ["own", "mounted"])
def test_a_startup_that_fails_is_told_and_what_was_started_is_stopped(place: str) -> None:
    log: list[str] = []
    router = Router(lifespan=logged(log, "own", fails="startup" if place == "own" else ""))
    router.mount("/a", Starlette(lifespan=logged(log, "a")), lifespan=True)
    router.mount("/b", Starlette(lifespan=logged(log, "b", fails="startup")), lifespan=True)
    sent: list[str] = []

    async def main() -> None:
        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        with pytest.raises(LookupError if place == "own" else StartupError):
            await router({"type": "lifespan", "state": {}}, receive, send)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert sent == ["lifespan.startup.failed"]
    assert [word for word in log if word.startswith("own")] == ([] if place == "own" else ["own up"])


def test_a_shutdown_that_fails_is_told() -> None:
    log: list[str] = []
    router = Router()
    router.mount("/a", Starlette(lifespan=logged(log, "a", fails="shutdown")), lifespan=True)
    with pytest.raises(StartupError, match="the shutdown of a mounted application failed"):
        lived(router)


@pytest.mark.parametrize("turns", range(12))
def test_a_lifespan_can_be_cancelled_anywhere_and_leaves_no_task(turns: int) -> None:
    async def main() -> None:
        router = Router(lifespan=logged([], "own"))
        router.mount("/a", Starlette(lifespan=logged([], "a")), lifespan=True)
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        inbox.put_nowait({"type": "lifespan.startup"})

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        living = asyncio.ensure_future(router({"type": "lifespan", "state": {}}, inbox.get, send))
        for _ in range(turns):
            await asyncio.sleep(0)
        living.cancel()
        await asyncio.wait([living])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
