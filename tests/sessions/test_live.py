"""What is open with a session: used while it is, ended when the session is, and never missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import pytest

from sojourn.errors import SessionStoreUnavailable
from sojourn.sessions import live as module
from sojourn.sessions.live import Live
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.store import Watcher
from sojourn.sessions.stored import Draft, Revocation
from tests.sessions.scene import play, until


class Open:
    """Something that is open."""

    def __init__(self, key: str, user: str = "") -> None:
        self.key = key
        self.user = user
        self.ended: list[str] = []

    def end(self, reason: str) -> None:
        self.ended.append(reason)


class Store(MemorySessions):
    """Counts what it is asked, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: list[set[str]] = []
        self.away = False

    async def touch(self, keys: Collection[str]) -> set[str]:
        if self.away:
            raise SessionStoreUnavailable("away")
        self.touched.append(set(keys))
        return await super().touch(keys)

    async def keep(self, *keys: str, user: str = "", idle: float = 100.0) -> None:
        for key in keys:
            await self.create(key, Draft(user, b"{}", idle, 1000.0))

    def watcher(self) -> Watcher:
        (watcher,) = self._watchers
        return watcher


async def started(store: Store, live: Live, *opens: Open) -> None:
    """Enter what is open, and wait until it was looked up once."""
    for each in opens:
        live.enter(each, 1000.0, live.mark())
    await until(lambda: store._watchers and not live._unsure)


def ended(live: Live) -> Any:
    """Close it; no task may be left."""

    async def close() -> None:
        await live.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return close()


def test_sessions_of_what_is_open_are_used_in_one_call_within_a_quarter_of_their_idle_time() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=0.4)
        await store.keep("a", "b", "c")
        opens = [Open(key) for key in "aabbc"]
        await started(store, live, *opens)
        store.touched.clear()
        began = time.monotonic()
        await until(lambda: len(store.touched) == 5)
        assert time.monotonic() - began > 4 * 0.075
        assert store.touched == [{"a", "b", "c"}] * 5
        assert await store.load("a") is not None
        assert [each.ended for each in opens] == [[]] * 5
        await ended(live)

    play(main())


def test_a_revocation_ends_what_it_means_and_nothing_else() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=100.0)
        await store.keep("a", "b", user="ann")
        await store.keep("c", user="bob")
        await store.keep("d", "e")
        a, _, _, d, _ = opens = [Open("a", "ann"), Open("b", "ann"), Open("c", "bob"), Open("d"), Open("e")]
        await started(store, live, *opens)
        for revocation, hit in ((Revocation("session", "d"), d), (Revocation("user", "ann", "b"), a)):
            await store.revoke(revocation)
            await asyncio.sleep(0)
            assert hit.ended == ["credentials_revoked"]
        assert [len(each.ended) for each in opens] == [1, 0, 0, 1, 0]
        await store.revoke(Revocation("all"))
        await asyncio.sleep(0)
        assert [each.ended for each in opens] == [["credentials_revoked"]] * 5
        assert len(live) == 0
        await ended(live)

    play(main())


def test_what_was_revoked_while_it_came_in_is_ended() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=100.0)
        await store.keep("a", "b", user="ann")
        await started(store, live, Open("a", "ann"))
        before = live.mark()
        await store.revoke(Revocation("user", "ann", "a"))
        late, after = Open("b", "ann"), Open("b", "ann")
        live.enter(late, 1000.0, before)
        live.enter(after, 1000.0, live.mark())
        await asyncio.sleep(0)
        assert (late.ended, after.ended) == (["credentials_revoked"], [])
        await ended(live)

    play(main())


@pytest.mark.parametrize("why", ["nobody listened", "listened anew", "too much was told"])
def test_what_may_have_been_missed_is_looked_up_at_once(why: str) -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=100.0)
        await store.keep("a")
        other = Open("a")
        mark = None
        if why != "nobody listened":
            await started(store, live, other)
            mark = live.mark()
        if why == "listened anew":
            store.watcher().away()
            assert live.mark() is None
            store.watcher().missed()
        elif why == "too much was told":
            for number in range(module._RECENT + 1):
                await store.revoke(Revocation("user", f"other {number}"))
        gone = Open("gone")
        live.enter(gone, 1000.0, mark)
        await until(lambda: gone.ended)
        assert gone.ended == ["credentials_revoked"]
        assert other.ended == []
        await ended(live)

    play(main())


def test_what_is_open_lives_on_while_the_store_is_away_and_is_looked_up_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.02)

    async def main() -> None:
        live = Live(store := Store(), idle=0.2)
        await store.keep("a", "b")
        a, b = Open("a"), Open("b")
        await started(store, live, a, b)
        store.away = True
        store.watcher().away()
        store._unknown.pop("b")  # and nobody hears of it
        await asyncio.sleep(0.2)
        assert (a.ended, b.ended) == ([], [])
        store.away = False
        store.watcher().missed()
        await until(lambda: b.ended)
        assert a.ended == []
        await ended(live)

    play(main())


def test_what_is_over_though_nobody_said_so_is_ended_by_the_next_use() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=0.2)
        await store.keep("a", idle=100.0)
        a = Open("a")
        await started(store, live, a)
        store._unknown.clear()
        await until(lambda: a.ended)
        assert a.ended == ["credentials_expired"]
        await ended(live)

    play(main())


def test_nothing_is_open_beyond_the_absolute_end_of_its_session() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=1000.0)
        await store.keep("a", "b")
        a, b, moved = Open("a"), Open("b"), Open("a")
        live.enter(a, 0.1, None)
        live.enter(b, 0.4, None)
        live.enter(moved, 0.1, None)
        live.leave(moved)
        moved.key = "b"
        live.enter(moved, 1000.0, None)
        await until(lambda: a.ended)
        assert b.ended == []
        await until(lambda: b.ended)
        assert (a.ended, b.ended, moved.ended) == (["credentials_expired"], ["credentials_expired"], [])
        await ended(live)

    play(main())


def test_what_is_open_with_an_old_id_is_ended_when_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.1)

    async def main() -> None:
        live = Live(store := Store(), idle=1000.0)
        await store.keep("a")
        a = Open("a")
        await started(store, live, a)
        await store.rotate("a", 1, "b", Draft("ann", b"{}", 100.0, 1000.0))
        await asyncio.sleep(0.02)
        assert a.ended == []
        await until(lambda: a.ended)
        assert a.ended == ["credentials_expired"]
        await ended(live)

    play(main())


def test_nobody_listens_any_more_when_nothing_was_open_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.05)

    async def main() -> None:
        live = Live(store := Store(), idle=1000.0)
        await store.keep("a")
        for _ in range(2):
            a = Open("a")
            await started(store, live, a)
            live.leave(a)
            await until(lambda: not store._watchers)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert live.mark() is None

    play(main())


def test_many_that_come_and_go_leave_nothing() -> None:
    async def main() -> None:
        live = Live(store := Store(), idle=1000.0)
        await store.keep("a")
        await started(store, live, stays := Open("a"))
        for _ in range(5000):
            each = Open("a", "ann")
            live.enter(each, 1000.0, live.mark())
            live.leave(each)
        assert len(live._ends) < 3 * module._RECENT
        assert (len(live), list(live._by_user)) == (1, [])
        assert stays.ended == []
        await ended(live)

    play(main())


def test_it_begins_anew_in_another_event_loop() -> None:
    live = Live(store := Store(), idle=1000.0)

    async def main() -> None:
        await store.keep("a")
        a = Open("a")
        live.enter(a, 1000.0, live.mark())
        await until(lambda: store._watchers and not live._unsure)
        live.leave(a)

    asyncio.run(main())
    play(main())
