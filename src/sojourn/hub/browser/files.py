"""Serves the browser client, so that pages and hub are of the same version."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

from sojourn.typing import Scope, Send

__all__ = ["BrowserFile", "BrowserFiles"]

_SCRIPT: Final = b"text/javascript; charset=utf-8"
#: Where each is found: by the last part of the path. The module, the script for pages without modules, and the types.
_NAMES: Final[Mapping[str, tuple[str, bytes]]] = MappingProxyType(
    {
        "sojourn.js": ("sojourn.min.js", _SCRIPT),
        "sojourn.classic.js": ("sojourn.classic.min.js", _SCRIPT),
        "sojourn.d.ts": ("sojourn.d.ts", b"text/plain; charset=utf-8"),
    }
)


class BrowserFile(NamedTuple):
    """A file as it is sent.

    Attributes:
        body: As it is.
        zipped: With gzip.
        kind: Its content type.
        etag: Changes with it.
    """

    body: bytes
    zipped: bytes
    kind: bytes
    etag: bytes


class BrowserFiles:
    """The files of the browser client, read when this is made.

    Example:
        >>> len(BrowserFiles().find("/hub/sojourn.js").body) < 5 * 1024
        True
    """

    def __init__(self) -> None:
        self._all = {name: _read(*found) for name, found in _NAMES.items()}

    def find(self, path: str) -> BrowserFile | None:
        """The file for the path of a request; None when it is none of these."""
        return self._all.get(path.rpartition("/")[2])

    async def send(self, file: BrowserFile, scope: Scope, send: Send) -> None:
        """Answer a GET or HEAD with a file, or say that the browser has it already. Cancel: safe."""
        asked = dict(scope["headers"])
        headers = [
            (b"content-type", file.kind),
            (b"cache-control", b"public, no-cache"),  # ask each time whether it is still the same
            (b"etag", file.etag),
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
        ]
        known = asked.get(b"if-none-match", b"")
        if file.etag in [each.strip().removeprefix(b"W/") for each in known.split(b",")]:
            await _answer(send, 304, headers, b"")
            return
        body = file.body
        if b"gzip" in asked.get(b"accept-encoding", b""):
            body = file.zipped
            headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", b"%d" % len(body)))
        await _answer(send, 200, headers, b"" if scope["method"] == "HEAD" else body)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _read(name: str, kind: bytes) -> BrowserFile:
    body = files(__package__).joinpath(name).read_bytes()
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:16].encode()
    return BrowserFile(body, gzip.compress(body, 9, mtime=0), kind, etag)
