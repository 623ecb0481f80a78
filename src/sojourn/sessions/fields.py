"""Header fields of an answer that depends on a session."""

from __future__ import annotations

from sojourn.typing import Headers

__all__ = ["with_fields"]


def with_fields(headers: Headers, fields: Headers, accessed: bool) -> Headers:
    """The fields of an answer, so that nobody else gets it from a cache.

    Args:
        headers: The application's; may be changed.
        fields: What sets the cookie.
        accessed: Whether the application has asked for the session.
    """
    names = {name.lower() for name, _ in headers}
    if fields and b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    if (fields or accessed) and not any(
        name.lower() == b"vary" and (b"cookie" in value.lower() or value.strip() == b"*") for name, value in headers
    ):
        headers.append((b"vary", b"Cookie"))
    return [*headers, *fields]
