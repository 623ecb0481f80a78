"""The keys of an issuer: asked for once, kept, and never asked for by those who should not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from sojourn.clock import ManualClock
from sojourn.errors import AuthenticationError
from sojourn.guards.auth.jwks import JwksCache, KeyTimes, read_keys
from tests.guards.auth.issuing import URL, Issuer


class Scene:
    """A cache in front of an issuer."""

    def __init__(self, **times: float) -> None:
        self.clock = ManualClock()
        self.issuer = Issuer(clock=self.clock)
        self.cache = JwksCache(URL, self.issuer.fetch, self.clock, KeyTimes(**times))

    async def find(self, kid: str | None = "one") -> str:
        """What looking for a key leads to."""
        try:
            key = await self.cache.find(kid, "ES256")
        except AuthenticationError as error:
            return error.reason
        return str(key.kid)

    async def fail(self) -> bytes:
        raise OSError("no route")


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10):
            await scene
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    asyncio.run(whole())


def test_all_who_wait_wait_for_one_fetch() -> None:
    async def scene() -> None:
        s = Scene()
        assert await asyncio.gather(*(s.find() for _ in range(50))) == ["one"] * 50
        assert s.issuer.fetched == 1

    run(scene())


def test_keys_are_fetched_again_when_they_are_old_and_not_before() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.clock.advance(299)
        await s.find()
        assert s.issuer.fetched == 1
        s.clock.advance(1)
        await s.find()
        assert s.issuer.fetched == 2

    run(scene())


def test_a_new_key_is_found_by_its_first_token_and_an_old_one_ends() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.clock.advance(60)
        s.issuer.add("two")
        assert await s.find("two") == "two"
        assert s.issuer.fetched == 2
        del s.issuer.keys["one"]
        assert await s.find("one") == "one"  # still fresh
        s.clock.advance(300)
        assert await s.find("one") == "unknown_key"
        assert await s.find("two") == "two"

    run(scene())


def test_a_flood_of_unknown_keys_leads_to_one_fetch_in_ten_seconds() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.clock.advance(60)
        for second in range(30):
            found = await asyncio.gather(*(s.find(f"forged-{second}-{number}") for number in range(50)))
            assert set(found) == {"unknown_key"}
            s.clock.advance(1)
        assert s.issuer.fetched == 1 + 3
        assert len(s.cache._unknown) <= 1024

    run(scene())


def test_what_is_remembered_of_unknown_keys_is_bounded() -> None:
    async def scene() -> None:
        s = Scene(cooldown=0.0)
        await s.find()
        for number in range(1100):
            assert await s.find(f"forged-{number}") == "unknown_key"
        assert len(s.cache._unknown) == 1024

    run(scene())


def test_an_unknown_key_is_looked_for_again_after_a_while() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.clock.advance(11)
        assert await s.find("late") == "unknown_key"
        s.issuer.add("late")
        s.clock.advance(29)
        assert await s.find("late") == "unknown_key"
        assert s.issuer.fetched == 2
        s.clock.advance(1)
        assert await s.find("late") == "late"

    run(scene())


def test_a_key_that_was_not_asked_for_is_not_remembered_as_unknown() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.issuer.add("two")
        assert await s.find("two") == "unknown_key"  # the fetch before was a moment ago
        s.clock.advance(10)
        assert await s.find("two") == "two"

    run(scene())


def test_while_the_issuer_fails_old_keys_count_for_a_bounded_time() -> None:
    async def scene() -> None:
        s = Scene()
        await s.find()
        s.issuer.answer = s.fail
        s.clock.advance(301)
        assert await s.find() == "one"
        assert s.cache.failure == "OSError: no route"
        s.clock.advance(3590)
        assert await s.find() == "one"
        assert await s.find("two") == "keys_unavailable"
        s.clock.advance(10)
        assert await s.find() == "keys_unavailable"
        s.issuer.answer = None
        s.clock.advance(30)
        assert await s.find() == "one"
        assert s.cache.failure == ""

    run(scene())


def test_an_issuer_that_fails_is_asked_at_growing_distances() -> None:
    async def scene() -> None:
        s = Scene()
        s.issuer.answer = s.fail
        moments, seen = [], 0
        for second in range(120):
            assert await s.find() == "keys_unavailable"
            if s.issuer.fetched > seen:
                seen = s.issuer.fetched
                moments.append(second)
            s.clock.advance(1)
        assert moments == [0, 1, 3, 7, 15, 31, 61, 91]

    run(scene())


def test_keys_that_can_not_be_had_are_our_fault_and_not_the_clients() -> None:
    async def scene() -> None:
        s = Scene()
        s.issuer.answer = s.fail
        with pytest.raises(AuthenticationError) as caught:
            await s.cache.find("one", "ES256")
        assert caught.value.status == 503

    run(scene())


def test_an_issuer_that_never_answers_is_left_at_the_deadline() -> None:
    async def scene() -> None:
        s = Scene(timeout=0.05)
        await s.find()
        s.issuer.answer = asyncio.Event().wait  # type: ignore[assignment]
        s.clock.advance(301)
        first = asyncio.gather(s.find())
        await asyncio.sleep(0.01)
        assert await s.find() == "one"  # others do not wait for it
        assert not first.done()
        assert await s.find("two") == "keys_unavailable"  # but who needs it does
        assert await first == ["one"]
        assert "jwks" in s.cache.failure
        assert s.issuer.fetched == 2

    run(scene())


@pytest.mark.parametrize("turns", range(8))
def test_a_client_that_leaves_takes_nobody_with_it(turns: int) -> None:
    async def scene() -> None:
        s = Scene()
        leader = asyncio.create_task(s.find())
        others = [asyncio.create_task(s.find()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        leader.cancel()
        await asyncio.wait([leader])
        assert await asyncio.gather(*others) == ["one"] * 3
        assert s.cache._flight is None
        assert s.issuer.fetched == 1
        assert await s.find() == "one"

    run(scene())


def test_a_token_without_a_key_id_is_enough_for_one_key() -> None:
    async def scene() -> None:
        s = Scene(cooldown=0.0)
        assert await s.find(None) == "one"
        s.issuer.add("two")
        s.clock.advance(300)
        assert await s.find(None) == "unknown_key"

    run(scene())


def test_only_public_keys_for_signatures_are_taken() -> None:
    good = ECKey.generate_key("P-256", {"kid": "good"}).as_dict(private=False)
    enc = ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"}).as_dict(private=False)
    signs = ECKey.generate_key("P-256", {"kid": "signs"}).as_dict(private=False) | {"key_ops": ["sign"]}
    with pytest.warns(SecurityWarning):
        small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
    secret = OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True)
    broken = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken"}
    entries = [enc, signs, small, secret, broken, {"kty": "XY", "kid": "new"}, {}, 7, None, good]
    assert list(read_keys(json.dumps({"keys": entries}).encode())) == ["good"]


@pytest.mark.parametrize(
    "document", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1]}', b"\xff" * 9]
)
def test_what_is_no_set_of_keys_is_not_taken_for_one(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"JWK Set|no keys"):
        read_keys(document)


def test_a_set_of_too_many_keys_is_not_read() -> None:
    with pytest.raises(ValueError, match="at most 100"):
        read_keys(json.dumps({"keys": [{}] * 101}).encode())
