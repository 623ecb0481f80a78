"""Content that travels by the client: signed so that nobody changes it, and encrypted so that nobody reads it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sojourn.errors import ConfigError

__all__ = ["Seal"]

#: Bytes of a secret: less can be tried through.
_LEAST: Final = 32
#: Bytes of a nonce of AES-GCM (NIST SP 800-38D section 5.2.1.1).
_NONCE: Final = 12


class _Envelope(msgspec.Struct, array_like=True):
    """What is sealed: when it is over (seconds since 1970), and the content."""

    until: int
    content: msgspec.Raw


class Seal:
    """Seals and opens content with secrets that can be changed without logging everybody out.

    Args:
        secrets: The first seals, all open. Put a new one in front; take an old one away when what it sealed is over.
        purpose: What is sealed for one purpose can't be opened for another.
        encrypt: Whether it is encrypted, too (AES-256-GCM, by the package ``cryptography``).

    Raises:
        ValueError: There is no secret, or one is too short.
        ConfigError: The package ``cryptography`` is missing.

    Example:
        >>> old, new = "o" * 32, "n" * 32
        >>> sealed = Seal([old], "cart").seal(b'{"apples":3}', until=2000)
        >>> Seal([new, old], "cart").open(sealed, now=1000.0)
        (b'{"apples":3}', 2000)
    """

    __slots__ = ("_ciphers", "_keys")

    def __init__(self, secrets: Sequence[str | bytes], purpose: str, *, encrypt: bool = False) -> None:
        raw = [secret.encode() if isinstance(secret, str) else bytes(secret) for secret in secrets]
        if not raw or min(map(len, raw)) < _LEAST:
            raise ValueError(f"secrets: at least one, each of {_LEAST} bytes or more, from secrets.token_hex()")
        # One key for each use: a signature can't be taken for anything else made with the same secret.
        what = f"sojourn session {'aes-256-gcm' if encrypt else 'hmac-sha256'} {purpose}".encode()
        self._keys = [hmac.digest(secret, what, hashlib.sha256) for secret in raw]
        self._ciphers = [_cipher(key) for key in self._keys] if encrypt else []

    def seal(self, content: bytes, until: int) -> str:
        """Text for a cookie.

        Args:
            content: JSON.
            until: When it is over, in seconds since 1970.
        """
        data = msgspec.json.encode(_Envelope(until, msgspec.Raw(content)))
        if self._ciphers:
            nonce = secrets.token_bytes(_NONCE)
            return _text(nonce + self._ciphers[0].encrypt(nonce, data, None))
        text = _text(data)
        return f"{text}.{_text(hmac.digest(self._keys[0], text.encode(), hashlib.sha256))}"

    def open(self, text: str, now: float) -> tuple[bytes, int] | None:
        """What was sealed, and until when; None when that is over, or this was not sealed here.

        Args:
            text: What the client brings.
            now: Seconds since 1970.
        """
        data = self._decrypted(text) if self._ciphers else self._verified(text)
        if data is None:
            return None
        envelope = msgspec.json.decode(data, type=_Envelope)
        return (bytes(envelope.content), envelope.until) if now < envelope.until else None

    def _verified(self, text: str) -> bytes | None:
        content, _, signature = text.partition(".")
        given = _bytes(signature)
        signed = content.encode("ascii", "replace")
        if not any(hmac.compare_digest(given, hmac.digest(key, signed, hashlib.sha256)) for key in self._keys):
            return None
        return _bytes(content)

    def _decrypted(self, text: str) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        data = _bytes(text)
        for cipher in self._ciphers:
            try:
                plain: bytes = cipher.decrypt(data[:_NONCE], data[_NONCE:], None)
            except (InvalidTag, ValueError):  # another secret's, or too short for anybody's
                continue
            return plain
        return None


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError("encrypted cookies need the package cryptography: install sojourn[jwt]") from error
    return AESGCM(key)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """The bytes of a text; none when it is not one of ours."""
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (NotBase64, UnicodeEncodeError):
        return b""
