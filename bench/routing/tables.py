"""The same routes for every router, and the requests that are looked up."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

__all__ = ["Request", "Row", "misses", "requests", "rows"]

#: Four routes of a resource, as services have them: two of plain text, two with a parameter or more.
_SHAPES: Final = (
    ("GET", "/v1/resource{n}/items", "/v1/resource{n}/items"),
    ("GET", "/v1/resource{n}/items/{{id:int}}", "/v1/resource{n}/items/{id}"),
    ("GET", "/v1/resource{n}/items/{{id:int}}/parts/{{part}}", "/v1/resource{n}/items/{id}/parts/p{id}"),
    ("POST", "/v1/resource{n}/archive", "/v1/resource{n}/archive"),
)


class Row(NamedTuple):
    """A route.

    Attributes:
        method: Its method.
        pattern: As Starlette, Falcon, Litestar and Sojourn write it, ``{part}`` without a type.
    """

    method: str
    pattern: str


class Request(NamedTuple):
    """What is looked up."""

    method: str
    path: str


def rows(count: int) -> list[Row]:
    """So many routes."""
    return [Row(_SHAPES[number % 4][0], _SHAPES[number % 4][1].format(n=number // 4)) for number in range(count)]


def requests(count: int, size: int = 4000) -> list[Request]:
    """Requests for routes of a table of so many, anywhere in it; hardly two for the same path."""
    chance = random.Random(7)
    found = []
    for _ in range(size):
        number = chance.randrange(count)
        method, _, path = _SHAPES[number % 4]
        found.append(Request(method, path.format(n=number // 4, id=chance.randrange(10**6))))
    return found


def misses(size: int = 4000) -> list[Request]:
    """Requests that no route answers."""
    return [Request("GET", f"/v1/nowhere{number}/items/7") for number in range(size)]
