"""Answers of the server itself, as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from sojourn.typing import Headers

__all__ = ["problem"]


def problem(
    status: int, reason: str, detail: str, extra: Iterable[tuple[bytes, bytes]] = (), **members: object
) -> tuple[Headers, bytes]:
    """Headers and body of a problem document.

    Args:
        status: The HTTP status.
        reason: The stable word of the ending; clients may rely on it.
        detail: One sentence for a person.
        extra: Further headers, such as Retry-After.
        members: Further members of the document, such as the name of a deadline.
    """
    try:
        title = HTTPStatus(status).phrase
    except ValueError:  # a status of our own, such as 499
        title = reason
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "reason": reason, **members}
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *extra,
    ]
    return headers, body
