"""Signed messages to other services, as the Standard Webhooks specification has them.

    webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek
    webhook-timestamp: 1674087231
    webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=

Signed are the id, the time and the body, with a secret that both sides have. While a secret is replaced there is a
signature by each; whoever knows one of them can verify it.

Source: https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["headers_of", "key_of", "refusal"]

_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"
#: Bytes of a secret (section "Signature scheme").
_LEAST: Final = 24
_MOST: Final = 64


def key_of(secret: str | bytes) -> bytes:
    """The key that a secret stands for.

    Args:
        secret: ``whsec_`` and 24 to 64 bytes in Base64, or just the bytes.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(secret, str):
        if not secret.startswith(_PREFIX):
            raise ValueError(f"the secret of webhooks begins with {_PREFIX!r}, and bytes in Base64 follow")
        try:
            secret = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"after {_PREFIX!r} the secret of webhooks is Base64") from None
    if not _LEAST <= len(secret) <= _MOST:
        raise ValueError(f"the secret of webhooks has {_LEAST} to {_MOST} bytes, not {len(secret)}")
    return secret


def headers_of(keys: Sequence[bytes], message: str, body: bytes, now: int) -> dict[str, str]:
    """The headers of a message.

    Args:
        keys: Those in use, newest first.
        message: Its id; the same each time it is sent.
        body: What is sent.
        now: Seconds since 1970.
    """
    signatures = (f"{_VERSION},{_signature(key, message, str(now), body)}" for key in keys)
    return {"webhook-id": message, "webhook-timestamp": str(now), "webhook-signature": " ".join(signatures)}


def refusal(keys: Iterable[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: float) -> str | None:
    """Why a message is not believed; None when it is.

    Args:
        keys: Any of which may have signed it.
        headers: Of the request, names in lower case.
        body: Of the request, byte for byte.
        now: Seconds since 1970.
        tolerance: Seconds that its time may differ from ``now``.
    """
    message, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    said = headers.get("webhook-signature", "")
    if not (message and moment and said):
        return "it has no webhook-id, webhook-timestamp or webhook-signature"
    if not (moment.isascii() and moment.isdigit() and len(moment) < 16):
        return "webhook-timestamp is no number of seconds"
    if abs(int(moment) - now) > tolerance:
        return f"webhook-timestamp is more than {tolerance:g} s away"
    given = [
        value.encode() for version, _, value in (each.partition(",") for each in said.split()) if version == _VERSION
    ]
    fits = False
    for key in keys:
        right = _signature(key, message, moment, body).encode()
        for value in given:
            fits = hmac.compare_digest(right, value) or fits  # all are compared, whichever fits
    return None if fits else "no signature fits"


def _signature(key: bytes, message: str, moment: str, body: bytes) -> str:
    signed = b"%s.%s.%s" % (message.encode(), moment.encode(), body)
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
