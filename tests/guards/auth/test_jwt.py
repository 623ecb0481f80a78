"""Tokens: who is believed, and who is not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from sojourn.errors import AuthenticationError, ConfigError
from sojourn.guards.auth.jwt import JwtRules, JwtVerifier
from sojourn.scopes.context import SecurityContext
from tests.guards.auth.issuing import AUDIENCE, ISSUER, URL, Issuer, verifier


def check(issuer: Issuer, token: str, **more: Any) -> SecurityContext:
    return asyncio.run(verifier(issuer, **more).verify(token))


def refused(issuer: Issuer, token: str, **more: Any) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        check(issuer, token, **more)
    assert all(part not in str(caught.value) for part in token.split(".") if len(part) > 8), "the token is shown"
    return caught.value


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_a_token_of_a_listed_issuer_says_who_it_is(kind: str) -> None:
    issuer = Issuer()
    issuer.add("two", kind)
    claims = issuer.claims(roles=["editor", "admin"], tenant="acme")
    context = check(issuer, issuer.sign(claims, "two"))
    assert (context.principal, context.tenant, context.authn) == ("alice", "acme", "jwt")
    assert context.roles == {"editor", "admin"}
    assert context.expires_at == claims["exp"]
    assert context.claims["iss"] == ISSUER


@pytest.mark.parametrize(
    ("roles", "claims", "expected"),
    [
        ("scope", {"scope": "read write"}, {"read", "write"}),
        ("realm_access.roles", {"realm_access": {"roles": ["a"]}}, {"a"}),
        ("https://x.example/roles", {"https://x.example/roles": ["b"]}, {"b"}),
        ("roles", {"scope": "read"}, set()),
        (None, {"roles": ["c"]}, set()),
    ],
)
def test_roles_come_from_the_claim_that_is_named(roles: str | None, claims: dict[str, Any], expected: set[str]) -> None:
    issuer = Issuer()
    assert check(issuer, issuer.token(**claims), rules=JwtRules(roles=roles)).roles == expected


NOW = 1_700_000_000
CLAIMS: list[tuple[str, dict[str, Any], str]] = [
    ("expired", {"exp": NOW}, "token_expired"),
    ("without an end", {"exp": None}, "invalid_token"),
    ("with an end that is no number", {"exp": "tomorrow"}, "invalid_token"),
    ("with an end that is true", {"exp": True}, "invalid_token"),
    ("with an end beyond time", {"exp": 1e300}, "invalid_token"),
    ("not valid yet", {"nbf": NOW + 1}, "token_not_yet_valid"),
    ("from the future", {"iat": NOW + 1}, "token_not_yet_valid"),
    ("for somebody else", {"aud": "billing"}, "wrong_audience"),
    ("for others", {"aud": ["billing", "mail"]}, "wrong_audience"),
    ("for nobody", {"aud": None}, "wrong_audience"),
    ("for a number", {"aud": 7}, "wrong_audience"),
    ("without a subject", {"sub": None}, "invalid_token"),
    ("with an empty subject", {"sub": ""}, "invalid_token"),
    ("with a subject that is no text", {"sub": 7}, "invalid_token"),
    ("of another issuer", {"iss": "https://evil.example"}, "unknown_issuer"),
    ("of our issuer with a slash", {"iss": ISSUER + "/"}, "unknown_issuer"),
    ("without an issuer", {"iss": None}, "unknown_issuer"),
    ("with several issuers", {"iss": [ISSUER]}, "unknown_issuer"),
    ("with roles that are numbers", {"roles": [1]}, "invalid_token"),
    ("with a tenant that is no text", {"tenant": {}}, "invalid_token"),
]


@pytest.mark.parametrize(("changed", "reason"), [each[1:] for each in CLAIMS], ids=[each[0] for each in CLAIMS])
def test_a_token_is_refused(changed: dict[str, Any], reason: str) -> None:
    issuer = Issuer()
    error = refused(issuer, issuer.token(**changed))
    assert (error.reason, error.status) == (reason, 401)


def test_one_audience_of_several_is_enough() -> None:
    issuer = Issuer()
    assert check(issuer, issuer.token(aud=["mail", AUDIENCE])).principal == "alice"


def test_clocks_may_differ_by_the_leeway() -> None:
    issuer = Issuer()
    rules = JwtRules(leeway=30.0)
    assert check(issuer, issuer.token(exp=NOW - 29, nbf=NOW + 29), rules=rules).expires_at == NOW + 1
    assert refused(issuer, issuer.token(exp=NOW - 30), rules=rules).reason == "token_expired"


def shared_secret(issuer: Issuer, secret: bytes) -> str:
    """HS256 with what everybody knows: the public key (the confusion of algorithms)."""
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'one'})}.{part(issuer.claims())}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def unsigned(issuer: Issuer, name: str = "none") -> str:
    return f"{part({'alg': name, 'typ': 'JWT', 'kid': 'one'})}.{part(issuer.claims())}."


def critical(issuer: Issuer) -> str:
    return f"{part({'alg': 'ES256', 'kid': 'one', 'crit': ['exp'], 'exp': 1})}.{part(issuer.claims())}.AAAA"


FORGED: list[tuple[str, Callable[[Issuer], str], str]] = [
    ("none", unsigned, "wrong_algorithm"),
    ("None", lambda issuer: unsigned(issuer, "None"), "wrong_algorithm"),
    ("no signature", lambda issuer: unsigned(issuer, "ES256"), "bad_signature"),
    ("public PEM as secret", lambda i: shared_secret(i, i.keys["one"].as_pem(private=False)), "wrong_algorithm"),
    ("public JWK as secret", lambda i: shared_secret(i, i.document()), "wrong_algorithm"),
    ("no algorithm", lambda i: f"{part({'kid': 'one'})}.{part(i.claims())}.AAAA", "wrong_algorithm"),
    ("algorithm as list", lambda i: f"{part({'alg': 'x' * 9})}.{part(i.claims())}.AAAA", "wrong_algorithm"),
    ("critical extension", critical, "invalid_token"),
    ("another type", lambda i: i.sign(i.claims(), typ="dpop+jwt"), "invalid_token"),
    ("key id too long", lambda i: i.sign(i.claims(), kid="k" * 257), "invalid_token"),
    ("two parts", lambda i: i.token().rpartition(".")[0], "invalid_token"),
    ("four parts", lambda i: i.token() + ".x", "invalid_token"),
    ("empty", lambda i: "", "invalid_token"),
    ("endless", lambda i: "a" * 20_000, "invalid_token"),
    ("no base64", lambda i: "?.?.?", "invalid_token"),
    ("claims as list", lambda i: i.sign(b"[1, 2]"), "invalid_token"),
    ("claims in pieces", lambda i: i.sign(b'{"sub": '), "invalid_token"),
]


@pytest.mark.parametrize(("forge", "reason"), [each[1:] for each in FORGED], ids=[each[0] for each in FORGED])
def test_a_forgery_is_refused(forge: Callable[[Issuer], str], reason: str) -> None:
    issuer = Issuer()
    assert refused(issuer, forge(issuer)).reason == reason


def test_a_key_in_the_token_is_not_believed() -> None:
    issuer, thief = Issuer(), ECKey.generate_key("P-256", {"kid": "one"})
    forger = Issuer()
    forger.keys["one"] = thief
    token = forger.sign(issuer.claims(), jwk=thief.as_dict(private=False), jku="https://evil.example/keys")
    assert refused(issuer, token).reason == "bad_signature"


def test_a_key_is_used_only_for_the_algorithm_it_is_made_for() -> None:
    issuer = Issuer()
    issuer.add("rsa", "RSA")
    assert refused(issuer, forge_kid(issuer)).reason == "unknown_key"
    other = {**json.loads(issuer.document())["keys"][0], "alg": "ES384"}

    async def fetch(url: str) -> bytes:
        return json.dumps({"keys": [other]}).encode()

    issuer.fetch = fetch  # type: ignore[method-assign]
    assert refused(issuer, issuer.token()).reason == "unknown_key"


def forge_kid(issuer: Issuer) -> str:
    """Signed with an EC key, in the name of an RSA key."""
    token = issuer.sign(issuer.claims())
    _, claims, signature = token.split(".")
    return f"{part({'alg': 'ES256', 'typ': 'JWT', 'kid': 'rsa'})}.{claims}.{signature}"


def test_an_issuer_can_not_speak_for_another() -> None:
    ours, other = Issuer(), Issuer("https://other.example")

    async def fetch(url: str) -> bytes:
        return (ours if url == URL else other).document()

    both = JwtVerifier({ours.name: URL, other.name: URL + "2"}, AUDIENCE, fetch=fetch, clock=ours.clock)
    assert asyncio.run(both.verify(other.token())).claims["iss"] == other.name
    with pytest.raises(AuthenticationError, match="bad_signature"):
        asyncio.run(both.verify(other.sign(ours.claims())))


SIGNER = Issuer()
TOKEN = SIGNER.token()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("Aa9-_.=/ \u00e9"))
def test_no_change_of_a_token_makes_it_somebody_elses(at: int, char: str) -> None:
    changed = TOKEN[:at] + char + TOKEN[at + 1 :]
    try:
        found = check(SIGNER, changed)
    except AuthenticationError:
        return
    # The last bits of a base64 text mean nothing: a few changes are none.
    assert found.claims == SIGNER.claims()


def scope(*headers: tuple[bytes, bytes], kind: str = "http", **more: Any) -> dict[str, Any]:
    return {"type": kind, "headers": list(headers), **more}


def test_a_bearer_token_is_found_where_it_may_be() -> None:
    issuer = Issuer()
    token = issuer.token().encode()
    by = verifier(issuer, rules=JwtRules(subprotocol="bearer."))

    async def who(scope: Any) -> str | None:
        context = await by(scope)
        return context.principal if context is not None else None

    async def main() -> None:
        assert await who(scope()) is None
        assert await who(scope((b"authorization", b"Basic YTpi"))) is None
        assert await who(scope((b"authorization", b"bEaReR  " + token))) == "alice"
        offered = ["chat", "bearer." + token.decode()]
        assert await who(scope(kind="websocket", subprotocols=offered)) == "alice"
        assert await who(scope(subprotocols=offered)) is None
        for bad in (
            scope((b"authorization", b"Bearer " + token), (b"authorization", b"Bearer " + token)),
            scope((b"authorization", b"Bearer \xff")),
            scope((b"authorization", b"Bearer ")),
            scope(kind="websocket", subprotocols=[*offered, "bearer.x"]),
        ):
            with pytest.raises(AuthenticationError):
                await who(bad)

    asyncio.run(main())


def test_a_token_is_checked_once_while_its_keys_are_fresh() -> None:
    issuer = Issuer()
    by = verifier(issuer)

    async def main() -> None:
        token = issuer.token(exp=NOW + 1000)
        first = await by.verify(token)
        assert await by.verify(token) is first
        issuer.clock.advance(299)
        assert await by.verify(token) is first
        issuer.clock.advance(1)  # its key may have been taken back
        again = await by.verify(token)
        assert again is not first
        assert again == first
        del issuer.keys["one"]
        issuer.add("two")
        issuer.clock.advance(300)
        with pytest.raises(AuthenticationError, match="unknown_key"):
            await by.verify(token)

    asyncio.run(main())


def test_a_token_that_was_seen_expires_all_the_same() -> None:
    issuer = Issuer()
    by = verifier(issuer)

    async def main() -> None:
        token = issuer.token(exp=NOW + 10)
        await by.verify(token)
        issuer.clock.advance(10)
        with pytest.raises(AuthenticationError, match="token_expired"):
            await by.verify(token)

    asyncio.run(main())


def test_what_is_remembered_of_tokens_is_bounded() -> None:
    issuer = Issuer()
    few, none = (verifier(issuer, rules=JwtRules(remember=most)) for most in (3, 0))

    async def main() -> None:
        for number in range(10):
            token = issuer.token(sub=str(number))
            assert (await few.verify(token)).principal == (await none.verify(token)).principal == str(number)

    asyncio.run(main())
    assert (len(few._seen), len(none._seen)) == (3, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ({}, "a"),
        ({ISSUER: URL}, ""),
        ({ISSUER: URL}, []),
        ({ISSUER: "http://id.example/jwks"}, "a"),
        ({ISSUER: "file:///etc/passwd"}, "a"),
        ({ISSUER: "https:///jwks"}, "a"),
    ],
)
def test_a_verifier_that_would_not_be_safe_is_not_made(arguments: Any) -> None:
    with pytest.raises(ConfigError):
        JwtVerifier(*arguments)


@pytest.mark.parametrize("algorithms", [["HS256"], ["none"], ["ES256", "none"], []])
def test_an_algorithm_with_a_shared_secret_can_not_be_allowed(algorithms: list[str]) -> None:
    with pytest.raises(ConfigError, match="algorithms"):
        JwtVerifier({ISSUER: URL}, AUDIENCE, algorithms=algorithms)


def test_keys_of_this_machine_may_come_without_tls() -> None:
    for url in ("http://127.0.0.1:9/x", "http://[::1]/x", "http://localhost/x"):
        JwtVerifier({ISSUER: url}, AUDIENCE)
