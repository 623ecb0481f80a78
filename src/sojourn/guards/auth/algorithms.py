"""Signature algorithms that may be allowed, and the keys each is for.

Only asymmetric ones: with a shared secret, or with ``none``, whoever can check a token can make one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

__all__ = ["KEY_TYPES", "KeyType"]


class KeyType(NamedTuple):
    """What a key must be.

    Attributes:
        kty: Key type (RFC 7517 section 4.1).
        curve: Its curve; "" where it has none.
    """

    kty: str
    curve: str

    def fits(self, key: Any) -> bool:
        """Whether a key of joserfc is of this type."""
        return key.key_type == self.kty and (not self.curve or key.get("crv") == self.curve)


#: RFC 7518 section 3.1, RFC 8037 section 3.1 and RFC 9864.
KEY_TYPES: Final = {
    "RS256": KeyType("RSA", ""),
    "RS384": KeyType("RSA", ""),
    "RS512": KeyType("RSA", ""),
    "PS256": KeyType("RSA", ""),
    "PS384": KeyType("RSA", ""),
    "PS512": KeyType("RSA", ""),
    "ES256": KeyType("EC", "P-256"),
    "ES384": KeyType("EC", "P-384"),
    "ES512": KeyType("EC", "P-521"),
    "EdDSA": KeyType("OKP", "Ed25519"),
    "Ed25519": KeyType("OKP", "Ed25519"),
}
