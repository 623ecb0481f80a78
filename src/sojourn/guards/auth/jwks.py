"""The public keys of one issuer: fetched when they are needed, and never more often than that.

A key that is known and fresh is found without waiting. Everything else leads to at most one fetch at a time, and
fetches have a distance: nobody can make this service ask its issuer more often by sending tokens, and an issuer that
fails is not asked in a loop. While it fails, old keys count on for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from sojourn.clock import Clock
from sojourn.errors import AuthenticationError
from sojourn.guards.auth.algorithms import KEY_TYPES
from sojourn.scopes.deadline import deadline
from sojourn.scopes.shielded import shielded

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    PublicKey: TypeAlias = RSAKey | ECKey | OKPKey

__all__ = ["Fetch", "JwksCache", "KeyTimes", "read_keys"]

#: Gives the document behind a URL; raises anything when it can't.
Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]

_MOST_KEYS: Final = 100
_MOST_UNKNOWN: Final = 1024
#: Seconds after a failed fetch; doubled with each further one up to the last.
_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
_LEAST_RSA_BITS: Final = 2048  # RFC 7518 section 3.3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    """How long keys count, in seconds.

    Args:
        ttl: Keys are fresh for so long.
        stale: So much longer they count while they can't be fetched anew.
        timeout: A fetch may take so long.
        cooldown: Least time between two fetches that tokens with unknown keys ask for.
        unknown: A key that was not there is not looked for again for so long.
    """

    ttl: float = 300.0
    stale: float = 3600.0
    timeout: float = 2.0
    cooldown: float = 10.0
    unknown: float = 30.0


class JwksCache:
    """The keys of one issuer (RFC 7517).

    Args:
        url: Where they are published; from the configuration, never from a token.
        fetch: Gets the document.
        clock: The time.
        times: How long what counts.

    Attributes:
        fetches: How many fetches were begun.
        generation: How many of them brought keys.
        failure: Why the last fetch failed; "" when it did not.
    """

    __slots__ = (
        "_clock",
        "_fetch",
        "_fetched",
        "_flight",
        "_keys",
        "_longest",
        "_next",
        "_retry",
        "_times",
        "_unknown",
        "failure",
        "fetches",
        "generation",
        "url",
    )

    def __init__(self, url: str, fetch: Fetch, clock: Clock, times: KeyTimes) -> None:
        self.url = url
        self._fetch = fetch
        self._clock = clock
        self._times = times
        #: Seconds after which keys count no more, whatever happens.
        self._longest = times.ttl + times.stale
        self._keys: dict[str | None, PublicKey] = {}
        #: When they came, in monotonic seconds; None before the first.
        self._fetched: float | None = None
        #: No fetch begins before.
        self._next = -float("inf")
        self._retry = _RETRY
        #: Keys that were not there, with the moment until which they are not looked for.
        self._unknown: OrderedDict[str, float] = OrderedDict()
        #: Done when the fetch that is under way has ended.
        self._flight: asyncio.Future[None] | None = None
        self.fetches = self.generation = 0
        self.failure = ""

    @property
    def fresh(self) -> bool:
        """Whether the keys need not be fetched again yet."""
        return self._clock.monotonic() < self._age_out(self._times.ttl)

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key that a token names.

        Args:
            kid: Its id; None when the token names none, which is enough where there is one key only.
            algorithm: Of the signature; the key must be made for it.

        Raises:
            AuthenticationError: ``unknown_key``: the issuer has no such key, or has it for something else.
                ``keys_unavailable`` (503): that can't be told, because the keys can't be had.

        Cancel: safe; but the caller that fetches waits for the end of the fetch, ``times.timeout`` at most, because
            others wait for the same.
        """
        key = self._known(kid)
        now = self._clock.monotonic()
        if key is None or now >= self._age_out(self._times.ttl):
            if key is not None and self._flight is not None and now < self._age_out(self._longest):
                return _fitting(key, kid, algorithm)  # somebody is at it; the old one will do meanwhile
            if key is None and kid is not None and self._unknown.get(kid, now) > now:
                raise _unknown_key(kid)
            looked = self._flight is not None or now >= self._next
            if looked:
                await self._refresh()
            key = self._still_known(kid, looked)
        return _fitting(key, kid, algorithm)

    def _known(self, kid: str | None) -> PublicKey | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _still_known(self, kid: str | None, looked: bool) -> PublicKey:
        """The key, after what could be done to have it; ``looked``: the issuer was asked for it just now."""
        now = self._clock.monotonic()
        if now >= self._age_out(self._longest):
            self._keys = {}
        key = self._known(kid)
        if key is not None:
            return key
        if self.failure or not self._keys:
            raise AuthenticationError("keys_unavailable", "the issuer's keys can't be had at present", 503)
        if kid is not None and looked:
            self._unknown[kid] = now + self._times.unknown
            if len(self._unknown) > _MOST_UNKNOWN:
                self._unknown.popitem(last=False)
        raise _unknown_key(kid)

    def _age_out(self, age: float) -> float:
        """When the keys have this age."""
        return -float("inf") if self._fetched is None else self._fetched + age

    async def _refresh(self) -> None:
        """Fetch, or wait for the fetch that is under way."""
        if self._flight is not None:
            await asyncio.wait((self._flight,))
            return
        self._flight = flight = asyncio.get_running_loop().create_future()
        # A client that leaves does not end what others wait for.
        await shielded(self._load(flight), self._times.timeout + 1.0, "jwks")

    async def _load(self, flight: asyncio.Future[None]) -> None:
        self.fetches += 1
        try:
            async with deadline(self._times.timeout, "jwks"):
                keys = read_keys(await self._fetch(self.url))
        except Exception as error:  # noqa: BLE001 - whatever a fetch raises, it has failed, and ``failure`` says why
            self._failed(error)
        else:
            self._keys, self.failure, self._retry = keys, "", _RETRY
            self.generation += 1
            self._fetched = now = self._clock.monotonic()
            self._next = now + self._times.cooldown
        finally:
            self._flight = None
            if not flight.done():
                flight.set_result(None)

    def _failed(self, error: Exception) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        self._next = self._clock.monotonic() + self._retry
        self._retry = min(self._retry * 2, _LONGEST_RETRY)


def _unknown_key(kid: str | None) -> AuthenticationError:
    named = "names no key, and its issuer has several" if kid is None else "is signed with a key its issuer has not"
    return AuthenticationError("unknown_key", f"the token {named}")


def _fitting(key: PublicKey, kid: str | None, algorithm: str) -> PublicKey:
    """The key, if it is made for the algorithm (RFC 8725 section 3.1)."""
    fits = KEY_TYPES[algorithm].fits(key) and key.get("alg", algorithm) == algorithm
    if not fits:
        raise AuthenticationError("unknown_key", f"the key of the token is not one for {algorithm}")
    return key


def read_keys(document: bytes) -> dict[str | None, PublicKey]:
    """The keys of a JWK Set that signatures can be checked with, by their ids. Others are left out (section 5).

    Raises:
        ValueError: It is no JWK Set, or has no key of use.
    """
    try:
        entries = msgspec.json.decode(document)["keys"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ValueError("the document is no JWK Set") from error
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ValueError(f"a JWK Set has a list of at most {_MOST_KEYS} keys")
    keys: dict[str | None, PublicKey] = {}
    for entry in entries:
        key = _read_key(entry)
        if key is not None:
            kid = entry.get("kid")
            keys[kid if isinstance(kid, str) else None] = key
    if not keys:
        raise ValueError("the JWK Set has no key that signatures can be checked with")
    return keys


def _read_key(entry: Any) -> PublicKey | None:
    """A public key; None for anything else. A secret in a public document proves nothing, so ``oct`` is left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    if "verify" not in entry.get("key_ops", ["verify"]):
        return None
    kinds: dict[Any, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(entry.get("kty"))
    if kind is None or (kind is RSAKey and len(str(entry.get("n"))) * 6 < _LEAST_RSA_BITS):
        return None
    try:
        key = kind.import_key(entry)
        size = getattr(key.public_key, "key_size", _LEAST_RSA_BITS)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if kind is RSAKey and size < _LEAST_RSA_BITS else key
