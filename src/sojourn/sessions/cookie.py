"""The cookie of a session (RFC 6265bis): read, set, and taken away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

__all__ = ["SameSite", "SessionCookie"]

SameSite = Literal["lax", "strict", "none"]

#: RFC 6265 section 4.1.1: a token.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)


class SessionCookie(NamedTuple):
    """How the cookie looks.

    Attributes:
        name: Its name. One that begins with ``__Host-`` is believed only from this very host, over HTTPS, for ``/``: no
            other host of the same domain can set it.
        secure: Whether browsers send it over HTTPS only.
        same_site: ``lax``: not sent with what other sites load or post, so not with a WebSocket of theirs either.
        lasting: Whether it outlives the browser's window, as long as the session does.
    """

    name: str = ""
    secure: bool = True
    same_site: SameSite = "lax"
    lasting: bool = True

    def checked(self) -> SessionCookie:
        """The same, with a name.

        Raises:
            ValueError: No browser would take it.
        """
        name = self.name or ("__Host-session" if self.secure else "session")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a cookie")
        if name.startswith(("__Host-", "__Secure-")) and not self.secure:
            raise ValueError(f"browsers take a cookie {name!r} only if it is secure")
        if self.same_site not in ("lax", "strict", "none"):
            raise ValueError(f"same_site is lax, strict or none, not {self.same_site!r}")
        if self.same_site == "none" and not self.secure:
            raise ValueError("browsers take a cookie with same_site='none' only if it is secure")
        return self._replace(name=name)

    def values(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
        """What a request brings under the name: more than one when somebody has planted another."""
        wanted = self.name + "="
        for name, value in headers:
            if name.lower() == b"cookie":
                for pair in value.decode("latin-1").split(";"):
                    pair = pair.strip(" \t")
                    if pair.startswith(wanted):
                        yield pair[len(wanted) :].strip('"')

    def set(self, value: str, seconds: float) -> tuple[bytes, bytes]:
        """The header that sets it, for so many seconds."""
        return self._header(value, f"; Max-Age={max(0, round(seconds))}" if self.lasting else "")

    def removal(self) -> tuple[bytes, bytes]:
        """The header that takes it away."""
        return self._header("", "; Max-Age=0")

    def _header(self, value: str, age: str) -> tuple[bytes, bytes]:
        secure = "; Secure" if self.secure else ""
        text = f"{self.name}={value}; Path=/{age}; HttpOnly{secure}; SameSite={self.same_site.capitalize()}"
        return b"set-cookie", text.encode("latin-1")
