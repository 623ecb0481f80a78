"""Fetching a small document over HTTPS, with a limit on everything."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sojourn.errors import ConfigError

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpFetch", "check_url"]

#: Bytes. The largest sets of keys that are known have a tenth of it.
_LARGEST: Final = 256 * 1024


class HttpFetch:
    """Fetches with httpx: one request, no redirect, no more than ``largest`` bytes. The caller bounds the time.

    Args:
        largest: Most bytes of a document.

    Raises:
        ConfigError: httpx is not installed.
    """

    __slots__ = ("_context", "_largest")

    def __init__(self, largest: int = _LARGEST) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError("keys are fetched with httpx: pip install 'sojourn[jwt]', or pass fetch=") from error
        del httpx
        # Made once: to load the system's authorities takes tens of milliseconds.
        self._context = ssl.create_default_context()
        self._largest = largest

    async def __call__(self, url: str) -> bytes:
        """The document.

        Raises:
            OSError: It can't be had: no connection, another status than 200, or too large.

        Cancel: safe.
        """
        import httpx

        try:
            async with (
                httpx.AsyncClient(verify=self._context, follow_redirects=False) as client,
                client.stream("GET", url, headers={"accept": "application/json"}) as answer,
            ):
                return await self._read(answer)
        except httpx.HTTPError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    async def _read(self, answer: httpx.Response) -> bytes:
        if answer.status_code != 200:
            raise OSError(f"the answer has status {answer.status_code}")
        document = bytearray()
        async for piece in answer.aiter_bytes():
            document += piece
            if len(document) > self._largest:
                raise OSError(f"the document is larger than {self._largest} bytes")
        return bytes(document)


def check_url(url: str) -> str:
    """The URL, if keys may come from there: with plain HTTP anybody on the way could put in one of their own.

    Raises:
        ConfigError: It is not ``https``, and not ``http`` to this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(parts.hostname or "")):
        raise ConfigError(f"keys come by https (or by http from this machine), not from {url!r}")
    if not parts.hostname:
        raise ConfigError(f"{url!r} names no host")
    return url


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return False
