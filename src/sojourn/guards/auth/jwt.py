"""Bearer tokens: signed JWTs of issuers that are listed, and of nobody else.

What a token says is believed after its signature is checked, with a key of the issuer that the configuration names.
From the token itself come only the names of issuer and key, to find that key. A header that carries a key or the
address of one (``jwk``, ``jku``, ``x5c``, ``x5u``) is never followed.

Source: RFC 7519 (JWT), RFC 8725 (best practice), RFC 6750 (bearer tokens), RFC 9068 (access tokens).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from sojourn.clock import Clock, SystemClock
from sojourn.errors import AuthenticationError, ConfigError
from sojourn.guards.auth.algorithms import KEY_TYPES
from sojourn.guards.auth.bearer import bearer_token
from sojourn.guards.auth.fetch import HttpFetch, check_url
from sojourn.guards.auth.jwks import Fetch, JwksCache, KeyTimes
from sojourn.guards.auth.seen import SeenTokens
from sojourn.scopes.context import SecurityContext
from sojourn.typing import Scope

if TYPE_CHECKING:
    from joserfc.jws import JWSRegistry

__all__ = ["JwtRules", "JwtVerifier"]

#: Bytes; a head of a request has 32 KiB by default.
_LONGEST: Final = 16 * 1024
_LONGEST_KID: Final = 256
_LONGEST_HEADER: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """What tokens have to be like.

    Args:
        leeway: Seconds by which clocks may differ.
        principal: Claim that says who it is.
        roles: Claim with the roles: a list, or text with spaces between them (such as ``scope``). A name with dots,
            such as ``realm_access.roles``, leads into objects. None: tokens give no roles.
        tenant: Claim with the tenant; absent: None.
        types: Values of the ``typ`` header that are taken, without ``application/``; a token without one is too.
        subprotocol: What a subprotocol begins with in which a WebSocket brings its token, such as ``bearer.``: a
            browser can't send an Authorization header with it. None: none does.
        times: How long the keys of an issuer count.
        remember: So many tokens are not checked a second time while the keys are fresh; 0 checks each time.
    """

    leeway: float = 30.0
    principal: str = "sub"
    roles: str | None = "roles"
    tenant: str | None = "tenant"
    types: Collection[str] = ("JWT", "at+jwt")
    subprotocol: str | None = None
    times: KeyTimes = field(default_factory=KeyTimes)
    remember: int = 1024


class _Parts(NamedTuple):
    """What a token says before it is believed."""

    header: dict[str, Any]
    claims: dict[str, Any]


class JwtVerifier:
    """Checks bearer tokens; give it to ``Authenticate(by=...)``, or call :meth:`verify`.

    Args:
        issuers: Whom to believe: values of ``iss``, each with the URL of its JWK Set. Nothing in a token changes them.
        audience: Who we are, one name or several: a token must be for one of them (``aud``).
        algorithms: Signatures that are taken; asymmetric ones only.
        rules: What tokens have to be like.
        fetch: Gets a JWK Set; None fetches it with httpx.
        clock: The time.

    Raises:
        ConfigError: No issuer or audience, an algorithm that can't be allowed, a URL without TLS, or a package that is
            not installed (``pip install 'sojourn[jwt]'``).

    Example:
        >>> tokens = JwtVerifier({"https://id.example": "https://id.example/jwks.json"}, "orders")
    """

    challenge = "Bearer"

    def __init__(
        self,
        issuers: Mapping[str, str],
        audience: str | Collection[str],
        *,
        algorithms: Collection[str] = ("ES256", "RS256"),
        rules: JwtRules | None = None,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.rules = rules or JwtRules()
        self._clock = clock or SystemClock()
        self._audience = frozenset((audience,) if isinstance(audience, str) else audience)
        self._algorithms = frozenset(algorithms)
        self._types = frozenset(each.lower() for each in self.rules.types)
        if not issuers or not self._audience - {""}:
            raise ConfigError("a JwtVerifier needs at least one issuer and an audience")
        if not self._algorithms or self._algorithms - set(KEY_TYPES):
            wrong = ", ".join(sorted(self._algorithms - set(KEY_TYPES))) or "none at all"
            raise ConfigError(f"algorithms are some of {', '.join(KEY_TYPES)}; not {wrong}")
        self._seen = SeenTokens(self.rules.remember)
        self._registry = _registry(self._algorithms)
        ask = fetch or HttpFetch()
        #: The keys of each issuer.
        self.keys = {
            issuer: JwksCache(check_url(url), ask, self._clock, self.rules.times) for issuer, url in issuers.items()
        }

    async def __call__(self, scope: Scope) -> SecurityContext | None:
        """Who asks; None when there is no bearer token.

        Raises:
            AuthenticationError: There is one, and it does not count.

        Cancel: safe.
        """
        token = bearer_token(scope, self.rules.subprotocol)
        return None if token is None else await self.verify(token)

    async def verify(self, token: str) -> SecurityContext:
        """Who a token stands for.

        Args:
            token: In compact form.

        Raises:
            AuthenticationError: Why not; the token itself is in no message.

        Cancel: safe.
        """
        seen = self._seen.find(token, self._clock.wall())
        if seen is not None:
            return seen
        header, claims = self._parse(token)
        algorithm = header["alg"]
        keys = self.keys.get(claims.get("iss", "")) if isinstance(claims.get("iss"), str) else None
        if keys is None:
            raise AuthenticationError("unknown_issuer", "the issuer of the token is not one we believe")
        key = await keys.find(header.get("kid"), algorithm)
        generation = keys.generation
        self._check_signature(token, key)
        context = self._identity(claims)
        self._seen.add(token, context, keys, generation)
        return context

    def _parse(self, token: str) -> _Parts:
        segments = token.split(".")
        if len(token) > _LONGEST or len(segments) != 3:
            raise _invalid("it is no signed JWT in compact form, or too long")
        header, claims = _decoded(segments[0]), _decoded(segments[1])
        if header.get("alg") not in self._algorithms:
            raise AuthenticationError("wrong_algorithm", "the token is signed with an algorithm that is not allowed")
        if "crit" in header:
            # RFC 7515 section 4.1.11: extensions that must be understood, and none is.
            raise _invalid("its header has critical extensions")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in self._types:
            raise _invalid("it is of another type (typ)")
        kid = header.get("kid")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= _LONGEST_KID):
            raise _invalid("the id of its key is no text, or too long")
        return _Parts(header, claims)

    def _check_signature(self, token: str, key: Any) -> None:
        from joserfc import jws
        from joserfc.errors import JoseError

        try:
            jws.deserialize_compact(token, key, registry=self._registry)
        except (JoseError, ValueError, TypeError) as error:
            raise AuthenticationError("bad_signature", "the signature of the token is not good") from error

    def _identity(self, claims: dict[str, Any]) -> SecurityContext:
        """The claims, after the signature was checked."""
        now, rules = self._clock.wall(), self.rules
        expires = _moment(claims, "exp")
        if expires is None:
            raise _invalid("it does not say when it expires (exp)")
        if now >= expires + rules.leeway:
            raise AuthenticationError("token_expired", "the token has expired (exp)")
        for claim in ("nbf", "iat"):
            since = _moment(claims, claim)
            if since is not None and now < since - rules.leeway:
                raise AuthenticationError("token_not_yet_valid", f"the token is not valid yet ({claim})")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(each, str) and each in self._audience for each in named):
            raise AuthenticationError("wrong_audience", "the token is for somebody else (aud)")
        principal = claims.get(rules.principal)
        if not isinstance(principal, str) or not principal:
            raise _invalid(f"it does not say who it is for ({rules.principal})")
        tenant = _look_up(claims, rules.tenant)
        if tenant is not None and not isinstance(tenant, str):
            raise _invalid(f"its tenant is no text ({rules.tenant})")
        roles = _roles(_look_up(claims, rules.roles))
        # The leeway is for the time of the check: on an open connection it is the same to us as a later exp.
        return SecurityContext(
            principal, roles=roles, tenant=tenant, authn="jwt", expires_at=expires + rules.leeway, claims=claims
        )


def _registry(algorithms: frozenset[str]) -> JWSRegistry:
    try:
        from joserfc.jws import JWSRegistry
    except ImportError as error:
        raise ConfigError("tokens are checked with joserfc: pip install 'sojourn[jwt]'") from error
    registry = JWSRegistry(algorithms=sorted(algorithms), strict_check_header=False)
    registry.max_header_length = _LONGEST_HEADER  # some issuers put their certificates in; they are not read
    return registry


def _invalid(detail: str) -> AuthenticationError:
    return AuthenticationError("invalid_token", f"the token does not count: {detail}")


def _decoded(segment: str) -> dict[str, Any]:
    """A segment of a token: a JSON object in base64url."""
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True)
        value = msgspec.json.decode(raw)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise _invalid("a part of it is no JSON in base64url") from error
    if not isinstance(value, dict):
        raise _invalid("a part of it is no JSON object")
    return value


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2)."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise _invalid(f"{name} is no moment")
    return float(value)


def _look_up(claims: dict[str, Any], name: str | None) -> Any:
    """A claim by its name, or by a path of names; None when it is not there."""
    if name is None or name in claims:
        return None if name is None else claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _roles(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return frozenset(value)
    raise _invalid("its roles are neither text nor a list of texts")
