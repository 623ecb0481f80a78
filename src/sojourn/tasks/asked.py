"""What the headers and the query of a request about a task ask for."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sojourn.errors import ProtocolError
from sojourn.routing.request import Connection

__all__ = ["LONGEST", "Place", "idempotency_key", "number", "place", "preferred_wait", "waits"]

#: Seconds that an answer may be waited for: below the 60 of load balancers.
LONGEST: Final = 55.0
#: Characters of an idempotency key.
_KEY: Final = 255
#: A string of structured fields (RFC 8941 section 3.3.3), with parameters that nobody has defined.
_STRING: Final = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"[ \t]*(?:;[\x20-\x7e]*)?')
#: A key as most clients send it.
_BARE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x7e]+")
_WAIT: Final = re.compile(r'\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:;.*)?', re.IGNORECASE)
_PLACE: Final = re.compile(r"(\d{1,15})(?:\.(\d{1,15}))?")


class Place(NamedTuple):
    """Where a client was in the events of a task.

    Attributes:
        after: Number of the last progress event it has got; 0 for none.
        ended: Under which epoch it has seen the end; None when it has not.
    """

    after: int = 0
    ended: int | None = None


def idempotency_key(request: Connection) -> str:
    """The key of a request; "" without one.

    Raises:
        ProtocolError: It is none (400).

    Source: draft-ietf-httpapi-idempotency-key-header section 2.1.
    """
    said = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not said:
        return ""
    text = said[0].decode("latin-1").strip()
    found = _STRING.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", found[1]) if found else text if _BARE.fullmatch(text) else ""
    if len(said) > 1 or not 0 < len(key) <= _KEY:
        raise _bad(f'Idempotency-Key is one string of 1 to {_KEY} printable characters, such as "8e03978e-40d5"')
    return key


def preferred_wait(request: Connection) -> float | None:
    """Seconds that ``Prefer: wait=`` asks to wait for; None when it does not.

    Source: RFC 7240 section 4.3. What can't be read is no preference.
    """
    for name, value in request.scope["headers"]:
        if name == b"prefer":
            for each in value.decode("latin-1").split(","):
                found = _WAIT.fullmatch(each)
                if found:
                    return min(float(found[1]), LONGEST)
    return None


def waits(request: Connection) -> float:
    """Seconds that the end of the task is waited for, by ``?wait=`` or by preference.

    Raises:
        ProtocolError: ``wait`` is no number of seconds (400).
    """
    said = request.query.get("wait")
    if said is None:
        return preferred_wait(request) or 0.0
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < 1e9:
        raise _bad("wait is a number of seconds")
    return min(seconds, LONGEST)


def place(request: Connection) -> Place:
    """Where the client was: what a browser sends by itself counts before what stands in the URL.

    Raises:
        ProtocolError: It is none (400).
    """
    said = request.header("last-event-id") or request.query.get("after")
    if not said:
        return Place()
    found = _PLACE.fullmatch(said)
    if not found:
        raise _bad("Last-Event-ID, or after, is the number of an event")
    return Place(int(found[1]), None if found[2] is None else int(found[2]))


def number(request: Connection, name: str, default: int, most: int) -> int:
    """A number of the query, from 1 to ``most``.

    Raises:
        ProtocolError: It is none (400).
    """
    said = request.query.get(name)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:9]) <= most):
        raise _bad(f"{name} is a number from 1 to {most}")
    return int(said)


def _bad(detail: str) -> ProtocolError:
    return ProtocolError(400, "invalid_request_headers", detail)
