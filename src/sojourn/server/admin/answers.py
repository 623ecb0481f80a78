"""Questions and answers of the admin listener: arguments of a query, JSON, problems."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from sojourn.asgi.probes import Answer
from sojourn.asgi.problem import problem
from sojourn.errors import ErrandError
from sojourn.server.admin.fleet import Fleet
from sojourn.server.settings import Key, values
from sojourn.typing import Headers, Scope

__all__ = ["Kind", "Question", "Route", "json", "page", "refusal"]

#: What an argument of a query is: a duration, a whole number, a text, or a word that is there or not.
Kind = Literal["seconds", "number", "text", "flag"]


def _key(kind: Any, unit: str = "") -> Key:
    return Key("", "", kind, False, (), None, unit, "live", "", 0, None)


_KEYS: Final[dict[Kind, Key]] = {
    "seconds": _key("number", "s"),
    "number": _key("whole"),
    "text": _key("text"),
    "flag": _key("flag"),
}


class Question:
    """One request.

    Args:
        scope: Of ASGI.
        fleet: Who is asked.
        body: The request body.
        taken: Arguments of the query that the route takes; ``worker`` and ``pretty`` are always taken.
        named: What stands in the path in the place of ``{n}`` and ``{id}``.

    Attributes:
        arguments: Those that are given, as plain values; without ``worker`` and ``pretty``.
        worker: The only worker that is asked; None for all.

    Raises:
        ErrandError: An argument is unknown, or its value is no good.
    """

    def __init__(
        self, scope: Scope, fleet: Fleet, body: bytes, taken: Mapping[str, Kind], named: tuple[str, ...] = ()
    ) -> None:
        self.scope = scope
        self.fleet = fleet
        self.body = body
        self.named = named
        kinds: dict[str, Kind] = {**taken, "worker": "number", "pretty": "flag"}
        given: dict[str, Any] = {}
        for name, raw in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name not in kinds:
                detail = f"there is no argument {name!r}; there are {', '.join(sorted(kinds))}"
                raise ErrandError(400, "unknown_argument", detail)
            try:
                given[name] = values.read(_KEYS[kinds[name]], raw or ("true" if kinds[name] == "flag" else raw))
            except ValueError as error:
                raise ErrandError(400, "bad_argument", f"{name}: {error}") from error
        self.worker: int | None = given.pop("worker", None)
        self.pretty: bool = given.pop("pretty", False)
        self.arguments = given

    def header(self, name: bytes) -> str:
        """A header of the request; "" without it."""
        return next((value.decode("latin-1") for each, value in self.scope["headers"] if each == name), "")

    def document(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ErrandError: It is none.
        """
        try:
            found: dict[str, Any] = msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ErrandError(400, "bad_body", f"the body must be a JSON object: {error}") from error
        return found


Handler = Callable[[Question], Awaitable[Answer]]


class Route(NamedTuple):
    """What is answered at a path.

    Attributes:
        path: The path; ``{n}`` stands for a number, ``{id}`` for the id of a durable task.
        handler: Answers.
        doc: One line for who lists the paths.
        taken: Arguments of the query.
        method: GET, or POST for a command.
        action: Whether ``admin.actions`` must be on.
    """

    path: str
    handler: Handler
    doc: str
    taken: Mapping[str, Kind] = {}
    method: Literal["GET", "POST"] = "GET"
    action: bool = False


def json(question: Question, document: object, status: int = 200) -> Answer:
    """An answer in JSON; indented for who asks for ``?pretty``."""
    body = msgspec.json.encode(document)
    if question.pretty:
        body = msgspec.json.format(body, indent=2) + b"\n"
    return page(body, "application/json", status=status)


def page(body: bytes, kind: str, extra: Iterable[tuple[bytes, bytes]] = (), *, status: int = 200) -> Answer:
    """An answer of any content type."""
    headers: Headers = [
        (b"content-type", kind.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
    ]
    return Answer(status, headers, body)


def refusal(error: ErrandError, extra: Iterable[tuple[bytes, bytes]] = (), **members: object) -> Answer:
    """Why there is no other answer, as a problem document."""
    if error.status == 401:
        extra = (*extra, (b"www-authenticate", b"Bearer"))
    return Answer(error.status, *problem(error.status, error.reason, error.detail, extra, **members))
