"""Who serves sessions is told when their store can't be reached, and when it answers again."""

from __future__ import annotations

import asyncio
import inspect
from contextvars import copy_context
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.errors import SessionStoreUnavailable
from sojourn.events import Event, StoreAway, StoreBack
from sojourn.scopes.sessions import SESSIONS
from sojourn.scopes.used import Used
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import Draft, Revocation
from sojourn.sessions.watched import Watched

CALLS: dict[str, tuple[Any, ...]] = {
    "load": ("k",),
    "create": ("k", Draft("", b"{}", 60.0, 600.0)),
    "save": ("k", 1, b"{}"),
    "rotate": ("k", 1, "l", Draft("", b"{}", 60.0, 600.0)),
    "touch": (["k"],),
    "revoke": (Revocation("session", "k"),),
    "of": ("ada",),
}


class FlakySessions(MemorySessions):
    """A store whose calls fail for as long as they are told to."""

    problem = ""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in CALLS or not self.problem:
            return value

        async def fail(*arguments: Any) -> None:
            raise SessionStoreUnavailable(self.problem)

        return fail


def test_every_call_of_a_store_is_watched_but_those_that_never_fail() -> None:
    methods = {name for name, _ in inspect.getmembers(SessionStore, inspect.isfunction) if not name.startswith("_")}
    assert methods == {*CALLS, "watch", "aclose"}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_the_first_failure_and_the_first_answer_after_it_are_told_whoever_asked(call: str) -> None:
    bus, heard, context = Bus(), list[Event](), copy_context()
    bus.observe(StoreAway, heard.append)
    bus.observe(StoreBack, heard.append)
    context.run(SESSIONS.set, Used(bus))

    async def main() -> None:
        store = FlakySessions()
        watched = Watched(store)
        await watched.load("k")
        store.problem = "no route to host"
        for name in (call, "load"):
            with pytest.raises(SessionStoreUnavailable, match="no route to host"):
                await getattr(watched, name)(*CALLS[name])
        store.problem = ""
        await getattr(watched, call)(*CALLS[call])
        await watched.load("k")
        await watched.aclose()

    context.run(asyncio.run, main())
    away, back = heard
    assert away == StoreAway("sessions", "sessions", "flaky", "no route to host")
    assert isinstance(back, StoreBack)
    assert 0.0 <= back.seconds < 5.0


def test_without_a_server_nobody_is_told_and_all_is_as_it_was() -> None:
    async def main() -> None:
        store = FlakySessions()
        store.problem = "no"
        with pytest.raises(SessionStoreUnavailable):
            await Watched(store).load("k")

    copy_context().run(asyncio.run, main())
