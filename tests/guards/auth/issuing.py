"""An issuer of tokens with real keys, which also answers for its JWK Set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, KeySet, RSAKey

from sojourn.clock import ManualClock
from sojourn.guards.auth.jwt import JwtRules, JwtVerifier

__all__ = ["AUDIENCE", "ISSUER", "URL", "Issuer", "verifier"]

ISSUER = "https://id.example"
URL = "https://id.example/jwks.json"
AUDIENCE = "orders"

Key = ECKey | RSAKey


class Issuer:
    """Signs tokens and publishes keys.

    Attributes:
        fetched: How often its keys were asked for.
        answer: What is done instead of answering; None answers.
    """

    def __init__(self, name: str = ISSUER, clock: ManualClock | None = None) -> None:
        self.name = name
        self.clock = clock or ManualClock()
        self.keys: dict[str, Key] = {}
        self.fetched = 0
        self.answer: Callable[[], Awaitable[bytes]] | None = None
        self.add("one")

    def add(self, kid: str, kind: str = "EC", **more: Any) -> Key:
        """Publish another key."""
        parameters = {"kid": kid, **more}
        key: Key
        if kind == "EC":
            key = ECKey.generate_key("P-256", parameters)
        else:
            key = RSAKey.generate_key(2048, parameters)
        self.keys[kid] = key
        return key

    async def fetch(self, url: str) -> bytes:
        """The JWK Set."""
        assert url == URL
        self.fetched += 1
        if self.answer is not None:
            return await self.answer()
        await asyncio.sleep(0)
        return self.document()

    def document(self) -> bytes:
        """The JWK Set as it is published: public keys only."""
        return json.dumps(KeySet(list(self.keys.values())).as_dict(private=False)).encode()

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims that count for five minutes; None leaves one out."""
        now = int(self.clock.wall())
        claims = {"iss": self.name, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300, **changed}
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any] | bytes, kid: str | None = "one", **header: Any) -> str:
        """A token with these claims."""
        key = self.keys.get(kid or "one") or self.keys["one"]
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        protected = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid is not None else {}), **header}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        registry = jws.JWSRegistry(algorithms=["ES256", "RS256"], strict_check_header=False)
        return jws.serialize_compact(protected, payload, key, registry=registry)

    def token(self, **changed: Any) -> str:
        """A token with some claims changed."""
        return self.sign(self.claims(**changed))


def verifier(issuer: Issuer, **more: Any) -> JwtVerifier:
    """Believes this issuer."""
    rules = more.pop("rules", JwtRules(leeway=0.0))
    return JwtVerifier({issuer.name: URL}, AUDIENCE, rules=rules, fetch=issuer.fetch, clock=issuer.clock, **more)
