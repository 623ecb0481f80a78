"""What every store of sessions promises, as tests: for the stores of Sojourn, and for yours.

Derive a class, say how a store is made and how time passes for it, and let a test runner call its ``test_`` methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sojourn.scopes.work import attend
from sojourn.sessions.ids import key_of, new_id
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import GRACE, Draft, Revocation, Saved

__all__ = ["Heard", "SessionStoreContract"]


class Heard:
    """Somebody who watches a store, and notes what it is told."""

    def __init__(self) -> None:
        self.revocations: list[Revocation] = []
        self.missing = 0
        self.gone = 0
        self._news = asyncio.Event()

    def revoked(self, revocation: Revocation) -> None:
        """See Watcher."""
        self.revocations.append(revocation)
        self._news.set()

    def missed(self) -> None:
        """See Watcher."""
        self.missing += 1
        self._news.set()

    def away(self) -> None:
        """See Watcher."""
        self.gone += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until it has heard something that makes a condition true.

        Raises:
            TimeoutError: It has not.
        """
        async with asyncio.timeout(seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()


class SessionStoreContract:
    """The promises.

    Attributes:
        unit: Seconds of the store's time that tests count in: as long as it takes that a test which has to let time
            pass is not disturbed by a slow machine. Where a store's clock can't be moved, what it holds can be made
            older.

    Example:
        >>> from sojourn.clock import ManualClock
        >>> from sojourn.sessions.memory import MemorySessions
        >>> class TestMemory(SessionStoreContract):
        ...     def __init__(self):
        ...         self.clock = ManualClock()
        ...         self.store = MemorySessions(clock=self.clock)
        ...
        ...     def make(self):
        ...         return self.store
        ...
        ...     async def let_pass(self, units):
        ...         self.clock.advance(units * self.unit)
        >>> TestMemory().test_what_is_created_is_found()
    """

    unit: float = 1.0

    def make(self) -> SessionStore:
        """A store. Each call of one test gives another node of the same sessions, if the store can be shared."""
        raise NotImplementedError

    async def let_pass(self, units: float) -> None:
        """Let so many units of the store's time pass."""
        raise NotImplementedError

    # Helpers

    def draft(self, user: str = "", data: bytes = b"{}", idle: float = 20.0, absolute: float = 100.0) -> Draft:
        """A session that is to be; times in units."""
        return Draft(user, data, idle * self.unit, absolute * self.unit)

    def play(self, act: Callable[..., Coroutine[Any, Any, None]], nodes: int = 1) -> None:
        """Run a test with so many nodes, within 30 seconds."""

        async def main() -> None:
            stores = [self.make() for _ in range(nodes)]
            async with asyncio.timeout(30):
                try:
                    await act(*stores)
                finally:
                    for store in stores:
                        await store.aclose()

        asyncio.run(main())

    # Unknown keys

    def test_an_unknown_key_is_never_adopted(self) -> None:
        """Nothing is made by asking for a key, changing it or touching it."""

        async def act(store: SessionStore) -> None:
            key = key_of("chosen by somebody")
            assert await store.load(key) is None
            assert await store.save(key, 1, b'{"a":1}') == Saved(False, None)
            assert await store.save(key, 0, b'{"a":1}') == Saved(False, None)
            assert await store.rotate(key, 1, key_of(new_id()), self.draft("ann")) == Saved(False, None)
            assert await store.touch([key]) == set()
            assert await store.load(key) is None
            assert list(await store.of("ann")) == []

        self.play(act)

    def test_what_is_created_is_found(self) -> None:
        """With all that was given."""

        async def act(store: SessionStore) -> None:
            key = key_of(new_id())
            made = await store.create(key, self.draft("ann", b'{"a":"\xc3\xa4"}'))
            found = await store.load(key)
            assert found is not None
            assert found[:4] == made[:4] == (key, "ann", b'{"a":"\xc3\xa4"}', 1)
            assert not found.read_only
            assert 0 < found.left <= 100 * self.unit

        self.play(act)

    # Time

    def test_a_session_that_is_not_used_is_over_after_its_idle_time(self) -> None:
        """And one that is used is not."""

        async def act(store: SessionStore) -> None:
            left, used, touched = [key_of(new_id()) for _ in range(3)]
            for key in (left, used, touched):
                await store.create(key, self.draft())
            for _ in range(3):
                await self.let_pass(8)
                assert await store.load(used) is not None
                assert await store.touch([touched]) == {touched}
            assert await store.load(left) is None
            assert await store.touch([left, used, touched]) == {used, touched}

        self.play(act)

    def test_no_use_keeps_a_session_beyond_its_absolute_time(self) -> None:
        """Neither loading nor touching nor saving does."""

        async def act(store: SessionStore) -> None:
            loaded, touched, saved = keys = [key_of(new_id()) for _ in range(3)]
            for key in keys:
                await store.create(key, self.draft(absolute=30))
            version = 1
            for _ in range(4):
                await self.let_pass(5)
                found = await store.load(loaded)
                assert found is not None
                assert await store.touch([touched]) == {touched}
                assert (await store.save(saved, version, b'{"n":%d}' % version)).done
                version += 1
            await self.let_pass(12)
            assert [await store.load(key) for key in keys] == [None, None, None]
            assert await store.touch(keys) == set()
            assert (await store.save(saved, version, b"{}")).done is False

        self.play(act)

    # Changes

    def test_of_two_changes_at_the_same_time_one_is_told_of_the_other(self) -> None:
        """Whoever is second gets what is stored, and has changed nothing."""

        async def act(one: SessionStore, two: SessionStore) -> None:
            key = key_of(new_id())
            await one.create(key, self.draft("ann", b'{"a":1}'))
            first = await one.save(key, 1, b'{"a":2}')
            assert (first.done, first.stored and first.stored.version) == (True, 2)
            second = await two.save(key, 1, b'{"b":1}')
            assert second.done is False
            assert second.stored is not None
            assert (second.stored.data, second.stored.version) == (b'{"a":2}', 2)
            assert (await two.save(key, 2, b'{"a":2,"b":1}')).done

        self.play(act, nodes=2)

    def test_many_changes_at_the_same_time_are_all_made_by_who_tries_again(self) -> None:
        """Nothing is undone silently."""

        async def act(*stores: SessionStore) -> None:
            key = key_of(new_id())
            await stores[0].create(key, self.draft(data=b"0"))

            async def add(store: SessionStore) -> None:
                for _ in range(5):
                    stored = await store.load(key)
                    while stored is not None:
                        saved = await store.save(key, stored.version, b"%d" % (int(stored.data) + 1))
                        if saved.done:
                            break
                        stored = saved.stored

            await asyncio.gather(*(add(store) for store in stores for _ in range(3)))
            stored = await stores[-1].load(key)
            assert stored is not None
            assert (stored.data, stored.version) == (b"30", 31)

        self.play(act, nodes=2)

    # Another key

    def test_a_session_that_is_rotated_has_a_new_key_and_the_old_one_is_only_read(self) -> None:
        """As it was before, and for a short time only."""

        async def act(store: SessionStore) -> None:
            old, new = key_of(new_id()), key_of(new_id())
            before = await store.create(old, self.draft("", b'{"cart":1}'))
            saved = await store.rotate(old, 1, new, self.draft("ann", b'{"cart":1,"user":"ann"}'))
            assert saved.done
            assert saved.stored is not None
            assert saved.stored[:4] == (new, "ann", b'{"cart":1,"user":"ann"}', 1)
            kept = await store.load(old)
            assert kept is not None
            assert kept.read_only
            assert (kept.user, kept.data) == ("", b'{"cart":1}')
            assert 0 < kept.left <= min(GRACE, 20 * self.unit)
            refused = await store.save(old, kept.version, b'{"planted":1}')
            assert refused.done is False
            again = await store.rotate(old, before.version, key_of(new_id()), self.draft("ann"))
            assert again.done is False
            found = await store.load(new)
            assert found is not None
            assert found.data == b'{"cart":1,"user":"ann"}'
            assert [stored.key for stored in await store.of("ann")] == [new]

        self.play(act)

    def test_a_rotation_of_another_version_is_refused(self) -> None:
        """What was changed meanwhile is not lost."""

        async def act(store: SessionStore) -> None:
            old, new = key_of(new_id()), key_of(new_id())
            await store.create(old, self.draft("ann", b'{"a":1}'))
            await store.save(old, 1, b'{"a":2}')
            saved = await store.rotate(old, 1, new, self.draft("ann", b'{"a":1}'))
            assert saved.done is False
            assert saved.stored is not None
            assert saved.stored.data == b'{"a":2}'
            assert await store.load(new) is None

        self.play(act)

    def test_a_rotation_for_the_same_user_does_not_make_the_session_last_longer(self) -> None:
        """For another user it begins anew."""

        async def act(store: SessionStore) -> None:
            keys = [key_of(new_id()) for _ in range(4)]
            await store.create(keys[0], self.draft("", absolute=30))
            await self.let_pass(10)
            login = await store.rotate(keys[0], 1, keys[1], self.draft("ann", absolute=30))
            await self.let_pass(10)
            before = await store.load(keys[1])
            same = await store.rotate(keys[1], 1, keys[2], self.draft("ann", absolute=30))
            assert login.stored is not None
            assert before is not None
            assert same.stored is not None
            assert login.stored.left > 28 * self.unit
            assert same.stored.left < 22 * self.unit
            assert abs(same.stored.created - before.created) < 1e-6
            other = await store.rotate(keys[2], 1, keys[3], self.draft("bob", absolute=30))
            assert other.stored is not None
            assert other.stored.left > 28 * self.unit

        self.play(act)

    def test_a_user_that_is_given_up_is_given_up_at_once(self) -> None:
        """The old key must not be what it was for a moment longer."""

        async def act(store: SessionStore) -> None:
            old, new = key_of(new_id()), key_of(new_id())
            await store.create(old, self.draft("ann"))
            assert (await store.rotate(old, 1, new, self.draft("bob"))).done
            assert await store.load(old) is None
            assert list(await store.of("ann")) == []
            assert await store.load(new) is not None

        self.play(act)

    # Revocation

    def test_what_is_revoked_is_over_and_all_nodes_are_told_within_a_second(self) -> None:
        """A session, a user, all of them."""

        async def act(one: SessionStore, two: SessionStore) -> None:
            async with self.hearing(two) as heard:
                keys = {name: [key_of(new_id()), key_of(new_id())] for name in ("ann", "bob", "eve")}
                for user, pair in keys.items():
                    for key in pair:
                        await one.create(key, self.draft(user))
                anns, bobs, eves = keys.values()
                said = [Revocation("session", anns[0]), Revocation("user", "bob", bobs[1]), Revocation("all")]
                rests = [{anns[1], *bobs, *eves}, {anns[1], bobs[1], *eves}, set()]
                for revocation, rest in zip(said, rests, strict=True):
                    await one.revoke(revocation)
                    every = [key for pair in keys.values() for key in pair]
                    assert await two.touch(every) == rest
                    await heard.until(lambda each=revocation: each in heard.revocations, 1.0)
                assert heard.revocations == said
                assert (heard.missing, heard.gone) == (1, 0)
                fresh = key_of(new_id())
                await one.create(fresh, self.draft("ann"))
                assert await two.load(fresh) is not None

        self.play(act, nodes=2)

    def test_those_who_watch_are_told_of_rotations(self) -> None:
        """What is open with the old key is told that it is over soon, or now."""

        async def act(one: SessionStore, two: SessionStore) -> None:
            async with self.hearing(two) as heard:
                keys = [key_of(new_id()) for _ in range(3)]
                await one.create(keys[0], self.draft())
                await one.rotate(keys[0], 1, keys[1], self.draft("ann"))
                await one.rotate(keys[1], 1, keys[2], self.draft("bob"))
                await heard.until(lambda: len(heard.revocations) == 2)
                assert heard.revocations == [Revocation("rotated", keys[0]), Revocation("session", keys[1])]

        self.play(act, nodes=2)

    def test_the_sessions_of_a_user_are_listed_from_the_oldest(self) -> None:
        """Those that are over are not."""

        async def act(store: SessionStore) -> None:
            keys = [key_of(new_id()) for _ in range(3)]
            for key in keys:
                await store.create(key, self.draft("ann"))
                await self.let_pass(1)
            await store.create(key_of(new_id()), self.draft("bob"))
            await store.create(key_of(new_id()), self.draft())
            assert [stored.key for stored in await store.of("ann")] == keys
            await store.revoke(Revocation("session", keys[1]))
            assert [stored.key for stored in await store.of("ann")] == [keys[0], keys[2]]
            assert list(await store.of("")) == []

        self.play(act)

    def test_nothing_is_left_of_who_watched(self) -> None:
        """A watcher that is cancelled ends, and is told nothing any more."""

        async def act(store: SessionStore) -> None:
            async with self.hearing(store) as heard:
                pass
            await store.revoke(Revocation("all"))
            await self.let_pass(1)
            assert heard.revocations == []

        self.play(act)

    @asynccontextmanager
    async def hearing(self, store: SessionStore) -> Any:
        """Somebody who watches, from when it is told of all."""
        heard = Heard()
        task = attend(store.watch(heard), "watch")
        try:
            await heard.until(lambda: heard.missing > 0)
            yield heard
        finally:
            task.cancel()
            await asyncio.wait((task,))
